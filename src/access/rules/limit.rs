//! What a line sets that begins with `limit`, and how that is written.

/// What a line sets that begins with `limit`: for all whom it matches together, or for each of them.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::access) struct Limit {
    pub(super) each: Option<Each>,
    pub(in crate::access) connections: Option<usize>,
    /// Bytes a second, each way.
    pub(in crate::access) rate: Option<u64>,
}

/// Who has a limit alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Each {
    User,
    Client,
}

/// What is expected behind a field.
pub(super) const EACH: &str = "user or client";
pub(super) const CONNECTIONS: &str = "a number from 1 to 1000000";
pub(super) const RATE: &str = "a rate from 1kbit to 1000GB, as in 20MB or 100Mbit: a whole number and kB, \
     MB, GB, kbit, Mbit or Gbit";

const MOST_CONNECTIONS: u64 = 1_000_000;
const LEAST_RATE: u64 = 1000 / 8;
const MOST_RATE: u64 = 1000 * 1_000_000_000;

/// In bits: a kB is 1000 bytes.
const UNITS: [(&str, u64); 6] = [
    ("kB", 8 * 1000),
    ("MB", 8 * 1_000_000),
    ("GB", 8 * 1_000_000_000),
    ("kbit", 1000),
    ("Mbit", 1_000_000),
    ("Gbit", 1_000_000_000),
];

pub(super) fn each(word: &[u8]) -> Option<Each> {
    [(&b"user"[..], Each::User), (b"client", Each::Client)]
        .iter()
        .find_map(|(known, each)| (*known == word).then_some(*each))
}

pub(super) fn connections(word: &[u8]) -> Option<usize> {
    number(word).filter(|it| (1..=MOST_CONNECTIONS).contains(it))?.try_into().ok()
}

pub(super) fn rate(word: &[u8]) -> Option<u64> {
    let mut units = UNITS.iter();
    let (digits, bits) =
        units.find_map(|(unit, bits)| Some((word.strip_suffix(unit.as_bytes())?, bits)))?;
    let rate = number(digits)?.checked_mul(*bits)? / 8;
    (LEAST_RATE..=MOST_RATE).contains(&rate).then_some(rate)
}

/// A number of digits alone: no sign.
fn number(word: &[u8]) -> Option<u64> {
    let digits = std::str::from_utf8(word).ok()?;
    digits.parse().ok().filter(|_| !digits.starts_with('+'))
}
