//! The client's side of a UDP association.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream, UdpSocket};
use std::time::Duration;

use crate::contender::Running;
use crate::sockets::{PATIENCE, dial};
use crate::socks::{ASSOCIATE, negotiate};

/// A datagram that is not back by then is lost.
const TOO_LATE: Duration = Duration::from_millis(250);

/// An association, or without a proxy a socket and nothing more.
pub(crate) struct Association {
    /// The association lives as long as its connection.
    _control: Option<TcpStream>,
    pub(crate) socket: UdpSocket,
    /// The datagram to send, its header included.
    pub(crate) datagram: Vec<u8>,
}

impl Association {
    pub(crate) fn open(
        proxy: &Running,
        target: SocketAddrV4,
        size: usize,
    ) -> io::Result<Association> {
        let mut datagram = vec![0x5a; size];
        let (control, socket) = if let Some(proxy) = proxy.address {
            let mut control = dial(Ipv4Addr::LOCALHOST, proxy.address, PATIENCE)?;
            let socket = associate(&mut control, proxy.users, Ipv4Addr::LOCALHOST, false)?;
            datagram = [header(target).to_vec(), datagram].concat();
            (Some(control), socket)
        } else {
            let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
            socket.connect(target)?;
            (None, socket)
        };
        socket.set_read_timeout(Some(TOO_LATE))?;
        Ok(Association { _control: control, socket, datagram })
    }

    /// One datagram there and back, unchanged. The first may come before the proxy is ready for it.
    pub(crate) fn echo_once(&self) -> io::Result<()> {
        let mut answer = vec![0; self.datagram.len() + 1];
        for _ in 0..8 {
            self.socket.send(&self.datagram)?;
            match self.socket.recv(&mut answer) {
                Ok(length) if answer[..length] == self.datagram => return Ok(()),
                Ok(_) => return Err(io::Error::other("a datagram came back changed")),
                Err(_) => {}
            }
        }
        Err(io::Error::other("no datagram came back"))
    }
}

/// Asks for an association, which lives as long as its connection, and gives back the socket for its
/// datagrams. With `announced` the client says from where it will send, and otherwise that it does
/// not know yet.
pub(crate) fn associate(
    control: &mut TcpStream,
    users: bool,
    client: Ipv4Addr,
    announced: bool,
) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind((client, 0))?;
    let from = match socket.local_addr()? {
        SocketAddr::V4(own) if announced => own,
        _ => SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0),
    };
    let relay = negotiate(control, users, ASSOCIATE, from.into())?
        .ok_or_else(|| io::Error::other("the relay is not at an IPv4 address"))?;
    let host = if relay.ip().is_unspecified() { &Ipv4Addr::LOCALHOST } else { relay.ip() };
    socket.connect((*host, relay.port()))?;
    Ok(socket)
}

/// What is in front of a datagram to this target.
pub(crate) fn header(target: SocketAddrV4) -> [u8; 10] {
    let ([a, b, c, d], [high, low]) = (target.ip().octets(), target.port().to_be_bytes());
    [0x00, 0x00, 0x00, 0x01, a, b, c, d, high, low]
}
