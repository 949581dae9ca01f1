//! Passwords that are kept as hashes, which take long to compare on purpose: SHA-256 and SHA-512 crypt, and
//! bcrypt.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::ops::RangeInclusive;
use std::sync::{LazyLock, OnceLock};

use bcrypt::HashParts;
use sha_crypt::{Params, PasswordHashRef, PasswordVerifier, ShaCrypt};
use sha2::{Digest, Sha512_256};
use subtle::ConstantTimeEq;

use crate::wire::credentials::Password;

const UNKNOWN: &str = "what begins like this is a hash: expected one that begins with $6$, $5$, $2a$, $2b$ \
    or $2y$, as of openssl passwd -6, mkpasswd -m sha-512, htpasswd -B or tabi --hash-password";
const MALFORMED: &str = "the hash is not whole, or takes too long: expected all that a program has printed, \
    with rounds from 1000 to 1000000, or with a cost from 4 to 14 for bcrypt";

/// Rounds of SHA crypt, and the logarithm of those of bcrypt: a second of a fast core at the most.
const ROUNDS: RangeInclusive<u32> = Params::ROUNDS_MIN..=1_000_000;
const COSTS: RangeInclusive<u32> = 4..=14;

/// About so many rounds of SHA-512 crypt take as long as one of bcrypt.
const BCRYPT_ROUND: u32 = 100;

/// The cost of a new hash: what is advised today, and some 50 ms of a fast core.
const NEW_COST: u32 = 10;

/// What bcrypt takes into account of a password, in bytes.
const MOST_BYTES: usize = 72;

/// What a right password is known by from then on: a message authentication code. A hash table's, of 64 bits,
/// could be met by another password; of this one's 512 bits half are shown, so that nobody can go on from it.
pub(super) type KnownBy = [u8; 32];

/// Its key, which no other process has.
static KEY: LazyLock<[u64; 2]> = LazyLock::new(|| {
    let random = RandomState::new();
    [0, 1].map(|part| random.hash_one(part))
});

/// What `password` is known by.
pub(super) fn known_by(password: &Password) -> KnownBy {
    let key = KEY.map(u64::to_ne_bytes);
    let keyed = Sha512_256::new().chain_update(key.as_flattened());
    keyed.chain_update(password.octets()).finalize().into()
}

/// The hash of a password.
pub(super) struct Hash {
    pub(super) text: String,
    /// How long it takes to compare a password with it, in rounds of SHA-512 crypt.
    pub(super) rounds: u32,
    /// The password, once it was right.
    right: OnceLock<KnownBy>,
}

impl Hash {
    /// Reads a hash, if it is one: `$`, a word and `$`.
    ///
    /// # Errors
    ///
    /// When it is of no kind that is known, when it is not whole, and when it would take too long. The error
    /// shows nothing of it.
    pub(super) fn parse(text: &[u8]) -> Result<Option<Self>, &'static str> {
        // What replaces a byte that is no text is in no hash.
        let text = String::from_utf8_lossy(text).into_owned();
        let fields = text.strip_prefix('$').and_then(|rest| rest.split_once('$'));
        let is_word = |id: &str| id.bytes().all(|it| it.is_ascii_alphanumeric() || it == b'-');
        let Some((id, rest)) = fields.filter(|(id, _)| !id.is_empty() && is_word(id)) else {
            return Ok(None);
        };
        let rounds = match id {
            "6" => sha_rounds(rest, 86).filter(|_| PasswordHashRef::new(&text).is_ok()),
            "5" => sha_rounds(rest, 43).filter(|_| PasswordHashRef::new(&text).is_ok()),
            "2a" | "2b" | "2y" => {
                let cost = text.parse::<HashParts>().ok().map(|parts| parts.get_cost());
                cost.filter(|cost| COSTS.contains(cost)).map(|cost| BCRYPT_ROUND << cost)
            }
            _ => return Err(UNKNOWN),
        };
        Ok(Some(Hash { rounds: rounds.ok_or(MALFORMED)?, text, right: OnceLock::new() }))
    }

    /// Whether it is the hash of this password, which takes long.
    pub(super) fn is_of(&self, password: &Password) -> bool {
        let octets = password.octets();
        let is_right = if self.text.starts_with("$2") {
            bcrypt::verify(octets, &self.text).unwrap_or(false)
        } else {
            ShaCrypt::default().verify_password(octets, &*self.text).is_ok()
        };
        // No password at all opens nothing, whatever the file says.
        is_right && !octets.is_empty()
    }

    /// Whether the password that is known by this was right before.
    pub(super) fn remembers(&self, known_by: &KnownBy) -> bool {
        self.right.get().is_some_and(|right| right.ct_eq(known_by).into())
    }

    /// Notes that the password that is known by this is right.
    pub(super) fn remember(&self, known_by: KnownBy) {
        let _ = self.right.set(known_by);
    }
}

