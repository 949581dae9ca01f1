//! A bounded table that forgets what has been unused for longest.

use std::collections::HashMap;
use std::hash::Hash;
use std::mem;

/// A table of at most a certain number of entries. It forgets by halves: what was used while the
/// younger half filled up stays, the rest goes.
pub(super) struct Recent<K, V> {
    half: usize,
    young: HashMap<K, V>,
    old: HashMap<K, V>,
}

impl<K: Eq + Hash, V> Recent<K, V> {
    /// A table of at most `most` entries, an even number. It takes memory only as it fills.
    pub(super) fn new(most: usize) -> Self {
        Recent { half: most / 2, young: HashMap::new(), old: HashMap::new() }
    }

    /// The value of `key`, which is not in use thereby.
    pub(super) fn peek(&self, key: &K) -> Option<&V> {
        self.young.get(key).or_else(|| self.old.get(key))
    }

    /// The value of `key`, which is in use.
    pub(super) fn get(&mut self, key: &K) -> Option<&V> {
        if !self.young.contains_key(key) {
            let (key, value) = self.old.remove_entry(key)?;
            self.insert(key, value);
        }
        self.young.get(key)
    }

    /// Enters `key`, which is in use, in the place of an earlier entry for it.
    pub(super) fn insert(&mut self, key: K, value: V) {
        if self.young.len() >= self.half && !self.young.contains_key(&key) {
            self.old = mem::take(&mut self.young);
        }
        self.old.remove(&key);
        self.young.insert(key, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_use_stays_and_the_rest_goes() {
        let mut table = Recent::new(8);
        for key in 0..100 {
            table.insert(key, key * 10);
            assert_eq!(table.get(&0), Some(&0), "it is used all the time");
            assert!(table.young.len() + table.old.len() <= 8);
        }
        assert_eq!(table.peek(&99), Some(&990));
        assert_eq!(table.peek(&50), None);
    }

    #[test]
    fn looking_is_not_using() {
        let mut table = Recent::new(4);
        table.insert('a', 1);
        for key in 'b'..='e' {
            table.insert(key, 0);
            assert_eq!(table.peek(&'a').is_some(), key < 'e', "{key}");
        }
    }

    #[test]
    fn a_later_entry_replaces_an_earlier_one() {
        let mut table = Recent::new(2);
        table.insert('a', 1);
        table.insert('b', 2);
        table.insert('a', 3);
        assert_eq!(table.peek(&'a'), Some(&3));
        table.insert('c', 4);
        assert_eq!((table.peek(&'b'), table.peek(&'a')), (None, Some(&3)));
    }
}
