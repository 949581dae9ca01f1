//! The greeting and the method selection (RFC 1928 section 3).

use std::io::{self, Read, Write};

use byteorder::ReadBytesExt;

use super::error::{AnswerError, Error};
use super::method::Method;

/// VER, the first octet of every message but the credentials.
pub(super) const VERSION: u8 = 0x05;

/// METHOD when none is acceptable.
const NO_ACCEPTABLE_METHOD: u8 = 0xff;

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
        let version = reader.read_u8()?;
        if version != VERSION {
            return Err(Error::Version(version));
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

/// Reads the greeting of a client and selects `method`, or else the `other`, if the client offers that.
pub fn greet(
    client: &mut (impl Read + Write),
    method: Method,
    other: Option<Method>,
) -> Result<Method, Error> {
    let greeting = Greeting::read_from(client)?;
    let mut offered = [Some(method), other].into_iter().flatten().filter(|it| greeting.offers(*it));
    let selected = offered.next().ok_or(Error::NoAcceptableMethod(method))?;
    write_selection(Some(selected), client)?;
    Ok(selected)
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
    fn another_version_is_an_error() {
        let error = Greeting::read_from(&mut b"\x04\x01\x00".as_slice()).unwrap_err();
        assert!(matches!(error, Error::Version(0x04)));
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

    /// A client that sends everything at once, and the answers. A read gives one byte.
    struct Script<'a> {
        sent: &'a [u8],
        answers: Vec<u8>,
    }

    impl Read for Script<'_> {
        fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
            let most = bytes.len().min(1);
            self.sent.read(&mut bytes[..most])
        }
    }

    impl Write for Script<'_> {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.answers.write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// The outcome, the answers, and what the client has sent that was not read.
    fn play(method: Method, sent: &[u8]) -> (Result<Method, Error>, Vec<u8>, &[u8]) {
        play_with(method, None, sent)
    }

    fn play_with(
        method: Method,
        other: Option<Method>,
        sent: &[u8],
    ) -> (Result<Method, Error>, Vec<u8>, &[u8]) {
        let mut client = Script { sent, answers: Vec::new() };
        let outcome = greet(&mut client, method, other);
        (outcome, client.answers, client.sent)
    }

    #[test]
    fn without_users_no_password_is_required() {
        let (outcome, answers, rest) =
            play(Method::NoAuthentication, b"\x05\x02\x00\x02\x05\x01\x00");
        outcome.unwrap();
        assert_eq!(
            (answers.as_slice(), rest),
            (b"\x05\x00".as_slice(), b"\x05\x01\x00".as_slice())
        );
        let (outcome, answers, _) = play(Method::NoAuthentication, b"\x05\x01\x02");
        assert!(matches!(outcome, Err(Error::NoAcceptableMethod(_))));
        assert_eq!(answers, b"");
    }

    #[test]
    fn where_both_are_taken_who_offers_a_password_is_asked_for_it() {
        for (sent, selected) in [
            (b"\x05\x01\x00".as_slice(), Method::NoAuthentication),
            (b"\x05\x01\x02", Method::UsernamePassword),
            (b"\x05\x02\x00\x02", Method::UsernamePassword),
        ] {
            let without = Some(Method::NoAuthentication);
            let (outcome, answers, _) = play_with(Method::UsernamePassword, without, sent);
            assert_eq!(outcome.unwrap(), selected);
            assert_eq!(answers, [0x05, selected as u8]);
        }
        let without = Some(Method::NoAuthentication);
        let (outcome, answers, _) = play_with(Method::UsernamePassword, without, b"\x05\x01\x01");
        assert!(matches!(outcome, Err(Error::NoAcceptableMethod(Method::UsernamePassword))));
        assert_eq!(answers, b"");
    }

    #[test]
    fn with_users_a_password_is_required() {
        let sent = b"\x05\x02\x00\x02\x01\x05alice";
        let (outcome, answers, rest) = play(Method::UsernamePassword, sent);
        outcome.unwrap();
        assert_eq!(answers, b"\x05\x02");
        assert_eq!(rest, b"\x01\x05alice");
    }

    #[test]
    fn a_client_that_offers_no_password_is_not_asked_for_one() {
        for greeting in [b"\x05\x01\x00\x05\x01\x00".as_slice(), b"\x05\x00", b"\x05\x02\x01\x80"] {
            let (outcome, answers, _) = play(Method::UsernamePassword, greeting);
            assert!(matches!(outcome, Err(Error::NoAcceptableMethod(_))));
            assert_eq!(answers, b"");
        }
    }
}
