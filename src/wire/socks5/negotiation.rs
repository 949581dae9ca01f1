//! What comes before the request: a method is agreed on and carried out (RFC 1928 section 3, RFC 1929).

use std::io::{Read, Write};

use super::error::Error;
use super::greeting::{Greeting, write_selection};
use super::method::Method;
use crate::wire::credentials::Credentials;

/// Reads the greeting, selects `method`, and reads the credentials where that is username and password. The
/// answer to an error, and to the credentials, is left to the caller.
pub fn negotiate(
    client: &mut (impl Read + Write),
    method: Method,
) -> Result<Option<Credentials>, Error> {
    greet(client, method)?;
    match method {
        Method::NoAuthentication => Ok(None),
        Method::UsernamePassword => Credentials::read_from(client).map(Some),
    }
}

/// Reads the greeting and selects `method`.
pub fn greet(client: &mut (impl Read + Write), method: Method) -> Result<(), Error> {
    if !Greeting::read_from(client)?.offers(method) {
        return Err(Error::NoAcceptableMethod(method));
    }
    Ok(write_selection(Some(method), client)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

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
    fn play(method: Method, sent: &[u8]) -> (Result<Option<Credentials>, Error>, Vec<u8>, &[u8]) {
        let mut client = Script { sent, answers: Vec::new() };
        let outcome = negotiate(&mut client, method);
        (outcome, client.answers, client.sent)
    }

    #[test]
    fn without_users_no_password_is_required() {
        let (outcome, answers, rest) =
            play(Method::NoAuthentication, b"\x05\x02\x00\x02\x05\x01\x00");
        assert!(outcome.unwrap().is_none());
        assert_eq!(
            (answers.as_slice(), rest),
            (b"\x05\x00".as_slice(), b"\x05\x01\x00".as_slice())
        );
        let (outcome, answers, _) = play(Method::NoAuthentication, b"\x05\x01\x02");
        assert!(matches!(outcome, Err(Error::NoAcceptableMethod(_))));
        assert_eq!(answers, b"");
    }

    #[test]
    fn with_users_a_password_is_required() {
        let sent = b"\x05\x02\x00\x02\x01\x05alice\x0bopen sesame\x05\x01\x00";
        let (outcome, answers, rest) = play(Method::UsernamePassword, sent);
        assert_eq!(outcome.unwrap().unwrap().name, b"alice");
        assert_eq!(answers, b"\x05\x02");
        assert_eq!(rest, b"\x05\x01\x00");
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
