//! Sockets that listen, and what is told when one cannot.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;

use log::info;
use rustix::event::{PollFd, PollFlags, poll};
use socket2::{Domain, Protocol, Socket, Type};

use super::close;
use crate::commands::families;
use crate::relay;
use crate::system::waker::Waker;

/// Clients that the kernel keeps waiting until they are accepted; it may allow fewer.
pub(super) const BACKLOG: usize = 4096;

/// A socket at which clients come in.
pub(super) struct Listener {
    socket: TcpListener,
    /// How those who wait at a socket that outlives this server learn of its end.
    end: Option<Waker>,
}

impl Listener {
    /// Takes a socket that was handed over. Whoever has handed it over goes on with it, and clients
    /// that come between two servers wait in its backlog: it is never shut.
    ///
    /// # Errors
    ///
    /// When its options cannot be set or the system has no further descriptors.
    fn handed_over(socket: TcpListener) -> io::Result<Self> {
        relay::prepare(&socket)?;
        // Another worker, or another server, may be faster.
        socket.set_nonblocking(true)?;
        Ok(Listener { socket, end: Some(Waker::new()?) })
    }

    /// Whether the socket outlives this server.
    pub(super) fn outlives(&self) -> bool {
        self.end.is_some()
    }

    /// Waits for a client.
    ///
    /// # Errors
    ///
    /// The error of `accept(2)`, or any other after [`Listener::close`].
    pub(super) fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        let Some(end) = &self.end else { return self.socket.accept() };
        loop {
            let mut polled =
                [PollFd::new(end, PollFlags::IN), PollFd::new(&self.socket, PollFlags::IN)];
            poll(&mut polled, None)?;
            if !polled[0].revents().is_empty() {
                return Err(io::ErrorKind::NotConnected.into());
            }
            match self.socket.accept() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                accepted => {
                    #[cfg(not(target_os = "linux"))]
                    accepted
                        .as_ref()
                        .map_or(Ok(()), |(stream, _)| stream.set_nonblocking(false))?;
                    return accepted;
                }
            }
        }
    }

    /// Lets nobody new in. Where the socket outlives this server, this wakes those who wait for a
    /// client; who has connected already is the next server's. Otherwise it is ours, see
    /// [`Listener::own`].
    pub(super) fn stop(&self) {
        match &self.end {
            Some(end) => end.wake(),
            None => close::let_nobody_begin(&self.socket),
        }
    }

    /// The socket, unless it outlives this server.
    pub(super) fn own(&self) -> Option<&TcpListener> {
        (!self.outlives()).then_some(&self.socket)
    }

    /// Closes a port of our own and wakes the threads that are blocked in `accept`.
    pub(super) fn close(&self) {
        if let Some(socket) = self.own() {
            close::close(socket);
        }
    }
}

/// Takes the sockets that were `handed` over, or else listens on each of `addresses`. Gives back
/// the addresses as they are, too, which the log tells.
///
/// # Errors
///
/// Those of [`Listener::handed_over`] and [`listen`].
pub(super) fn open(
    handed: Vec<TcpListener>,
    addresses: &[SocketAddr],
) -> io::Result<(Vec<Arc<Listener>>, Vec<SocketAddr>)> {
    let listeners = if handed.is_empty() {
        addresses.iter().map(|&address| listen(address)).collect::<io::Result<Vec<_>>>()?
    } else {
        handed.into_iter().map(Listener::handed_over).collect::<io::Result<Vec<_>>>()?
    };
    let mut addresses = Vec::new();
    for listener in &listeners {
        let address = listener.socket.local_addr()?;
        let whose = if listener.outlives() { " (handed over, instead of LISTEN)" } else { "" };
        info!("listening on {address}{}{whose}", scope(address.ip()));
        addresses.push(address);
    }
    Ok((listeners.into_iter().map(Arc::new).collect(), addresses))
}

/// Listens on `address`. The unspecified IPv6 address takes IPv4 as well, and IPv4 alone where
/// there is no IPv6.
///
/// # Errors
///
/// The error of `bind(2)` or `listen(2)`, with the address and what to do.
fn listen(address: SocketAddr) -> io::Result<Listener> {
    let every = address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED);
    let listener = match listen_exactly(address, every) {
        Err(error) if every && families::is_lacking(&error) => {
            listen_exactly((Ipv4Addr::UNSPECIFIED, address.port()).into(), false)
        }
        result => result,
    };
    match listener {
        Ok(socket) => Ok(Listener { socket, end: None }),
        Err(error) => Err(told(address, &error)),
    }
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

fn told(address: SocketAddr, error: &io::Error) -> io::Error {
    let hint = match error.kind() {
        io::ErrorKind::AddrInUse => {
            "another program listens there, which `ss -ltnp` names: stop it, or choose another port, as \
             in `tabi 1081`"
        }
        io::ErrorKind::AddrNotAvailable => {
            "this machine has no such address; `ip address` lists those that it has"
        }
        io::ErrorKind::PermissionDenied => {
            "ports below 1024 need privileges: choose another port, as in `tabi 1080`"
        }
        _ => "see the system's message",
    };
    io::Error::new(error.kind(), format!("cannot listen on {address}: {error}; {hint}"))
}

/// What listening on `address` means, where the address does not say it.
fn scope(address: IpAddr) -> &'static str {
    match address {
        IpAddr::V6(ip) if ip.is_unspecified() => ", every address of IPv6 and IPv4",
        IpAddr::V4(ip) if ip.is_unspecified() => ", every address of IPv4",
        _ => "",
    }
}
