//! Where outgoing sockets leave this machine: local address, interface and mark.

use std::fmt;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr, UdpSocket};

#[cfg(target_os = "linux")]
use nix::sys::socket::{setsockopt, sockopt::IpBindAddressNoPort};
use socket2::{Domain, Socket, Type};

use crate::system::ip::{is_link_local, is_this_machine};
use crate::system::routing;

/// The longest name of an interface: IFNAMSIZ less the zero at its end.
const MAX_INTERFACE: usize = 16 - 1;

/// Where outgoing sockets leave this machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Egress {
    /// Local address for IPv4 targets.
    pub ipv4: Option<IpAddr>,
    /// Local address for IPv6 targets.
    pub ipv6: Option<IpAddr>,
    /// The local address is that at which the client has reached the server.
    pub same: bool,
    /// The interface that is left by, whatever the routes say (`SO_BINDTODEVICE`, Linux).
    pub interface: Option<Interface>,
    /// The mark for rules of routing and of the packet filter (`SO_MARK`, Linux).
    pub mark: Option<u32>,
}

impl Egress {
    /// The same for one client, which has reached the server at `control`. With `same` this is the
    /// local address, unless it is good for this machine or this link alone: then there is none.
    pub fn for_client_at(self, control: SocketAddr) -> Self {
        if !self.same {
            return self;
        }
        match control.ip().to_canonical() {
            ip if ip.is_loopback() || ip.is_unspecified() || is_link_local(ip) => self,
            ip @ IpAddr::V4(_) => Egress { ipv4: Some(ip), ..self },
            ip @ IpAddr::V6(_) => Egress { ipv6: Some(ip), ..self },
        }
    }

    /// The local address, port 0, for what goes to `target`, if one is set for its family.
    pub fn of(&self, target: SocketAddr) -> Option<SocketAddr> {
        let local = if target.is_ipv4() { self.ipv4 } else { self.ipv6 };
        local.map(|local| SocketAddr::new(local, 0))
    }

    /// Tries it all out, and says what cannot be used at present: an address or an interface may yet
    /// come, so a missing one is no reason not to start.
    ///
    /// # Errors
    ///
    /// When this process may not do it; the error names the option and the capability.
    pub fn check(&self) -> io::Result<Vec<String>> {
        let mut warnings = Vec::new();
        for address in self.ipv4.iter().chain(&self.ipv6) {
            if let Err(error) = UdpSocket::bind((*address, 0)) {
                warnings.push(format!("--source {address} cannot be used at present: {error}"));
            }
        }
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
        let interface = Egress { interface: self.interface, ..Egress::default() };
        if let (Some(name), Err(error)) = (self.interface, interface.prepare(&socket)) {
            if error.kind() == ErrorKind::PermissionDenied {
                return Err(lacking(&format!("--interface {name}"), "CAP_NET_RAW", &error));
            }
            warnings.push(format!("--interface {name} cannot be used at present: {error}"));
        }
        let mark = Egress { mark: self.mark, ..Egress::default() };
        if let (Some(mark), Err(error)) = (self.mark, mark.prepare(&socket)) {
            return Err(lacking(&format!("--mark {mark}"), "CAP_NET_ADMIN", &error));
        }
        Ok(warnings)
    }

    /// Gives `socket` the interface and the mark, before it is bound or connected.
    ///
    /// # Errors
    ///
    /// `PermissionDenied` without `CAP_NET_RAW` for an interface (before Linux 5.7) or
    /// `CAP_NET_ADMIN` for a mark; no such device where there is no such interface.
    #[cfg(target_os = "linux")]
    pub fn prepare(&self, socket: &Socket) -> io::Result<()> {
        if let Some(interface) = &self.interface {
            socket.bind_device(Some(interface.as_str().as_bytes()))?;
        }
        if let Some(mark) = self.mark {
            socket.set_mark(mark)?;
        }
        Ok(())
    }

    /// The same, where the system can do neither.
    #[cfg(not(target_os = "linux"))]
    pub fn prepare(&self, _socket: &Socket) -> io::Result<()> {
        let is_plain = self.interface.is_none() && self.mark.is_none();
        is_plain.then_some(()).ok_or_else(|| ErrorKind::Unsupported.into())
    }

