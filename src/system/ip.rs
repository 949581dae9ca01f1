//! What kind of address an IP address is, and what is inside it. Each kind is defined here and nowhere
//! else.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::links::is_on_link;

/// The loopback address of each family.
pub const LOOPBACK: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];

/// An IPv4-mapped address as the IPv4 address that it is. A link-local one keeps its scope: it is
/// nothing without it.
pub fn canonical(address: SocketAddr) -> SocketAddr {
    match address.ip().to_canonical() {
        IpAddr::V4(ip) => (ip, address.port()).into(),
        IpAddr::V6(_) => address,
    }
}

/// The unspecified address of the family of `ip`.
pub fn unspecified_like(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}

/// The loopback address of the family of `ip`.
pub fn loopback_like(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    }
}

/// Link-local (RFC 3927, RFC 4291): good for one link alone.
pub fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
}

/// Always an address of this machine: all of 127.0.0.0/8, `::1`, and those where whoever connects to
/// them reaches itself, 0.0.0.0 and `::`.
pub fn is_this_machine(ip: IpAddr) -> bool {
    ip.is_loopback() || ip.is_unspecified()
}

/// Whether who listens at `listen` can be reached at `ip`: an unspecified address listens at every one
/// of its family, that of IPv6 at all.
pub fn listens_at(listen: IpAddr, ip: IpAddr) -> bool {
    listen == ip || (listen.is_unspecified() && (listen.is_ipv6() || ip.is_ipv4()))
}

/// Private (RFC 1918) or unique-local (RFC 4193).
pub fn is_private(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_private(),
        IpAddr::V6(ip) => ip.is_unique_local(),
    }
}

/// An address that the internet can reach. Those of 100.64.0.0/10, which a provider shares among its
/// customers (RFC 6598), are not.
pub fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => {
            let is_shared = v4.octets()[0] == 100 && v4.octets()[1] & 0xc0 == 0x40;
            let is_local = v4.is_private() || is_this_machine(ip) || v4.is_link_local();
            !(is_shared || is_local || v4.is_multicast())
        }
        // 2000::/3 is all that is assigned for this.
        IpAddr::V6(ip) => ip.segments()[0] & 0xe000 == 0x2000,
    }
}

/// The IPv4 addresses inside `ip`: a translator or a tunnel on the way may turn it back into one of them.
/// IPv4-mapped addresses are not among them: those are IPv4.
pub fn embedded_ipv4(ip: IpAddr) -> impl Iterator<Item = Ipv4Addr> {
    let found = match ip.to_canonical() {
        IpAddr::V6(ip) => [by_prefix(ip), by_interface(ip)],
        IpAddr::V4(_) => [None, None],
    };
    let local = match ip {
        IpAddr::V6(ip) => by_local_prefix(ip),
        IpAddr::V4(_) => [None; 4],
    };
    found.into_iter().chain(local).flatten()
}

fn by_prefix(ip: Ipv6Addr) -> Option<Ipv4Addr> {
    let bits = ip.to_bits();
    match ip.segments() {
        // The unspecified and the loopback address.
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => None,
        // IPv4-compatible (RFC 4291), IPv4-translated (RFC 2765), NAT64 (RFC 6052).
        [0, 0, 0, 0, 0 | 0xffff, 0, ..] | [0x64, 0xff9b, 0, 0, 0, 0, ..] => Some(low(bits)),
        // 6to4 (RFC 3056).
        [0x2002, ..] => Some(low(bits >> 80)),
        // Teredo (RFC 4380): the client, with all bits inverted.
        [0x2001, 0, ..] => Some(low(!bits)),
        _ => None,
    }
}

/// Local NAT64 (RFC 8215): a prefix within `64:ff9b:1::/48` may have any length of RFC 6052 (section 2.2), and
/// which one it has is not known here. Nothing is in 0.0.0.0/8: that is read in the wrong place, unless
/// nothing is in any place.
fn by_local_prefix(ip: Ipv6Addr) -> [Option<Ipv4Addr>; 4] {
    /// Where the four octets are, for 96, 48, 56 and 64 bits: that at 8 is left out.
    const PLACES: [[usize; 4]; 4] =
        [[12, 13, 14, 15], [6, 7, 9, 10], [7, 9, 10, 11], [9, 10, 11, 12]];
    if !matches!(ip.segments(), [0x64, 0xff9b, 1, ..]) {
        return [None; 4];
    }
    let all = PLACES.map(|places| Ipv4Addr::from(places.map(|place| ip.octets()[place])));
    let found = all.map(|ip| Some(ip).filter(|ip| ip.octets()[0] != 0));
    if found == [None; 4] { [Some(all[0]), None, None, None] } else { found }
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

/// Those that one client's limits count together: an IPv4 address, an IPv6 address of a neighbour, or the
/// /64 of another one.
///
/// A host may have as many addresses of its /64 as it likes (RFC 4291 section 2.5.1). Elsewhere a /64 is a
/// household. Inside a prefix that is on-link here, unique-local or link-local it is a network of many
/// hosts, so that it counts only as the second, looser bound ([`ClientPrefix::network`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ClientPrefix {
    ip: IpAddr,
    is_network: bool,
}

