//! A map with a bound: where there is no room for an entry, those give way that were used least
//! recently.

use std::borrow::Borrow;
use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;

/// A map whose entries weigh no more than so much together. Its hashes cannot be foreseen, so that keys
/// may come from strangers.
#[derive(Debug)]
pub(crate) struct LruMap<K, V> {
    max_weight: usize,
    weight: usize,
    entries: HashMap<K, Entry<V>>,
    /// The keys, in the order in which they were last used.
    order: BTreeMap<u64, K>,
    /// The next place in that order.
    next: u64,
}

#[derive(Debug)]
struct Entry<V> {
    value: V,
    weight: usize,
    place: u64,
}

impl<K: Clone + Eq + Hash, V> LruMap<K, V> {
    /// An empty map, which takes no memory before its first entry.
    pub(crate) fn new(max_weight: usize) -> Self {
        LruMap { max_weight, weight: 0, entries: HashMap::new(), order: BTreeMap::new(), next: 0 }
    }

    /// The value of `key`, which counts as used now.
    pub(crate) fn get<Q: Eq + Hash + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        let entry = self.entries.get_mut(key)?;
        let key = self.order.remove(&entry.place)?;
        entry.place = self.next;
        self.order.insert(self.next, key);
        self.next += 1;
        Some(&mut entry.value)
    }

    /// The value of `key`, whose turn to give way stays what it was.
    pub(crate) fn peek<Q: Eq + Hash + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.entries.get(key).map(|entry| &entry.value)
    }

    /// Gives `key` a value of this weight, and takes out the one that it had. Others give way to it, and
    /// so does it itself where it weighs too much alone.
    pub(crate) fn insert(&mut self, key: K, value: V, weight: usize) -> Option<V> {
        let earlier = self.remove(&key);
        self.order.insert(self.next, key.clone());
        self.entries.insert(key, Entry { value, weight, place: self.next });
        self.weight += weight;
        self.next += 1;
        while self.weight > self.max_weight {
            let Some((_, oldest)) = self.order.first_key_value() else { break };
            let oldest = oldest.clone();
            self.remove(&oldest);
        }
        earlier
    }

    /// Takes `key` and its value out.
    pub(crate) fn remove<Q: Eq + Hash + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        let entry = self.entries.remove(key)?;
        self.order.remove(&entry.place);
        self.weight -= entry.weight;
        Some(entry.value)
    }

    /// The entry that was used least recently.
    pub(crate) fn oldest(&self) -> Option<(&K, &V)> {
        let (_, key) = self.order.first_key_value()?;
        self.entries.get(key).map(|entry| (key, &entry.value))
    }

    /// Every entry, in no order; none is used thereby.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (&K, &mut V)> {
        self.entries.iter_mut().map(|(key, entry)| (key, &mut entry.value))
    }

    /// Takes all entries out, and gives their memory back.
    pub(crate) fn clear(&mut self) {
        *self = LruMap::new(self.max_weight);
    }

    /// What all entries weigh.
    pub(crate) fn weight(&self) -> usize {
        self.weight
    }

    /// How many entries there are.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(map: &mut LruMap<char, u32>) -> String {
        let mut keys: Vec<_> = map.iter_mut().map(|(key, _)| *key).collect();
        keys.sort_unstable();
        keys.into_iter().collect()
    }

    #[test]
    fn who_was_used_least_recently_gives_way() {
        let mut map = LruMap::new(3);
        for (key, value) in [('a', 1), ('b', 2), ('c', 3)] {
            assert_eq!(map.insert(key, value, 1), None);
        }
        assert_eq!(map.get(&'a'), Some(&mut 1));
        assert_eq!(map.peek(&'b'), Some(&2));
        map.insert('d', 4, 1);
        assert_eq!(keys(&mut map), "acd");
        assert_eq!(map.oldest(), Some((&'c', &3)));
        assert_eq!(map.len(), 3);
    }

    #[test]
    fn a_heavy_entry_takes_the_place_of_several() {
        let mut map = LruMap::new(5);
        for key in ['a', 'b', 'c'] {
            map.insert(key, 0, 1);
        }
        map.insert('d', 0, 4);
        assert_eq!(keys(&mut map), "cd");
        assert_eq!(map.insert('d', 1, 1), Some(0), "it is lighter now");
        map.insert('e', 0, 3);
        assert_eq!(keys(&mut map), "cde");
        map.insert('f', 0, 6);
        assert_eq!(map.len(), 0, "too heavy for an empty map");
        map.insert('g', 0, 5);
        assert_eq!(keys(&mut map), "g");
    }

    #[test]
    fn what_was_taken_out_leaves_room() {
        let mut map = LruMap::new(2);
        map.insert('a', 1, 2);
        assert_eq!(map.remove(&'a'), Some(1));
        assert_eq!(map.remove(&'a'), None);
        map.insert('b', 2, 1);
        map.insert('c', 3, 1);
        assert_eq!(keys(&mut map), "bc");
    }
}
