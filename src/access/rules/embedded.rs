//! IPv4 addresses inside IPv6 ones. A translator or a tunnel on the way may turn such an address back
//! into the IPv4 address, so both have to be permitted.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The IPv4 addresses inside `ip`. IPv4-mapped addresses are not among them: those are IPv4.
pub(super) fn embedded(ip: IpAddr) -> impl Iterator<Item = Ipv4Addr> {
    let found = match ip.to_canonical() {
        IpAddr::V6(ip) => [by_prefix(ip), by_interface(ip)],
        IpAddr::V4(_) => [None, None],
    };
    found.into_iter().flatten()
}

fn by_prefix(ip: Ipv6Addr) -> Option<Ipv4Addr> {
    let bits = ip.to_bits();
    match ip.segments() {
        // The unspecified and the loopback address.
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => None,
        // IPv4-compatible (RFC 4291), IPv4-translated (RFC 2765), NAT64 (RFC 6052).
        [0, 0, 0, 0, 0 | 0xffff, 0, ..] | [0x64, 0xff9b, 0, 0, 0, 0, ..] => Some(low(bits)),
        // Local NAT64 (RFC 8215) with a prefix of 96 bits. Shorter ones put zeros here.
        [0x64, 0xff9b, 1, ..] => Some(low(bits)).filter(|ip| !ip.is_unspecified()),
        // 6to4 (RFC 3056).
        [0x2002, ..] => Some(low(bits >> 80)),
        // Teredo (RFC 4380): the client, with all bits inverted.
        [0x2001, 0, ..] => Some(low(!bits)),
        _ => None,
    }
}

/// ISATAP (RFC 5214), under any prefix.
fn by_interface(ip: Ipv6Addr) -> Option<Ipv4Addr> {
    match ip.segments() {
        [_, _, _, _, 0 | 0x0200, 0x5efe, ..] => Some(low(ip.to_bits())),
        _ => None,
    }
}

/// The address in the lowest 32 bits.
#[expect(clippy::cast_possible_truncation, reason = "the other bits are not part of it")]
fn low(bits: u128) -> Ipv4Addr {
    Ipv4Addr::from_bits(bits as u32)
}

#[cfg(test)]
mod tests {
    use super::super::tests::ask;
    use super::*;

    #[test]
    fn every_form_is_known() {
        for (ip, inside) in [
            ("64:ff9b::7f00:1", &["127.0.0.1"][..]),
            ("64:ff9b:1::10.1.2.3", &["10.1.2.3"]),
            ("64:ff9b:1:a00:1:200::", &[]),
            ("2002:7f00:1::1", &["127.0.0.1"]),
            ("::127.0.0.1", &["127.0.0.1"]),
            ("::ffff:0:127.0.0.1", &["127.0.0.1"]),
            ("2001:0:c000:201::80ff:fffe", &["127.0.0.1"]),
            ("fe80::5efe:10.1.2.3", &["10.1.2.3"]),
            ("2001:db8::200:5efe:10.1.2.3", &["10.1.2.3"]),
            ("2002:c000:201::5efe:10.1.2.3", &["192.0.2.1", "10.1.2.3"]),
            ("::", &[]),
            ("::1", &[]),
            ("::2", &["0.0.0.2"]),
            ("::ffff:10.1.2.3", &[]),
            ("10.1.2.3", &[]),
            ("2001:db8::10.1.2.3", &[]),
            ("2003::1", &[]),
            ("64:ff9b:2::1", &[]),
        ] {
            let found: Vec<_> = embedded(ip.parse().unwrap()).map(|ip| ip.to_string()).collect();
            assert_eq!(found, inside, "{ip}");
        }
    }

    #[test]
    fn an_ipv4_address_in_the_clothes_of_ipv6_is_judged_as_well() {
        let dressed = |ip: &str| {
            let [a, b, c, d] = ip.parse::<Ipv4Addr>().unwrap().octets();
            let (high, low) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
            [
                format!("64:ff9b::{ip}"),
                format!("2002:{high:x}:{low:x}::1"),
                format!("::{ip}"),
                format!("2001:db8::5efe:{ip}"),
                format!("2001:db8::200:5efe:{ip}"),
            ]
        };
        for ip in ["127.0.0.1", "169.254.169.254", "224.0.0.1", "255.255.255.255"] {
            for ip in dressed(ip) {
                let closed = ask("", None, (&ip, 80), None);
                assert!(closed.is_err_and(|it| it.contains("closed to clients")), "{ip}");
            }
        }
        for ip in dressed("10.1.2.3") {
            let found: &[&str] = &[&ip];
            assert!(ask("", None, (&ip, 80), None).is_ok(), "{ip}");
            let denied = Err("rules:1: this rule denies 10.1.2.3:80".into());
            assert_eq!(ask("deny to 10.0.0.0/8", None, (&ip, 80), None), denied, "{ip}");
            let by_name = ask("deny to 10.0.0.0/8", None, ("a.example", 80), Some(found));
            assert_eq!(by_name, denied, "{ip}");
            // Both have to be permitted, so that a list of what is allowed has no hole either.
            assert!(ask("allow to 10.0.0.0/8\ndeny", None, (&ip, 80), None).is_err(), "{ip}");
            assert!(ask("allow to ::/0\ndeny", None, (&ip, 80), None).is_err(), "{ip}");
            let both = "allow to ::/0\nallow to 10.0.0.0/8\ndeny";
            assert!(ask(both, None, (&ip, 80), None).is_ok(), "{ip}");
        }
    }
}