    /// The same for what goes to `target`: what is for this machine itself leaves by no interface.
    pub fn towards(self, target: IpAddr) -> Self {
        Egress { interface: self.interface.filter(|_| !stays(target)), ..self }
    }

    /// Makes `socket` leave for `target` as this says, before it is connected.
    ///
    /// # Errors
    ///
    /// Those of [`Egress::prepare`], and when this machine does not have the local address.
    pub fn bind(&self, socket: &Socket, target: SocketAddr) -> io::Result<()> {
        self.towards(target.ip()).prepare(socket)?;
        let Some(local) = self.of(target) else { return Ok(()) };
        // A port that is chosen now is taken for every target at once. Chosen by connect(2), it is
        // taken for this target alone. Linux before 4.2 cannot do that.
        #[cfg(target_os = "linux")]
        let _ = setsockopt(socket, IpBindAddressNoPort, &true);
        socket.bind(&local.into())
    }
}

/// Whether what goes to `target` stays on this machine.
pub(super) fn stays(target: IpAddr) -> bool {
    is_this_machine(target) || routing::is_local(target) == Some(true)
}

fn lacking(option: &str, capability: &str, error: &io::Error) -> io::Error {
    let message = format!("{option}: {error}; it needs the capability {capability}");
    io::Error::new(error.kind(), message)
}

/// The name of a network interface, as in `wg0`, and zeros behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interface([u8; MAX_INTERFACE]);

impl Interface {
    /// Takes a name, if an interface can have it. Whether there is such an interface is not asked.
    pub fn new(name: &str) -> Option<Self> {
        let is_plain = name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/');
        if !is_plain || !(1..=MAX_INTERFACE).contains(&name.len()) {
            return None;
        }
        let mut bytes = [0; MAX_INTERFACE];
        bytes[..name.len()].copy_from_slice(name.as_bytes());
        Some(Interface(bytes))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("it is ASCII").trim_end_matches('\0')
    }
}

impl fmt::Display for Interface {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn same(control: &str) -> Egress {
        let same = Egress { same: true, ..Egress::default() };
        same.for_client_at(format!("{control}:1080").parse().unwrap())
    }

    #[test]
    fn the_same_address_is_one_that_others_can_answer() {
        let ipv4: Option<IpAddr> = "192.0.2.7".parse().ok();
        assert_eq!((same("192.0.2.7").ipv4, same("192.0.2.7").ipv6), (ipv4, None));
        assert_eq!(
            (same("[::ffff:192.0.2.7]").ipv4, same("[::ffff:192.0.2.7]").ipv6),
            (ipv4, None)
        );
        let ipv6 = "2001:db8::7".parse().ok();
        assert_eq!((same("[2001:db8::7]").ipv4, same("[2001:db8::7]").ipv6), (None, ipv6));
        for nowhere in ["127.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "169.254.1.1", "[fe80::1]"] {
            assert_eq!((same(nowhere).ipv4, same(nowhere).ipv6), (None, None), "{nowhere}");
        }
        let fixed = Egress { ipv4, ..Egress::default() };
        assert_eq!(fixed.for_client_at("198.51.100.1:1080".parse().unwrap()), fixed);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_port_is_taken_only_for_the_target_that_is_connected_to() {
        let (ipv4, ipv6) = ("127.0.0.1".parse().ok(), "::1".parse().ok());
        let egress = Egress { ipv4, ipv6, ..Egress::default() };
        for target in ["127.0.0.1:9", "[::1]:9"].map(|target| target.parse().unwrap()) {
            let socket = Socket::new(Domain::for_address(target), Type::STREAM, None).unwrap();
            match egress.bind(&socket, target) {
                Err(_) if target.is_ipv6() => eprintln!("this machine has no IPv6"),
                bound => bound.unwrap(),
            }
            assert_eq!(socket.local_addr().unwrap().as_socket().unwrap().port(), 0, "{target}");
        }
    }

    #[test]
    fn what_can_be_the_name_of_an_interface() {
        for name in ["wg0", "eth0.100", "enp0s31f6", "abcdefghijklmno"] {
            assert_eq!(Interface::new(name).unwrap().as_str(), name);
        }
        for name in ["", "abcdefghijklmnop", "a b", "a/b", "w\u{fc}", "a\0b"] {
            assert!(Interface::new(name).is_none(), "{name}");
        }
    }
}
