//! Networks: how they are written, and a map that finds those around an address.

use std::collections::HashMap;
use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net};

/// What [`parse`] takes, for error messages.
pub const EXPECTED: &str = "a network as in 192.168.1.0/24 or fd00::/8, or an address";

/// Parses a network in CIDR form, or one address. Bits behind the prefix mean nothing, and are kept for
/// [`doubt`]. An IPv4-mapped network becomes IPv4, as its addresses do.
pub fn parse(given: &str) -> Option<IpNet> {
    let net = given.parse().ok().or_else(|| given.parse().ok().map(|ip: IpAddr| ip.into()));
    let net: IpNet = net?;
    match net {
        IpNet::V6(v6) => match (v6.addr().to_ipv4_mapped(), v6.prefix_len().checked_sub(96)) {
            (Some(ip), Some(length)) => Some(IpNet::V4(Ipv4Net::new(ip, length).ok()?)),
            _ => Some(net),
        },
        IpNet::V4(_) => Some(net),
    }
}

/// What to say of a network that is written with bits behind its prefix, if it is: perhaps a longer prefix
/// is meant, or one address.
pub fn doubt(net: &IpNet) -> Option<String> {
    (*net != net.trunc()).then(|| format!("{net} is taken for {}, as its prefix says", net.trunc()))
}

/// A number for each of many networks. To find those around an address takes one look for each
/// prefix length that occurs.
#[derive(Debug, Default)]
pub(super) struct Networks {
    numbers: HashMap<IpNet, u32>,
    ipv4_lengths: Vec<u8>,
    ipv6_lengths: Vec<u8>,
}

impl Networks {
    /// Gives a network this number, and returns the one that it had.
    pub(super) fn insert(&mut self, net: IpNet, number: u32) -> Option<u32> {
        let lengths = match net {
            IpNet::V4(_) => &mut self.ipv4_lengths,
            IpNet::V6(_) => &mut self.ipv6_lengths,
        };
        if !lengths.contains(&net.prefix_len()) {
            lengths.push(net.prefix_len());
        }
        self.numbers.insert(net.trunc(), number)
    }

    /// The numbers of all networks around `ip`.
    pub(super) fn around(&self, ip: IpAddr) -> impl Iterator<Item = u32> {
        let ip = ip.to_canonical();
        let lengths = if ip.is_ipv4() { &self.ipv4_lengths } else { &self.ipv6_lengths };
        lengths.iter().filter_map(move |length| {
            let net = IpNet::new(ip, *length).ok()?;
            self.numbers.get(&net.trunc()).copied()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(given: &str) -> Option<String> {
        parse(given).map(|net| net.to_string())
    }

    #[test]
    fn networks_and_addresses_are_taken() {
        for (given, expected) in [
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("192.168.1.7/24", "192.168.1.7/24"),
            ("192.168.1.7", "192.168.1.7/32"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("fd00::/8", "fd00::/8"),
            ("::1", "::1/128"),
            ("::ffff:10.1.2.3", "10.1.2.3/32"),
            ("::ffff:10.1.0.0/112", "10.1.0.0/16"),
            ("::/0", "::/0"),
        ] {
            assert_eq!(shown(given).as_deref(), Some(expected));
        }
        for given in ["", "10.0.0.0/33", "10.0.0/8", "::/129", "10.0.0.0/", "/8", "localhost"] {
            assert_eq!(shown(given), None, "{given}");
        }
    }

    #[test]
    fn bits_behind_the_prefix_are_remarked_on() {
        let doubt = |given: &str| doubt(&parse(given).unwrap());
        for (given, taken) in [
            ("10.1.2.3/8", "10.0.0.0/8"),
            ("fd77::1/64", "fd77::/64"),
            ("::ffff:10.1.2.3/104", "10.0.0.0/8"),
            ("127.0.0.1/0", "0.0.0.0/0"),
        ] {
            assert!(doubt(given).unwrap().contains(&format!("taken for {taken},")), "{given}");
        }
        for given in ["10.0.0.0/8", "10.1.2.3", "10.1.2.3/32", "fd77::/64", "::1"] {
            assert_eq!(doubt(given), None);
        }
    }

    #[test]
    fn an_address_finds_every_network_that_it_is_in() {
        let mut networks = Networks::default();
        for (number, net) in
            (0..).zip(["0.0.0.0/0", "10.0.0.0/8", "10.1.0.0/16", "10.1.2.3", "10.2.0.0/16", "::/0"])
        {
            assert_eq!(networks.insert(parse(net).unwrap(), number), None);
        }
        let around = |ip: &str| {
            let mut numbers: Vec<_> = networks.around(ip.parse().unwrap()).collect();
            numbers.sort_unstable();
            numbers
        };
        assert_eq!(around("10.1.2.3"), [0, 1, 2, 3]);
        assert_eq!(around("::ffff:10.1.2.4"), [0, 1, 2]);
        assert_eq!(around("192.0.2.1"), [0]);
        assert_eq!(around("2001:db8::1"), [5]);
    }

    #[test]
    fn a_network_has_its_latest_number() {
        let mut networks = Networks::default();
        let net = parse("10.0.0.0/8").unwrap();
        assert_eq!(networks.insert(net, 7), None);
        assert_eq!(networks.insert(net, 3), Some(7));
        assert_eq!(networks.around("10.9.9.9".parse().unwrap()).collect::<Vec<_>>(), [3]);
    }
}
