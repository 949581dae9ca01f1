//! SOCKS4, and `SOCKS4a` with names.
//!
//! ```text
//! client                                              server
//!   | request  04 cd port address user 00 [name 00]     |   a name where the address is 0.0.0.x
//!   |-------------------------------------------------->|
//!   |                    00 5a or 5b port address reply |
//!   |<--------------------------------------------------|
//! ```

use std::io::{self, BufRead, ErrorKind, Read};
use std::net::{IpAddr, Ipv4Addr};

use byteorder::{BigEndian, ReadBytesExt};

use super::address::{Address, Host, Name};
use super::error::Error;
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

/// Reads VN, CD, the destination and the user, which nobody has proved to be.
pub fn read_request(reader: &mut impl BufRead) -> Result<(Request, Vec<u8>), Error> {
    let _vn = reader.read_u8()?;
    let cd = reader.read_u8()?;
    let port = reader.read_u16::<BigEndian>()?;
    let address = reader.read_u32::<BigEndian>()?;
    let user = read_text(reader)?;
    let host = match address {
        1..=255 => Name::new(read_text(reader)?)?.into(),
        address => Host::Ip(Ipv4Addr::from(address).into()),
    };
    let command = match cd {
        CONNECT => Command::Connect,
        BIND => Command::Bind,
        other => return Err(Error::Malformed(format!("CD {other:#04x} is unknown").into())),
    };
    Ok((Request { command, destination: Address { host, port } }, user))
}

/// Reads up to a zero.
fn read_text(reader: &mut impl BufRead) -> Result<Vec<u8>, Error> {
    let mut text = Vec::new();
    let length = reader.take(LONGEST + 1).read_until(0, &mut text)?;
    match text.pop() {
        Some(0) => Ok(text),
        _ if length as u64 > LONGEST => Err(Error::TooLarge),
        _ => Err(io::Error::from(ErrorKind::UnexpectedEof).into()),
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
