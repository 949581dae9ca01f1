//! The sockets of an association towards everyone else, usually one, and how its sockets are made.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};

use socket2::{Domain, Protocol, Socket, Type};

use crate::commands::egress::Egress;
use crate::commands::families;

/// Bytes of datagrams that the kernel may keep until they are received: enough for a burst of 16 of
/// the largest, 64 KiB each. The kernel may allow less (sysctl `net.core.rmem_max`).
const RECEIVE_BUFFER: usize = 1024 * 1024;

/// The sockets that destinations see.
pub(super) struct Outside {
    /// For IPv4, where it has a socket of its own, and for IPv6.
    pub(super) sockets: [Option<UdpSocket>; 2],
    /// The one for IPv6 is for both.
    is_dual_stack: bool,
}

impl Outside {
    /// One socket for both families. Where `egress` binds one of them, each has its own; a family
    /// that this machine lacks has none.
    pub(super) fn open(egress: Egress) -> io::Result<Self> {
        const IPV4: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);
        const IPV6: SocketAddr = SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), 0);
        let (ipv4, ipv6) = (egress.of(IPV4), egress.of(IPV6));
        if ipv4.is_none() && ipv6.is_none() {
            return match bind(IPV6, true, egress) {
                Err(error) if families::is_lacking(&error) => {
                    let sockets = [Some(bind(IPV4, false, egress)?), None];
                    Ok(Outside { sockets, is_dual_stack: false })
                }
                both => Ok(Outside { sockets: [None, Some(both?)], is_dual_stack: true }),
            };
        }
        let open =
            |wanted: Option<SocketAddr>, any| match bind(wanted.unwrap_or(any), false, egress) {
                Err(error) if wanted.is_none() && families::is_lacking(&error) => Ok(None),
                socket => socket.map(Some),
            };
        Ok(Outside { sockets: [open(ipv4, IPV4)?, open(ipv6, IPV6)?], is_dual_stack: false })
    }

    /// Sends `payload` whole or not at all.
    pub(super) fn send(&self, payload: &[u8], target: SocketAddr) -> io::Result<()> {
        let target = match target {
            SocketAddr::V4(ipv4) if self.is_dual_stack => {
                SocketAddrV6::new(ipv4.ip().to_ipv6_mapped(), ipv4.port(), 0, 0).into()
            }
            target => target,
        };
        let socket = self.sockets[usize::from(target.is_ipv6())].as_ref();
        socket.ok_or(ErrorKind::NetworkUnreachable)?.send_to(payload, target).map(drop)
    }
}

/// A socket that is bound to `local`.
pub(super) fn bind(local: SocketAddr, dual_stack: bool, egress: Egress) -> io::Result<UdpSocket> {
    let socket = socket(local, dual_stack, egress)?;
    socket.bind(&local.into())?;
    Ok(socket.into())
}

/// A socket that is not bound yet, non-blocking.
pub(super) fn socket(local: SocketAddr, dual_stack: bool, egress: Egress) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(local), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    if local.is_ipv6() {
        socket.set_only_v6(!dual_stack)?;
    }
    socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
    egress.prepare(&socket)?;
    Ok(socket)
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
