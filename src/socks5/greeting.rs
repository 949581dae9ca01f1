//! The greeting and the method selection (RFC 1928 section 3).

use std::io::{self, Read, Write};

use byteorder::ReadBytesExt;

use super::error::{AnswerError, Error};
use super::method::Method;

/// VER, the first octet of every message but the credentials.
pub(super) const VERSION: u8 = 0x05;

/// METHOD when none is acceptable.
const NO_ACCEPTABLE_METHOD: u8 = 0xff;

/// What a SOCKS4 client understands as "request rejected or failed".
pub const SOCKS4_REJECTION: &[u8] = b"\x00\x5b\x00\x00\x00\x00\x00\x00";

/// What someone who set this server as an HTTP proxy gets to read.
pub const HTTP_REJECTION: &[u8] = b"HTTP/1.1 400 Bad Request\r\n\
    Content-Type: text/plain\r\n\
    Content-Length: 110\r\n\
    Connection: close\r\n\
    \r\n\
    This is a SOCKS5 proxy, not an HTTP proxy.\n\
    Set it as SOCKS5 host, or as socks5h://host:port where a URL goes.\n";

const SOCKS4_VERSION: u8 = 0x04;
const HTTP_METHODS: [&[u8]; 10] = [
    b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"CONNECT", b"OPTIONS", b"TRACE", b"PATCH", b"PRI",
];

/// The methods that a client offers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Greeting {
    methods: Vec<u8>,
}

impl Greeting {
    /// Offers `methods`.
    pub fn new(methods: &[Method]) -> Self {
        Greeting { methods: methods.iter().map(|method| *method as u8).collect() }
    }

    /// Reads VER, NMETHODS and METHODS.
    pub fn read_from(reader: &mut impl Read) -> Result<Self, Error> {
        match reader.read_u8()? {
            VERSION => {}
            SOCKS4_VERSION => return Err(Error::Socks4),
            first => return Err(read_http_method(first, reader)?),
        }
        let mut methods = vec![0; usize::from(reader.read_u8()?)];
        reader.read_exact(&mut methods)?;
        Ok(Greeting { methods })
    }

    /// Writes VER, NMETHODS and METHODS.
    pub fn write_to(&self, writer: &mut impl Write) -> io::Result<()> {
        let count = u8::try_from(self.methods.len()).map_err(io::Error::other)?;
        writer.write_all(&[&[VERSION, count], self.methods.as_slice()].concat())
    }

    /// Whether the client offers `method`.
    pub fn offers(&self, method: Method) -> bool {
        self.methods.contains(&(method as u8))
    }
}

/// Writes the method selection: VER and METHOD, 0xFF for none.
pub fn write_selection(method: Option<Method>, writer: &mut impl Write) -> io::Result<()> {
    writer.write_all(&[VERSION, method.map_or(NO_ACCEPTABLE_METHOD, |method| method as u8)])
}

/// Reads the method selection of another server: VER and METHOD, `None` for 0xFF.
pub fn read_selection(reader: &mut impl Read) -> Result<Option<Method>, AnswerError> {
    let version = reader.read_u8()?;
    if version != VERSION {
        return Err(AnswerError::Version(version));
    }
    match reader.read_u8()? {
        NO_ACCEPTABLE_METHOD => Ok(None),
        octet => Method::from_repr(octet).map(Some).ok_or(AnswerError::Method(octet)),
    }
}

