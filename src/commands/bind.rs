//! BIND: one listener, two replies, one expected peer (RFC 1928 section 4).

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Instant;

use socket2::{Domain, Protocol, Socket, Type};

use crate::access::policy::Permit;
use crate::commands::client_watch::{ClientWatch, WaitOutcome, wait_for};
use crate::commands::connect::Error;
use crate::commands::egress::Egress;

/// Peers that the kernel keeps while the earlier ones are looked at. One is expected.
const BACKLOG: i32 = 16;

/// Asked for the route to a peer, the system wants a port; nothing is sent there.
const ANY_PORT: u16 = 9;

/// A listener for one peer. It closes when it is dropped.
pub(crate) struct BindListener {
    listener: TcpListener,
    bound: SocketAddr,
    /// Who may come. With none, anyone may whom the rules admit.
    expected: Vec<IpAddr>,
}

impl BindListener {
    /// Listens on the address from which this machine reaches the permitted peer. A permit without
    /// addresses is for any peer, and the address is then that of the client's connection here,
    /// `control`. The `source` of the address's family goes before both, and its interface and mark
    /// are the listener's.
    ///
    /// # Errors
    ///
    /// [`Error::Unreachable`] when no permitted peer has a route, or the system has no listener to
    /// give.
    pub(crate) fn open(
        permit: &Permit,
        source: Egress,
        control: SocketAddr,
    ) -> Result<Self, Error> {
        let expected: Vec<IpAddr> =
            permit.addresses().iter().map(|address| address.ip().to_canonical()).collect();
        let local = match permit.addresses() {
            [] => Ok(source.of(control).unwrap_or(control)),
            peers => local_address(peers, source),
        };
        let (listener, bound) =
            local.and_then(|local| listen(local, source)).map_err(Error::Unreachable)?;
        Ok(BindListener { listener, bound, expected })
    }

    /// The address to which the peer is to connect.
    pub(crate) fn bound(&self) -> SocketAddr {
        self.bound
    }

    /// Waits for the expected peer. Others, and those whom `admits` does not let in, are closed.
    ///
    /// # Errors
    ///
    /// [`Error::Unreachable`] with `TimedOut` when nobody has come by `deadline`,
    /// [`Error::ClientLeft`] when `client` has gone.
    pub(crate) fn wait(
        &self,
        client: &ClientWatch<'_>,
        deadline: Instant,
        mut admits: impl FnMut(SocketAddr) -> bool,
    ) -> Result<(TcpStream, SocketAddr), Error> {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Error::Unreachable(ErrorKind::TimedOut.into()));
            }
            let news = wait_for(&self.listener, Some(client), left).map_err(Error::Unreachable)?;
            if news == WaitOutcome::ClientLeft {
                return Err(Error::ClientLeft);
            }
            let Some((stream, peer)) = self.accept().map_err(Error::Unreachable)? else { continue };
            let expected = self.expected.is_empty() || self.expected.contains(&peer.ip());
            if expected && admits(peer) {
                return Ok((stream, peer));
            }
        }
    }

    fn accept(&self) -> io::Result<Option<(TcpStream, SocketAddr)>> {
        match self.listener.accept() {
            Ok((stream, peer)) => {
                stream.set_nonblocking(false)?;
                Ok(Some((stream, SocketAddr::new(peer.ip().to_canonical(), peer.port()))))
            }
            Err(error) => match error.kind() {
                // This one has gone again; another may come.
                ErrorKind::WouldBlock | ErrorKind::Interrupted | ErrorKind::ConnectionAborted => {
                    Ok(None)
                }
                _ => Err(error),
            },
        }
    }
}

/// The local address of the route to the first of `peers` that has one.
fn local_address(peers: &[SocketAddr], source: Egress) -> io::Result<SocketAddr> {
    let mut failure = None;
    for peer in peers {
        match route(*peer, source) {
            Ok(local) => return Ok(local),
            Err(error) => failure = failure.or(Some(error)),
        }
    }
    Err(failure.unwrap_or_else(|| ErrorKind::AddrNotAvailable.into()))
}

/// The local address of the route to `peer`. Connecting a UDP socket finds it and sends nothing.
fn route(peer: SocketAddr, source: Egress) -> io::Result<SocketAddr> {
    let socket = Socket::new(Domain::for_address(peer), Type::DGRAM, Some(Protocol::UDP))?;
    source.prepare(&socket)?;
    socket.bind(&source.of(peer).unwrap_or_else(|| unspecified(peer)).into())?;
    let socket = UdpSocket::from(socket);
    let port = if peer.port() == 0 { ANY_PORT } else { peer.port() };
    socket.connect(SocketAddr::new(peer.ip(), port))?;
    socket.local_addr()
}

fn unspecified(peer: SocketAddr) -> SocketAddr {
    match peer {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    }
}

/// Listens on a free port of `local`.
fn listen(mut local: SocketAddr, source: Egress) -> io::Result<(TcpListener, SocketAddr)> {
    local.set_port(0);
    let socket = Socket::new(Domain::for_address(local), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    source.prepare(&socket)?;
    socket.bind(&local.into())?;
    socket.listen(BACKLOG)?;
    let listener = TcpListener::from(socket);
    let bound = listener.local_addr()?;
    Ok((listener, bound))
}
