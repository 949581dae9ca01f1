//! How the sockets of an association are made.

use std::io;
use std::net::{SocketAddr, UdpSocket};

use socket2::{Domain, Protocol, Socket, Type};

use crate::commands::egress::Egress;

/// Bytes of datagrams that the kernel may keep until they are received: enough for a burst of 16 of
/// the largest, 64 KiB each. The kernel may allow less (sysctl `net.core.rmem_max`).
const RECEIVE_BUFFER: usize = 1024 * 1024;

/// A socket that is bound to `local`.
pub(super) fn bind(local: SocketAddr, dual_stack: bool, egress: Egress) -> io::Result<UdpSocket> {
    let socket = unbound(local, dual_stack, egress)?;
    socket.bind(&local.into())?;
    Ok(socket.into())
}

/// A socket that is not bound yet, non-blocking.
pub(super) fn unbound(local: SocketAddr, dual_stack: bool, egress: Egress) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(local), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    if local.is_ipv6() {
        socket.set_only_v6(!dual_stack)?;
    }
    socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
    egress.prepare(&socket)?;
    Ok(socket)
}
