//! Sockets with limits: listeners, connections from a chosen address, free ports.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Socket, Type};

/// No answer on loopback takes this long, so one that does is a failure.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// A listener of one family alone, with room for so many connections that nobody has accepted yet.
pub(crate) fn listen(address: impl Into<SocketAddr>, backlog: i32) -> io::Result<TcpListener> {
    let address = address.into();
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // Accepted sockets inherit this from their listener.
    socket.set_tcp_nodelay(true)?;
    socket.bind(&address.into())?;
    socket.listen(backlog)?;
    Ok(socket.into())
}

/// A connection from this address. It is not waited for longer than `patience`, and no read and no
/// write afterwards.
pub(crate) fn dial(from: Ipv4Addr, to: SocketAddr, patience: Duration) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    if from != Ipv4Addr::LOCALHOST {
        // The port is picked at connect, where one may be in use towards several destinations.
        setsockopt(&socket, sockopt::IpBindAddressNoPort, &true)?;
        socket.bind(&SocketAddr::from((from, 0)).into())?;
    }
    socket.set_read_timeout(Some(patience))?;
    socket.set_write_timeout(Some(patience))?;
    match socket.connect(&to.into()) {
        // What connect(2) says when the time for writing is over.
        Err(error) if error.raw_os_error() == Some(Errno::EINPROGRESS as i32) => {
            Err(io::ErrorKind::TimedOut.into())
        }
        outcome => outcome.map(|()| socket.into()),
    }
}

/// A loopback address below the ports that outgoing connections use, and never the same twice in a run.
pub(crate) fn free_address() -> io::Result<SocketAddr> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let offset = u16::try_from(std::process::id() % 100).unwrap_or_default() * 100;
    for _ in 0..10_000 {
        let port = 20_000 + (offset + NEXT.fetch_add(1, Ordering::Relaxed)) % 12_000;
        if let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            return listener.local_addr();
        }
    }
    Err(io::Error::other("no free port"))
}
