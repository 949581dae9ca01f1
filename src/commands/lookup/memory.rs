//! Names that were looked up a moment ago.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Answer;

/// Names that are remembered at once. The one that was not asked for longest goes.
const MOST_NAMES: usize = 4096;

/// How long a failed lookup is remembered, at the most.
const FAILURE_LASTS: Duration = Duration::from_secs(5);

/// What one entry costs besides its name and its addresses, in bytes: a place in the table (50, as it
/// is half full at worst), the entry (80), and what the allocator adds to name and addresses (64).
const ENTRY: usize = 200;
const ADDRESS: usize = size_of::<SocketAddr>();

/// Bytes of all entries. 4,096 names of 40 bytes with two addresses each fit; where names are
/// longer than that, fewer are remembered.
const MOST_BYTES: usize = MOST_NAMES * (ENTRY + 40 + 2 * ADDRESS);

/// A bounded memory of names.
pub(super) struct Memory {
    lasts: Duration,
    /// The entries, in a chain from the one that was asked for last to the one that was not asked
    /// for longest. The first has no name: it closes the chain.
    entries: Vec<Entry>,
    places: HashMap<Arc<str>, u32>,
    /// Places of entries that are gone.
    free: Vec<u32>,
    bytes: usize,
}

struct Entry {
    name: Arc<str>,
    /// The winner of the latest race stands first.
    answer: Answer,
    until: Instant,
    has_winner: bool,
    newer: u32,
    older: u32,
}

/// The place of the entry that closes the chain.
const ENDS: u32 = 0;

impl Memory {
    /// A memory that keeps an answer for so long; not at all if that is zero.
    pub(super) fn new(lasts: Duration) -> Self {
        let (name, answer, until) = ("".into(), Ok([].into()), Instant::now());
        let ends = Entry { name, answer, until, has_winner: false, newer: ENDS, older: ENDS };
        let (entries, places) = (vec![ends], HashMap::new());
        Memory { lasts, entries, places, free: Vec::new(), bytes: 0 }
    }

    /// The answer for the name, if it is still good.
    pub(super) fn recall(&mut self, name: &str, now: Instant) -> Option<Answer> {
        let place = *self.places.get(name)?;
        if now >= self.entry(place).until {
            return None;
        }
        self.unlink(place);
        self.link_as_newest(place);
        Some(self.entry(place).answer.clone())
    }

    /// Remembers the answer, and gives it back with the winner of an earlier race first.
    pub(super) fn keep(&mut self, name: &str, answer: Answer, now: Instant) -> Answer {
        if self.lasts.is_zero() {
            return answer;
        }
        let earlier = self.places.get(name).copied();
        let winner = earlier.and_then(|place| self.entry(place).winner());
        if let Some(place) = earlier {
            self.forget(place);
        }
        let answer = match (answer, winner) {
            (Ok(addresses), Some(winner)) => Ok(with_first(addresses, winner)),
            (answer, _) => answer,
        };
        let lasts = if answer.is_ok() { self.lasts } else { self.lasts.min(FAILURE_LASTS) };
        self.enter(Entry {
            name: name.into(),
            answer: answer.clone(),
            until: now + lasts,
            has_winner: winner.is_some(),
            newer: ENDS,
            older: ENDS,
        });
        while self.places.len() > MOST_NAMES || self.bytes > MOST_BYTES {
            self.forget(self.entry(ENDS).newer);
        }
        answer
    }

    /// Puts the address that has won a race first.
    pub(super) fn won(&mut self, name: &str, winner: IpAddr) {
        let Some(&place) = self.places.get(name) else { return };
        let entry = self.entry_mut(place);
        if let Ok(addresses) = &mut entry.answer {
            *addresses = with_first(Arc::clone(addresses), winner);
            entry.has_winner = true;
        }
    }

    fn enter(&mut self, entry: Entry) {
        self.bytes += entry.cost();
        let name = Arc::clone(&entry.name);
        let place = if let Some(place) = self.free.pop() {
            *self.entry_mut(place) = entry;
            place
        } else {
            self.entries.push(entry);
            u32::try_from(self.entries.len() - 1).expect("there are a few thousand")
        };
        self.places.insert(name, place);
        self.link_as_newest(place);
    }

    fn forget(&mut self, place: u32) {
        self.unlink(place);
        let entry = self.entry_mut(place);
        let cost = entry.cost();
        let name = std::mem::replace(&mut entry.name, "".into());
        entry.answer = Ok([].into());
        self.bytes -= cost;
        self.places.remove(&name);
        self.free.push(place);
    }

    fn link_as_newest(&mut self, place: u32) {
        let second = self.entry(ENDS).older;
        self.entry_mut(ENDS).older = place;
        self.entry_mut(second).newer = place;
        let entry = self.entry_mut(place);
        (entry.newer, entry.older) = (ENDS, second);
    }

    fn unlink(&mut self, place: u32) {
        let Entry { newer, older, .. } = *self.entry(place);
        self.entry_mut(newer).older = older;
        self.entry_mut(older).newer = newer;
    }

    fn entry(&self, place: u32) -> &Entry {
        &self.entries[place as usize]
    }

    fn entry_mut(&mut self, place: u32) -> &mut Entry {
        &mut self.entries[place as usize]
    }
}

impl Entry {
    fn winner(&self) -> Option<IpAddr> {
        let addresses = self.answer.as_ref().ok().filter(|_| self.has_winner)?;
        addresses.first().map(SocketAddr::ip)
    }

    fn cost(&self) -> usize {
        // A failure has a text of up to 128 bytes, as four addresses.
        let addresses = self.answer.as_ref().map_or(4, |addresses| addresses.len());
        ENTRY + self.name.len() + ADDRESS * addresses
    }
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

    fn addresses(list: &[&str]) -> Arc<[SocketAddr]> {
        list.iter().map(|ip| SocketAddr::new(ip.parse().unwrap(), 0)).collect()
    }

    fn shown(answer: Option<Answer>) -> Vec<String> {
        answer.unwrap().unwrap().iter().map(|address| address.ip().to_string()).collect()
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
            assert!(memory.bytes <= MOST_BYTES && memory.places.len() <= MOST_NAMES);
        }
        assert!(memory.places.len() > MOST_NAMES / 2);
        let bytes: usize = memory.places.values().map(|&it| memory.entry(it).cost()).sum();
        assert_eq!(memory.bytes, bytes);
        assert!(memory.entries.len() <= MOST_NAMES + 2, "places are used again");
        const { assert!(MOST_BYTES < 2 * 1024 * 1024) };
    }
}
