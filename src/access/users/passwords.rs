//! The users file: one `name:password` or `name:hash` a line.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use subtle::{Choice, ConstantTimeEq};

use super::hash::{Hash, known_by};
use super::spelling;
use super::verifications::Guess;
use crate::access::lines;
use crate::access::secret::SecretFile;
use crate::system::ip::ClientPrefix;
use crate::wire::credentials::{Credentials, Password};

/// The longest UNAME (RFC 1929 section 2), in bytes.
const LONGEST_NAME: usize = 255;

/// The names and passwords of a users file.
pub struct Passwords {
    users: HashMap<Box<[u8]>, User>,
    /// The hash that takes longest to compare with, if there is any.
    longest: Option<Arc<Hash>>,
    /// Bytes in the file.
    pub(crate) length: usize,
}

struct User {
    /// As the log and rules spell it. All who have logged in with this name and password share the text,
    /// and nobody else does.
    spelled: Arc<str>,
    /// None where there is a hash of it.
    password: Password,
    hash: Option<Arc<Hash>>,
    /// Where the file has it.
    line: u32,
}

impl Passwords {
    /// Reads a users file, which had so many bytes `earlier`: see `SecretFile::read`.
    ///
    /// # Errors
    ///
    /// When the file cannot be read, when others than root and the user who runs tabi have access to
    /// it, and when a line is bad: the error names up to ten of those, and never shows a password.
    pub fn load(path: &Path, earlier: usize) -> Result<Self, String> {
        let name = path.display().to_string();
        let file = SecretFile::read(path, earlier).map_err(|error| format!("{name}: {error}"))?;
        file.check_private().map_err(|error| format!("{name}: {error}"))?;
        Passwords::parse(&file.bytes, &name)
    }

    /// Takes the content of `file`.
    ///
    /// # Errors
    ///
    /// When a line is bad, as [`Passwords::load`] does.
    pub fn parse(bytes: &[u8], file: &str) -> Result<Self, String> {
        let mut users: HashMap<_, User> = HashMap::new();
        lines::each(bytes, file, |line, text| {
            let Some((name, user)) = parse_line(text, line)? else { return Ok(()) };
            match users.entry(name.into()) {
                Entry::Occupied(earlier) => Err(format!(
                    "'{}': expected every name once, and it is in line {} already",
                    name.escape_ascii(),
                    earlier.get().line
                )),
                Entry::Vacant(place) => {
                    place.insert(user);
                    Ok(())
                }
            }
        })?;
        if users.is_empty() {
            return Err(format!("{file}: no user in it: expected `name:password` a line"));
        }
        let hashes = users.values().filter_map(|user| user.hash.clone());
        let longest = hashes.max_by_key(|hash| hash.rounds);
        Ok(Passwords { users, longest, length: bytes.len() })
    }

    /// How many users there are, one at least.
    pub fn count(&self) -> usize {
        self.users.len()
    }

    /// The names of all users, as [`spelling::spell`] writes them.
    pub fn names(&self) -> BTreeSet<Arc<str>> {
        self.users.values().map(|user| Arc::clone(&user.spelled)).collect()
    }

    /// Whether there is a user of this name, which is as [`spelling::spell`] writes it.
    pub fn has(&self, name: &str) -> bool {
        spelling::read(name.as_bytes()).is_some_and(|name| self.users.contains_key(&*name))
    }

