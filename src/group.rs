//! Whose use is counted together.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

/// Those that one client's limits count together: an IPv4 address, or an IPv6 /64. A host may have
/// as many addresses of its /64 as it likes (RFC 4291 section 2.5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Group(IpAddr);

impl From<IpAddr> for Group {
    fn from(address: IpAddr) -> Self {
        const NETWORK: u128 = !0 << 64;
        Group(match address.to_canonical() {
            IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() & NETWORK).into(),
            ipv4 @ IpAddr::V4(_) => ipv4,
        })
    }
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            IpAddr::V4(ip) => ip.fmt(f),
            IpAddr::V6(ip) => write!(f, "{ip}/64"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(address: &str) -> Group {
        address.parse::<IpAddr>().unwrap().into()
    }

    #[test]
    fn a_host_with_many_addresses_is_one_group() {
        assert_eq!(group("2001:db8:1:2::1"), group("2001:db8:1:2:ffff:ffff:ffff:ffff"));
        assert_ne!(group("2001:db8:1:2::1"), group("2001:db8:1:3::1"));
        assert_eq!(group("::ffff:192.0.2.1"), group("192.0.2.1"));
        assert_ne!(group("192.0.2.1"), group("192.0.2.2"));
        assert_eq!(group("2001:db8:1:2:3:4:5:6").to_string(), "2001:db8:1:2::/64");
        assert_eq!(group("::ffff:192.0.2.7").to_string(), "192.0.2.7");
    }
}
