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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::refusal::Refusal;
    use std::io::BufReader;

    const BY_NAME: &[u8] = b"\x04\x01\x00\x50\x00\x00\x00\x01me\x00a.example\x00";

    type Read = Result<(Request, Vec<u8>), Error>;

    /// Reads a request, octet by octet too: what it is, and what is left.
    fn read(octets: &[u8]) -> (Read, &[u8]) {
        let mut rest = octets;
        let whole = read_request(&mut rest);
        let mut single = BufReader::with_capacity(1, octets);
        assert_eq!(format!("{:?}", read_request(&mut single)), format!("{whole:?}"));
        assert_eq!(*single.get_ref(), rest);
        (whole, rest)
    }

    #[test]
    fn reads_exactly_its_octets() {
        for (octets, command, destination, user) in [
            (
                b"\x04\x01\x00\x50\xc0\x00\x02\x01\x00".as_slice(),
                Command::Connect,
                "192.0.2.1:80",
                b"".as_slice(),
            ),
            (
                b"\x04\x02\xff\xff\x7f\x00\x00\x01\xff me\x00",
                Command::Bind,
                "127.0.0.1:65535",
                b"\xff me",
            ),
            (BY_NAME, Command::Connect, "a.example:80", b"me"),
            (
                b"\x04\x01\x01\xbb\x00\x00\x00\xff\x00A.Example.\x00",
                Command::Connect,
                "A.Example.:443",
                b"",
            ),
            (b"\x04\x01\x00\x50\x00\x00\x00\x07\x00[::1]\x00", Command::Connect, "[::1]:80", b""),
            // No name behind these.
            (b"\x04\x02\x00\x00\x00\x00\x00\x00\x00", Command::Bind, "0.0.0.0:0", b""),
            (b"\x04\x01\x00\x50\x00\x00\x01\x00\x00", Command::Connect, "0.0.1.0:80", b""),
            (b"\x04\x01\x00\x50\x01\x00\x00\x01\x00", Command::Connect, "1.0.0.1:80", b""),
        ] {
            for behind in [b"".as_slice(), b"\x00", b"a.example\x00\x16\x03\x01"] {
                let stream = [octets, behind].concat();
                let (result, rest) = read(&stream);
                let (request, name) = result.unwrap();
                assert_eq!((request.command, name.as_slice(), rest), (command, user, behind));
                assert_eq!(request.destination.to_string(), destination);
            }
        }
    }

    #[test]
    fn every_truncation_is_an_error() {
        for length in 0..BY_NAME.len() {
            let (error, rest) = read(&BY_NAME[..length]);
            assert!(matches!(error, Err(Error::Io(_))), "cut to {length}");
            assert_eq!(rest, b"");
        }
    }

    #[test]
    fn users_and_names_have_255_octets_at_the_most() {
        let of = |user: usize, name: usize| {
            let head = b"\x04\x01\x00\x50\x00\x00\x00\x01";
            [head, &vec![b'u'; user][..], b"\0", &vec![b'n'; name], b"\0tail"].concat()
        };
        let longest = of(255, 255);
        let (result, rest) = read(&longest);
        let (request, user) = result.unwrap();
        assert_eq!((user.len(), rest), (255, b"tail".as_slice()));
        assert_eq!(request.destination.host.name().map(str::len), Some(255));
        for (too_long, taken) in [(of(256, 1), 8 + 256), (of(40_000, 1), 8 + 256)] {
            let (error, rest) = read(&too_long);
            assert!(matches!(error, Err(Error::TooLarge)));
            assert_eq!(rest.len(), too_long.len() - taken);
        }
        assert!(matches!(read(&of(255, 256)).0, Err(Error::TooLarge)));
    }

    #[test]
    fn what_nobody_can_carry_out_is_read_whole() {
        for cd in [0x00, 0x03, 0x5a, 0xf0, 0xff] {
            let octets = [&[0x04, cd], &BY_NAME[2..], b"tail"].concat();
            let (error, rest) = read(&octets);
            assert_eq!(error.unwrap_err().to_string(), format!("CD {cd:#04x} is unknown"));
            assert_eq!(rest, b"tail");
        }
        for (name, shown) in [
            (b"".as_slice(), ""),
            (b"a b", "a b"),
            (b"a\n", r"a\n"),
            (b"\xff", r"\xff"),
            (b"a\\b", r"a\\b"),
        ] {
            let octets = [b"\x04\x01\x00\x50\x00\x00\x00\x01\x00", name, b"\0tail"].concat();
            let (error, rest) = read(&octets);
            assert_eq!(error.unwrap_err().to_string(), format!("no host is named '{shown}'"));
            assert_eq!(rest, b"tail");
        }
    }

    #[test]
    fn writes_its_replies() {
        let bound = |text: &str| success(&text.parse::<std::net::SocketAddr>().unwrap().into());
        assert_eq!(bound("192.0.2.1:258"), b"\x00\x5a\x01\x02\xc0\x00\x02\x01");
        assert_eq!(bound("[::ffff:192.0.2.1]:80"), b"\x00\x5a\x00\x50\xc0\x00\x02\x01");
        assert_eq!(bound("[2001:db8::1]:80"), b"\x00\x5a\x00\x50\x00\x00\x00\x00");
        for of in [Refusal::NotServed, Refusal::Denied, Refusal::NoLogin, Refusal::Failed] {
            assert_eq!(refusal(&of), b"\x00\x5b\x00\x00\x00\x00\x00\x00");
        }
    }
}
