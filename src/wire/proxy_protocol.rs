//! The PROXY protocol, versions 1 and 2: the header in which a load balancer says whom it speaks
//! for (<https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt>).
//!
//! ```text
//! version 1   PROXY TCP4 192.0.2.7 198.51.100.1 50000 1080 CR LF      a line of text
//! version 2   0d 0a 0d 0a 00 0d 0a 51 55 49 54 0a                     signature
//!             21 11 len len  src×4 dst×4 port×2 port×2  TLVs          command, family, addresses
//! ```
//!
//! The header is read exactly, and nothing is guessed: what is not as the protocol says is an
//! error. The caller decides which peers are load balancers: a header from anyone else means nothing,
//! because anyone can write one.

use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str;

use byteorder::{BigEndian, ReadBytesExt};
use strum::Display;

use crate::wire::address::parse_port;

/// What a version 1 header begins with.
const WORD: &[u8] = b"PROXY ";

/// The octets of the longest version 1 header, with its line end.
const LONGEST_LINE: usize = 107;

/// What a version 2 header begins with.
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// A version 2 header of [`Header::Balancer`].
pub const LOCAL: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";

/// The octets of a version 2 address block: two addresses and two ports.
const IPV4_BLOCK: usize = 2 * (4 + 2);
const IPV6_BLOCK: usize = 2 * (16 + 2);

/// Whose connection it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Header {
    /// That of a client with this address; an IPv4-mapped one is IPv4.
    Client(SocketAddr),
    /// The load balancer's own, which looks whether the server is well (version 2 LOCAL, version 1
    /// UNKNOWN).
    Balancer,
}

/// Why there is no header.
#[derive(Debug, PartialEq, Eq, Display)]
#[strum(prefix = "the load balancer's PROXY header ")]
pub enum Error {
    /// The stream begins with something else.
    #[strum(to_string = "is missing (--proxy-protocol)")]
    Missing,
    /// A version 1 line is too long, or not as section 2.1 says.
    #[strum(to_string = "is no line of version 1")]
    Line,
    /// Version and command of a version 2 header are none of those in section 2.2.
    #[strum(to_string = "has the unknown version and command {0:#04x}")]
    Command(u8),
    /// The family is neither TCP over IPv4 nor TCP over IPv6.
    #[strum(to_string = "has the family {0:#04x}, which is not TCP over IPv4 or IPv6")]
    Family(u8),
    /// A version 2 header is too short for what is in it.
    #[strum(to_string = "is too short for what is in it")]
    Length,
    /// The stream failed or ended inside the header.
    #[strum(to_string = "is cut off: {0}")]
    Io(io::ErrorKind),
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Error::Io(error.kind())
    }
}

impl Header {
    /// Reads a header of either version, and not one octet more. How much the stream has then read of
    /// a bad header is not defined.
    pub fn read_from(reader: &mut impl Read) -> Result<Self, Error> {
        match reader.read_u8()? {
            b'P' => {
                expect(&WORD[1..], reader)?;
                read_version_1(reader)
            }
            b'\r' => {
                expect(&SIGNATURE[1..], reader)?;
                read_version_2(reader)
            }
            _ => Err(Error::Missing),
        }
    }

    fn of_client(ip: IpAddr, port: u16) -> Self {
        Header::Client(SocketAddr::new(ip.to_canonical(), port))
    }
}

/// Reads `octets`. The first octet that differs is the last that is read.
fn expect(octets: &[u8], reader: &mut impl Read) -> Result<(), Error> {
    for octet in octets {
        if reader.read_u8()? != *octet {
            return Err(Error::Missing);
        }
    }
    Ok(())
}

/// Reads what a version 1 header has behind its first word.
fn read_version_1(reader: &mut impl Read) -> Result<Header, Error> {
    let mut line = [0; LONGEST_LINE - WORD.len()];
    for length in 1..=line.len() {
        line[length - 1] = reader.read_u8()?;
        if let [text @ .., b'\r', b'\n'] = &line[..length] {
            return str::from_utf8(text).ok().and_then(parse_version_1).ok_or(Error::Line);
        }
    }
    Err(Error::Line)
}

