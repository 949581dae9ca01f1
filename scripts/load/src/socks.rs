//! The client's side of SOCKS5: as little as a well-behaved client needs, one message a step.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Socket, Type};

/// No answer on loopback takes this long, so one that does is a failure.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) const CONNECT: u8 = 0x01;
pub(crate) const ASSOCIATE: u8 = 0x03;

/// A connection to `target`: through the proxy, or straight to it where there is none.
pub(crate) fn tunnel(proxy: Option<SocketAddr>, target: SocketAddrV4) -> io::Result<TcpStream> {
    tunnel_from(Ipv4Addr::LOCALHOST, proxy, target)
}

/// The same from a client address of one's own.
pub(crate) fn tunnel_from(
    client: Ipv4Addr,
    proxy: Option<SocketAddr>,
    target: SocketAddrV4,
) -> io::Result<TcpStream> {
    let Some(proxy) = proxy else {
        return dial(client, target.into());
    };
    let mut stream = dial(client, proxy)?;
    negotiate(&mut stream, CONNECT, target)?;
    Ok(stream)
}

fn dial(client: Ipv4Addr, to: SocketAddr) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    if client != Ipv4Addr::LOCALHOST {
        // The port is picked at connect, where one may be in use towards several destinations.
        setsockopt(&socket, sockopt::IpBindAddressNoPort, &true)?;
        socket.bind(&SocketAddr::from((client, 0)).into())?;
    }
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.connect(&to.into())?;
    Ok(socket.into())
}

/// Greeting and request without authentication. The answer is BND, the bound address.
pub(crate) fn negotiate(
    stream: &mut TcpStream,
    command: u8,
    target: SocketAddrV4,
) -> io::Result<SocketAddrV4> {
    stream.write_all(&[0x05, 0x01, 0x00])?;
    let mut method = [0; 2];
    stream.read_exact(&mut method)?;
    if method != [0x05, 0x00] {
        return Err(io::Error::other(format!("method selection {method:02x?}")));
    }
    let mut request = [0x05, command, 0x00, 0x01, 0, 0, 0, 0, 0, 0];
    request[4..8].copy_from_slice(&target.ip().octets());
    request[8..10].copy_from_slice(&target.port().to_be_bytes());
    stream.write_all(&request)?;
    let mut reply = [0; 10];
    stream.read_exact(&mut reply)?;
    let [0x05, 0x00, _, 0x01, a, b, c, d, high, low] = reply else {
        return Err(io::Error::other(format!("reply {reply:02x?}")));
    };
    Ok(SocketAddrV4::new(Ipv4Addr::new(a, b, c, d), u16::from_be_bytes([high, low])))
}