/// Reads on for as long as the octets begin an HTTP request, and says what they were.
fn read_http_method(first: u8, reader: &mut impl Read) -> Result<Error, Error> {
    let mut line = vec![first];
    while HTTP_METHODS.iter().any(|method| method.starts_with(&line)) {
        line.push(reader.read_u8()?);
        match line.as_slice() {
            [method @ .., b' '] if HTTP_METHODS.contains(&method) => return Ok(Error::Http),
            _ => {}
        }
    }
    Ok(Error::NotSocks(first))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_exactly_its_octets() {
        let mut stream: &[u8] = b"\x05\x02\x00\x02\x05\x01\x00";
        let greeting = Greeting::read_from(&mut stream).unwrap();
        assert!(greeting.offers(Method::NoAuthentication));
        assert!(greeting.offers(Method::UsernamePassword));
        assert_eq!(stream, b"\x05\x01\x00");
    }

    #[test]
    fn offers_only_what_is_listed() {
        let greeting = Greeting::read_from(&mut b"\x05\x02\x01\x80".as_slice()).unwrap();
        assert!(!greeting.offers(Method::NoAuthentication));
        let none = Greeting::read_from(&mut b"\x05\x00".as_slice()).unwrap();
        assert!(!none.offers(Method::NoAuthentication));
    }

    #[test]
    fn reads_255_methods() {
        let stream: Vec<u8> = [VERSION, 255].into_iter().chain((0..255).rev()).collect();
        let greeting = Greeting::read_from(&mut stream.as_slice()).unwrap();
        assert!(greeting.offers(Method::NoAuthentication));
    }

    #[test]
    fn every_truncation_is_an_error() {
        let whole = b"\x05\x02\x00\x02";
        for length in 0..whole.len() {
            let error = Greeting::read_from(&mut &whole[..length]).unwrap_err();
            assert!(matches!(error, Error::Io(_)), "cut to {length}");
        }
    }

    #[test]
    fn a_client_that_speaks_something_else_is_known() {
        let error = |mut octets: &[u8]| Greeting::read_from(&mut octets).unwrap_err();
        assert!(matches!(error(b"\x04\x01\x00\x50"), Error::Socks4));
        for method in HTTP_METHODS {
            assert!(matches!(error(&[method, b" / HTTP/1.1\r\n"].concat()), Error::Http));
        }
        assert!(matches!(error(b"\x16\x03\x01"), Error::NotSocks(0x16)));
        assert!(matches!(error(b"GARBAGE "), Error::NotSocks(b'G')));
        assert!(matches!(error(b"GETS "), Error::NotSocks(b'G')));
        assert!(matches!(error(b"\x00"), Error::NotSocks(0x00)));
        assert!(matches!(error(b"PO"), Error::Io(_)));
    }

    #[test]
    fn what_is_read_can_be_written() {
        for wire in [b"\x05\x01\x00".as_slice(), b"\x05\x02\x00\x02", b"\x05\x00"] {
            let mut written = Vec::new();
            Greeting::read_from(&mut &wire[..]).unwrap().write_to(&mut written).unwrap();
            assert_eq!(written, wire);
        }
        let both = Greeting::new(&[Method::NoAuthentication, Method::UsernamePassword]);
        assert_eq!(both, Greeting::read_from(&mut b"\x05\x02\x00\x02".as_slice()).unwrap());
        for method in [Some(Method::NoAuthentication), Some(Method::UsernamePassword), None] {
            let mut wire = Vec::new();
            write_selection(method, &mut wire).unwrap();
            assert_eq!(read_selection(&mut wire.as_slice()).unwrap(), method);
        }
    }

    #[test]
    fn what_is_no_selection_is_an_error() {
        let read = |mut octets: &[u8]| read_selection(&mut octets).unwrap_err();
        assert!(matches!(read(b"HTTP"), AnswerError::Version(b'H')));
        assert!(matches!(read(b"\x05\x01"), AnswerError::Method(0x01)));
        for truncated in [b"".as_slice(), b"\x05"] {
            assert!(matches!(read(truncated), AnswerError::Io(_)));
        }
    }

    #[test]
    fn writes_the_selection() {
        let mut wire = Vec::new();
        write_selection(Some(Method::NoAuthentication), &mut wire).unwrap();
        write_selection(Some(Method::UsernamePassword), &mut wire).unwrap();
        write_selection(None, &mut wire).unwrap();
        assert_eq!(wire, b"\x05\x00\x05\x02\x05\xff");
    }

    #[test]
    fn the_rejections_are_well_formed() {
        assert_eq!(SOCKS4_REJECTION.len(), 8);
        let text = std::str::from_utf8(HTTP_REJECTION).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())), "{}", body.len());
    }
}
