//! BIND: one listener, two replies, one expected peer (RFC 1928 section 4).

use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};

use socket2::{Domain, Protocol, Socket, Type};

use super::client_watch::{ClientWatch, wait_for};
use super::egress::Egress;
use super::error::Error;
use crate::access::policy::Permit;
use crate::system::deadline::Deadline;
use crate::system::ip::{canonical, unspecified_like};

/// Peers that the kernel keeps while the earlier ones are looked at. One is expected.
const BACKLOG: i32 = 16;

/// Asked for the route to a peer, the system wants a port; nothing is sent there.
const ANY_PORT: u16 = 9;

/// A listener for one peer. It closes when it is dropped.
pub(crate) struct BindListener {
    listener: TcpListener,
    /// The address to which the peer is to connect.
    pub(crate) bound: SocketAddr,
    /// Who may come. With none, anyone may whom the rules admit.
    expected: Vec<IpAddr>,
}

impl BindListener {
    /// Listens on the address from which this machine reaches the permitted peer. A permit without
    /// addresses is for any peer, and the address is then that of the client's connection here,
    /// `control`. The local address of `egress` goes before both, and its interface and mark are the
    /// listener's.
    ///
    /// # Errors
    ///
    /// When no permitted peer has a route, or the system refuses the listener.
    pub(crate) fn open(
        permit: &Permit,
        egress: Egress,
        control: SocketAddr,
    ) -> Result<Self, Error> {
        let (local, egress) = match permit.addresses() {
            [] => (egress.of(control).unwrap_or(control), egress),
            peers => local_address(peers, egress)?,
        };
        let listener = listen(local, egress)?;
        let bound = listener.local_addr()?;
        let expected = permit.addresses().iter().map(|peer| peer.ip().to_canonical()).collect();
        Ok(BindListener { listener, bound, expected })
    }

    /// Waits for the expected peer. Others, and those whom `admits` does not let in, are closed.
    ///
    /// # Errors
    ///
    /// `TimedOut` when nobody has come by `deadline`, and [`Error::ClientLeft`].
    pub(crate) fn wait(
        &self,
        client: &ClientWatch<'_>,
        deadline: Deadline,
        mut admits: impl FnMut(SocketAddr) -> bool,
    ) -> Result<(TcpStream, SocketAddr), Error> {
        loop {
            wait_for(&self.listener, client, deadline)
                .map_err(|error| error.timed_out("no peer has come"))?;
            let Some((stream, peer)) = self.accept()? else { continue };
            let is_expected = self.expected.is_empty() || self.expected.contains(&peer.ip());
            if is_expected && admits(peer) {
                return Ok((stream, peer));
            }
        }
    }

    fn accept(&self) -> io::Result<Option<(TcpStream, SocketAddr)>> {
        match self.listener.accept() {
            Ok((stream, peer)) => {
                stream.set_nonblocking(false)?;
                Ok(Some((stream, canonical(peer))))
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

/// The local address of the route to the first of `peers` that has one, and what of `egress` is for it.
fn local_address(peers: &[SocketAddr], egress: Egress) -> io::Result<(SocketAddr, Egress)> {
    let route = |peer: &SocketAddr| {
        let egress = egress.towards(peer.ip());
        route(*peer, egress).map(|local| (local, egress))
    };
    let mut routes = peers.iter().map(route);
    let first = routes.next().unwrap_or_else(|| Err(ErrorKind::AddrNotAvailable.into()));
    first.or_else(|error| routes.find_map(Result::ok).ok_or(error))
}

/// The local address of the route to `peer`. Connecting a UDP socket finds it and sends nothing.
fn route(peer: SocketAddr, egress: Egress) -> io::Result<SocketAddr> {
    let socket = Socket::new(Domain::for_address(peer), Type::DGRAM, Some(Protocol::UDP))?;
    egress.prepare(&socket)?;
    let any = SocketAddr::new(unspecified_like(peer.ip()), 0);
    socket.bind(&egress.of(peer).unwrap_or(any).into())?;
    let socket = UdpSocket::from(socket);
    let port = if peer.port() == 0 { ANY_PORT } else { peer.port() };
    socket.connect(SocketAddr::new(peer.ip(), port))?;
    socket.local_addr()
}

/// Listens on a free port of `local`.
fn listen(mut local: SocketAddr, egress: Egress) -> io::Result<TcpListener> {
    local.set_port(0);
    let socket = Socket::new(Domain::for_address(local), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    egress.prepare(&socket)?;
    socket.bind(&local.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}
