//! Who a client is: method selection, username and password, and the proof that they were right.

use std::io::{Read, Write};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::in_force::InForce;
use crate::socks5::{Credentials, Error, Greeting, Method, write_selection, write_status};

pub(super) mod passwords;
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
    /// none was required. The text itself, not one like it, shows that the login is still good:
    /// [`Passwords::revoked`].
    pub fn user(&self) -> Option<&Arc<str>> {
        self.user.as_ref()
    }
}

/// Who may use the server: everybody, or the users of a users file.
#[derive(Debug, Default)]
pub struct Users {
    in_force: Arc<InForce>,
    penalties: LoginPenalties,
}

impl Users {
    /// The users that are in force; everybody where there are none.
    pub fn new(in_force: Arc<InForce>) -> Self {
        Users { in_force, penalties: LoginPenalties::default() }
    }

    /// How long the client at `from` is still rejected, if it is: it has failed with too many names.
    pub fn penalty_left(&self, from: IpAddr) -> Option<Duration> {
        self.in_force.get().users.as_ref()?;
        self.penalties.left(from, Instant::now())
    }

    /// Reads the greeting of the client at `from`, selects a method and carries it out (RFC 1928
    /// section 3, RFC 1929). The answer to a failure is not written: the caller writes it.
    pub fn authenticate(
        &self,
        client: &mut (impl Read + Write),
        from: IpAddr,
    ) -> Result<Identity, Error> {
        if self.greet(client)? == Method::NoAuthentication {
            return Ok(Identity { user: None });
        }
        let credentials = Credentials::read_from(client)?;
        let files = self.in_force.get();
        let name = &credentials.name;
        let check = || files.users.as_ref()?.check(&credentials);
        match self.penalties.attempt(from, name, Instant::now(), check) {
            Attempt::Right(user) => {
                write_status(true, client)?;
                Ok(Identity { user: Some(user) })
            }
            Attempt::Wrong => Err(Error::BadCredentials(spelling::spell(name))),
            Attempt::Ignored(left) => Err(Error::IgnoredCredentials(spelling::spell(name), left)),
        }
    }

    /// Reads the greeting of a client and selects a method, which says nothing yet of who it is.
    pub fn greet(&self, client: &mut (impl Read + Write)) -> Result<Method, Error> {
        let method = match self.in_force.get().users {
            None => Method::NoAuthentication,
            Some(_) => Method::UsernamePassword,
        };
        let greeting = Greeting::read_from(client)?;
        if !greeting.offers(method) {
            return Err(Error::NoAcceptableMethod(method));
        }
        write_selection(Some(method), client)?;
        Ok(method)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::in_force::AccessFiles;
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
        Users::new(Arc::new(InForce::new(Arc::new(files(b"alice:open sesame")))))
    }

    fn files(users: &[u8]) -> AccessFiles {
        let users = Passwords::parse(users, "users").unwrap();
        AccessFiles { users: Some(users), ..AccessFiles::default() }
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
        assert_eq!(outcome.unwrap().user().unwrap().as_ref(), "alice");
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
        users.in_force.replace(files(b"alice:new\nbob:b"));
        play(&users, NEW).0.unwrap();
        for _ in 0..5 {
            assert!(matches!(play(&users, OLD).0, Err(Error::BadCredentials(_))));
        }
        users.in_force.replace(files(b"alice:new"));
        assert!(matches!(play(&users, NEW).0, Err(Error::IgnoredCredentials(..))));
    }

    #[test]
    fn a_login_lasts_while_name_and_password_stay_the_same() {
        let users = alice();
        let login = || play(&users, b"\x05\x01\x02\x01\x05alice\x0bopen sesame").0.unwrap();
        let first = login();
        let revoked = |login: &Identity| users.in_force.get().revoked(login.user().unwrap());
        assert_eq!(revoked(&first), None);
        users.in_force.replace(files(b"bob:b\nalice:open sesame"));
        users.in_force.replace(files(b"alice:open sesame\n"));
        assert_eq!([revoked(&first), revoked(&login())], [None, None]);
        users.in_force.replace(files(b"alice:open sesame!\n"));
        assert_eq!(revoked(&first), Some("the user's password has changed (--users)"));
        users.in_force.replace(files(b"bob:open sesame\n"));
        assert_eq!(revoked(&first), Some("the user is gone (--users)"));
        // Another user of the same name.
        users.in_force.replace(files(b"alice:open sesame"));
        assert!(revoked(&first).is_some());
        assert_eq!(revoked(&login()), None);
    }
}
