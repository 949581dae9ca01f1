//! Sockets that listen, and what to do when one cannot.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use log::info;
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::inherited::{OWN, Owner};
use crate::commands::families;
use crate::relay;
#[cfg(target_os = "linux")]
use crate::system::queue::backlog;
use crate::system::shared_wait::SharedWait;

/// Clients that the kernel keeps waiting until they are accepted; it may allow fewer.
pub(super) const BACKLOG: usize = 4096;

/// How many clients wait to be accepted is not known here.
#[cfg(not(target_os = "linux"))]
fn backlog(_: &TcpListener) -> Option<u32> {
    None
}

/// A client that has been accepted, and where it is.
pub(super) type Accepted = (TcpStream, SocketAddr);

/// A socket at which clients come in.
pub(super) struct Listener {
    socket: TcpListener,
    pub(super) owner: Owner,
    wait: SharedWait,
}

impl Listener {
    /// # Errors
    ///
    /// When the system has no further descriptors.
    fn new(socket: TcpListener, owner: Owner) -> io::Result<Self> {
        // Another process that has the socket may be faster.
        socket.set_nonblocking(true)?;
        Ok(Listener { wait: SharedWait::new(&socket)?, socket, owner })
    }

    /// The name and the socket for a process that takes over.
    pub(super) fn to_hand_over(&self) -> (&'static str, BorrowedFd<'_>) {
        let name = if self.owner == Owner::Tabi { OWN } else { "" };
        (name, self.socket.as_fd())
    }

    /// How many clients wait to be accepted, as far as the system tells.
    pub(super) fn backlog(&self) -> usize {
        backlog(&self.socket).map_or(0, |count| count as usize)
    }

    /// Waits for a client.
    ///
    /// # Errors
    ///
    /// The error of `accept(2)`, or any other after [`Listener::close`].
    pub(super) fn accept(&self) -> io::Result<Accepted> {
        while self.wait.wait(&self.socket)? {
            let accepted = self.accept_pending();
            self.wait.next(&self.socket);
            if !matches!(&accepted, Err(error) if error.kind() == io::ErrorKind::WouldBlock) {
                return accepted;
            }
        }
        Err(io::ErrorKind::NotConnected.into())
    }

    /// Accepts a client that has connected already.
    ///
    /// # Errors
    ///
    /// The error of `accept(2)`; `WouldBlock` where there is none.
    pub(super) fn accept_pending(&self) -> io::Result<Accepted> {
        let client = self.socket.accept()?;
        if cfg!(not(target_os = "linux")) {
            // There it does not wait either where its listener does not.
            client.0.set_nonblocking(false)?;
        }
        Ok(client)
    }

    /// Lets nobody new in. Where the socket outlives this server, this wakes those who wait for a
    /// client; who has connected already is the next server's. Otherwise the system ignores those who
    /// begin to connect from now on, and who has begun already comes through: see
    /// [`drain`](super::shutdown::drain). Where it cannot do that, clients get in until the socket is
    /// closed, a moment later.
    pub(super) fn stop(&self) {
        if self.owner == Owner::Manager {
            self.leave();
        } else {
            #[cfg(target_os = "linux")]
            let _ = SockRef::from(&self.socket).attach_filter(&filter::NO_FIRST_SEGMENT);
        }
    }

    /// Wakes those who wait for a client: another process has the socket, too.
    pub(super) fn leave(&self) {
        self.wait.end();
    }

    /// Closes a port of our own and wakes those who wait for a client.
    pub(super) fn close(&self) {
        if self.owner == Owner::Tabi {
            let _ = SockRef::from(&self.socket).shutdown(Shutdown::Both);
            self.wait.end();
        }
    }
}

#[cfg(target_os = "linux")]
mod filter {
    use socket2::SockFilter;

    /// Where a TCP segment has its flags, and those of the first segment of a connection: SYN
    /// without ACK (RFC 9293 section 3.1).
    const FLAGS: u32 = 13;
    const SYN: u32 = 0x02;
    const ACK: u32 = 0x10;

    /// A program for the kernel (`linux/filter.h`) that is run on every segment for the listener. It
    /// drops those that begin a connection.
    pub(super) const NO_FIRST_SEGMENT: [SockFilter; 5] = [
        // ldb [FLAGS]
        SockFilter::new(0x30, 0, 0, FLAGS),
        // and #SYN|ACK
        SockFilter::new(0x54, 0, 0, SYN | ACK),
        // jeq #SYN: the next one, or the one behind it
        SockFilter::new(0x15, 0, 1, SYN),
        // ret #0: none of its bytes
        SockFilter::new(0x06, 0, 0, 0),
        // ret #-1: all of its bytes
        SockFilter::new(0x06, 0, 0, u32::MAX),
    ];
}

/// Takes the sockets that were `inherited`, or else listens on each of `addresses`. Gives back
/// the addresses as they are, too, which the log tells.
///
/// # Errors
///
/// Those of [`listen`], and when an option of a socket cannot be set.
pub(super) fn open(
    inherited: Vec<(TcpListener, Owner)>,
    addresses: &[SocketAddr],
) -> io::Result<(Vec<Arc<Listener>>, Vec<SocketAddr>)> {
    let whose = match inherited.first() {
        None => "",
        Some((_, Owner::Tabi)) => " (handed over by the process before)",
        Some((_, Owner::Manager)) => " (handed over, instead of LISTEN)",
    };
    let listeners = if inherited.is_empty() {
        addresses.iter().map(|&address| listen(address)).collect::<io::Result<Vec<_>>>()?
    } else {
        let listener = |(socket, owner)| {
            relay::prepare(&socket);
            Listener::new(socket, owner)
        };
        inherited.into_iter().map(listener).collect::<io::Result<Vec<_>>>()?
    };
    let mut addresses = Vec::new();
    for listener in &listeners {
        let address = listener.socket.local_addr()?;
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
    let socket = match listen_exactly(address, every) {
        Err(error) if every && families::is_lacking(&error) => {
            listen_exactly((Ipv4Addr::UNSPECIFIED, address.port()).into(), false)
        }
        result => result,
    };
    let listener = socket.and_then(|socket| Listener::new(socket, Owner::Tabi));
    listener.map_err(|error| explain(address, &error))
}

fn listen_exactly(address: SocketAddr, dual_stack: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(!dual_stack)?;
    }
    // A restart must not wait until the last connections of the earlier process have timed out.
    socket.set_reuse_address(true)?;
    relay::prepare(&socket);
    socket.bind(&address.into())?;
    socket.listen(i32::try_from(BACKLOG).unwrap_or(i32::MAX))?;
    Ok(socket.into())
}

fn explain(address: SocketAddr, error: &io::Error) -> io::Error {
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
