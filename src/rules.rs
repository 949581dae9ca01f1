//! Who is served, what may be reached, and the proof that it may.

use std::fmt;
use std::net::{IpAddr, SocketAddr, UdpSocket};

use ipnet::IpNet;

use crate::socks5::{Command, Host, Name, Request};
use crate::users::Identity;

/// The clients that are served when no option says otherwise: this machine and its neighbours.
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

/// Who may do what.
#[derive(Clone, Debug)]
pub struct Rules {
    clients: Vec<IpNet>,
    own_ports: Vec<u16>,
}

/// A request that may be carried out, and the addresses that it may go to. Only [`Rules::permit`]
/// makes one. What was checked is what is reached: nothing is resolved again.
#[derive(Debug)]
pub struct Permit {
    command: Command,
    addresses: Vec<SocketAddr>,
}

impl Permit {
    /// What may be done.
    #[must_use]
    pub fn command(&self) -> Command {
        self.command
    }

    /// Where it may be done, in the resolver's order.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }
}

/// Why a request is not permitted.
#[derive(Debug)]
pub enum Refusal<E> {
    /// The destination is closed to this client.
    Denied(Denied),
    /// The destination's name could not be looked up.
    Lookup(E),
}

/// What a rule has against a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Denied {
    address: SocketAddr,
    reason: &'static str,
}

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} is {}, which is closed to clients on other machines",
            self.address, self.reason
        )
    }
}

impl Rules {
    /// Serves `clients`, or [`DEFAULT_CLIENTS`] where that is empty. `own_ports` are those that the
    /// server itself listens on.
    ///
    /// # Panics
    ///
    /// If [`DEFAULT_CLIENTS`] is no list of networks.
    #[must_use]
    pub fn new(clients: &[IpNet], own_ports: Vec<u16>) -> Self {
        let clients = if clients.is_empty() {
            DEFAULT_CLIENTS.iter().map(|net| net.parse().expect("it is a network")).collect()
        } else {
            clients.to_vec()
        };
        Rules { clients, own_ports }
    }

    /// The clients that are served.
    #[must_use]
    pub fn clients(&self) -> &[IpNet] {
        &self.clients
    }

    /// Whether a client with this address is served at all.
    #[must_use]
    pub fn serves(&self, client: IpAddr) -> bool {
        self.clients.iter().any(|net| net.contains(&client))
    }

    /// Judges a request. A name is looked up with `lookup`, and of its addresses only the permitted
    /// ones are in the permit.
    ///
    /// # Errors
    ///
    /// [`Refusal::Denied`] when no address is permitted, [`Refusal::Lookup`] when `lookup` fails.
    pub fn permit<E>(
        &self,
        _identity: &Identity,
        client: SocketAddr,
        request: &Request,
        lookup: impl FnOnce(&Name, u16) -> Result<Vec<SocketAddr>, E>,
    ) -> Result<Permit, Refusal<E>> {
        let destination = &request.destination;
        let mut addresses = match &destination.host {
            Host::Ip(ip) => vec![SocketAddr::new(*ip, destination.port)],
            Host::Name(name) => lookup(name, destination.port).map_err(Refusal::Lookup)?,
        };
        let mut denied = None;
        addresses.retain(|address| match self.closed(client.ip(), *address) {
            None => true,
            Some(reason) => {
                denied.get_or_insert(Denied { address: *address, reason });
                false
            }
        });
        match denied {
            Some(denied) if addresses.is_empty() => Err(Refusal::Denied(denied)),
            _ => Ok(Permit { command: request.command, addresses }),
        }
    }

    /// What closes `address` to `client`, if anything does. A client on another machine may not
    /// reach what listens only for this one, nor, through the server, the server.
    fn closed(&self, client: IpAddr, address: SocketAddr) -> Option<&'static str> {
        if client.is_loopback() {
            return None;
        }
        let ip = address.ip().to_canonical();
        let (link_local, broadcast) = match ip {
            IpAddr::V4(ip) => (ip.is_link_local(), ip.is_broadcast()),
            IpAddr::V6(ip) => (ip.is_unicast_link_local(), false),
        };
        if ip.is_loopback() {
            Some("a loopback address")
        } else if ip.is_unspecified() {
            Some("the unspecified address")
        } else if link_local {
            Some("a link-local address")
        } else if ip.is_multicast() {
            Some("a multicast address")
        } else if broadcast {
            Some("the broadcast address")
        } else if self.own_ports.contains(&address.port()) && is_of_this_machine(ip) {
            Some("this server itself")
        } else {
            None
        }
    }
}

