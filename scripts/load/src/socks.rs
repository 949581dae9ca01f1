//! The client's side of SOCKS5: as little as a well-behaved client needs, one message a step.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};

pub(crate) const CONNECT: u8 = 0x01;
pub(crate) const ASSOCIATE: u8 = 0x03;

/// The user and the password, where the proxy asks for them.
pub(crate) const USER: &str = "bench";

/// Where a client asks to be connected to.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Target<'a> {
    Address(SocketAddrV4),
    Name(&'a str, u16),
}

impl From<SocketAddrV4> for Target<'_> {
    fn from(address: SocketAddrV4) -> Self {
        Target::Address(address)
    }
}

/// HOST:PORT, as HTTP has it.
impl fmt::Display for Target<'_> {
    fn fmt(&self, text: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Address(address) => write!(text, "{address}"),
            Target::Name(name, port) => write!(text, "{name}:{port}"),
        }
    }
}

/// Greeting, authentication if there are users, and request. The answer is BND, the bound address,
/// where that is IPv4.
pub(crate) fn negotiate(
    stream: &mut TcpStream,
    users: bool,
    command: u8,
    target: Target<'_>,
) -> io::Result<Option<SocketAddrV4>> {
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
    stream.write_all(&request(command, target)?)?;
    let mut reply = [0; 10];
    stream.read_exact(&mut reply)?;
    match reply {
        [0x05, 0x00, _, 0x01, a, b, c, d, high, low] => {
            let port = u16::from_be_bytes([high, low]);
            Ok(Some(SocketAddrV4::new(Ipv4Addr::new(a, b, c, d), port)))
        }
        [0x05, 0x00, _, 0x04, ..] => {
            // 16 octets of address and 2 of port, of which 6 are here.
            stream.read_exact(&mut [0; 12])?;
            Ok(None)
        }
        reply => Err(io::Error::other(format!("reply {reply:02x?}"))),
    }
}

pub(crate) fn request(command: u8, target: Target<'_>) -> io::Result<Vec<u8>> {
    let mut request = vec![0x05, command, 0x00];
    let port = match target {
        Target::Address(address) => {
            request.push(0x01);
            request.extend_from_slice(&address.ip().octets());
            address.port()
        }
        Target::Name(name, port) => {
            request.extend([0x03, u8::try_from(name.len()).map_err(io::Error::other)?]);
            request.extend_from_slice(name.as_bytes());
            port
        }
    };
    request.extend_from_slice(&port.to_be_bytes());
    Ok(request)
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

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddrV4};

    use super::{CONNECT, Target, request};

    #[test]
    fn a_request_is_that_of_rfc_1928() {
        let address = SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 7), 0x1234);
        let octets = request(CONNECT, address.into()).unwrap();
        assert_eq!(octets, [5, 1, 0, 1, 192, 0, 2, 7, 0x12, 0x34]);
        let octets = request(CONNECT, Target::Name("a.test", 80)).unwrap();
        assert_eq!(octets, *b"\x05\x01\x00\x03\x06a.test\x00\x50");
        assert!(request(CONNECT, Target::Name(&"a".repeat(256), 80)).is_err());
    }
}