/// The rounds of SHA crypt, by what is behind the kind of a hash and ends in so many characters.
fn sha_rounds(fields: &str, length: usize) -> Option<u32> {
    let given = fields.strip_prefix("rounds=").map(|rest| rest.split_once('$'));
    let default = (Params::RECOMMENDED_ROUNDS, fields);
    let (rounds, rest) =
        given.map_or(Some(default), |given| Some((given?.0.parse().ok()?, given?.1)))?;
    let (_salt, hash) = rest.split_once('$')?;
    let is_whole = hash.len() == length && !hash.contains('$');
    (is_whole && ROUNDS.contains(&rounds)).then_some(rounds)
}

/// A hash of a new password: by bcrypt, which is slow on graphics cards as well.
///
/// # Errors
///
/// When bcrypt would not tell it from others, or when the system has no random numbers.
pub fn of_new_password(password: &[u8]) -> Result<String, String> {
    if !(1..=MOST_BYTES).contains(&password.len()) || password.contains(&0) {
        return Err(format!("expected a password of 1 to {MOST_BYTES} bytes, none of them zero"));
    }
    bcrypt::hash(password, NEW_COST).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What openssl, mkpasswd and crypt(3) make of `open sesame`.
    const OF_OTHERS: [&str; 7] = [
        "$6$saltsalt$e/5XKibXPLqVcfjpD.ouauaJrAOL5V0uo80Lt7n7EbRdRiCx3HbQ90yjOHr.G0T.mx79PEMRy8nmtr0qSYhQp1",
        "$5$saltsalt$yrhPKxCqiWcCE9h0g86j6Ugz7SDFdFm.BjU.d8RaQnC",
        "$6$rounds=1000$abcdefgh$Xh.7.kL3HzhnviFlsn40n4gUrDaYioIIiDlHiWZorP18.1JsnixO1BkqKbso/o60j4iwJz6yRdVGlrUTIYtXT/",
        "$5$rounds=1001$abcdefgh$PonaSZYdUTf1b6g23CPs5otGWbd1gwYDRbLguniUsn.",
        "$2b$05$6ND3p0xdFjM8y6k20HA1oOozRM5UtNgz/xsx87SmlQKeuLuYXNQba",
        "$2a$05$iCpLtSnZ.DNs13.LpfFrp.U7IRMQT3T0L6.ByuBF2iO.iqHAJoPM2",
        "$2y$04$abcdefghijklmnopqrstuu/LVz6MZlItEy42I2juLihZ66HnQx/cy",
    ];

    fn parse(text: &str) -> Option<Hash> {
        Hash::parse(text.as_bytes()).unwrap()
    }

    fn error(text: &str) -> String {
        let parsed = Hash::parse(text.as_bytes());
        parsed.err().unwrap_or_else(|| panic!("{text} is taken")).into()
    }

    fn password(octets: &[u8]) -> Password {
        Password::new(octets).unwrap()
    }

    #[test]
    fn what_common_programs_print_is_a_hash_of_its_password_alone() {
        for text in OF_OTHERS {
            let hash = parse(text).unwrap();
            assert!(hash.is_of(&password(b"open sesame")), "{text}");
            for other in [b"open sesam".as_slice(), b"open sesame ", b"Open sesame"] {
                assert!(!hash.is_of(&password(other)), "{text}");
            }
            assert!(!hash.is_of(&Password::NONE), "{text}");
        }
    }

    #[test]
    fn any_bytes_may_be_hashed() {
        let text = "$6$s$5FnKe2DeQ3NZpokNYn7cJ3XbKi0lpXD0t8PxX5HS15LSIxKdb8NgzhMySNiwvAB.kp.VIEnGaorJ0FTiJUCPm.";
        assert!(parse(text).unwrap().is_of(&password(b"p\xff\x01w")));
    }

    #[test]
    fn the_hash_of_no_password_opens_nothing() {
        let text = bcrypt::hash(b"", 4).unwrap();
        assert!(!parse(&text).unwrap().is_of(&Password::NONE));
    }

    #[test]
    fn a_dollar_alone_begins_a_plain_password() {
        for plain in ["$", "$$", "$ecret", "$$ecret$", "pa$6$word", "$a b$c", "$6"] {
            assert!(parse(plain).is_none(), "{plain}");
        }
        assert_eq!(error("$6$"), MALFORMED);
    }

    #[test]
    fn other_kinds_are_refused_without_being_shown() {
        for text in [
            "$y$j9T$.kxcJkJXZAn3RWlGA6ZfP0$yeLd.KmYqCXO1IQHdcLKZN1Sw2OzWtm36GrXIL26lP1",
            "$apr1$B4E0rR/I$y2JwkxcNhbFNl26O.GNf9.",
            "$1$5qWWTDJF$S5UU/zsi8KzR8CssOqB7r0",
            "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc",
            "$2x$05$6ND3p0xdFjM8y6k20HA1oOozRM5UtNgz/xsx87SmlQKeuLuYXNQba",
        ] {
            assert_eq!(error(text), UNKNOWN);
        }
        assert!(["$6$", "$5$", "$2a$", "$2b$", "$2y$"].iter().all(|kind| UNKNOWN.contains(kind)));
    }

    #[test]
    fn every_part_of_a_hash_is_missed() {
        for text in OF_OTHERS {
            for length in "$2b$".len()..text.len() {
                assert_eq!(error(&text[..length]), MALFORMED, "{}", &text[..length]);
            }
            assert_eq!(error(&format!("{text}.")), MALFORMED);
            assert_eq!(error(&format!("{text}$")), MALFORMED);
            for last in [" ", "$", "\u{e4}"] {
                let last = format!("{}{last}", &text[..text.len() - 1]);
                assert_eq!(error(&last), MALFORMED, "{last}");
            }
        }
    }

    #[test]
    fn what_would_take_too_long_is_refused_with_its_cost() {
        let rounds = |rounds: &str| OF_OTHERS[2].replace("rounds=1000", rounds);
        let cost = |cost: &str| OF_OTHERS[4].replace("$05$", cost);
        for rounds in
            ["rounds=999", "rounds=1000001", "rounds=99999999999", "rounds=many"].map(rounds)
        {
            assert_eq!(error(&rounds), MALFORMED, "{rounds}");
        }
        for cost in ["$03$", "$15$", "$31$", "$99$"].map(cost) {
            assert_eq!(error(&cost), MALFORMED, "{cost}");
        }
        assert!(MALFORMED.contains("1000 to 1000000") && MALFORMED.contains("4 to 14"));
        assert_eq!(parse(&rounds("rounds=1000000")).unwrap().rounds, 1_000_000);
        assert!(parse(&cost("$14$")).unwrap().rounds > 1_000_000);
    }

    #[test]
    fn a_right_password_is_known_again_and_no_other() {
        let hash = parse(OF_OTHERS[6]).unwrap();
        let [right, other] = [b"open sesame".as_slice(), b"open"].map(|it| known_by(&password(it)));
        assert!(!hash.remembers(&right));
        hash.remember(right);
        assert!(hash.remembers(&right) && !hash.remembers(&other));
        assert!(!hash.remembers(&known_by(&Password::NONE)));
    }

    #[test]
    fn a_new_hash_is_of_its_password_and_differs_each_time() {
        let [one, other] = [b"open sesame"; 2].map(|it| of_new_password(it).unwrap());
        assert_ne!(one, other);
        assert!(parse(&one).unwrap().is_of(&password(b"open sesame")));
        for bad in [b"".as_slice(), b"a\0a", &[b'a'; 73]] {
            assert!(of_new_password(bad).unwrap_err().contains("1 to 72 bytes"));
        }
        of_new_password(&[b'a'; 72]).unwrap();
    }
}
