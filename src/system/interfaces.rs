//! The network interfaces of this machine and their addresses: what is this machine, and which links
//! are part of the home or office network.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};

use super::ip::{is_link_local, is_private, is_public, is_this_machine, unspecified_like};
pub use super::links::InterfaceAddress;
use super::links::Links;
use super::routing;

/// An address that is on no link of this machine (RFC 5737): the default route leads there.
const SOMEWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 9);

/// The interfaces of this machine.
#[derive(Debug)]
pub struct Interfaces {
    links: Links,
    is_local: fn(IpAddr) -> Option<bool>,
}

/// The public addresses of an interface.
#[derive(Debug, PartialEq, Eq)]
pub struct Public {
    /// The interface's name.
    pub interface: String,
    /// Those that the internet can reach.
    pub addresses: Vec<IpAddr>,
    /// The interface has a private or unique-local address, too.
    pub is_private: bool,
}

impl Default for Interfaces {
    fn default() -> Self {
        Interfaces { links: Links::default(), is_local: routing::is_local }
    }
}

impl Interfaces {
    /// Whether `ip` is an address of this machine at this moment; `None` if the system does not tell.
    pub fn is_ours(&self, ip: IpAddr) -> Option<bool> {
        let ip = ip.to_canonical();
        if is_this_machine(ip) {
            return Some(true);
        }
        let is_listed = || Some(self.links.addresses()?.iter().any(|address| address.ip == ip));
        match (self.is_local)(ip) {
            Some(true) => Some(true),
            // It may be that of an interface with a routing table of its own (VRF).
            Some(false) => Some(is_listed().unwrap_or(false)),
            None => is_listed(),
        }
    }

    /// Another number than before once the addresses of this machine may have changed.
    pub fn generation(&self) -> usize {
        self.links.generation()
    }

    /// Whether a link-local client is on a private interface. The scope of an IPv6 client names its
    /// interface; an IPv4 client has none, so it is the interface by which replies would leave.
    pub fn is_on_private_link(&self, client: SocketAddr) -> bool {
        let source = match client {
            SocketAddr::V4(_) => source_towards(client),
            SocketAddr::V6(_) => None,
        };
        let is_of_link = |address: &&InterfaceAddress| match client {
            SocketAddr::V4(_) => Some(address.ip) == source,
            SocketAddr::V6(client) => address.scope != 0 && address.scope == client.scope_id(),
        };
        let addresses = self.links.addresses().unwrap_or_default();
        // An address that two interfaces have says nothing about either.
        let mut link = addresses.iter().filter(is_of_link).peekable();
        link.peek().is_some() && link.all(|it| is_private_interface(&it.interface, &addresses))
    }

    /// The interfaces that have public addresses among those that `is_reached` admits.
    pub fn public(&self, is_reached: impl Fn(IpAddr) -> bool) -> Vec<Public> {
        let mut found: Vec<Public> = Vec::new();
        let addresses = self.links.addresses().unwrap_or_default();
        let is_shown = |it: &&InterfaceAddress| is_public(it.ip) && is_reached(it.ip);
        for InterfaceAddress { interface, ip, .. } in addresses.iter().filter(is_shown) {
            match found.iter_mut().find(|public| public.interface == *interface) {
                Some(public) => public.addresses.push(*ip),
                None => found.push(Public {
                    interface: interface.clone(),
                    addresses: vec![*ip],
                    is_private: is_private_interface(interface, &addresses),
                }),
            }
        }
        found
    }

    /// Every address of this machine that is known.
    pub fn all(&self) -> Vec<IpAddr> {
        self.links.addresses().unwrap_or_default().iter().map(|address| address.ip).collect()
    }

    /// The addresses that other machines may reach, on more than one link: private and unique-local ones
    /// first, of these IPv4 first, and of those the one first by which packets to the internet leave.
    pub fn reachable(&self) -> Vec<IpAddr> {
        let addresses = self.links.addresses().unwrap_or_default();
        let is_reachable = |ip: &IpAddr| !is_this_machine(*ip) && !is_link_local(*ip);
        let mut found: Vec<_> =
            addresses.iter().map(|address| address.ip).filter(is_reachable).collect();
        let first = source_towards(SOMEWHERE);
        found.sort_by_key(|ip| (!is_private(*ip), ip.is_ipv6(), Some(*ip) != first));
        found.dedup();
        found
    }
}

/// Whether an interface has a private or unique-local address.
fn is_private_interface(name: &str, addresses: &[InterfaceAddress]) -> bool {
    addresses.iter().any(|address| address.interface == name && is_private(address.ip))
}

/// The address of this machine from which a packet to `target` would leave. To connect a UDP socket asks
/// the routing table and sends nothing.
pub fn source_towards(target: SocketAddr) -> Option<IpAddr> {
    let socket = UdpSocket::bind((unspecified_like(target.ip()), 0)).ok()?;
    socket.connect(target).ok()?;
    socket.local_addr().ok().map(|address| address.ip())
}

