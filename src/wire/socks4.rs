//! SOCKS4, and `SOCKS4a` with names.
//!
//! ```text
//! client                                              server
//!   | request  04 cd port address user 00 [name 00]     |   a name where the address is 0.0.0.x
//!   |-------------------------------------------------->|
//!   |                    00 5a or 5b port address reply |
//!   |<--------------------------------------------------|
//! ```

use std::fmt;
use std::io::{self, BufRead, ErrorKind, Read};
use std::net::{IpAddr, Ipv4Addr};

use byteorder::{BigEndian, ReadBytesExt};

use super::address::{Address, Host, InvalidName, Name};
use super::refusal::Refusal;
use super::request::{Command, Request};

/// CD of a request.
const CONNECT: u8 = 0x01;
const BIND: u8 = 0x02;

/// CD of a reply. There is hardly more to say than that a request has failed.
const GRANTED: u8 = 0x5a;
const REJECTED: u8 = 0x5b;

/// The longest text, in octets.
const LONGEST: u64 = 255;

/// Why a request could not be read. Every variant but [`Error::Io`] is the client's fault.
#[derive(Debug)]
pub enum Error {
    /// CD is neither CONNECT nor BIND.
    Command(u8),
    /// The user or the name has no end.
    TooLong,
    /// No host can have the name.
    Name(InvalidName),
    /// The stream failed or ended inside the request.
    Io(io::Error),
}

/// Reads VN, CD, the destination and the user, which nobody has proved to be.
pub fn read_request(reader: &mut impl BufRead) -> Result<(Request, Vec<u8>), Error> {
    let _vn = reader.read_u8()?;
    let cd = reader.read_u8()?;
    let port = reader.read_u16::<BigEndian>()?;
    let address = reader.read_u32::<BigEndian>()?;
    let user = read_text(reader)?;
    let host = match address {
        1..=255 => Name::new(read_text(reader)?).map(Host::from).map_err(Error::Name)?,
        address => Host::Ip(Ipv4Addr::from(address).into()),
    };
    let command = match cd {
        CONNECT => Command::Connect,
        BIND => Command::Bind,
        other => return Err(Error::Command(other)),
    };
    Ok((Request { command, destination: Address { host, port } }, user))
}

/// Reads up to a zero.
fn read_text(reader: &mut impl BufRead) -> Result<Vec<u8>, Error> {
    let mut text = Vec::new();
    let length = reader.take(LONGEST + 1).read_until(0, &mut text)?;
    match text.pop() {
        Some(0) => Ok(text),
        _ if length as u64 > LONGEST => Err(Error::TooLong),
        _ => Err(Error::Io(ErrorKind::UnexpectedEof.into())),
    }
}

/// The reply that says where this server is seen. An address that SOCKS4 cannot say is left out: it is the one
/// at which the client has come.
pub fn success(bound: &Address) -> Vec<u8> {
    let ip = match bound.host {
        Host::Ip(IpAddr::V4(ip)) => ip,
        _ => Ipv4Addr::UNSPECIFIED,
    };
    [&[0x00, GRANTED][..], &bound.port.to_be_bytes(), &ip.octets()].concat()
}

/// The reply for each refusal.
pub fn refusal(_: &Refusal) -> Vec<u8> {
    vec![0x00, REJECTED, 0, 0, 0, 0, 0, 0]
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Command(octet) => write!(f, "CD {octet:#04x} is unknown"),
            Error::TooLong => write!(f, "a user or a name is longer than {LONGEST} bytes"),
            Error::Name(name) => name.fmt(f),
            Error::Io(error) => error.fmt(f),
        }
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Error::Io(error)
    }
}
