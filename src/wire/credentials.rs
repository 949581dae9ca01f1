//! A name and a password, whatever protocol they come by.

use std::fmt;

use subtle::{Choice, ConstantTimeEq};

/// What a client says that it is, and the proof that it offers.
#[derive(Debug)]
pub struct Credentials {
    /// Up to 255 octets of any kind.
    pub name: Vec<u8>,
    /// The proof.
    pub password: Password,
}

/// A password of up to 255 octets. It can be compared, in a time that depends neither on its
/// octets nor on its length, but not shown.
#[derive(Clone)]
pub struct Password {
    /// Zeros behind the password.
    octets: [u8; 255],
    length: u8,
}

impl Password {
    /// No password at all.
    pub const NONE: Password = Password { octets: [0; 255], length: 0 };

    /// Takes the octets of a password, if they are 1 to 255.
    pub fn new(octets: &[u8]) -> Option<Self> {
        let length = u8::try_from(octets.len()).ok().filter(|length| *length > 0)?;
        let mut password = Password { length, ..Password::NONE };
        password.octets[..octets.len()].copy_from_slice(octets);
        Some(password)
    }

    /// The password itself, for who has to be shown it; none if there is no password.
    pub(crate) fn octets(&self) -> &[u8] {
        &self.octets[..usize::from(self.length)]
    }
}

impl ConstantTimeEq for Password {
    fn ct_eq(&self, other: &Self) -> Choice {
        self.octets.ct_eq(&other.octets) & self.length.ct_eq(&other.length)
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn equal(password: &Password, octets: &[u8]) -> bool {
        password.ct_eq(&Password::new(octets).unwrap()).into()
    }

    #[test]
    fn only_the_same_password_is_equal() {
        let password = Password::new(b"open sesame").unwrap();
        assert!(equal(&password, b"open sesame"));
        for other in [b"open sesamE".as_slice(), b"Open sesame", b"open sesam", b"open sesame\0"] {
            assert!(!equal(&password, other), "{}", other.escape_ascii());
        }
        assert!(Password::new(b"").is_none());
        assert!(Password::new(&[b'a'; 256]).is_none());
    }
}