#[cfg(test)]
impl Interfaces {
    /// The interfaces that `read` finds; `None` means that it cannot tell. Of a single address `is_local`
    /// knows more, if it tells.
    pub fn told_by(
        read: fn() -> Option<Vec<InterfaceAddress>>,
        is_local: fn(IpAddr) -> Option<bool>,
    ) -> Self {
        Interfaces { links: Links::told_by(read), is_local }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(interface: &str, ip: &str, scope: u32) -> InterfaceAddress {
        InterfaceAddress { interface: interface.into(), ip: ip.parse().unwrap(), mask: 0, scope }
    }

    /// A router: `lan` is the network at home, `wan` the link to the provider.
    const ROUTER: fn() -> Option<Vec<InterfaceAddress>> = || {
        Some(vec![
            address("lo", "127.0.0.1", 0),
            address("lan", "192.168.77.1", 0),
            address("wan", "203.0.113.1", 0),
            address("wan", "2001:db8::1", 0),
            address("wan", "fe80::1", 3),
            address("lan", "fe80::1", 2),
            address("tun", "100.64.0.1", 0),
            address("tun", "fd00::1", 0),
            address("tun", "fe80::5", 4),
        ])
    };

    /// Where the list is all that is known.
    fn told_by(read: fn() -> Option<Vec<InterfaceAddress>>) -> Interfaces {
        Interfaces::told_by(read, |_| None)
    }

    #[test]
    fn every_address_of_this_machine_is_ours() {
        let interfaces = told_by(ROUTER);
        for (ip, ours) in [
            ("192.168.77.1", true),
            ("::ffff:192.168.77.1", true),
            ("203.0.113.1", true),
            ("fe80::1", true),
            ("127.9.9.9", true),
            ("::1", true),
            ("0.0.0.0", true),
            ("::", true),
            ("192.168.77.2", false),
            ("2001:db8::2", false),
        ] {
            assert_eq!(interfaces.is_ours(ip.parse().unwrap()), Some(ours), "{ip}");
        }
    }

    #[test]
    fn what_the_system_does_not_tell_is_not_known() {
        let interfaces = told_by(|| None);
        assert_eq!(interfaces.is_ours("192.168.77.1".parse().unwrap()), None);
        assert_eq!(interfaces.is_ours("127.0.0.1".parse().unwrap()), Some(true));
        assert!(!interfaces.is_on_private_link("[fe80::9%2]:1".parse().unwrap()));
        assert_eq!(interfaces.public(|_| true), []);
    }

    #[test]
    fn a_link_local_client_is_known_by_its_interface() {
        let interfaces = told_by(ROUTER);
        let is_private = |client: &str| interfaces.is_on_private_link(client.parse().unwrap());
        assert!(is_private("[fe80::9%2]:50000"), "on the lan");
        assert!(is_private("[fe80::9%4]:50000"), "unique-local will do");
        assert!(!is_private("[fe80::9%3]:50000"), "on the wan");
        assert!(!is_private("[fe80::9%7]:50000"), "on an interface without an address");
        assert!(!is_private("[fe80::9]:50000"), "nowhere");
    }

    #[test]
    fn interfaces_with_public_addresses_are_named() {
        let expected = Public {
            interface: "wan".into(),
            addresses: vec!["203.0.113.1".parse().unwrap(), "2001:db8::1".parse().unwrap()],
            is_private: false,
        };
        assert_eq!(told_by(ROUTER).public(|_| true), [expected]);
    }

    #[test]
    fn addresses_of_the_home_network_are_told_first_and_those_of_one_link_not_at_all() {
        let reachable = told_by(ROUTER).reachable();
        let expected = ["192.168.77.1", "fd00::1", "203.0.113.1", "100.64.0.1", "2001:db8::1"];
        assert_eq!(reachable, expected.map(|ip| ip.parse::<IpAddr>().unwrap()));
        assert_eq!(told_by(|| None).reachable(), [] as [IpAddr; 0]);
    }

    #[test]
    fn the_kernel_knows_more_than_the_list() {
        let is_routed = |ip: IpAddr| Some(ip == IpAddr::from([10, 99, 3, 4]));
        let interfaces = Interfaces::told_by(ROUTER, is_routed);
        assert_eq!(interfaces.is_ours("10.99.3.4".parse().unwrap()), Some(true));
        assert_eq!(interfaces.is_ours("::ffff:10.99.3.4".parse().unwrap()), Some(true));
        assert_eq!(interfaces.is_ours("192.168.77.1".parse().unwrap()), Some(true), "as in a VRF");
        assert_eq!(interfaces.is_ours("10.98.3.4".parse().unwrap()), Some(false));
        let alone = Interfaces::told_by(|| None, is_routed);
        assert_eq!(alone.is_ours("192.168.77.1".parse().unwrap()), Some(false));
    }

    #[test]
    fn the_addresses_of_this_very_machine_are_read() {
        let interfaces = Interfaces::default();
        assert!(interfaces.all().contains(&IpAddr::V4(Ipv4Addr::LOCALHOST)));
        assert_eq!(interfaces.is_ours("192.0.2.77".parse().unwrap()), Some(false));
    }
}
