//! What is closed to clients on other machines, unless a rule opens it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::system::interfaces::Interfaces;
use crate::system::ip;

/// What closes `address` to `client`, if anything does. A client on another machine may not reach
/// what listens for this machine alone nor, through the server, the server at its `own_ports`.
pub(super) fn closed(
    client: IpAddr,
    address: SocketAddr,
    own_ports: &[u16],
    interfaces: &Interfaces,
) -> Option<&'static str> {
    if client.is_loopback() {
        return None;
    }
    let ip = address.ip().to_canonical();
    let is_broadcast = ip == IpAddr::V4(Ipv4Addr::BROADCAST);
    if ip.is_loopback() {
        Some("a loopback address")
    } else if ip.is_unspecified() {
        Some("the unspecified address")
    } else if ip::is_link_local(ip) {
        Some("a link-local address")
    } else if ip.is_multicast() {
        Some("a multicast address")
    } else if is_broadcast {
        Some("the broadcast address")
    } else if own_ports.contains(&address.port()) {
        match interfaces.is_ours_now(ip) {
            Some(true) => Some("this server itself"),
            Some(false) => None,
            None => Some("perhaps this server itself"),
        }
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests as rules;
    use super::*;
    use crate::system::interfaces::InterfaceAddress;
    use std::cell::Cell;

    const LAN: &str = "192.168.1.7";
    const LOCAL: &str = "127.0.0.1";

    /// A machine at 192.168.1.1 and `2001:db8::1`.
    const KNOWN: fn() -> Option<Vec<InterfaceAddress>> = || {
        let own = ["192.168.1.1", "2001:db8::1"].map(|ip| InterfaceAddress {
            interface: "eth0".into(),
            ip: ip.parse().unwrap(),
            scope: 0,
        });
        Some(own.to_vec())
    };

    /// Asks a server that listens on port 1080.
    fn ask(
        client: &str,
        destination: &str,
        read: fn() -> Option<Vec<InterfaceAddress>>,
    ) -> Option<&'static str> {
        let interfaces = Interfaces::read_by(read);
        closed(client.parse().unwrap(), destination.parse().unwrap(), &[1080], &interfaces)
    }

    const OWN: [&str; 11] = [
        "127.0.0.1:80",
        "127.9.9.9:80",
        "[::1]:80",
        "[::ffff:127.0.0.1]:80",
        "0.0.0.0:80",
        "[::]:80",
        "[::ffff:0.0.0.0]:80",
        "169.254.169.254:80",
        "[fe80::1]:80",
        "224.0.0.1:80",
        "255.255.255.255:80",
    ];

    #[test]
    fn a_client_elsewhere_cannot_reach_what_is_for_this_machine_only() {
        for destination in OWN {
            assert!(ask(LAN, destination, KNOWN).is_some(), "{destination}");
        }
        for open in ["192.0.2.1:1080", "192.168.1.1:80", "[2001:db8::1]:80", "[2001:db8::2]:1080"] {
            assert_eq!(ask(LAN, open, KNOWN), None, "{open}");
        }
    }

    #[test]
    fn the_own_port_is_closed_at_an_address_that_has_just_come() {
        thread_local!(static COMES: Cell<bool> = const { Cell::new(false) });
        let interfaces = Interfaces::read_by(|| if COMES.get() { KNOWN() } else { Some(vec![]) });
        COMES.set(true);
        let destination = "192.168.1.1:1080".parse().unwrap();
        assert!(closed(LAN.parse().unwrap(), destination, &[1080], &interfaces).is_some());
    }

    #[test]
    fn a_client_on_this_machine_can() {
        for destination in OWN.iter().chain(&["192.168.1.1:1080"]) {
            assert_eq!(ask(LOCAL, destination, KNOWN), None, "{destination}");
        }
    }

    #[test]
    fn the_servers_own_port_is_closed_at_every_address_of_the_machine() {
        for own in ["192.168.1.1:1080", "[2001:db8::1]:1080", "[::ffff:192.168.1.1]:1080"] {
            assert_eq!(ask(LAN, own, KNOWN), Some("this server itself"), "{own}");
        }
    }

    #[test]
    fn the_servers_own_port_is_closed_if_the_system_does_not_tell_the_addresses() {
        for perhaps in ["192.168.1.1:1080", "192.0.2.1:1080"] {
            assert_eq!(ask(LAN, perhaps, || None), Some("perhaps this server itself"));
        }
        assert_eq!(ask(LAN, "192.0.2.1:80", || None), None);
    }

    #[test]
    fn a_client_does_not_get_past_a_firewall_to_the_boxs_own_addresses() {
        let file = "allow to self port 53\ndeny to self";
        let denied = |ip: &str| Err(format!("rules:2: this rule denies {ip}:80"));
        for own in ["192.168.1.1", "127.0.0.1", "0.0.0.0"] {
            assert_eq!(rules::ask(file, None, (own, 80), None), denied(own));
            assert_eq!(rules::ask(file, None, ("a.example", 80), Some(&[own])), denied(own));
        }
        assert!(rules::ask(file, None, ("2001:db8::1", 80), None).is_err());
        let dressed = "64:ff9b::192.168.1.1";
        assert_eq!(rules::ask(file, None, (dressed, 80), None), denied("192.168.1.1"));
        assert!(rules::ask(file, None, ("192.168.1.2", 80), None).is_ok());
        assert!(rules::ask(file, None, ("192.168.1.1", 53), None).is_ok());
        let closed = rules::ask(file, None, ("127.0.0.1", 53), None).unwrap_err();
        assert!(closed.contains("a loopback address"), "self opens nothing: {closed}");
        // A name may have one of these addresses, so it has to be looked up.
        let own: &[&str] = &["192.168.1.1", "192.0.2.1"];
        let found = rules::ask("allow to self\ndeny", None, ("a.example", 80), Some(own));
        assert_eq!(found, Ok(vec!["192.168.1.1".into()]));
    }
}
