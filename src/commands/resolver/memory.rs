//! What was looked up a moment ago.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::answer::{Answer, Found};
use super::question::Question;
use crate::system::lru::LruMap;

/// How long a failed lookup is remembered, at the most.
const FAILURE_TTL: Duration = Duration::from_secs(5);

/// How long the winner of a race goes first, at the most: addresses that take turns get theirs.
const WINNER_TTL: Duration = Duration::from_secs(60);

/// What one entry costs besides its name and its addresses, in bytes: its places in the two tables of
/// the map (104 and 16, and as much again, as either is half full at worst), and what the allocator
/// adds to question, name and addresses (96).
const ENTRY: usize = 2 * (104 + 16) + 96;
const ADDRESS: usize = size_of::<SocketAddr>();

/// Bytes of all entries: those of 4,096 names of 40 bytes with two addresses each. What was not asked
/// for longest goes.
const MAX_BYTES: usize = 4096 * (ENTRY + 40 + 2 * ADDRESS);

/// A bounded memory of answers.
pub(super) struct Memory {
    ttl: Duration,
    entries: LruMap<Arc<Question>, Remembered>,
}

struct Remembered {
    answer: Answer,
    until: Instant,
    /// The winner of the latest race, and until when it goes first.
    winner: Option<(IpAddr, Instant)>,
}

impl Memory {
    /// A memory that keeps an answer for so long; not at all if that is zero.
    pub(super) fn new(ttl: Duration) -> Self {
        Memory { ttl, entries: LruMap::new(MAX_BYTES) }
    }

    /// The answer to `question`, if it is still good, with the winner of the latest race first.
    pub(super) fn recall(&mut self, question: &Question, now: Instant) -> Option<Answer> {
        let known = self.entries.get(question).filter(|known| now < known.until)?;
        let mut answer = known.answer.clone();
        if let Some((winner, _)) = known.winner.filter(|(_, until)| now < *until) {
            put_first(&mut answer, winner);
        }
        Some(answer)
    }

    /// Remembers the answer, and forgets what was learnt of an earlier one.
    pub(super) fn keep(&mut self, question: &Arc<Question>, answer: &Answer, now: Instant) {
        if self.ttl.is_zero() {
            return;
        }
        let ttl = if answer.is_ok() { self.ttl } else { self.ttl.min(FAILURE_TTL) };
        let known = Remembered { answer: answer.clone(), until: now + ttl, winner: None };
        self.entries.insert(Arc::clone(question), known, cost(question, answer));
    }

    /// Notes which address has won a race.
    pub(super) fn won(&mut self, question: &Question, winner: IpAddr, now: Instant) {
        if let Some(known) = self.entries.get(question) {
            known.winner = Some((winner, now + WINNER_TTL));
        }
    }
}

fn cost(question: &Question, answer: &Answer) -> usize {
    let name = match question {
        Question::Addresses(name) => name.len(),
        Question::Name(_) => 0,
    };
    let found = match answer {
        Ok(Found::Addresses(addresses)) => ADDRESS * addresses.len(),
        Ok(Found::Name(name)) => name.as_str().len(),
        // A text of up to 128 bytes.
        Err(_) => 128,
    };
    ENTRY + name + found
}

fn put_first(answer: &mut Answer, first: IpAddr) {
    let Ok(Found::Addresses(addresses)) = answer else { return };
    if let Some(place @ 1..) = addresses.iter().position(|address| address.ip() == first) {
        let mut order = addresses.to_vec();
        order[..=place].rotate_right(1);
        *addresses = order.into();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{self, ErrorKind};

    const TTL: Duration = Duration::from_secs(30);

    fn name(name: &str) -> Arc<Question> {
        Arc::new(Question::Addresses(name.into()))
    }

    fn addresses(list: &[&str]) -> Found {
        Found::Addresses(list.iter().map(|ip| SocketAddr::new(ip.parse().unwrap(), 0)).collect())
    }

    fn shown(answer: Option<Answer>) -> Vec<String> {
        let found = answer.unwrap().unwrap();
        found.with_port(0).iter().map(|address| address.ip().to_string()).collect()
    }

    #[test]
    fn an_answer_is_good_for_a_while_and_a_failure_for_less() {
        let (mut memory, now) = (Memory::new(TTL), Instant::now());
        memory.keep(&name("a"), &Ok(addresses(&["192.0.2.1"])), now);
        let failure = Err(Arc::new(io::Error::from(ErrorKind::NotFound)));
        memory.keep(&name("b"), &failure, now);
        let later = |seconds: u64| now + Duration::from_millis(seconds * 1000 - 1);
        assert_eq!(shown(memory.recall(&name("a"), later(30))), ["192.0.2.1"]);
        assert!(memory.recall(&name("a"), now + TTL).is_none());
        assert!(memory.recall(&name("b"), later(5)).unwrap().is_err());
        assert!(memory.recall(&name("b"), now + FAILURE_TTL).is_none());
        assert!(memory.recall(&name("c"), now).is_none());
        let mut off = Memory::new(Duration::ZERO);
        off.keep(&name("a"), &Ok(addresses(&["192.0.2.1"])), now);
        assert!(off.recall(&name("a"), now).is_none());
    }

    #[test]
    fn the_winner_goes_first_for_a_minute_and_not_when_the_name_is_looked_up_again() {
        let (mut memory, now) = (Memory::new(10 * WINNER_TTL), Instant::now());
        let all = ["2001:db8::1", "192.0.2.1", "192.0.2.2"];
        memory.keep(&name("a"), &Ok(addresses(&all)), now);
        memory.won(&name("a"), "192.0.2.2".parse().unwrap(), now);
        let order = ["192.0.2.2", "2001:db8::1", "192.0.2.1"];
        let later = now + WINNER_TTL.checked_sub(Duration::from_millis(1)).unwrap();
        assert_eq!(shown(memory.recall(&name("a"), later)), order);
        assert_eq!(shown(memory.recall(&name("a"), now + WINNER_TTL)), all);
        memory.won(&name("a"), "192.0.2.1".parse().unwrap(), now);
        memory.keep(&name("a"), &Ok(addresses(&all)), now);
        assert_eq!(shown(memory.recall(&name("a"), now)), all);
    }

    #[test]
    fn the_name_that_was_not_asked_for_longest_goes() {
        let (mut memory, now) = (Memory::new(TTL), Instant::now());
        let long = |number: usize| name(&format!("{number:0>40}"));
        let answer = || Ok(addresses(&["192.0.2.1", "2001:db8::1"]));
        for number in 0..4096 {
            memory.keep(&long(number), &answer(), now);
        }
        assert!(memory.recall(&long(0), now).is_some());
        memory.keep(&long(4096), &answer(), now);
        assert!(memory.recall(&long(1), now).is_none());
        for number in [0, 2, 4095, 4096] {
            assert!(memory.recall(&long(number), now).is_some(), "{number}");
        }
    }

    #[test]
    fn a_million_names_take_no_more_than_four_thousand() {
        let (mut memory, now) = (Memory::new(TTL), Instant::now());
        for number in 0..100_000 {
            let long = name(&format!("{number:0>255}"));
            memory.keep(&long, &Ok(addresses(&["192.0.2.1", "2001:db8::1"])), now);
        }
        assert!((2048..4096).contains(&memory.entries.len()));
        let costs = memory.entries.iter_mut().map(|(name, known)| cost(name, &known.answer));
        assert!(costs.sum::<usize>() <= MAX_BYTES);
        const { assert!(MAX_BYTES < 2 * 1024 * 1024) };
    }
}
