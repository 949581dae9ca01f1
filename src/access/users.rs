//! Who a client is: method selection, username and password, and the proof that they were right.

use std::io::{Read, Write};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::in_force::InForce;
use crate::socks5::{Credentials, Error, Greeting, Method, write_selection, write_status};

mod passwords;
mod penalties;
pub mod spelling;

pub use passwords::Passwords;
use penalties::{Attempt, LoginPenalties};

/// Who a client is. Only [`Users::authenticate`] makes one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    user: Option<Arc<str>>,
}

impl Identity {
    /// The name with which the client has authenticated, as [`spelling::spell`] writes it; `None` if
    /// none was required.
    pub fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }
}

/// Who may use the server: everybody, or the users of a users file.
#[derive(Debug, Default)]
pub struct Users {
    /// Whether there are any never changes.
    passwords: Option<InForce<Passwords>>,
    penalties: LoginPenalties,
}

impl Users {
    /// The users of `passwords`; everybody if that is `None`.
    pub fn new(passwords: Option<Arc<Passwords>>) -> Self {
        Users { passwords: passwords.map(InForce::new), penalties: LoginPenalties::default() }
    }

    /// Requires `passwords` from now on, and still knows who has failed. Where everybody is served,
    /// everybody still is.
    pub fn replace(&self, passwords: Arc<Passwords>) {
        if let Some(current) = &self.passwords {
            current.replace(passwords);
        }
    }

    /// How long the client at `from` is still rejected, if it is: it has failed with too many names.
    pub fn penalty_left(&self, from: IpAddr) -> Option<Duration> {
        self.passwords.as_ref()?;
        self.penalties.left(from, Instant::now())
    }

    /// Reads the greeting of the client at `from`, selects a method and carries it out (RFC 1928
    /// section 3, RFC 1929). The answer to a failure is not written: the caller writes it.
    pub fn authenticate(
        &self,
        client: &mut (impl Read + Write),
        from: IpAddr,
    ) -> Result<Identity, Error> {
        self.greet(client)?;
        let Some(passwords) = &self.passwords else { return Ok(Identity { user: None }) };
        let credentials = Credentials::read_from(client)?;
        let passwords = passwords.get();
        let name = &credentials.name;
        match self.penalties.attempt(from, name, Instant::now(), || passwords.check(&credentials)) {
            Attempt::Right(user) => {
                write_status(true, client)?;
                Ok(Identity { user: Some(user) })
            }
            Attempt::Wrong => Err(Error::BadCredentials(spelling::spell(name))),
            Attempt::Ignored(left) => Err(Error::IgnoredCredentials(spelling::spell(name), left)),
        }
    }

    /// Reads the greeting of a client and selects a method, which says nothing yet of who it is.
    pub fn greet(&self, client: &mut (impl Read + Write)) -> Result<(), Error> {
        let method = match self.passwords {
            None => Method::NoAuthentication,
            Some(_) => Method::UsernamePassword,
        };
        let greeting = Greeting::read_from(client)?;
        if !greeting.offers(method) {
            return Err(Error::NoAcceptableMethod(method));
        }
        Ok(write_selection(Some(method), client)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;
    use std::net::Ipv4Addr;

    const FROM: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

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

    fn alice() -> Users {
        let passwords = Passwords::parse(b"alice:open sesame", "users").unwrap();
        Users::new(Some(Arc::new(passwords)))
    }

    /// The outcome, the answers, and what the client has sent that was not read.
    fn play<'a>(users: &Users, sent: &'a [u8]) -> (Result<Identity, Error>, Vec<u8>, &'a [u8]) {
        let mut client = Script { sent, answers: Vec::new() };
        let outcome = users.authenticate(&mut client, FROM);
        (outcome, client.answers, client.sent)
    }

    #[test]
    fn without_users_no_password_is_required() {
        let (outcome, answers, rest) = play(&Users::default(), b"\x05\x02\x00\x02\x05\x01\x00");
        assert_eq!(outcome.unwrap().user(), None);
        assert_eq!(
            (answers.as_slice(), rest),
            (b"\x05\x00".as_slice(), b"\x05\x01\x00".as_slice())
        );
        let (outcome, answers, _) = play(&Users::default(), b"\x05\x01\x02");
        assert!(matches!(outcome, Err(Error::NoAcceptableMethod(_))));
        assert_eq!(answers, b"");
    }

    #[test]
    fn with_users_the_right_password_is_required() {
        let sent = b"\x05\x02\x00\x02\x01\x05alice\x0bopen sesame\x05\x01\x00";
        let (outcome, answers, rest) = play(&alice(), sent);
        assert_eq!(outcome.unwrap().user(), Some("alice"));
        assert_eq!(answers, b"\x05\x02\x01\x00");
        assert_eq!(rest, b"\x05\x01\x00");
    }

    #[test]
    fn a_client_that_offers_no_password_is_not_asked_for_one() {
        for greeting in [b"\x05\x01\x00\x05\x01\x00".as_slice(), b"\x05\x00", b"\x05\x02\x01\x80"] {
            let (outcome, answers, _) = play(&alice(), greeting);
            assert!(matches!(outcome, Err(Error::NoAcceptableMethod(_))));
            assert_eq!(answers, b"");
        }
    }

    #[test]
    fn a_wrong_name_and_a_wrong_password_look_the_same() {
        for (sent, name) in [
            (b"\x05\x01\x02\x01\x05alice\x04open".as_slice(), "alice"),
            (b"\x05\x01\x02\x01\x05mal y\x0bopen sesame", r"mal\x20y"),
            (b"\x05\x01\x02\x01\x00\x00", ""),
        ] {
            let (outcome, answers, _) = play(&alice(), sent);
            assert!(matches!(outcome, Err(Error::BadCredentials(user)) if user == name));
            assert_eq!(answers, b"\x05\x02");
        }
    }

    #[test]
    fn after_five_failures_even_the_right_password_is_not_looked_at() {
        const RIGHT: &[u8] = b"\x05\x01\x02\x01\x05alice\x0bopen sesame";
        const WRONG: &[u8] = b"\x05\x01\x02\x01\x05alice\x04open";
        let users = alice();
        for _ in 0..4 {
            play(&users, WRONG).0.unwrap_err();
        }
        play(&users, RIGHT).0.expect("it clears the failures");
        for _ in 0..5 {
            play(&users, WRONG).0.unwrap_err();
        }
        assert!(matches!(play(&users, RIGHT).0, Err(Error::IgnoredCredentials(..))));
        assert_eq!(users.penalty_left(FROM), None, "others at the address are served");
    }

    #[test]
    fn new_passwords_are_asked_for_and_failures_are_remembered() {
        const OLD: &[u8] = b"\x05\x01\x02\x01\x05alice\x0bopen sesame";
        const NEW: &[u8] = b"\x05\x01\x02\x01\x05alice\x03new";
        let users = alice();
        play(&users, OLD).0.unwrap();
        let new = Passwords::parse(b"alice:new\nbob:b", "users").unwrap();
        users.replace(Arc::new(new));
        play(&users, NEW).0.unwrap();
        for _ in 0..5 {
            assert!(matches!(play(&users, OLD).0, Err(Error::BadCredentials(_))));
        }
        users.replace(Arc::new(Passwords::parse(b"alice:new", "users").unwrap()));
        assert!(matches!(play(&users, NEW).0, Err(Error::IgnoredCredentials(..))));
        let everybody = Users::default();
        everybody.replace(Arc::new(Passwords::parse(b"alice:new", "users").unwrap()));
        assert_eq!(play(&everybody, b"\x05\x01\x00").0.unwrap().user(), None);
    }
}
