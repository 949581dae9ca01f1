//! The networks whose clients are served.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use crate::system::interfaces::{Interfaces, Public};
use crate::system::ip::is_link_local;

/// The clients that are served when no option says otherwise: this machine and its neighbours. The
/// link-local ones among these are served only on interfaces that have a private or unique-local
/// address, too: on a router, the neighbour on the provider's link is link-local as well.
pub const DEFAULT_CLIENTS: [&str; 8] = [
    "127.0.0.0/8",
    "::1/128",
    "10.0.0.0/8",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "169.254.0.0/16",
    "fe80::/10",
    "fc00::/7",
];

/// The networks whose clients are served.
#[derive(Clone, Debug)]
pub(super) struct Clients {
    networks: Vec<IpNet>,
    by_default: bool,
}

impl Clients {
    /// Those of `networks`, or of [`DEFAULT_CLIENTS`] if that is empty.
    pub(super) fn new(networks: &[IpNet]) -> Self {
        let by_default = networks.is_empty();
        let networks = if by_default {
            DEFAULT_CLIENTS.iter().map(|net| net.parse().expect("it is a network")).collect()
        } else {
            networks.to_vec()
        };
        Clients { networks, by_default }
    }

    pub(super) fn networks(&self) -> &[IpNet] {
        &self.networks
    }

    /// Why the client at this address is turned away, if it is.
    pub(super) fn turned_away(
        &self,
        client: SocketAddr,
        interfaces: &Interfaces,
    ) -> Option<&'static str> {
        let ip = client.ip();
        if !self.networks.iter().any(|net| net.contains(&ip)) {
            Some("it is in no network that is served")
        } else if self.by_default && is_link_local(ip) && !interfaces.is_on_private_link(client) {
            Some("it is link-local, and its interface has no private address")
        } else {
            None
        }
    }

    /// For each interface that has public addresses among those that are listened on: whom that admits
    /// and whom not, in words.
    pub(super) fn exposure(&self, listen: &[SocketAddr], interfaces: &Interfaces) -> Vec<String> {
        let is_heard = |address: &IpAddr| {
            listen.iter().any(|listen| match listen.ip() {
                IpAddr::V6(every) if every.is_unspecified() => true,
                IpAddr::V4(every) if every.is_unspecified() => address.is_ipv4(),
                one => one == *address,
            })
        };
        let mut public = interfaces.public();
        for it in &mut public {
            it.addresses.retain(is_heard);
        }
        public.retain(|it| !it.addresses.is_empty());
        public.iter().map(|it| self.admitted_on(it)).collect()
    }

    fn admitted_on(&self, public: &Public) -> String {
        let closed_to_link_local = self.by_default && !public.is_private;
        let served = self.networks.iter().filter(|net| {
            let ip = net.addr();
            // Nobody comes in from elsewhere with a loopback address.
            !(ip.is_loopback() || (closed_to_link_local && is_link_local(ip)))
        });
        let served: Vec<_> = served.map(ToString::to_string).collect();
        let addresses: Vec<_> = public.addresses.iter().map(ToString::to_string).collect();
        format!(
            "{} has {} {}: clients that come in there are served from {}; all others are turned \
             away{} (--allow-from)",
            public.interface,
            if addresses.len() == 1 { "the public address" } else { "the public addresses" },
            addresses.join(", "),
            if served.is_empty() { "nowhere".into() } else { served.join(", ") },
            if closed_to_link_local { ", link-local ones too" } else { "" },
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system::interfaces::InterfaceAddress;

    /// A home network on interface 2, and the provider's link on interface 3.
    fn router() -> Interfaces {
        Interfaces::read_by(|| {
            let address = |interface: &str, ip: &str, scope| InterfaceAddress {
                interface: interface.into(),
                ip: ip.parse().unwrap(),
                scope,
            };
            Some(vec![
                address("lan", "fd77::1", 0),
                address("lan", "fe80::1", 2),
                address("wan", "203.0.113.1", 0),
                address("wan", "fe80::1", 3),
            ])
        })
    }

    fn serves(clients: &Clients, client: &str) -> bool {
        let client = match client.parse() {
            Ok(ip) => SocketAddr::new(ip, 50000),
            Err(_) => client.parse().unwrap(),
        };
        clients.turned_away(client, &router()).is_none()
    }

    #[test]
    fn this_machine_and_its_neighbours_are_served() {
        let clients = Clients::new(&[]);
        for ip in [
            "127.0.0.1",
            "127.255.0.1",
            "::1",
            "10.1.2.3",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.0.1",
            "[fe80::1%2]:50000",
            "fd00::1",
            "fc00::1",
        ] {
            assert!(serves(&clients, ip), "{ip}");
        }
        for ip in [
            "8.8.8.8",
            "172.15.0.1",
            "172.32.0.1",
            "192.169.0.1",
            "100.64.0.1",
            "2001:db8::1",
            "fec0::1",
            "::2",
            "0.0.0.0",
            "128.0.0.1",
        ] {
            assert!(!serves(&clients, ip), "{ip}");
        }
    }

    #[test]
    fn a_link_local_neighbour_on_the_providers_link_is_not_served() {
        let clients = Clients::new(&[]);
        assert!(!serves(&clients, "[fe80::9%3]:50000"));
        assert!(!serves(&clients, "fe80::9"), "on no interface that is known");
        assert!(!serves(&clients, "169.254.77.9"), "replies would leave by none of the interfaces");
        let asked_for = Clients::new(&["fe80::/10".parse().unwrap()]);
        assert!(serves(&asked_for, "[fe80::9%3]:50000"), "but if an option says so");
    }

    #[test]
    fn the_option_replaces_the_default_clients() {
        let clients = Clients::new(&["203.0.113.0/24".parse().unwrap()]);
        assert!(serves(&clients, "203.0.113.9"));
        assert!(!serves(&clients, "192.168.0.1"));
        assert!(!serves(&clients, "127.0.0.1"));
    }

    #[test]
    fn an_interface_where_nobody_listens_is_not_told() {
        let told = |listen: &str| {
            let listen = [format!("{listen}:1080").parse().unwrap()];
            Clients::new(&[]).exposure(&listen, &router()).len()
        };
        for (listen, count) in [
            ("[::]", 1),
            ("0.0.0.0", 1),
            ("203.0.113.1", 1),
            ("192.168.77.1", 0),
            ("[::1]", 0),
            ("[fd77::1]", 0),
        ] {
            assert_eq!(told(listen), count, "{listen}");
        }
    }

    #[test]
    fn a_public_interface_is_told_with_whom_it_admits_and_whom_not() {
        let public = |is_private| Public {
            interface: "eth1".into(),
            addresses: vec!["203.0.113.1".parse().unwrap()],
            is_private,
        };
        let told = Clients::new(&[]).admitted_on(&public(false));
        assert_eq!(
            told,
            "eth1 has the public address 203.0.113.1: clients that come in there are served from \
             10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16, fc00::/7; all others are turned away, \
             link-local ones too (--allow-from)"
        );
        let told = Clients::new(&[]).admitted_on(&public(true));
        assert!(told.contains("169.254.0.0/16, fe80::/10, fc00::/7; all others are turned away ("));
        let told = Clients::new(&["198.51.100.0/24".parse().unwrap()]).admitted_on(&public(false));
        assert!(told.contains("are served from 198.51.100.0/24; all others are turned away ("));
        let told = Clients::new(&["127.0.0.1/32".parse().unwrap()]).admitted_on(&public(false));
        assert!(told.contains("are served from nowhere; all others"), "{told}");
    }
}
