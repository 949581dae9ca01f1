//! A table that takes its memory from a budget.

use std::hash::Hash;

use super::budget::{Budget, Share};
use crate::system::lru::LruMap;

/// A table of at most a certain number of entries, and of fewer where memory is short: then those that
/// were not used for longest give way.
pub(super) struct Table<K, V> {
    entries: LruMap<K, V>,
    share: Share,
    /// Bytes that one entry takes.
    entry: usize,
}

/// How large a table may be.
#[derive(Clone, Copy)]
pub(super) struct Sizes {
    /// Entries that it may have in any case.
    pub(super) min: usize,
    /// Entries that it may have where there is memory.
    pub(super) max: usize,
    /// Bytes that one entry takes.
    pub(super) entry: usize,
}

impl<K: Clone + Eq + Hash, V> Table<K, V> {
    /// An empty table. It takes memory only as it fills, and counts it in `budget`.
    pub(super) fn new(sizes: Sizes, budget: &'static Budget) -> Self {
        let Sizes { min, max, entry } = sizes;
        let share = Share::new(budget, min * entry, max * entry);
        Table { entries: LruMap::new(max), share, entry }
    }

    /// The value of `key`, which is not in use thereby.
    pub(super) fn peek(&self, key: &K) -> Option<&V> {
        self.entries.peek(key)
    }

    /// The value of `key`, which is in use.
    pub(super) fn get(&mut self, key: &K) -> Option<&mut V> {
        self.entries.get(key)
    }

    /// Enters `key`, which is in use, in the place of an earlier entry for it.
    pub(super) fn insert(&mut self, key: K, value: V) {
        self.remove(&key);
        while !self.share.take(self.entry) {
            let Some((oldest, _)) = self.entries.oldest() else { return };
            let oldest = oldest.clone();
            self.remove(&oldest);
        }
        self.entries.insert(key, value, 1);
    }

    fn remove(&mut self, key: &K) {
        if self.entries.remove(key).is_some() {
            self.share.give_back(self.entry);
        }
    }

    /// The entries, in no order.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (&K, &mut V)> {
        self.entries.iter_mut()
    }

    /// Forgets everything and gives the memory back.
    pub(super) fn clear(&mut self) {
        self.share.give_back(self.entry * self.entries.len());
        self.entries.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static PLENTY: Budget = Budget::new(1 << 20);

    #[test]
    fn what_is_in_use_stays_and_the_rest_goes() {
        let mut table = Table::new(Sizes { min: 8, max: 8, entry: 1 }, &PLENTY);
        for key in 0..100 {
            table.insert(key, key * 10);
            assert_eq!(table.get(&0), Some(&mut 0), "it is used all the time");
            assert!(table.entries.len() <= 8);
        }
        assert_eq!(table.peek(&99), Some(&990));
        assert_eq!(table.peek(&50), None);
    }

    #[test]
    fn a_later_entry_replaces_an_earlier_one() {
        let mut table = Table::new(Sizes { min: 2, max: 2, entry: 1 }, &PLENTY);
        for (key, value) in [('a', 1), ('b', 2), ('a', 3)] {
            table.insert(key, value);
        }
        assert_eq!((table.peek(&'a'), table.peek(&'b')), (Some(&3), Some(&2)));
        table.insert('c', 4);
        assert_eq!((table.peek(&'a'), table.peek(&'b')), (Some(&3), None));
    }

    #[test]
    fn many_tables_share_the_memory_and_give_it_back() {
        static BUDGET: Budget = Budget::new(10_000);
        let sizes = Sizes { min: 8, max: 1024, entry: 10 };
        let mut tables: Vec<_> = (0..20).map(|_| Table::new(sizes, &BUDGET)).collect();
        for key in 0..2000 {
            for table in &mut tables {
                table.insert(key, ());
            }
        }
        let all: usize = tables.iter().map(|table| table.entries.len()).sum();
        assert!(all <= 20 * 8 + 1000, "{all}");
        assert!(tables.iter().all(|table| table.entries.len() >= 8 && table.peek(&1999).is_some()));
        assert!(tables[0].entries.len() > 8, "the first has taken some");
        tables.iter_mut().for_each(Table::clear);
        let mut share = Share::new(&BUDGET, 0, usize::MAX);
        assert!(share.take(5000), "it is all there again");
    }
}
