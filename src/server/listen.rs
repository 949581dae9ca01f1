//! Sockets that listen, and what is told when one cannot.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

use crate::relay;

/// Clients that the kernel keeps waiting until they are accepted; it may allow fewer.
pub(super) const BACKLOG: usize = 4096;

/// Listens on `address`. The unspecified IPv6 address takes IPv4 as well, and IPv4 alone where
/// there is no IPv6.
///
/// # Errors
///
/// The error of `bind(2)` or `listen(2)`, with the address and what to do.
pub(super) fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let every = address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED);
    let listener = match listen_exactly(address, every) {
        Err(error) if every && is_without_ipv6(&error) => {
            listen_exactly((Ipv4Addr::UNSPECIFIED, address.port()).into(), false)
        }
        result => result,
    };
    listener.map_err(|error| told(address, &error))
}

fn listen_exactly(address: SocketAddr, dual_stack: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(!dual_stack)?;
    }
    // A restart must not wait until the last connections of the earlier process have timed out.
    socket.set_reuse_address(true)?;
    relay::prepare(&socket)?;
    socket.bind(&address.into())?;
    socket.listen(i32::try_from(BACKLOG).unwrap_or(i32::MAX))?;
    Ok(socket.into())
}

fn is_without_ipv6(error: &io::Error) -> bool {
    const NO_FAMILY: i32 = rustix::io::Errno::AFNOSUPPORT.raw_os_error();
    error.raw_os_error() == Some(NO_FAMILY) || error.kind() == io::ErrorKind::AddrNotAvailable
}

fn told(address: SocketAddr, error: &io::Error) -> io::Error {
    let hint = match error.kind() {
        io::ErrorKind::AddrInUse => "another program listens there; stop it or choose another port",
        io::ErrorKind::AddrNotAvailable => "this machine has no such address",
        io::ErrorKind::PermissionDenied => "ports below 1024 need privileges; choose another port",
        _ => "see the system's message",
    };
    io::Error::new(error.kind(), format!("cannot listen on {address}: {error}; {hint}"))
}

/// What listening on `address` means, where the address does not say it.
pub(super) fn scope(address: IpAddr) -> &'static str {
    match address {
        IpAddr::V6(ip) if ip.is_unspecified() => ", every address of IPv6 and IPv4",
        IpAddr::V4(ip) if ip.is_unspecified() => ", every address of IPv4",
        _ => "",
    }
}