    /// The spelled name of the user whose credentials these are, which `client` shows. A wrong password takes
    /// the same time as an unknown name, which is compared with none, and as a right one. Where there are
    /// hashes both take as long as the longest, if the user has no hash of its own.
    ///
    /// # Errors
    ///
    /// Where it takes long to say so: what has to be found out.
    pub(super) fn check(
        &self,
        credentials: &Credentials,
        client: ClientPrefix,
    ) -> Result<Option<Arc<str>>, Box<Guess>> {
        let Credentials { name, password } = credentials;
        let user = self.users.get(&**name);
        let known = Choice::from(u8::from(user.is_some_and(|user| user.hash.is_none())));
        let expected = user.map_or(&Password::NONE, |user| &user.password);
        let right = known & expected.ct_eq(password);
        let of_user = user.and_then(|user| user.hash.as_ref());
        let hash = of_user.or(self.longest.as_ref()).filter(|_| !bool::from(right));
        let may_be = |it: bool| user.filter(|_| it).map(|user| Arc::clone(&user.spelled));
        let Some(hash) = hash else { return Ok(may_be(right.into())) };
        let (known_by, user) = (known_by(password), may_be(of_user.is_some()));
        if user.is_some() && hash.remembers(&known_by) {
            return Ok(user);
        }
        let (name, password, hash) = (name.as_slice().into(), password.clone(), Arc::clone(hash));
        Err(Box::new(Guess { client, name, password, known_by, hash, user }))
    }

    /// Why `user`, which is what `Passwords::check` has given to who has logged in, is none of these
    /// users any more, if it is so: another password makes another user of the same name.
    pub fn revoked(&self, user: &Arc<str>) -> Option<&'static str> {
        let name = spelling::read(user.as_bytes());
        match name.and_then(|name| self.users.get(&*name)) {
            None => Some("the user is gone (--users)"),
            Some(now) if !Arc::ptr_eq(&now.spelled, user) => {
                Some("the user's password has changed (--users)")
            }
            Some(_) => None,
        }
    }

    /// Whoever has logged in before stays logged in where name and password are the same here.
    pub(in crate::access) fn keep_logins_of(&mut self, earlier: &Passwords) {
        for (name, user) in &mut self.users {
            let same = earlier.users.get(name);
            let same = same.filter(|same| same.password.ct_eq(&user.password).into());
            let text = |user: &User| user.hash.as_ref().map(|hash| hash.text.clone());
            if let Some(same) = same.filter(|same| text(same) == text(user)) {
                user.spelled = Arc::clone(&same.spelled);
                // It remembers the right password.
                user.hash.clone_from(&same.hash);
            }
        }
    }
}

impl fmt::Debug for Passwords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Passwords of {} users", self.count())
    }
}

