//! The client's side of a UDP association.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream, UdpSocket};
use std::time::Duration;

use crate::contender::Running;
use crate::socks;

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
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        socket.set_read_timeout(Some(TOO_LATE))?;
        let Some(proxy) = proxy.address else {
            socket.connect(target)?;
            return Ok(Association { _control: None, socket, datagram: vec![0x5a; size] });
        };
        let mut control = TcpStream::connect(proxy.address)?;
        control.set_read_timeout(Some(socks::PATIENCE))?;
        let unknown = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0);
        let relay = socks::negotiate(&mut control, proxy.users, socks::ASSOCIATE, unknown.into())?
            .ok_or_else(|| io::Error::other("the relay is not at an IPv4 address"))?;
        let host = if relay.ip().is_unspecified() { &Ipv4Addr::LOCALHOST } else { relay.ip() };
        socket.connect((*host, relay.port()))?;
        let mut datagram = vec![0x00, 0x00, 0x00, 0x01];
        datagram.extend_from_slice(&target.ip().octets());
        datagram.extend_from_slice(&target.port().to_be_bytes());
        datagram.resize(datagram.len() + size, 0x5a);
        Ok(Association { _control: Some(control), socket, datagram })
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
