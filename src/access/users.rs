//! Who a client is: name and password, and the proof that they were right.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnet::IpNet;

use super::in_force::InForce;
use crate::system::waker::Waker;
use crate::wire::credentials::Credentials;

mod hash;
pub(super) mod passwords;
mod penalties;
pub mod spelling;
mod verifications;

pub use hash::of_new_password;
pub use passwords::Passwords;
use penalties::{LoginPenalties, Standing};
use verifications::{Guess, Verifications};

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
#[derive(Default)]
pub struct Users {
    in_force: Arc<InForce>,
    penalties: LoginPenalties,
    verifications: Arc<Verifications>,
    /// Networks whose clients need no password.
    no_password_from: Vec<IpNet>,
}

impl Users {
    /// The users that are in force; everybody where there are none.
    pub fn new(in_force: Arc<InForce>) -> Self {
        Users { in_force, ..Users::default() }
    }

    /// The same, but that clients in these networks need no password.
    pub fn with_no_password_from(self, networks: Vec<IpNet>) -> Self {
        Users { no_password_from: networks, ..self }
    }

    /// How long the client at `from` is still rejected, if it is: it has failed with too many names.
    pub fn penalty_left(&self, from: IpAddr) -> Option<Duration> {
        self.in_force.get().users.as_ref()?;
        self.penalties.left(from, Instant::now())
    }

    /// Whether there are users, so that clients may log in.
    pub fn are_known(&self) -> bool {
        self.in_force.get().users.is_some()
    }

    /// Whether the client at `from` has to log in.
    pub fn are_required(&self, from: IpAddr) -> bool {
        self.are_known() && !self.no_password_from.iter().any(|net| net.contains(&from))
    }

    /// Who the client at `from` is, by the credentials that it shows. Where it takes long to say so, `wait` is
    /// to wait until the waker can be read, and says whether it can.
    pub fn authenticate(
        &self,
        credentials: Option<&Credentials>,
        from: IpAddr,
        wait: impl FnOnce(&Waker) -> bool,
    ) -> Result<Identity, LoginError> {
        let files = self.in_force.get();
        match &files.users {
            None => Ok(Identity { user: None }),
            Some(users) => self.log_in(users, credentials, from, wait),
        }
    }

    // Not in the frame of those who need no login, as stacks are small.
    #[inline(never)]
    fn log_in(
        &self,
        users: &Passwords,
        credentials: Option<&Credentials>,
        from: IpAddr,
        wait: impl FnOnce(&Waker) -> bool,
    ) -> Result<Identity, LoginError> {
        let is_required = self.are_required(from);
        // Java sends the system's user without a password.
        let credentials = credentials.filter(|it| is_required || !it.password.octets().is_empty());
        let credentials = match credentials {
            Some(credentials) => credentials,
            None if is_required => return Err(LoginError::Missing),
            None => return Ok(Identity { user: None }),
        };
        let name = &credentials.name;
        let mut standing = self.penalties.standing(from, name, Instant::now());
        let guess = match users.check(credentials, from.into()) {
            Err(guess) => guess,
            Ok(user) => {
                if let Some(left) = standing.left() {
                    return Err(LoginError::Ignored(spelling::spell(name), left));
                }
                match user {
                    Some(_) => standing.succeeded(),
                    None => standing.failed(),
                }
                return identity(user, name);
            }
        };
        let user = self.verify(guess, standing, wait)?;
        if user.is_some() {
            self.penalties.standing(from, name, Instant::now()).succeeded_after_all();
        }
        identity(user, name)
    }

