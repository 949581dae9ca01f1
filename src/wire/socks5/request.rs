//! The request: what the client wants, and where (RFC 1928 section 4).

use std::io::{self, Read, Write};

use byteorder::ReadBytesExt;

use super::error::Error;
use super::greeting::VERSION;
use crate::wire::address::Address;
use crate::wire::request::{Command, Request};

/// CMD.
const COMMANDS: [(u8, Command); 5] = [
    (0x01, Command::Connect),
    (0x02, Command::Bind),
    (0x03, Command::UdpAssociate),
    (0xf0, Command::Resolve),
    (0xf1, Command::ResolvePtr),
];

impl Request {
    /// Reads VER, CMD, RSV and the destination. RSV may be anything: some clients do not clear it.
    /// A request with an unknown CMD, or for a name that no host can have, is read whole.
    pub fn read_from(reader: &mut impl Read) -> Result<Self, Error> {
        let version = reader.read_u8()?;
        if version != VERSION {
            return Err(Error::Version(version));
        }
        let cmd = reader.read_u8()?;
        let _rsv = reader.read_u8()?;
        let destination = Address::read_from(reader)?;
        let known = COMMANDS.iter().find(|(octet, _)| *octet == cmd);
        let (_, command) = *known.ok_or(Error::Command(cmd))?;
        Ok(Request { command, destination })
    }

    /// Writes VER, CMD, RSV and the destination.
    pub fn write_to(&self, writer: &mut impl Write) -> io::Result<()> {
        let known = COMMANDS.iter().find(|(_, command)| *command == self.command);
        let (cmd, _) = known.ok_or(io::ErrorKind::Unsupported)?;
        let mut message = vec![VERSION, *cmd, 0x00];
        self.destination.append_to(&mut message);
        writer.write_all(&message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONNECT: &[u8] = b"\x05\x01\x00\x01\xc0\x00\x02\x07\x00\x50";

    #[test]
    fn reads_exactly_its_octets() {
        let stream = [CONNECT, b"GET /"].concat();
        let mut rest = stream.as_slice();
        let request = Request::read_from(&mut rest).unwrap();
        assert_eq!(request.command, Command::Connect);
        assert_eq!(request.destination.to_string(), "192.0.2.7:80");
        assert_eq!(rest, b"GET /");
    }

    #[test]
    fn knows_every_command() {
        for (cmd, command) in COMMANDS {
            let mut stream = CONNECT.to_vec();
            stream[1] = cmd;
            assert_eq!(Request::read_from(&mut stream.as_slice()).unwrap().command, command);
        }
    }

    #[test]
    fn what_is_read_can_be_written() {
        let by_name = b"\x05\x02\x00\x03\x0bexample.org\x01\xbb".as_slice();
        let by_ipv6 = b"\x05\x01\x00\x04\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01\x00\x50";
        for wire in [CONNECT, by_name, by_ipv6] {
            let mut written = Vec::new();
            Request::read_from(&mut &wire[..]).unwrap().write_to(&mut written).unwrap();
            assert_eq!(written, wire);
        }
    }

    #[test]
    fn any_reserved_octet_is_accepted() {
        let mut stream = CONNECT.to_vec();
        stream[2] = 0xff;
        assert!(Request::read_from(&mut stream.as_slice()).is_ok());
    }

    #[test]
    fn every_truncation_is_an_error() {
        for length in 0..CONNECT.len() {
            let error = Request::read_from(&mut &CONNECT[..length]).unwrap_err();
            assert!(matches!(error, Error::Io(_)), "cut to {length}");
        }
    }

    #[test]
    fn an_unknown_command_is_read_whole() {
        for cmd in [0x00, 0x04, 0xef, 0xf2] {
            let mut stream = CONNECT.to_vec();
            stream[1] = cmd;
            let mut rest = stream.as_slice();
            let error = Request::read_from(&mut rest).unwrap_err();
            assert!(matches!(error, Error::Command(octet) if octet == cmd));
            assert!(rest.is_empty());
        }
    }

    #[test]
    fn another_version_is_an_error() {
        let error = Request::read_from(&mut b"\x04\x01\x00".as_slice()).unwrap_err();
        assert!(matches!(error, Error::Version(0x04)));
    }
}
