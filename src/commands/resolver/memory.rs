//! What was looked up a moment ago.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Answer, Found};

/// Names that are remembered at once. The one that was not asked for longest goes.
const MOST_NAMES: usize = 4096;

/// How long a failed lookup is remembered, at the most.
const FAILURE_LASTS: Duration = Duration::from_secs(5);

/// What one entry costs besides its name and its addresses, in bytes: its places in the two tables (80
/// and 24, and as much again, as either is half full at worst), and what the allocator adds to name and
/// addresses (64).
const ENTRY: usize = 2 * (80 + 24) + 64;
const ADDRESS: usize = size_of::<SocketAddr>();

/// Bytes of all entries. 4,096 names of 40 bytes with two addresses each fit; where names are
/// longer than that, fewer are remembered.
const MOST_BYTES: usize = MOST_NAMES * (ENTRY + 40 + 2 * ADDRESS);

/// A bounded memory of names.
pub(super) struct Memory {
    lasts: Duration,
    entries: HashMap<Arc<str>, Entry>,
    /// The names in the order in which they were last asked for.
    order: BTreeMap<u64, Arc<str>>,
    /// The next place in that order.
    next: u64,
    bytes: usize,
}

struct Entry {
    /// The winner of the latest race stands first.
    answer: Answer,
    until: Instant,
    has_winner: bool,
    place: u64,
}

impl Memory {
    /// A memory that keeps an answer for so long; not at all if that is zero.
    pub(super) fn new(lasts: Duration) -> Self {
        Memory { lasts, entries: HashMap::new(), order: BTreeMap::new(), next: 0, bytes: 0 }
    }

    /// The answer for the name, if it is still good.
    pub(super) fn recall(&mut self, name: &str, now: Instant) -> Option<Answer> {
        let entry = self.entries.get_mut(name).filter(|entry| now < entry.until)?;
        let name = self.order.remove(&entry.place)?;
        entry.place = self.next;
        self.order.insert(entry.place, name);
        self.next += 1;
        Some(entry.answer.clone())
    }

    /// Remembers the answer, and gives it back with the winner of an earlier race first.
    pub(super) fn keep(&mut self, name: &str, answer: Answer, now: Instant) -> Answer {
        if self.lasts.is_zero() {
            return answer;
        }
        let winner = self.forget(name).and_then(|earlier| earlier.winner());
        let answer = match (answer, winner) {
            (Ok(Found::Addresses(addresses)), Some(winner)) => {
                Ok(Found::Addresses(with_first(addresses, winner)))
            }
            (answer, _) => answer,
        };
        let lasts = if answer.is_ok() { self.lasts } else { self.lasts.min(FAILURE_LASTS) };
        let (until, has_winner, place) = (now + lasts, winner.is_some(), self.next);
        let name = Arc::<str>::from(name);
        self.bytes += cost(&name, &answer);
        self.order.insert(place, Arc::clone(&name));
        self.entries.insert(name, Entry { answer: answer.clone(), until, has_winner, place });
        self.next += 1;
        while self.entries.len() > MOST_NAMES || self.bytes > MOST_BYTES {
            let Some((_, oldest)) = self.order.pop_first() else { break };
            self.forget(&oldest);
        }
        answer
    }

    /// Puts the address that has won a race first.
    pub(super) fn won(&mut self, name: &str, winner: IpAddr) {
        let Some(entry) = self.entries.get_mut(name) else { return };
        if let Ok(Found::Addresses(addresses)) = &mut entry.answer {
            *addresses = with_first(Arc::clone(addresses), winner);
            entry.has_winner = true;
        }
    }

    fn forget(&mut self, name: &str) -> Option<Entry> {
        let entry = self.entries.remove(name)?;
        self.order.remove(&entry.place);
        self.bytes -= cost(name, &entry.answer);
        Some(entry)
    }
}

impl Entry {
    fn winner(&self) -> Option<IpAddr> {
        let found = self.answer.as_ref().ok().filter(|_| self.has_winner)?;
        found.addresses().first().map(SocketAddr::ip)
    }
}

fn cost(name: &str, answer: &Answer) -> usize {
    let found = match answer {
        Ok(Found::Addresses(addresses)) => ADDRESS * addresses.len(),
        Ok(Found::Name(name)) => name.as_str().len(),
        // A text of up to 128 bytes.
        Err(_) => 128,
    };
    ENTRY + name.len() + found
}

