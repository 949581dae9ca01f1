//! The reply, and what REP means (RFC 1928 section 6).

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};

use byteorder::ReadBytesExt;

use super::error::AnswerError;
use super::greeting::VERSION;
use crate::wire::address::Address;
use crate::wire::refusal::Refusal;

/// Octets of a reply with an IPv6 address.
const LONGEST: usize = 22;

/// REP.
const SUCCEEDED: u8 = 0x00;
const GENERAL_FAILURE: u8 = 0x01;
const FAILURES: [(u8, Refusal); 9] = [
    (GENERAL_FAILURE, Refusal::Failed),
    (0x02, Refusal::Denied),
    (0x02, Refusal::TooMany),
    (0x03, Refusal::NetworkUnreachable),
    (0x04, Refusal::HostUnreachable),
    (0x05, Refusal::ConnectionRefused),
    // TTL expired, which servers say when time is up.
    (0x06, Refusal::TimedOut),
    (0x07, Refusal::Command),
    (0x08, Refusal::AddressFamily),
];

/// The answer to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// Another server may have a REP of its own.
    rep: u8,
    bound: Address,
}

impl Reply {
    /// The request succeeded, and `bound` is BND.ADDR and BND.PORT.
    pub fn succeeded(bound: impl Into<Address>) -> Self {
        Reply { rep: SUCCEEDED, bound: bound.into() }
    }

    /// The request failed: BND.ADDR and BND.PORT are zero.
    pub fn failed(why: &Refusal) -> Self {
        let known = FAILURES.iter().find(|(_, refusal)| refusal == why);
        let rep = known.map_or(GENERAL_FAILURE, |(rep, _)| *rep);
        let nowhere = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0);
        Reply { rep, bound: nowhere.into() }
    }

    /// Reads another server's reply: VER, REP, RSV and the bound address.
    pub fn read_from(reader: &mut impl Read) -> Result<Self, AnswerError> {
        let version = reader.read_u8()?;
        if version != VERSION {
            return Err(AnswerError::Version(version));
        }
        let rep = reader.read_u8()?;
        let _rsv = reader.read_u8()?;
        Ok(Reply { rep, bound: Address::read_from(reader)? })
    }

    /// REP.
    pub fn rep(&self) -> u8 {
        self.rep
    }

    /// What REP means, if it is no success. One that RFC 1928 does not have is a failure like any other.
    pub fn refusal(&self) -> Option<Refusal> {
        let known = FAILURES.iter().find(|(rep, _)| *rep == self.rep);
        let refusal = known.map_or(Refusal::Failed, |(_, refusal)| refusal.clone());
        (self.rep != SUCCEEDED).then_some(refusal)
    }

    /// BND.ADDR and BND.PORT.
    pub fn bound(&self) -> &Address {
        &self.bound
    }

    /// Writes VER, REP, RSV and the bound address, an IPv4-mapped one as IPv4.
    pub fn write_to(&self, writer: &mut impl Write) -> io::Result<()> {
        let mut message = Vec::with_capacity(LONGEST);
        message.extend([VERSION, self.rep, 0x00]);
        self.bound.append_to(&mut message);
        writer.write_all(&message)
    }
}

#[cfg(test)]
mod tests {
    use super::super::error::Error;
    use super::*;

    fn wire(reply: &Reply) -> Vec<u8> {
        let mut wire = Vec::new();
        reply.write_to(&mut wire).unwrap();
        wire
    }

    #[test]
    fn writes_its_octets() {
        let ipv4 = Reply::succeeded("192.0.2.7:1080".parse::<SocketAddr>().unwrap());
        assert_eq!(wire(&ipv4), b"\x05\x00\x00\x01\xc0\x00\x02\x07\x04\x38");
        let ipv6 = Reply::succeeded("[2001:db8::1]:1080".parse::<SocketAddr>().unwrap());
        assert_eq!(
            wire(&ipv6),
            b"\x05\x00\x00\x04\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01\x04\x38"
        );
        let mapped = Reply::succeeded("[::ffff:192.0.2.7]:1080".parse::<SocketAddr>().unwrap());
        assert_eq!(wire(&mapped), wire(&ipv4));
        assert_eq!(wire(&Reply::failed(&Refusal::Denied)), b"\x05\x02\x00\x01\0\0\0\0\0\0");
    }

    #[test]
    fn what_is_read_can_be_written() {
        for octets in [
            b"\x05\x00\x00\x01\xc0\x00\x02\x07\x04\x38".as_slice(),
            b"\x05\x05\x00\x04\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01\x04\x38",
            b"\x05\xf0\x00\x03\x0bexample.org\x00\x50",
        ] {
            let stream = [octets, b"payload"].concat();
            let mut rest = stream.as_slice();
            let reply = Reply::read_from(&mut rest).unwrap();
            assert_eq!(rest, b"payload");
            assert_eq!(wire(&reply), octets);
            assert_eq!(reply.rep(), octets[1]);
            for length in 0..octets.len() {
                let error = Reply::read_from(&mut &octets[..length]).unwrap_err();
                assert!(matches!(error, AnswerError::Io(_)), "cut to {length}: {error}");
            }
        }
        let read = |mut octets: &[u8]| Reply::read_from(&mut octets).unwrap_err();
        assert!(matches!(read(b"\x04\x00"), AnswerError::Version(0x04)));
        let nonsense = read(b"\x05\x00\x00\x07\0\0\0\0\0\0");
        assert!(matches!(nonsense, AnswerError::Bound(Error::AddressType(0x07))));
    }

    #[test]
    fn is_written_at_once() {
        /// Counts the calls, as a socket without delay would send a segment for each.
        struct Calls(usize);
        impl Write for Calls {
            fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
                self.0 += 1;
                Ok(octets.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut calls = Calls(0);
        Reply::failed(&Refusal::Failed).write_to(&mut calls).unwrap();
        assert_eq!(calls.0, 1);
    }

    #[test]
    fn what_another_server_has_meant_is_what_a_client_is_told() {
        for rep in 0x01..=0x08 {
            let refusal = Reply { rep, ..Reply::failed(&Refusal::Failed) }.refusal().unwrap();
            assert_eq!(Reply::failed(&refusal).rep(), rep);
        }
        let own = Reply { rep: 0xf0, ..Reply::failed(&Refusal::Failed) };
        assert_eq!(own.refusal(), Some(Refusal::Failed));
        assert_eq!(Reply::succeeded(SocketAddr::from(([192, 0, 2, 1], 80))).refusal(), None);
        assert_eq!(Reply::failed(&Refusal::NoLogin).rep(), 0x01);
    }
}
