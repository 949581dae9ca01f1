//! Username and password: the client's credentials, and the status that answers them (RFC 1929).

use std::io::{self, Read, Write};

use byteorder::ReadBytesExt;

use super::error::{AnswerError, Error};
use super::greeting;
use crate::wire::credentials::{Credentials, Password};

/// VER of the subnegotiation, which has a version of its own.
const VERSION: u8 = 0x01;

/// STATUS: any other octet than the first is a failure.
const SUCCESS: u8 = 0x00;
const FAILURE: u8 = 0x01;

impl Credentials {
    /// Reads VER, ULEN, UNAME, PLEN and PASSWD. RFC 1929 has both at 1 octet at least; empty ones
    /// are read all the same, and nobody is named so.
    /// Behind another VER nothing is read.
    pub fn read_from(reader: &mut impl Read) -> Result<Self, Error> {
        let version = reader.read_u8()?;
        if version != VERSION {
            return Err(Error::CredentialsVersion(version));
        }
        let mut name = vec![0; usize::from(reader.read_u8()?)];
        reader.read_exact(&mut name)?;
        let length = usize::from(reader.read_u8()?);
        let mut password = [0; 255];
        reader.read_exact(&mut password[..length])?;
        let password = Password::new(&password[..length]).unwrap_or(Password::NONE);
        Ok(Credentials { name, password })
    }

    /// Writes VER, ULEN, UNAME, PLEN and PASSWD; an error where the name has more than 255 octets.
    pub fn write_to(&self, writer: &mut impl Write) -> io::Result<()> {
        let length = |octets: &[u8]| u8::try_from(octets.len()).map_err(io::Error::other);
        let password = self.password.octets();
        let head = [VERSION, length(&self.name)?];
        writer.write_all(&[&head, &self.name[..], &[length(password)?], password].concat())
    }
}

/// Writes VER and STATUS. A client that has failed is served no further.
pub fn write_status(success: bool, writer: &mut impl Write) -> io::Result<()> {
    writer.write_all(&[VERSION, if success { SUCCESS } else { FAILURE }])
}

/// Reads the status of another server: VER and STATUS, true for success. Some servers say SOCKS5's
/// VER, not that of RFC 1929.
pub fn read_status(reader: &mut impl Read) -> Result<bool, AnswerError> {
    match reader.read_u8()? {
        VERSION | greeting::VERSION => Ok(reader.read_u8()? == SUCCESS),
        octet => Err(AnswerError::StatusVersion(octet)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use subtle::ConstantTimeEq;

    const WIRE: &[u8] = b"\x01\x05alice\x0bopen sesame";

    fn equal(password: &Password, octets: &[u8]) -> bool {
        password.ct_eq(&Password::new(octets).unwrap()).into()
    }

    #[test]
    fn reads_exactly_its_octets() {
        let stream = [WIRE, b"\x05\x01\x00"].concat();
        let mut rest = stream.as_slice();
        let credentials = Credentials::read_from(&mut rest).unwrap();
        assert_eq!(credentials.name, b"alice");
        assert!(equal(&credentials.password, b"open sesame"));
        assert_eq!(rest, b"\x05\x01\x00");
    }

    #[test]
    fn every_truncation_is_an_error() {
        for length in 0..WIRE.len() {
            let error = Credentials::read_from(&mut &WIRE[..length]).unwrap_err();
            assert!(matches!(error, Error::Io(_)), "cut to {length}");
        }
    }

    #[test]
    fn both_may_have_any_octets_and_every_length() {
        let all: Vec<u8> = (1..=255).collect();
        let stream = [b"\x01\xff", all.as_slice(), b"\xff", &all].concat();
        let credentials = Credentials::read_from(&mut stream.as_slice()).unwrap();
        assert_eq!(credentials.name, all);
        assert!(equal(&credentials.password, &all));
        let empty = Credentials::read_from(&mut b"\x01\x00\x00".as_slice()).unwrap();
        assert_eq!(empty.name, b"");
        assert!(bool::from(empty.password.ct_eq(&Password::NONE)));
    }

    #[test]
    fn another_version_is_an_error() {
        for version in [0x00, 0x02, 0x05] {
            let error = Credentials::read_from(&mut [version, 1, 2].as_slice()).unwrap_err();
            assert!(matches!(error, Error::CredentialsVersion(octet) if octet == version));
        }
    }

    #[test]
    fn writes_the_status() {
        let mut wire = Vec::new();
        write_status(true, &mut wire).unwrap();
        write_status(false, &mut wire).unwrap();
        assert_eq!(wire, b"\x01\x00\x01\x01");
    }

    #[test]
    fn what_is_read_can_be_written() {
        for wire in [WIRE, b"\x01\x01\xff\x01\x00", b"\x01\x00\x00"] {
            let mut written = Vec::new();
            Credentials::read_from(&mut &wire[..]).unwrap().write_to(&mut written).unwrap();
            assert_eq!(written, wire);
        }
        for success in [true, false] {
            let mut wire = Vec::new();
            write_status(success, &mut wire).unwrap();
            assert_eq!(read_status(&mut wire.as_slice()).unwrap(), success);
        }
        assert!(read_status(&mut b"\x05\x00".as_slice()).unwrap());
        let nonsense = read_status(&mut b"\x00\x00".as_slice()).unwrap_err();
        assert!(matches!(nonsense, AnswerError::StatusVersion(0x00)));
    }

    #[test]
    fn a_password_is_never_shown() {
        let credentials = Credentials::read_from(&mut &*WIRE).unwrap();
        assert!(!format!("{credentials:?}").contains("sesame"));
    }
}
