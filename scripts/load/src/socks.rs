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

/// The user and the password, where the proxy asks for them.
pub(crate) const USER: &str = "bench";

/// Where a proxy is, and whether it asks who comes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    pub(crate) users: bool,
}

/// A connection to `target`: through the proxy, or straight to it where there is none.
pub(crate) fn tunnel(proxy: Option<Proxy>, target: SocketAddrV4) -> io::Result<TcpStream> {
    tunnel_from(Ipv4Addr::LOCALHOST, proxy, target)
}

/// The same from a client address of one's own.
pub(crate) fn tunnel_from(
    client: Ipv4Addr,
    proxy: Option<Proxy>,
    target: SocketAddrV4,
) -> io::Result<TcpStream> {
    let Some(proxy) = proxy else {
        return dial(client, target.into());
    };
    let mut stream = dial(client, proxy.address)?;
    negotiate(&mut stream, proxy.users, CONNECT, target)?;
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

/// Greeting, authentication if there are users, and request. The answer is BND, the bound address.
pub(crate) fn negotiate(
    stream: &mut TcpStream,
    users: bool,
    command: u8,
    target: SocketAddrV4,
) -> io::Result<SocketAddrV4> {
    let method = if users { 0x02 } else { 0x00 };
    stream.write_all(&[0x05, 0x01, method])?;
    let mut selection = [0; 2];
    stream.read_exact(&mut selection)?;
    if selection != [0x05, method] {
        return Err(io::Error::other(format!("method selection {selection:02x?}")));
    }
    if users {
        authenticate(stream)?;
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

fn authenticate(stream: &mut TcpStream) -> io::Result<()> {
    let length = u8::try_from(USER.len()).unwrap_or_default();
    let mut message = vec![0x01];
    for _user_and_password in 0..2 {
        message.push(length);
        message.extend_from_slice(USER.as_bytes());
    }
    stream.write_all(&message)?;
    let mut status = [0; 2];
    stream.read_exact(&mut status)?;
    if status != [0x01, 0x00] {
        return Err(io::Error::other(format!("authentication status {status:02x?}")));
    }
    Ok(())
}
