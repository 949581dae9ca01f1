//! What is closed to clients on other machines, unless a rule opens it.

use std::net::{IpAddr, SocketAddr, UdpSocket};

/// What closes `address` to `client`, if anything does. A client on another machine may not reach
/// what listens for this machine alone nor, through the server, the server at its `own_ports`.
pub(super) fn closed(
    client: IpAddr,
    address: SocketAddr,
    own_ports: &[u16],
) -> Option<&'static str> {
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
    } else if own_ports.contains(&address.port()) && is_of_this_machine(ip) {
        Some("this server itself")
    } else {
        None
    }
}

/// Only an address of this machine can be bound.
fn is_of_this_machine(ip: IpAddr) -> bool {
    UdpSocket::bind((ip, 0)).is_ok()
}