    /// Has a guess compared with a hash. It counts as a failure before that begins, and once, however many
    /// connections of the client make it meanwhile.
    #[inline(never)]
    fn verify(
        &self,
        guess: Box<Guess>,
        mut standing: Standing<'_>,
        wait: impl FnOnce(&Waker) -> bool,
    ) -> Result<Option<Arc<str>>, LoginError> {
        let spelled = spelling::spell(&guess.name);
        let not_verified = || LoginError::NotVerified(spelled.clone());
        let waker = Waker::new().map_err(|_| not_verified())?;
        let mut jobs = self.verifications.0.lock();
        if !jobs.has(&guess) {
            if let Some(left) = standing.left() {
                return Err(LoginError::Ignored(spelled, left));
            }
            standing.failed();
        }
        let client = guess.client;
        let (waiter, job) = jobs.join(*guess, client, Arc::new(waker));
        drop((jobs, standing));
        self.verifications.start(job.into_iter().collect());
        let has_come = wait(&waiter.waker);
        self.verifications.0.lock().leave(&waiter);
        let answer = waiter.answer.get().filter(|_| has_come).ok_or(LoginError::ClientLeft)?;
        answer.clone().map_err(|()| not_verified())
    }
}

/// Who has shown these credentials, if there is such a user.
fn identity(user: Option<Arc<str>>, name: &[u8]) -> Result<Identity, LoginError> {
    let wrong = || LoginError::Wrong(spelling::spell(name));
    user.map(|user| Identity { user: Some(user) }).ok_or_else(wrong)
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
    /// There is no thread, or no descriptor, to compare the password with a hash.
    NotVerified(String),
    /// It has not waited for that.
    ClientLeft,
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
            LoginError::NotVerified(_) => {
                f.write_str("not looked at: the system refuses a thread or a descriptor for that")
            }
            LoginError::ClientLeft => f.write_str("the client has left"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::in_force::AccessFiles;
    use crate::system::poll::poll;
    use crate::wire::credentials::Password;
    use rustix::event::{PollFd, PollFlags};
    use std::net::Ipv4Addr;
    use std::sync::Barrier;
    use std::thread;

    const LONG: Duration = Duration::from_secs(60);

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
        let credentials = Credentials { name: name.into(), password };
        users.authenticate(Some(&credentials), FROM, patiently)
    }

    /// Waits until the waker can be read.
    fn patiently(waker: &Waker) -> bool {
        let mut polled = [PollFd::new(waker, PollFlags::IN)];
        poll(&mut polled, LONG).is_ok()
    }

    #[test]
    fn without_users_no_password_is_required() {
        assert!(!Users::default().are_required(FROM));
        assert_eq!(Users::default().authenticate(None, FROM, patiently).unwrap().user(), None);
        assert_eq!(login(&Users::default(), b"mallory", b"x").unwrap().user(), None);
    }

    #[test]
    fn with_users_the_right_password_is_required() {
        assert!(alice().are_required(FROM));
        let identity = login(&alice(), b"alice", b"open sesame").unwrap();
        assert_eq!(identity.user().unwrap().as_ref(), "alice");
        assert_eq!(alice().authenticate(None, FROM, patiently), Err(LoginError::Missing));
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
            users.authenticate(None, FROM, patiently).unwrap_err();
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

    /// The password of alice is a hash, as little work as can be.
    fn hashed() -> Users {
        let file = format!("alice:{}\nbob:b", bcrypt::hash("open sesame", 4).unwrap());
        Users::new(Arc::new(InForce::new(Arc::new(files(file.as_bytes())))))
    }

    #[test]
    fn a_hash_lets_its_password_in_and_no_other() {
        let users = hashed();
        for _ in 0..2 {
            let identity = login(&users, b"alice", b"open sesame").unwrap();
            assert_eq!(identity.user().unwrap().as_ref(), "alice");
            login(&users, b"bob", b"b").unwrap();
            for (name, password) in [
                (b"alice".as_slice(), b"open".as_slice()),
                (b"alice", b""),
                (b"bob", b"open sesame"),
                (b"carol", b"open sesame"),
            ] {
                let error = login(&users, name, password).unwrap_err();
                assert!(matches!(error, LoginError::Wrong(_)), "{error:?}");
            }
        }
    }

    /// What becomes of logins as alice that all wait at the same time.
    fn at_once(users: &Users, passwords: &[&str]) -> Vec<Result<Identity, LoginError>> {
        let all_ask = Barrier::new(passwords.len());
        thread::scope(|scope| {
            let logins: Vec<_> = passwords
                .iter()
                .map(|password| {
                    let all_ask = &all_ask;
                    scope.spawn(move || {
                        let password = Password::new(password.as_bytes()).unwrap();
                        let alice = Credentials { name: b"alice".into(), password };
                        all_ask.wait();
                        users.authenticate(Some(&alice), FROM, patiently)
                    })
                })
                .collect();
            logins.into_iter().map(|login| login.join().unwrap()).collect()
        })
    }

    #[test]
    fn of_many_guesses_at_once_none_is_looked_at_before_the_others_count() {
        let guesses: Vec<_> = (0..30).map(|guess| format!("guess {guess}")).collect();
        let results = at_once(&hashed(), &guesses.iter().map(|it| &**it).collect::<Vec<_>>());
        let looked_at = results.iter().filter(|it| matches!(it, Err(LoginError::Wrong(_)))).count();
        assert_eq!(looked_at, 5);
    }

    #[test]
    fn a_browser_may_open_any_number_of_connections_with_the_right_password() {
        let users = hashed();
        for login in at_once(&users, &["open sesame"; 30]) {
            login.unwrap();
        }
        let wrong = || login(&users, b"alice", b"open");
        assert!((0..5).all(|_| matches!(wrong(), Err(LoginError::Wrong(_)))), "nothing counts");
        assert!(matches!(wrong(), Err(LoginError::Ignored(..))));
    }

    #[test]
    fn right_passwords_leave_no_failure_of_a_network_behind() {
        let users = hashed();
        let alice = |from: &str, password: &[u8]| {
            let password = Password::new(password).unwrap();
            let alice = Credentials { name: b"alice".into(), password };
            users.authenticate(Some(&alice), from.parse().unwrap(), patiently)
        };
        for host in 0..100 {
            // Each time a hash that remembers nothing.
            users.in_force.replace(files(b"alice:new"));
            users
                .in_force
                .replace(files(format!("alice:{}", bcrypt::hash("a", 4).unwrap()).as_bytes()));
            alice(&format!("fd00::1:{host}"), b"a").unwrap();
        }
        let looked_at = (0..100).filter(|host| {
            let guess = alice(&format!("fd00::2:{host}"), b"open");
            matches!(guess, Err(LoginError::Wrong(_)))
        });
        assert_eq!(looked_at.count(), 65);
    }

    #[test]
    fn who_leaves_before_the_answer_has_failed() {
        let users = hashed();
        let alice = |password: &[u8]| Credentials {
            name: b"alice".into(),
            password: Password::new(password).unwrap(),
        };
        for guess in 0..5 {
            let left = users.authenticate(Some(&alice(&[guess + 1])), FROM, |_| false);
            assert_eq!(left, Err(LoginError::ClientLeft));
        }
        let ignored = users.authenticate(Some(&alice(b"open sesame")), FROM, patiently);
        assert!(matches!(ignored, Err(LoginError::Ignored(..))), "{ignored:?}");
    }

    #[test]
    fn from_a_network_without_a_password_who_sends_none_is_nobody_and_a_wrong_one_is_wrong() {
        let users = alice().with_no_password_from(vec!["127.0.0.0/8".parse().unwrap()]);
        assert!(users.are_known() && !users.are_required(FROM));
        assert_eq!(users.authenticate(None, FROM, patiently).unwrap().user(), None);
        // Java's.
        assert_eq!(login(&users, b"alice", b"").unwrap().user(), None);
        assert_eq!(
            login(&users, b"alice", b"open sesame").unwrap().user().unwrap().as_ref(),
            "alice"
        );
        assert!(matches!(login(&users, b"alice", b"open"), Err(LoginError::Wrong(_))));
        let elsewhere = "192.168.0.7".parse().unwrap();
        assert!(users.are_required(elsewhere));
        assert_eq!(users.authenticate(None, elsewhere, patiently), Err(LoginError::Missing));
    }
}