fn parse_version_1(text: &str) -> Option<Header> {
    let mut words = text.split(' ');
    let is_ipv4 = match words.next()? {
        "TCP4" => true,
        "TCP6" => false,
        // What follows has no meaning (section 2.1).
        "UNKNOWN" => return Some(Header::Balancer),
        _ => return None,
    };
    let address = |word: &str| word.parse::<IpAddr>().ok().filter(|ip| ip.is_ipv4() == is_ipv4);
    let port = |word: &str| parse_port(word).filter(|_| word == "0" || !word.starts_with('0'));
    let source = address(words.next()?)?;
    address(words.next()?)?;
    let source_port = port(words.next()?)?;
    port(words.next()?)?;
    words.next().is_none().then(|| Header::of_client(source, source_port))
}

/// Reads what a version 2 header has behind its signature (section 2.2).
fn read_version_2(reader: &mut impl Read) -> Result<Header, Error> {
    let command = reader.read_u8()?;
    let family = reader.read_u8()?;
    let length = usize::from(reader.read_u16::<BigEndian>()?);
    let block = match (command, family) {
        // The family and the addresses of LOCAL have no meaning.
        (0x20, _) => 0,
        (0x21, 0x11) => IPV4_BLOCK,
        (0x21, 0x21) => IPV6_BLOCK,
        (0x21, _) => return Err(Error::Family(family)),
        _ => return Err(Error::Command(command)),
    };
    if length < block {
        return Err(Error::Length);
    }
    let mut rest = vec![0; length];
    reader.read_exact(&mut rest)?;
    let (mut addresses, tlvs) = rest.split_at(block);
    let source = match block {
        IPV4_BLOCK => Ipv4Addr::from(addresses.read_u32::<BigEndian>()?).into(),
        IPV6_BLOCK => Ipv6Addr::from(addresses.read_u128::<BigEndian>()?).into(),
        _ => return Ok(Header::Balancer),
    };
    // The two ports stand behind both addresses.
    let mut ports = &rest[block - 2 * 2..block];
    check_tlvs(tlvs)?;
    Ok(Header::of_client(source, ports.read_u16::<BigEndian>()?))
}

