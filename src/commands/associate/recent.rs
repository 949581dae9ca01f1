//! A bounded table that forgets what has been unused for longest.

use std::collections::HashMap;
use std::hash::Hash;
use std::mem;

use super::budget::{Budget, Share};

/// A table of at most a certain number of entries, and of fewer where memory is short. It forgets by
/// halves: what was used while the younger half filled up stays, the rest goes.
pub(super) struct Recent<K, V> {
    sizes: Sizes,
    /// Entries in each half, at the most.
    half: usize,
    share: Share,
    young: HashMap<K, V>,
    old: HashMap<K, V>,
}

/// How large a table may be.
#[derive(Clone, Copy)]
pub(super) struct Sizes {
    /// Entries that it may have in any case, an even number.
    pub(super) least: usize,
    /// Entries that it may have where there is memory, `least` doubled some times.
    pub(super) most: usize,
    /// Bytes that one entry takes.
    pub(super) entry: usize,
}

impl<K: Eq + Hash, V> Recent<K, V> {
    /// An empty table. It takes memory only as it fills, and counts it in `budget`.
    pub(super) fn new(sizes: Sizes, budget: &'static Budget) -> Self {
        let share = Share::new(budget, 0);
        let (young, old) = (HashMap::new(), HashMap::new());
        Recent { sizes, half: sizes.least / 2, share, young, old }
    }

    /// The value of `key`, which is not in use thereby.
    pub(super) fn peek(&self, key: &K) -> Option<&V> {
        self.young.get(key).or_else(|| self.old.get(key))
    }

    /// The value of `key`, which is in use.
    pub(super) fn get(&mut self, key: &K) -> Option<&mut V> {
        if !self.young.contains_key(key) {
            let (key, value) = self.old.remove_entry(key)?;
            self.insert(key, value);
        }
        self.young.get_mut(key)
    }

    /// Enters `key`, which is in use, in the place of an earlier entry for it.
    pub(super) fn insert(&mut self, key: K, value: V) {
        if self.young.len() >= self.half && !self.young.contains_key(&key) {
            if 4 * self.half <= self.sizes.most && self.share.take(2 * self.half * self.sizes.entry)
            {
                self.half *= 2;
            } else {
                self.old = mem::take(&mut self.young);
            }
        }
        self.old.remove(&key);
        self.young.insert(key, value);
    }

    /// The entries, in no order.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (&K, &mut V)> {
        self.young.iter_mut().chain(&mut self.old)
    }

    /// Forgets everything and gives the memory back.
    pub(super) fn clear(&mut self) {
        (self.young, self.old) = (HashMap::new(), HashMap::new());
        self.shrink();
    }

    /// Gives back the memory that the entries do not need.
    pub(super) fn shrink(&mut self) {
        let most = self.young.len().max(self.old.len());
        while self.half > self.sizes.least / 2 && self.half / 2 >= most {
            self.half /= 2;
            self.share.give_back(2 * self.half * self.sizes.entry);
        }
        self.young.shrink_to_fit();
        self.old.shrink_to_fit();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static PLENTY: Budget = Budget::new(1 << 20);
    const EIGHT: Sizes = Sizes { least: 8, most: 8, entry: 1 };

    fn count<K, V>(table: &Recent<K, V>) -> usize {
        table.young.len() + table.old.len()
    }

    #[test]
    fn what_is_in_use_stays_and_the_rest_goes() {
        let mut table = Recent::new(EIGHT, &PLENTY);
        for key in 0..100 {
            table.insert(key, key * 10);
            assert_eq!(table.get(&0), Some(&mut 0), "it is used all the time");
            assert!(count(&table) <= 8);
        }
        assert_eq!(table.peek(&99), Some(&990));
        assert_eq!(table.peek(&50), None);
    }

    #[test]
    fn looking_is_not_using() {
        let mut table = Recent::new(Sizes { least: 4, most: 4, entry: 1 }, &PLENTY);
        table.insert('a', 1);
        for key in 'b'..='e' {
            table.insert(key, 0);
            assert_eq!(table.peek(&'a').is_some(), key < 'e', "{key}");
        }
    }

    #[test]
    fn a_later_entry_replaces_an_earlier_one() {
        let mut table = Recent::new(Sizes { least: 2, most: 2, entry: 1 }, &PLENTY);
        table.insert('a', 1);
        table.insert('b', 2);
        table.insert('a', 3);
        assert_eq!(table.peek(&'a'), Some(&3));
        table.insert('c', 4);
        assert_eq!((table.peek(&'b'), table.peek(&'a')), (None, Some(&3)));
    }

    #[test]
    fn many_tables_share_the_memory_and_give_it_back() {
        static BUDGET: Budget = Budget::new(10_000);
        let sizes = Sizes { least: 8, most: 1024, entry: 10 };
        let mut tables: Vec<_> = (0..20).map(|_| Recent::new(sizes, &BUDGET)).collect();
        for key in 0..2000 {
            for table in &mut tables {
                table.insert(key, ());
            }
        }
        let all: usize = tables.iter().map(count).sum();
        assert!(all <= 20 * 8 + 1000, "{all}");
        assert!(tables.iter().all(|table| table.half >= 4 && table.peek(&1999).is_some()));
        assert!(tables[0].half > 4, "the first has taken some");
        tables.iter_mut().for_each(Recent::clear);
        let mut share = Share::new(&BUDGET, 0);
        assert!(share.take(5000), "it is all there again");
    }

    #[test]
    fn what_is_used_outlasts_the_quiet() {
        let mut table = Recent::new(Sizes { least: 8, most: 1024, entry: 1 }, &PLENTY);
        for key in 0..100 {
            table.insert(key, ());
        }
        table.shrink();
        assert!((0..100).all(|key| table.peek(&key).is_some()));
        table.insert(100, ());
        assert!(table.peek(&0).is_some() && table.peek(&100).is_some());
    }
}
