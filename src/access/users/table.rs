//! A table of fixed size. A new entry takes the place of an old one, and nothing is searched: each
//! key has eight places where it may stand.

use std::time::Instant;

/// The places of a key. With eight, a table that is nine tenths full hardly ever forgets what it
/// could have kept.
const PLACES: usize = 8;

/// A table whose keys are hashes, made with a secret so that nobody can choose them.
#[derive(Debug)]
pub(super) struct Table<V> {
    sets: usize,
    /// No memory is taken before the first entry.
    entries: Vec<Option<Entry<V>>>,
}

/// What the table has about a key.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry<V> {
    key: u64,
    /// When it was given its value.
    pub(super) at: Instant,
    pub(super) value: V,
}

impl<V: Copy> Table<V> {
    /// A table of `most` entries, a multiple of eight.
    pub(super) fn new(most: usize) -> Self {
        Table { sets: most / PLACES, entries: Vec::new() }
    }

    /// What the table has about `key`.
    pub(super) fn get(&self, key: u64) -> Option<Entry<V>> {
        let places = self.entries.get(self.places(key))?;
        places.iter().flatten().find(|entry| entry.key == key).copied()
    }

    /// Gives `key` this value. If all its places are taken, the oldest entry there is forgotten.
    pub(super) fn insert(&mut self, key: u64, value: V, now: Instant) {
        if self.entries.is_empty() {
            self.entries = vec![None; self.sets * PLACES];
        }
        let places = self.places(key);
        let places = &mut self.entries[places];
        let same = places.iter().position(|place| place.as_ref().is_some_and(|it| it.key == key));
        let oldest = (0..PLACES).min_by_key(|place| places[*place].as_ref().map(|it| it.at));
        if let Some(place) = same.or(oldest) {
            places[place] = Some(Entry { key, at: now, value });
        }
    }

    /// Forgets `key`.
    pub(super) fn remove(&mut self, key: u64) {
        let places = self.places(key);
        for place in self.entries.get_mut(places).into_iter().flatten() {
            if place.as_ref().is_some_and(|entry| entry.key == key) {
                *place = None;
            }
        }
    }

    /// The memory that it has taken.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.entries.capacity() * size_of::<Option<Entry<V>>>()
    }

    fn places(&self, key: u64) -> std::ops::Range<usize> {
        // The remainder is below `sets`, which is a usize.
        let first = usize::try_from(key % self.sets as u64).unwrap_or(0) * PLACES;
        first..first + PLACES
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn value<V: Copy>(table: &Table<V>, key: u64) -> Option<V> {
        table.get(key).map(|entry| entry.value)
    }

    #[test]
    fn memory_is_bounded_and_the_oldest_is_forgotten() {
        let (mut table, start) = (Table::new(16), Instant::now());
        assert_eq!(table.entries.capacity(), 0);
        for key in 0..1000 {
            table.insert(key, key * 10, start + Duration::from_secs(key));
            assert_eq!(value(&table, key), Some(key * 10));
        }
        assert_eq!(table.entries.len(), 16);
        for key in 984..1000 {
            assert_eq!(value(&table, key), Some(key * 10));
        }
        assert_eq!(value(&table, 983), None);
    }

    #[test]
    fn what_is_used_stays() {
        let (mut table, start) = (Table::new(8), Instant::now());
        for key in 0..100 {
            let now = start + Duration::from_secs(key);
            table.insert(key, key, now);
            table.insert(0, 7, now);
        }
        assert_eq!(value(&table, 0), Some(7));
    }

    #[test]
    fn what_is_removed_leaves_its_place() {
        let (mut table, now) = (Table::new(8), Instant::now());
        table.remove(1);
        for key in 0..8 {
            table.insert(key, (), now);
        }
        table.remove(3);
        assert!(table.get(3).is_none());
        table.insert(8, (), now);
        assert!((0..9).filter(|key| *key != 3).all(|key| table.get(key).is_some()));
    }
}