/// What a header says beyond its addresses is not needed, but it has to be whole.
fn check_tlvs(mut tlvs: &[u8]) -> Result<(), Error> {
    while let [_type, high, low, rest @ ..] = tlvs {
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        tlvs = rest.get(length..).ok_or(Error::Length)?;
    }
    if tlvs.is_empty() { Ok(()) } else { Err(Error::Length) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const V2: &[u8] = SIGNATURE;

    /// Headers of both versions, whole, and whom they name.
    const WIRE: [(&[&[u8]], &str); 11] = [
        (&[b"PROXY TCP4 192.0.2.7 198.51.100.1 50000 1080\r\n"], "192.0.2.7:50000"),
        (&[b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n"], "255.255.255.255:65535"),
        (&[b"PROXY TCP4 0.0.0.0 0.0.0.0 0 0\r\n"], "0.0.0.0:0"),
        (&[b"PROXY TCP6 2001:db8::7 2001:db8::1 50000 1080\r\n"], "[2001:db8::7]:50000"),
        (&[b"PROXY TCP6 ::ffff:192.0.2.7 ::1 50000 1080\r\n"], "192.0.2.7:50000"),
        (&[V2, b"\x21\x11\0\x0c\xc0\0\x02\x07\xc6\x33\x64\x01\xc3\x50\x04\x38"], "192.0.2.7:50000"),
        (
            &[
                V2,
                b"\x21\x21\0\x24\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x07",
                b"\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01\xc3\x50\x04\x38",
            ],
            "[2001:db8::7]:50000",
        ),
        (
            &[
                V2,
                b"\x21\x21\0\x24\0\0\0\0\0\0\0\0\0\0\xff\xff\xc0\0\x02\x07",
                b"\0\0\0\0\0\0\0\0\0\0\xff\xff\xc6\x33\x64\x01\xc3\x50\x04\x38",
            ],
            "192.0.2.7:50000",
        ),
        // A TLV without a value, ALPN, and one of a type that nobody has defined.
        (
            &[
                V2,
                b"\x21\x11\0\x1b\xc0\0\x02\x07\xc6\x33\x64\x01\xc3\x50\x04\x38",
                b"\x04\0\0\x01\0\x02h2\xee\0\x04\xde\xad\xbe\xef",
            ],
            "192.0.2.7:50000",
        ),
        (&[V2, b"\x20\0\0\0"], "balancer"),
        // LOCAL may bring addresses and TLVs; they have no meaning.
        (&[V2, b"\x20\x31\0\x05\x01\x02\x03\x04\x05"], "balancer"),
    ];

    const UNKNOWN: [&[u8]; 3] = [
        b"PROXY UNKNOWN\r\n",
        b"PROXY UNKNOWN 192.0.2.7 198.51.100.1 50000 1080\r\n",
        // The longest line that there may be: 107 octets.
        b"PROXY UNKNOWN ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff \
          ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n",
    ];

    fn wire() -> Vec<(Vec<u8>, Header)> {
        let named = |name: &str| match name.parse() {
            Ok(address) => Header::Client(address),
            Err(_) => Header::Balancer,
        };
        let headers = WIRE.iter().map(|(octets, name)| (octets.concat(), named(name)));
        headers.chain(UNKNOWN.map(|line| (line.to_vec(), Header::Balancer))).collect()
    }

    fn refusal(octets: &[u8]) -> Error {
        let mut stream = octets;
        let header = Header::read_from(&mut stream);
        header.expect_err(&format!("'{}' is taken", octets.escape_ascii()))
    }

    #[test]
    fn reads_exactly_its_octets() {
        for (octets, header) in wire() {
            let stream = [&octets[..], b"\x05\x01\x00"].concat();
            let mut rest = stream.as_slice();
            assert_eq!(Header::read_from(&mut rest), Ok(header), "{}", octets.escape_ascii());
            assert_eq!(rest, b"\x05\x01\x00", "{}", octets.escape_ascii());
        }
    }

    #[test]
    fn the_header_of_a_probe_names_nobody() {
        assert_eq!(Header::read_from(&mut &*LOCAL), Ok(Header::Balancer));
    }

    #[test]
    fn every_truncation_is_an_error() {
        for (octets, _) in wire() {
            for length in 0..octets.len() {
                let error = refusal(&octets[..length]);
                assert_eq!(error, Error::Io(io::ErrorKind::UnexpectedEof), "cut to {length}");
            }
        }
    }

    #[test]
    fn a_connection_without_a_header_is_not_taken_for_one() {
        for octets in [
            b"\x05\x01\x00".as_slice(),
            b"GET / HTTP/1.1\r\n",
            b"POST / HTTP/1.1\r\n",
            b"PROXY\r\n",
        ] {
            assert_eq!(refusal(octets), Error::Missing);
        }
        for wrong in 1..SIGNATURE.len() {
            let mut octets = [SIGNATURE, b"\x20\0\0\0"].concat();
            octets[wrong] ^= 0x20;
            assert_eq!(refusal(&octets), Error::Missing, "octet {wrong}");
        }
    }

    #[test]
    fn other_families_commands_and_versions_are_refused() {
        let header = |command, family| [V2, &[command, family, 0, 216], &[0; 216]].concat();
        for family in 0..=0xff {
            if !matches!(family, 0x11 | 0x21) {
                assert_eq!(refusal(&header(0x21, family)), Error::Family(family));
            }
        }
        for command in (0..=0xff).filter(|command| !matches!(command, 0x20 | 0x21)) {
            assert_eq!(refusal(&header(command, 0x11)), Error::Command(command));
        }
    }

    #[test]
    fn a_header_that_is_too_short_for_what_is_in_it_is_refused() {
        for (family, length) in [(0x11, 0), (0x11, 11), (0x21, 12), (0x21, 35)] {
            let octets = [V2, &[0x21, family, 0, length], &[0; 255]].concat();
            assert_eq!(refusal(&octets), Error::Length);
        }
        for tlvs in [b"\x04".as_slice(), b"\x04\0", b"\x04\0\x01", b"\x04\0\0\x04\xff\xff\0"] {
            let length = u8::try_from(12 + tlvs.len()).unwrap();
            let octets = [V2, &[0x21, 0x11, 0, length], &[0; 12], tlvs, &[0; 64]].concat();
            assert_eq!(refusal(&octets), Error::Length, "{tlvs:02x?}");
        }
    }

    #[test]
    fn a_header_may_be_as_long_as_its_length_can_say() {
        let tlv = [b"\xee\xff\xf0".to_vec(), vec![0x55; 0xfff0]].concat();
        let octets = [V2, b"\x21\x11\xff\xff", &[0; 12], &tlv, b"rest"].concat();
        let mut rest = octets.as_slice();
        assert!(Header::read_from(&mut rest).is_ok());
        assert_eq!(rest, b"rest");
    }

    #[test]
    fn no_octet_anywhere_makes_the_reader_go_beyond_the_header() {
        for (octets, _) in wire() {
            for place in 0..octets.len() {
                for octet in 0..=0xff {
                    let mut stream = [&octets[..], &[0; 300]].concat();
                    stream[place] = octet;
                    let mut rest = stream.as_slice();
                    let header = Header::read_from(&mut rest);
                    let end = if stream[0] == b'P' {
                        LONGEST_LINE
                    } else {
                        16 + usize::from(u16::from_be_bytes([stream[14], stream[15]]))
                    };
                    let read = stream.len() - rest.len();
                    assert!(read <= end, "{place}: {octet:#04x}: {header:?}");
                }
            }
        }
    }

    #[test]
    fn a_line_that_is_not_as_the_protocol_says_is_refused() {
        for line in [
            "PROXY TCP4 192.0.2.7 198.51.100.1 50000\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 50000 1080 1\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 50000 1080 \r\n",
            "PROXY TCP4  192.0.2.7 198.51.100.1 50000 1080\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 +50000 1080\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 050000 1080\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 50000 65536\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1  1080\r\n",
            "PROXY TCP4 192.0.2.07 198.51.100.1 50000 1080\r\n",
            "PROXY TCP4 192.0.2 198.51.100.1 50000 1080\r\n",
            "PROXY TCP4 2001:db8::7 2001:db8::1 50000 1080\r\n",
            "PROXY TCP6 192.0.2.7 198.51.100.1 50000 1080\r\n",
            "PROXY TCP6 fe80::1%eth0 2001:db8::1 50000 1080\r\n",
            "PROXY TCP6 [2001:db8::7] 2001:db8::1 50000 1080\r\n",
            "PROXY UDP4 192.0.2.7 198.51.100.1 50000 1080\r\n",
            "PROXY UNIX /a /b\r\n",
            "PROXY tcp4 192.0.2.7 198.51.100.1 50000 1080\r\n",
            "PROXY UNKNOWNS\r\n",
            "PROXY \r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 50000 1080\r\r\n",
        ] {
            assert_eq!(refusal(line.as_bytes()), Error::Line, "{line:?}");
        }
        assert_eq!(refusal(b"PROXY TCP4 192.0.2.7 \xff 50000 1080\r\n"), Error::Line);
    }

    #[test]
    fn a_line_without_an_end_is_given_up() {
        let mut stream = [WORD, &[b'x'; 200]].concat();
        assert_eq!(refusal(&stream), Error::Line);
        // A line feed alone is no end of a line.
        stream[50] = b'\n';
        assert_eq!(refusal(&stream), Error::Line);
        let mut rest = stream.as_slice();
        let _ = Header::read_from(&mut rest);
        assert_eq!(stream.len() - rest.len(), LONGEST_LINE);
    }
}
