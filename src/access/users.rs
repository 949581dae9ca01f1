//! Who a client is: name and password, and the proof that they were right.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::in_force::InForce;
use crate::wire::credentials::Credentials;

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

    /// Whether a client has to log in.
    pub fn are_required(&self) -> bool {
        self.in_force.get().users.is_some()
    }

    /// Who the client at `from` is, by the credentials that it shows.
    pub fn authenticate(
        &self,
        credentials: Option<&Credentials>,
        from: IpAddr,
    ) -> Result<Identity, LoginError> {
        let files = self.in_force.get();
        let Some(users) = &files.users else { return Ok(Identity { user: None }) };
        let credentials = credentials.ok_or(LoginError::Missing)?;
        let name = &credentials.name;
        let check = || users.check(credentials);
        match self.penalties.attempt(from, name, Instant::now(), check) {
            Attempt::Right(user) => Ok(Identity { user: Some(user) }),
            Attempt::Wrong => Err(LoginError::Wrong(spelling::spell(name))),
            Attempt::Ignored(left) => Err(LoginError::Ignored(spelling::spell(name), left)),
        }
    }
}

/// Why nobody knows who a client is. The name is spelled as [`spelling::spell`] does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LoginError {
    /// It shows no credentials.
    Missing,
    /// Nobody has this name and password.
    Wrong(String),
    /// This name has failed too often of late: the password was not looked at, and will not be for
    /// this time.
    Ignored(String, Duration),
}

impl fmt::Display for LoginError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LoginError::Missing => f.write_str("the client offers no name and password (--users)"),
            LoginError::Wrong(name) => write!(f, "wrong name or password of {name}"),
            LoginError::Ignored(_, left) => write!(
                f,
                "too many wrong passwords: not looked at for another {:.1} s",
                left.as_secs_f32()
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::in_force::AccessFiles;
    use crate::wire::credentials::Password;
    use std::net::Ipv4Addr;

    const FROM: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    fn alice() -> Users {
        Users::new(Arc::new(InForce::new(Arc::new(files(b"alice:open sesame")))))
    }

    fn files(users: &[u8]) -> AccessFiles {
        let users = Passwords::parse(users, "users").unwrap();
        AccessFiles { users: Some(users), ..AccessFiles::default() }
    }

    fn login(users: &Users, name: &[u8], password: &[u8]) -> Result<Identity, LoginError> {
        let password = Password::new(password).unwrap_or(Password::NONE);
        users.authenticate(Some(&Credentials { name: name.into(), password }), FROM)
    }

    #[test]
    fn without_users_no_password_is_required() {
        assert!(!Users::default().are_required());
        assert_eq!(Users::default().authenticate(None, FROM).unwrap().user(), None);
        assert_eq!(login(&Users::default(), b"mallory", b"x").unwrap().user(), None);
    }

    #[test]
    fn with_users_the_right_password_is_required() {
        assert!(alice().are_required());
        let identity = login(&alice(), b"alice", b"open sesame").unwrap();
        assert_eq!(identity.user().unwrap().as_ref(), "alice");
        assert_eq!(alice().authenticate(None, FROM), Err(LoginError::Missing));
    }

    #[test]
    fn a_wrong_name_and_a_wrong_password_look_the_same() {
        for (name, password, spelled) in [
            (b"alice".as_slice(), b"open".as_slice(), "alice"),
            (b"mal y", b"open sesame", r"mal\x20y"),
            (b"", b"", ""),
        ] {
            let wrong = LoginError::Wrong(spelled.into());
            assert_eq!(login(&alice(), name, password), Err(wrong));
        }
    }

    #[test]
    fn who_shows_no_credentials_has_not_failed() {
        let users = alice();
        for _ in 0..10 {
            users.authenticate(None, FROM).unwrap_err();
        }
        login(&users, b"alice", b"open sesame").unwrap();
    }

    #[test]
    fn after_five_failures_even_the_right_password_is_not_looked_at() {
        let users = alice();
        let [right, wrong] = [b"open sesame".as_slice(), b"open"]
            .map(|password| || login(&users, b"alice", password));
        for _ in 0..4 {
            wrong().unwrap_err();
        }
        right().expect("it clears the failures");
        for _ in 0..5 {
            wrong().unwrap_err();
        }
        assert!(matches!(right(), Err(LoginError::Ignored(..))));
        assert_eq!(users.penalty_left(FROM), None, "others at the address are served");
    }

    #[test]
    fn new_passwords_are_asked_for_and_failures_are_remembered() {
        let users = alice();
        let [old, new] = [b"open sesame".as_slice(), b"new"]
            .map(|password| || login(&users, b"alice", password));
        old().unwrap();
        users.in_force.replace(files(b"alice:new\nbob:b"));
        new().unwrap();
        for _ in 0..5 {
            assert!(matches!(old(), Err(LoginError::Wrong(_))));
        }
        users.in_force.replace(files(b"alice:new"));
        assert!(matches!(new(), Err(LoginError::Ignored(..))));
    }

    #[test]
    fn a_login_lasts_while_name_and_password_stay_the_same() {
        let users = alice();
        let login = || login(&users, b"alice", b"open sesame").unwrap();
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