fn with_first(addresses: Arc<[SocketAddr]>, first: IpAddr) -> Arc<[SocketAddr]> {
    match addresses.iter().position(|address| address.ip() == first) {
        None | Some(0) => addresses,
        Some(place) => {
            let mut order = addresses.to_vec();
            order[..=place].rotate_right(1);
            order.into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{self, ErrorKind};

    const LASTS: Duration = Duration::from_secs(30);

    fn addresses(list: &[&str]) -> Found {
        Found::Addresses(list.iter().map(|ip| SocketAddr::new(ip.parse().unwrap(), 0)).collect())
    }

    fn shown(answer: Option<Answer>) -> Vec<String> {
        let found = answer.unwrap().unwrap();
        found.addresses().iter().map(|address| address.ip().to_string()).collect()
    }

    #[test]
    fn an_answer_is_good_for_a_while_and_a_failure_for_less() {
        let (mut memory, now) = (Memory::new(LASTS), Instant::now());
        memory.keep("a", Ok(addresses(&["192.0.2.1"])), now).unwrap();
        let failure = Err(Arc::new(io::Error::from(ErrorKind::NotFound)));
        memory.keep("b", failure, now).unwrap_err();
        let later = |seconds: u64| now + Duration::from_millis(seconds * 1000 - 1);
        assert_eq!(shown(memory.recall("a", later(30))), ["192.0.2.1"]);
        assert!(memory.recall("a", now + LASTS).is_none());
        assert!(memory.recall("b", later(5)).unwrap().is_err());
        assert!(memory.recall("b", now + FAILURE_LASTS).is_none());
        assert!(memory.recall("c", now).is_none());
        let mut off = Memory::new(Duration::ZERO);
        off.keep("a", Ok(addresses(&["192.0.2.1"])), now).unwrap();
        assert!(off.recall("a", now).is_none());
    }

    #[test]
    fn the_winner_goes_first_and_stays_so_when_the_name_is_looked_up_again() {
        let (mut memory, now) = (Memory::new(LASTS), Instant::now());
        let all = ["2001:db8::1", "192.0.2.1", "192.0.2.2"];
        memory.keep("a", Ok(addresses(&all)), now).unwrap();
        memory.won("a", "192.0.2.2".parse().unwrap());
        let order = ["192.0.2.2", "2001:db8::1", "192.0.2.1"];
        assert_eq!(shown(memory.recall("a", now)), order);
        assert_eq!(shown(Some(memory.keep("a", Ok(addresses(&all)), now))), order);
        let without = addresses(&all[..2]);
        assert_eq!(shown(Some(memory.keep("a", Ok(without), now))), all[..2]);
    }

    #[test]
    fn the_name_that_was_not_asked_for_longest_goes() {
        let (mut memory, now) = (Memory::new(LASTS), Instant::now());
        for number in 0..MOST_NAMES {
            let name = number.to_string();
            memory.keep(&name, Ok(addresses(&["192.0.2.1", "2001:db8::1"])), now).unwrap();
        }
        assert!(memory.recall("0", now).is_some());
        memory.keep("new", Ok(addresses(&["192.0.2.1"])), now).unwrap();
        assert!(memory.recall("1", now).is_none());
        for name in ["0", "2", "4095", "new"] {
            assert!(memory.recall(name, now).is_some(), "{name}");
        }
    }

    #[test]
    fn a_million_names_take_no_more_than_four_thousand() {
        let (mut memory, now) = (Memory::new(LASTS), Instant::now());
        for number in 0..100_000 {
            let name = format!("{number:0>255}");
            memory.keep(&name, Ok(addresses(&["192.0.2.1", "2001:db8::1"])), now).unwrap();
            assert!(memory.bytes <= MOST_BYTES && memory.entries.len() <= MOST_NAMES);
        }
        assert!(memory.entries.len() > MOST_NAMES / 2);
        let costs = memory.entries.iter().map(|(name, entry)| cost(name, &entry.answer));
        assert_eq!(memory.bytes, costs.sum::<usize>());
        assert_eq!(memory.order.len(), memory.entries.len());
        const { assert!(MOST_BYTES < 2 * 1024 * 1024) };
    }
}
