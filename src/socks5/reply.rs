//! The reply, and the one table from a system error to REP (RFC 1928 section 6).

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};

use byteorder::ReadBytesExt;
use strum::FromRepr;

use super::address::Address;
use super::error::AnswerError;
use super::greeting::VERSION;

/// Octets of a reply with an IPv6 address.
const LONGEST: usize = 22;

/// REP: how the request fared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromRepr)]
#[repr(u8)]
pub enum Rep {
    /// Succeeded.
    Succeeded = 0x00,
    /// General SOCKS server failure.
    GeneralFailure = 0x01,
    /// Connection not allowed by ruleset.
    NotAllowed = 0x02,
    /// Network unreachable.
    NetworkUnreachable = 0x03,
    /// Host unreachable; a name that does not resolve, too.
    HostUnreachable = 0x04,
    /// Connection refused.
    ConnectionRefused = 0x05,
    /// TTL expired, which servers say when time is up.
    TtlExpired = 0x06,
    /// Command not supported.
    CommandNotSupported = 0x07,
    /// Address type not supported.
    AddressTypeNotSupported = 0x08,
}

impl From<&io::Error> for Rep {
    fn from(error: &io::Error) -> Self {
        const NO_SUCH_FAMILY: i32 = rustix::io::Errno::AFNOSUPPORT.raw_os_error();
        match error.kind() {
            ErrorKind::ConnectionRefused => Rep::ConnectionRefused,
            ErrorKind::NetworkUnreachable | ErrorKind::NetworkDown => Rep::NetworkUnreachable,
            ErrorKind::HostUnreachable => Rep::HostUnreachable,
            ErrorKind::TimedOut => Rep::TtlExpired,
            _ if error.raw_os_error() == Some(NO_SUCH_FAMILY) => Rep::AddressTypeNotSupported,
            _ => Rep::GeneralFailure,
        }
    }
}

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
        Reply { rep: Rep::Succeeded as u8, bound: bound.into() }
    }

    /// The request failed: BND.ADDR and BND.PORT are zero.
    pub fn failed(rep: Rep) -> Self {
        let nowhere = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0);
        Reply { rep: rep as u8, bound: nowhere.into() }
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

    /// REP, or the octet where it is none of RFC 1928's.
    pub fn rep(&self) -> Result<Rep, u8> {
        Rep::from_repr(self.rep).ok_or(self.rep)
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
        assert_eq!(wire(&Reply::failed(Rep::NotAllowed)), b"\x05\x02\x00\x01\0\0\0\0\0\0");
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
            assert_eq!(reply.rep().map_or_else(|octet| octet, |rep| rep as u8), octets[1]);
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
        Reply::failed(Rep::GeneralFailure).write_to(&mut calls).unwrap();
        assert_eq!(calls.0, 1);
    }

    #[test]
    fn a_system_error_has_its_rep() {
        use rustix::io::Errno;
        let table = [
            (Errno::CONNREFUSED, 0x05),
            (Errno::NETUNREACH, 0x03),
            (Errno::NETDOWN, 0x03),
            (Errno::HOSTUNREACH, 0x04),
            (Errno::TIMEDOUT, 0x06),
            (Errno::AFNOSUPPORT, 0x08),
            (Errno::MFILE, 0x01),
            (Errno::ADDRNOTAVAIL, 0x01),
        ];
        for (errno, rep) in table {
            assert_eq!(Rep::from(&io::Error::from(errno)) as u8, rep, "{errno}");
        }
    }
}