impl From<IpAddr> for ClientPrefix {
    fn from(address: IpAddr) -> Self {
        let ip = address.to_canonical();
        let client = ClientPrefix { ip, is_network: false };
        match ip {
            IpAddr::V6(v6) if !(is_private(ip) || is_link_local(ip) || is_on_link(v6)) => {
                client.network()
            }
            _ => client,
        }
    }
}

impl ClientPrefix {
    /// What counts as its network: the /64 around an IPv6 address, an IPv4 address itself.
    #[must_use]
    pub fn network(self) -> Self {
        const NETWORK: u128 = !0 << 64;
        match self.ip {
            IpAddr::V6(ip) => {
                let ip = Ipv6Addr::from_bits(ip.to_bits() & NETWORK).into();
                ClientPrefix { ip, is_network: true }
            }
            IpAddr::V4(_) => self,
        }
    }
}

impl fmt::Display for ClientPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.ip, if self.is_network { "/64" } else { "" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_known() {
        for (ip, inside) in [
            ("64:ff9b::7f00:1", &["127.0.0.1"][..]),
            ("64:ff9b:1::10.1.2.3", &["10.1.2.3"]),
            ("64:ff9b:1:a01:2:300::", &["10.1.2.3", "1.2.3.0", "2.3.0.0"]),
            ("64:ff9b:1:7f00:0:100::", &["127.0.0.1"]),
            ("64:ff9b:1:7f00:0:1ff:ffff:ffff", &["255.255.255.255", "127.0.0.1"]),
            ("64:ff9b:1:7f:0:1::", &["127.0.0.1"]),
            ("64:ff9b:1:0:7f:0:100:0", &["1.0.0.0", "127.0.0.1"]),
            ("64:ff9b:1::", &["0.0.0.0"]),
            ("64:ff9b:1::9", &["0.0.0.9"]),
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
            let found: Vec<_> =
                embedded_ipv4(ip.parse().unwrap()).map(|ip| ip.to_string()).collect();
            assert_eq!(found, inside, "{ip}");
        }
    }

    fn prefix(address: &str) -> ClientPrefix {
        address.parse::<IpAddr>().unwrap().into()
    }

    #[test]
    fn elsewhere_a_host_with_many_addresses_is_one_client() {
        assert_eq!(prefix("2001:db8:1:2::1"), prefix("2001:db8:1:2:ffff:ffff:ffff:ffff"));
        assert_ne!(prefix("2001:db8:1:2::1"), prefix("2001:db8:1:3::1"));
        assert_eq!(prefix("::ffff:192.0.2.1"), prefix("192.0.2.1"));
        assert_ne!(prefix("192.0.2.1"), prefix("192.0.2.2"));
        assert_eq!(prefix("2001:db8:1:2:3:4:5:6").to_string(), "2001:db8:1:2::/64");
        assert_eq!(prefix("::ffff:192.0.2.7").to_string(), "192.0.2.7");
    }

    #[test]
    fn a_neighbour_is_its_address_and_in_the_network_around_it() {
        for network in ["fd00:0:0:1:", "fe80:0:0:0:"] {
            let [one, other] =
                ["0:0:0:1", "0:0:0:2"].map(|host| prefix(&format!("{network}{host}")));
            assert_ne!(one, other);
            assert_eq!(one.network(), other.network());
            assert_ne!(one.network(), prefix("fd00:0:0:2::1").network());
        }
        assert_eq!(prefix("fd00:0:0:1::9").to_string(), "fd00:0:0:1::9");
        assert_eq!(prefix("fd00:0:0:1::9").network().to_string(), "fd00:0:0:1::/64");
        assert_eq!(prefix("192.0.2.1").network(), prefix("192.0.2.1"));
    }
}