/// The user in a line with this number; `None` if it is blank or a comment.
fn parse_line(line: &[u8], number: u32) -> Result<Option<(&[u8], User)>, String> {
    let text = line.trim_ascii_start();
    if text.is_empty() || text.starts_with(b"#") {
        return Ok(None);
    }
    // A line without a colon may be a password: it is not shown.
    let colon = line.iter().position(|byte| *byte == b':');
    let colon = colon.ok_or("no colon in the line: expected `name:password` or `name:hash`")?;
    let (name, password) = (&line[..colon], &line[colon + 1..]);
    let shown = name[..name.len().min(LONGEST_NAME)].escape_ascii();
    if !(1..=LONGEST_NAME).contains(&name.len()) {
        return Err(format!("'{shown}': expected a name of 1 to 255 bytes before the colon"));
    }
    if name.trim_ascii() != name {
        return Err(format!("'{shown}': expected a name without white space at its ends"));
    }
    let hash = Hash::parse(password).map_err(|error| format!("'{shown}': {error}"))?;
    let none = hash.as_ref().map(|_| Password::NONE);
    let password = none.or_else(|| Password::new(password)).ok_or_else(|| {
        format!("'{shown}': expected a password of 1 to 255 bytes behind the colon")
    })?;
    let (spelled, hash) = (spelling::spell(name).into(), hash.map(Arc::new));
    Ok(Some((name, User { spelled, password, hash, line: number })))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{IpAddr, Ipv4Addr};

    fn load(content: &[u8]) -> Result<Passwords, String> {
        Passwords::parse(content, "users")
    }

    fn check(passwords: &Passwords, name: &[u8], password: &[u8]) -> Option<Arc<str>> {
        let password = Password::new(password).unwrap_or(Password::NONE);
        let client = IpAddr::from(Ipv4Addr::LOCALHOST).into();
        let checked = passwords.check(&Credentials { name: name.into(), password }, client);
        checked.ok().expect("there is no hash")
    }

    #[test]
    fn a_line_is_a_name_and_a_password() {
        let file = b"# who may use the proxy\n\nalice:open sesame\n  \n \t# bob:old\nbob:a:b:#c \n\
            ren\xc3\xa9e:\xff\x00\r\r\ncarol:last line";
        let passwords = load(file).unwrap();
        assert_eq!(passwords.count(), 4);
        assert_eq!(check(&passwords, b"alice", b"open sesame").as_deref(), Some("alice"));
        assert!(check(&passwords, b"bob", b"a:b:#c ").is_some());
        let spelled = check(&passwords, b"ren\xc3\xa9e", b"\xff\x00\r");
        assert_eq!(spelled.as_deref(), Some(r"ren\xc3\xa9e"));
        assert!(check(&passwords, b"carol", b"last line").is_some());
        assert!(passwords.has("alice") && passwords.has(r"ren\xc3\xa9e") && !passwords.has("al"));
    }

    #[test]
    fn the_first_user_of_a_file_with_a_byte_order_mark_keeps_his_name() {
        let passwords = load(b"\xef\xbb\xbfalice:open sesame\r\nbob:b\r\n").unwrap();
        assert!(check(&passwords, b"alice", b"open sesame").is_some());
        let passwords = load(b"\xef\xbb\xbf# mallory: a comment\r\nbob:b\r\n").unwrap();
        assert_eq!(passwords.count(), 1);
    }

    #[test]
    fn nobody_gets_in_with_anything_else() {
        let passwords = load(b"alice:open sesame\nbob:bob").unwrap();
        for (name, password) in [
            (b"alice".as_slice(), b"open sesam".as_slice()),
            (b"alice", b"open sesame "),
            (b"alice", b"bob"),
            (b"alice", b""),
            (b"Alice", b"open sesame"),
            (b"alice\0", b"open sesame"),
            (b"carol", b"open sesame"),
            (b"carol", b""),
            (b"", b""),
        ] {
            assert_eq!(check(&passwords, name, password), None, "{}", name.escape_ascii());
        }
    }

    #[test]
    fn the_longest_name_and_password_are_taken() {
        let longest = [b'a'; 255];
        let passwords = load(&[&longest[..], b":", &longest[..]].concat()).unwrap();
        assert!(check(&passwords, &longest, &longest).is_some());
    }

    #[test]
    fn bad_lines_are_named_with_what_is_expected_and_without_a_password() {
        let long = "x".repeat(256);
        let file = format!(
            "alice:a\nsecret\n:secret\nbob:\nalice:secret\n{long}:secret\ncarol:{long}\neve :secret\n"
        );
        let error = load(file.as_bytes()).unwrap_err();
        let lines: Vec<&str> = error.lines().collect();
        assert_eq!(lines.len(), 7, "{error}");
        for (line, (number, token, expected)) in lines.iter().zip([
            (2, "no colon", "expected `name:password` or `name:hash`"),
            (3, "''", "expected a name of 1 to 255 bytes"),
            (4, "'bob'", "expected a password of 1 to 255 bytes"),
            (5, "'alice'", "it is in line 1 already"),
            (6, "'xxx", "expected a name of 1 to 255 bytes"),
            (7, "'carol'", "expected a password of 1 to 255 bytes"),
            (8, "'eve '", "without white space"),
        ]) {
            assert!(line.starts_with(&format!("users:{number}: ")), "{line}");
            assert!(line.contains(token) && line.contains(expected), "{line}");
        }
        assert!(!error.contains("secret"), "{error}");
    }

    #[test]
    fn no_more_than_ten_bad_lines_are_named() {
        assert_eq!(load(&b"secret\n".repeat(1000)).unwrap_err().lines().count(), 10);
    }

    #[test]
    fn a_file_without_users_is_refused() {
        for empty in [b"".as_slice(), b"# nobody\n\n"] {
            let error = load(empty).unwrap_err();
            assert!(error.contains("no user in it"), "{error}");
        }
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = Passwords::load(Path::new("/nonexistent/users"), 0).unwrap_err();
        assert!(error.starts_with("/nonexistent/users: "), "{error}");
    }

    #[test]
    fn no_password_is_shown() {
        let passwords = load(b"alice:sesame").unwrap();
        assert_eq!(format!("{passwords:?}"), "Passwords of 1 users");
    }

    fn ask(passwords: &Passwords, name: &str) -> Result<Option<Arc<str>>, Box<Guess>> {
        let password = Password::new(b"open sesame").unwrap();
        let client = IpAddr::from(Ipv4Addr::LOCALHOST).into();
        passwords.check(&Credentials { name: name.into(), password }, client)
    }

    #[test]
    fn a_right_password_is_remembered_until_its_hash_changes() {
        let [hash, other] = [(); 2].map(|()| bcrypt::hash("open sesame", 4).unwrap());
        let file = |hash: &str| load(format!("bob:b\nalice:{hash}").as_bytes()).unwrap();
        let is_known = |passwords: &Passwords| match ask(passwords, "alice") {
            Ok(user) => user.is_some(),
            Err(guess) => {
                assert_eq!(guess.find_user().as_deref(), Some("alice"));
                false
            }
        };
        let passwords = file(&hash);
        assert_eq!([is_known(&passwords), is_known(&passwords)], [false, true]);
        let mut same = file(&hash);
        same.keep_logins_of(&passwords);
        assert!(is_known(&same));
        let mut changed = file(&other);
        changed.keep_logins_of(&same);
        assert!(!is_known(&changed));
        let mut plain = load(b"alice:open sesame").unwrap();
        plain.keep_logins_of(&changed);
        let Ok(user) = ask(&plain, "alice") else { panic!("there is no hash") };
        assert!(changed.revoked(&user.unwrap()).is_some(), "another user of the same name");
    }

    #[test]
    fn who_is_nobody_takes_as_long_as_the_longest_hash() {
        let hashes = [4, 6, 5].map(|cost| bcrypt::hash("open sesame", cost).unwrap());
        let file = format!("a:{}\nb:{}\nc:{}\nplain:p", hashes[0], hashes[1], hashes[2]);
        let passwords = load(file.as_bytes()).unwrap();
        for (name, hash) in [("a", 0), ("b", 1), ("c", 2), ("nobody", 1), ("plain", 1)] {
            let Err(guess) = ask(&passwords, name) else { panic!("{name} is known") };
            assert_eq!(guess.hash.text, hashes[hash], "{name}");
            assert_eq!(guess.find_user().is_some(), name.len() == 1, "{name}");
        }
    }

    #[test]
    fn a_bad_hash_is_named_with_its_line_and_not_shown() {
        let file = "alice:a\nbob:$1$secret$secret\ncarol:$6$secret\ndave:$6$secret$secret\n\
            eve:$2b$15$6ND3p0xdFjM8y6k20HA1oOozRM5UtNgz/xsx87SmlQKeuLuYXNQba\nmallory:$ecret\n";
        let error = load(file.as_bytes()).unwrap_err();
        let lines: Vec<&str> = error.lines().collect();
        assert_eq!(lines.len(), 4, "{error}");
        for (line, (start, expected)) in lines.iter().zip([
            ("users:2: 'bob': ", "$6$, $5$, $2a$, $2b$ or $2y$"),
            ("users:3: 'carol': ", "is not whole"),
            ("users:4: 'dave': ", "is not whole"),
            ("users:5: 'eve': ", "a cost from 4 to 14"),
        ]) {
            assert!(line.starts_with(start) && line.contains(expected), "{line}");
        }
        assert!(!error.contains("secret") && !error.contains("6ND3"), "{error}");
    }
}
