//! The datagram between a client and its association (RFC 1928 section 7).

use std::io::Read;
use std::net::SocketAddr;

use byteorder::ReadBytesExt;

use super::error::Error;
use crate::wire::address::Address;

/// The most octets that [`append_header`] appends: RSV, FRAG, ATYP, an IPv6 address, a port.
pub const LONGEST_HEADER: usize = 22;

/// A datagram as a client sends it to its association.
#[derive(Debug, PartialEq, Eq)]
pub struct Datagram<'a> {
    /// FRAG: 0 for a datagram that is whole.
    pub frag: u8,
    /// DST.ADDR and DST.PORT.
    pub destination: Address,
    /// What precedes the payload.
    pub header: &'a [u8],
    /// What is to be sent on; it may be empty.
    pub payload: &'a [u8],
}

impl<'a> Datagram<'a> {
    /// Reads RSV, FRAG and the destination; the rest is payload. RSV may be anything, as in a
    /// request.
    pub fn read(octets: &'a [u8]) -> Result<Self, Error> {
        let mut rest = octets;
        let mut rsv = [0; 2];
        rest.read_exact(&mut rsv)?;
        let frag = rest.read_u8()?;
        let destination = Address::read_from(&mut rest)?;
        let header = &octets[..octets.len() - rest.len()];
        Ok(Datagram { frag, destination, header, payload: rest })
    }
}

/// Appends the header of a datagram that has come from `source`, an IPv4-mapped one as IPv4.
pub fn append_header(source: SocketAddr, message: &mut Vec<u8>) {
    message.extend([0x00, 0x00, 0x00]);
    Address::from(source).append_to(message);
}

#[cfg(test)]
mod tests {
    use super::*;

    const WIRE: [(&[u8], &str); 3] = [
        (b"\0\0\0\x01\xc0\x00\x02\x07\x00\x35", "192.0.2.7:53"),
        (b"\0\0\0\x04\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01\x01\xbb", "[2001:db8::1]:443"),
        (b"\0\0\0\x03\x0bexample.org\x00\x35", "example.org:53"),
    ];

    #[test]
    fn reads_its_octets() {
        for (header, shown) in WIRE {
            for payload in [b"".as_slice(), b"payload"] {
                let octets = [header, payload].concat();
                let datagram = Datagram::read(&octets).unwrap();
                assert_eq!(datagram.destination.to_string(), shown);
                assert_eq!((datagram.frag, datagram.header), (0, header));
                assert_eq!(datagram.payload, payload, "{shown}");
            }
        }
    }

    #[test]
    fn every_truncation_is_an_error() {
        for (header, shown) in WIRE {
            for length in 0..header.len() {
                let error = Datagram::read(&header[..length]).unwrap_err();
                assert!(matches!(error, Error::Io(_)), "{shown} cut to {length}: {error}");
            }
        }
    }

    #[test]
    fn a_fragment_is_known() {
        for frag in [0x01, 0x7f, 0x80, 0xff] {
            let mut octets = WIRE[0].0.to_vec();
            octets[2] = frag;
            assert_eq!(Datagram::read(&octets).unwrap().frag, frag);
        }
    }

    #[test]
    fn any_reserved_octets_are_accepted() {
        let octets = [b"\xff\xff", &WIRE[0].0[2..]].concat();
        assert_eq!(Datagram::read(&octets).unwrap().destination.to_string(), WIRE[0].1);
    }

    #[test]
    fn what_is_no_destination_is_an_error() {
        let error = Datagram::read(b"\0\0\0\x02\xc0\x00\x02\x07\x00\x35").unwrap_err();
        assert!(matches!(error, Error::AddressType(0x02)));
        let error = Datagram::read(b"\0\0\0\x03\x00\x00\x35").unwrap_err();
        assert!(matches!(error, Error::Name(_)));
    }

    #[test]
    fn appends_its_octets() {
        for (header, shown) in &WIRE[..2] {
            let mut message = Vec::new();
            append_header(shown.parse().unwrap(), &mut message);
            assert_eq!(&message, header);
            assert!(message.len() <= LONGEST_HEADER);
        }
        let mut mapped = Vec::new();
        append_header("[::ffff:192.0.2.7]:53".parse().unwrap(), &mut mapped);
        assert_eq!(mapped, WIRE[0].0);
    }
}
