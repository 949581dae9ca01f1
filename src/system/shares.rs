//! How what there is too little of is shared among clients: who may have one more, and who gives one up
//! for that. All that is decided about this is decided here.

use std::collections::{BTreeSet, HashMap};

use super::ip::ClientPrefix;

/// With fewer things than this there is nothing to share.
pub const SHARED_FROM: usize = 8;

/// Who holds how many of some things. Each thing has a number; the numbers grow.
#[derive(Debug, Default)]
pub struct Holders {
    clients: HashMap<ClientPrefix, BTreeSet<u64>>,
    total: usize,
}

/// What a client that wants one more gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// One that is free.
    Free,
    /// One that this client has to give up.
    From(ClientPrefix),
    /// None is free, and nobody has to give one up: it has none, and may wait.
    Wait,
    /// None: it has its share.
    Refused,
}

impl Holders {
    /// How many `client` has.
    pub fn of(&self, client: ClientPrefix) -> usize {
        self.clients.get(&client).map_or(0, BTreeSet::len)
    }

    /// How many all have.
    pub fn total(&self) -> usize {
        self.total
    }

    /// Notes that `client` has the one with this number.
    pub fn add(&mut self, client: ClientPrefix, number: u64) {
        self.total += usize::from(self.clients.entry(client).or_default().insert(number));
    }

    /// Notes that `client` has it no longer.
    pub fn remove(&mut self, client: ClientPrefix, number: u64) {
        let Some(held) = self.clients.get_mut(&client) else { return };
        self.total -= usize::from(held.remove(&number));
        if held.is_empty() {
            self.clients.remove(&client);
        }
    }

    /// What `client` has, the oldest first.
    pub fn held_by(&self, client: ClientPrefix) -> impl Iterator<Item = u64> {
        self.clients.get(&client).into_iter().flatten().copied()
    }

    /// The client that has most.
    pub fn largest(&self) -> Option<ClientPrefix> {
        self.clients.iter().max_by_key(|(_, held)| held.len()).map(|(client, _)| *client)
    }

    /// Decides about one more for `client` while `free` of `all` are.
    ///
    /// Each may come to a fair share, which is an equal part with one kept for the next client that comes,
    /// and beyond that have as many as are free. Where none is, the largest client gives one up, but never
    /// so that it falls below its fair share.
    pub fn turn(&self, client: ClientPrefix, all: usize, free: usize) -> Turn {
        let (has, fair) = (self.of(client), (all / (self.clients.len() + 1)).max(1));
        let is_entitled = has < fair || all < SHARED_FROM;
        if free > 0 && (is_entitled || has < free) {
            return Turn::Free;
        }
        if !is_entitled {
            return Turn::Refused;
        }
        let may_lose = |client: &ClientPrefix| all >= SHARED_FROM && self.of(*client) > fair;
        let none = if has == 0 || all < SHARED_FROM { Turn::Wait } else { Turn::Refused };
        self.largest().filter(may_lose).map_or(none, Turn::From)
    }
}
