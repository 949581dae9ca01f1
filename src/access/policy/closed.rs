//! What clients on other machines cannot reach, and which rules open it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::access::rules::Entry;

/// What clients on other machines cannot reach unless a rule names it: it is for this machine alone, or for
/// nobody, or for one link.
pub(super) const CLOSED: [(IpNet, &str); 9] = [
    (ipv4([127, 0, 0, 0], 8), "a loopback address"),
    (ipv6(Ipv6Addr::LOCALHOST, 128), "a loopback address"),
    (ipv4([0, 0, 0, 0], 32), "the unspecified address"),
    (ipv6(Ipv6Addr::UNSPECIFIED, 128), "the unspecified address"),
    (ipv4([169, 254, 0, 0], 16), "a link-local address"),
    (ipv6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10), "a link-local address"),
    (ipv4([224, 0, 0, 0], 4), "a multicast address"),
    (ipv6(Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0), 8), "a multicast address"),
    (ipv4([255, 255, 255, 255], 32), "the broadcast address"),
];

const fn ipv4([a, b, c, d]: [u8; 4], length: u8) -> IpNet {
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), length))
}

const fn ipv6(ip: Ipv6Addr, length: u8) -> IpNet {
    IpNet::V6(Ipv6Net::new_assert(ip, length))
}

/// What `ip` is, if that is closed and `rule`, which matches it, or none, does not open it.
pub(super) fn kind(ip: IpAddr, rule: Option<&Entry>) -> Option<&'static str> {
    let (net, kind) = CLOSED.iter().find(|(net, _)| net.contains(&ip))?;
    (!rule.is_some_and(|rule| opens(rule, net))).then_some(kind)
}

/// Whether a rule opens `closed`, one of [`CLOSED`], as far as it matches. What a rule allows may still be
/// closed by default: only one that names an address or a network within it opens that. Whoever has the
/// DNS of an allowed name may point it at this machine, a rule without `to` says who may do what, not
/// where, and one about a wider network means the rest of it.
pub(super) fn opens(entry: &Entry, closed: &IpNet) -> bool {
    entry.rule.allows() && entry.network.is_some_and(|net| closed.contains(&net))
}

/// Whether a rule opens `port`, one of the server's own: it names that port, and one address.
pub(super) fn opens_port(entry: &Entry, port: u16) -> bool {
    let is_address = entry.network.is_some_and(|net| net.prefix_len() == net.max_prefix_len());
    entry.rule.allows() && is_address && entry.rule.ports.contains(&(port..=port))
}
