//! The socket of an association towards its client.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::ops::RangeInclusive;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::net::connect_unspec;
use socket2::SockRef;

use super::batch::Batch;
use super::inner_port::InnerPort;
use super::socket;
use crate::commands::egress::Egress;
use crate::system::interfaces::source_towards;
use crate::system::ip::unspecified_like;
use crate::system::packet_info;

/// The socket towards the client, non-blocking.
pub(super) struct Inside {
    socket: UdpSocket,
    reached: Reached,
    /// It is connected to the client, so that the kernel drops what others send.
    is_connected: bool,
    _port: InnerPort,
}

/// At which address the client reaches the socket. It expects replies from there.
enum Reached {
    /// The one to which the socket is bound.
    Bound,
    /// One of all addresses: that of the latest datagram, once one has come.
    Any(Option<IpAddr>),
}

impl Inside {
    /// A socket on a free port of `told`, one of `ports` if they are given; of every address of its family
    /// where `told` is none of this machine's, and somebody else passes on what comes there.
    pub(super) fn open(told: SocketAddr, ports: Option<&RangeInclusive<u16>>) -> io::Result<Self> {
        // A link-local address alone names no interface: to bind it is invalid.
        const NOT_OURS: [ErrorKind; 2] = [ErrorKind::AddrNotAvailable, ErrorKind::InvalidInput];
        let (socket, reached) = match bind(told, ports) {
            Err(error) if NOT_OURS.contains(&error.kind()) => {
                let socket = bind((unspecified_like(told.ip()), 0).into(), ports)?;
                packet_info::receive(&socket)?;
                (socket, Reached::Any(None))
            }
            socket => (socket?, Reached::Bound),
        };
        let port = InnerPort::new(socket.local_addr()?.port());
        Ok(Inside { socket, reached, is_connected: false, _port: port })
    }

    pub(super) fn port(&self) -> io::Result<u16> {
        Ok(self.socket.local_addr()?.port())
    }

    /// Takes what waits in the socket. While it is to be found out at which address `client` reaches it,
    /// this is one datagram at a time. True if the client has said that nobody is at the port to which this
    /// is connected.
    pub(super) fn receive(&mut self, batch: &mut Batch, client: IpAddr, is_settled: bool) -> bool {
        match &mut self.reached {
            Reached::Any(latest) if !is_settled => {
                if let Ok((from, to)) = packet_info::peek(&self.socket) {
                    if from.ip() == client {
                        *latest = Some(to);
                    }
                }
                batch.receive(&self.socket, 1)
            }
            _ => batch.receive(&self.socket, usize::MAX),
        }
    }

    /// Keeps to `client` from now on. Connecting chooses the local address by the routes: where the client
    /// expects another one the socket stays as it is, and senders are told apart by their addresses alone.
    pub(super) fn settle(&mut self, client: SocketAddr) -> io::Result<()> {
        let is_right = match self.reached {
            Reached::Bound => true,
            Reached::Any(reached) => reached.is_some() && reached == source_towards(client),
        };
        if is_right {
            self.socket.connect(client)?;
        }
        self.is_connected = is_right;
        Ok(())
    }

    /// Hears every port of the client again.
    pub(super) fn unsettle(&mut self) -> io::Result<()> {
        if self.is_connected {
            let local = self.socket.local_addr()?;
            connect_unspec(&self.socket)?;
            self.is_connected = false;
            if self.port()? == 0 {
                // Linux lets go of a port that it has chosen itself.
                SockRef::from(&self.socket).bind(&local.into())?;
            }
        }
        Ok(())
    }

    /// Sends the client a datagram.
    pub(super) fn send(&self, bytes: &[u8], client: SocketAddr) -> io::Result<()> {
        match self.reached {
            _ if self.is_connected => self.socket.send(bytes).map(drop),
            Reached::Any(Some(ip)) => packet_info::send(&self.socket, bytes, ip, client),
            Reached::Any(None) | Reached::Bound => self.socket.send_to(bytes, client).map(drop),
        }
    }
}

impl AsFd for Inside {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn bind(mut local: SocketAddr, ports: Option<&RangeInclusive<u16>>) -> io::Result<UdpSocket> {
    let Some(ports) = ports else {
        local.set_port(0);
        return socket::bind(local, false, Egress::default());
    };
    let socket = socket::unbound(local, false, Egress::default())?;
    // A client's port is not to be guessed by others, and its key makes each hasher another one.
    let chosen = RandomState::new().build_hasher().finish();
    let first = usize::try_from(chosen % (ports.len().max(1) as u64)).unwrap_or(0);
    for port in ports.clone().skip(first).chain(ports.clone().take(first)) {
        local.set_port(port);
        match socket.bind(&local.into()) {
            Err(error) if error.kind() == ErrorKind::AddrInUse => {}
            bound => return bound.map(|()| socket.into()),
        }
    }
    Err(ErrorKind::AddrInUse.into())
}