/// Only an address of this machine can be bound.
fn is_of_this_machine(ip: IpAddr) -> bool {
    UdpSocket::bind((ip, 0)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::socks5::Address;
    use crate::users::Users;
    use std::convert::Infallible;
    use std::io::Cursor;
    use std::net::Ipv4Addr;

    const LAN: &str = "192.168.1.7:50000";
    const LOCAL: &str = "127.0.0.1:50000";

    fn anyone() -> Identity {
        let mut client = Cursor::new(b"\x05\x01\x00\0\0".to_vec());
        Users::default().authenticate(&mut client, Ipv4Addr::LOCALHOST.into()).unwrap()
    }

    fn judge(client: &str, destination: &str) -> Result<Permit, Refusal<Infallible>> {
        let destination: SocketAddr = destination.parse().unwrap();
        let (host, port) = (Host::Ip(destination.ip()), destination.port());
        let request = Request { command: Command::Connect, destination: Address { host, port } };
        let rules = Rules::new(&[], vec![1080]);
        rules.permit(&anyone(), client.parse().unwrap(), &request, |_, _| unreachable!())
    }

    #[test]
    fn this_machine_and_its_neighbours_are_served() {
        let rules = Rules::new(&[], vec![1080]);
        let serves = |ip: &str| rules.serves(ip.parse().unwrap());
        for ip in [
            "127.0.0.1",
            "127.255.0.1",
            "::1",
            "10.1.2.3",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.0.1",
            "169.254.1.1",
            "fe80::1",
            "fd00::1",
            "fc00::1",
        ] {
            assert!(serves(ip), "{ip}");
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
            assert!(!serves(ip), "{ip}");
        }
    }

    #[test]
    fn the_option_replaces_the_default_clients() {
        let rules = Rules::new(&["203.0.113.0/24".parse().unwrap()], vec![]);
        assert!(rules.serves("203.0.113.9".parse().unwrap()));
        assert!(!rules.serves("192.168.0.1".parse().unwrap()));
        assert!(!rules.serves("127.0.0.1".parse().unwrap()));
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
            let refusal = judge(LAN, destination).unwrap_err();
            assert!(matches!(refusal, Refusal::Denied(_)), "{destination}");
        }
        assert!(judge(LAN, "192.0.2.1:1080").is_ok(), "another machine's port 1080");
    }

    #[test]
    fn a_client_on_this_machine_can() {
        for destination in OWN {
            assert!(judge(LOCAL, destination).is_ok(), "{destination}");
        }
    }

    #[test]
    fn only_the_permitted_addresses_of_a_name_are_in_the_permit() {
        let all = |list: &[&str]| -> Vec<SocketAddr> {
            list.iter().map(|address| address.parse().unwrap()).collect()
        };
        let name = Name::new(b"rebinding.example".to_vec()).unwrap();
        let destination = Address { host: Host::Name(name), port: 80 };
        let request = Request { command: Command::Connect, destination };
        let judge = |found: &[&str]| {
            let rules = Rules::new(&[], vec![1080]);
            let found = all(found);
            rules.permit(&anyone(), LAN.parse().unwrap(), &request, |_, _| Ok::<_, ()>(found))
        };
        let permit = judge(&["127.0.0.1:80", "192.0.2.1:80", "[::1]:80"]).unwrap();
        assert_eq!(permit.addresses(), all(&["192.0.2.1:80"]));
        let refusal = judge(&["127.0.0.1:80", "[::1]:80"]).unwrap_err();
        assert!(
            matches!(refusal, Refusal::Denied(Denied { address, .. }) if address == all(&["127.0.0.1:80"])[0])
        );
    }
}
