//! The sockets of an association towards everyone else, usually one.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};

use super::socket::bind;
use crate::commands::egress::{self, Egress};
use crate::commands::families;

const IPV4: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);
const IPV6: SocketAddr = SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), 0);

/// The place of the socket for this machine itself.
const HERE: usize = 2;

/// The sockets that destinations see.
pub(super) struct Outside {
    /// For IPv4, where it has a socket of its own; for IPv6, or both families; and for this machine itself,
    /// where the others are bound to an interface.
    pub(super) sockets: [Option<UdpSocket>; 3],
    /// Whether the address of the latest datagram is this machine's, if that was asked.
    stays: Option<(IpAddr, bool)>,
}

impl Outside {
    /// Those that leave as `egress` says.
    pub(super) fn open(egress: Egress) -> io::Result<Self> {
        let [ipv4, ipv6] = open(egress)?;
        let [here_ipv4, here] = match egress.interface {
            Some(_) => open(Egress { mark: egress.mark, ..Egress::default() })?,
            None => [None, None],
        };
        Ok(Outside { sockets: [ipv4, ipv6, here.or(here_ipv4)], stays: None })
    }

    /// Sends `payload` whole or not at all.
    pub(super) fn send(&mut self, payload: &[u8], target: SocketAddr) -> io::Result<()> {
        let [ipv4, ipv6, _] = self.sockets.each_ref().map(Option::is_some);
        let place = match target {
            _ if self.stays(target.ip()) => HERE,
            SocketAddr::V4(_) if ipv4 => 0,
            _ => 1,
        };
        let target = match target {
            // To a socket of IPv6 alone no IPv4 address is reachable.
            SocketAddr::V4(target) if place != 0 && ipv6 => {
                SocketAddrV6::new(target.ip().to_ipv6_mapped(), target.port(), 0, 0).into()
            }
            target => target,
        };
        let socket = self.sockets[place].as_ref();
        socket.ok_or(ErrorKind::NetworkUnreachable)?.send_to(payload, target).map(drop)
    }

    /// Whether the way to `ip` is that of [`HERE`].
    fn stays(&mut self, ip: IpAddr) -> bool {
        if self.sockets[HERE].is_none() {
            return false;
        }
        let known = self.stays.filter(|(latest, _)| *latest == ip);
        self.stays.insert(known.unwrap_or_else(|| (ip, egress::stays(ip)))).1
    }

    /// Asks again which addresses are this machine's.
    pub(super) fn forget(&mut self) {
        self.stays = None;
    }
}

/// One socket for both families, in the place of IPv6. Where `egress` binds one of them, each has its own; a
/// family that this machine lacks has none.
fn open(egress: Egress) -> io::Result<[Option<UdpSocket>; 2]> {
    let (ipv4, ipv6) = (egress.of(IPV4), egress.of(IPV6));
    if ipv4.is_none() && ipv6.is_none() {
        return match bind(IPV6, true, egress) {
            Err(error) if families::is_lacking(&error) => {
                Ok([Some(bind(IPV4, false, egress)?), None])
            }
            both => Ok([None, Some(both?)]),
        };
    }
    let open = |wanted: Option<SocketAddr>, any| match bind(wanted.unwrap_or(any), false, egress) {
        Err(error) if wanted.is_none() && families::is_lacking(&error) => Ok(None),
        socket => socket.map(Some),
    };
    Ok([open(ipv4, IPV4)?, open(ipv6, IPV6)?])
}

/// Whether another address may do where sending to one has failed with this error. With one that is
/// about the datagram, such as its size, no other would.
pub(super) fn is_unreachable(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::NetworkUnreachable
            | ErrorKind::HostUnreachable
            | ErrorKind::NetworkDown
            | ErrorKind::AddrNotAvailable
            | ErrorKind::PermissionDenied
            | ErrorKind::InvalidInput
    )
}
