//! Memory that all associations have in common, so that many of them cannot take all of it.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Bytes for the tables and the waiting datagrams of all associations, beyond the little that each
/// has in any case: a hundredth of the memory of a small box with 1.5 GiB.
pub(super) static ALL: Budget = Budget::new(16 * 1024 * 1024);

/// A number of bytes to be shared out.
#[derive(Debug)]
pub(super) struct Budget {
    free: AtomicUsize,
}

impl Budget {
    pub(super) const fn new(bytes: usize) -> Self {
        Budget { free: AtomicUsize::new(bytes) }
    }
}

/// What one has of a budget. It is given back when this is dropped.
#[derive(Debug)]
pub(super) struct Share {
    budget: &'static Budget,
    pub(super) taken: usize,
    /// Bytes that are not taken from the budget: everybody has them.
    owned: usize,
    max: usize,
}

impl Share {
    /// A share of `budget`, beside `owned` bytes that are there in any case, of `max` bytes in all.
    pub(super) fn new(budget: &'static Budget, owned: usize, max: usize) -> Self {
        Share { budget, taken: 0, owned, max }
    }

    /// Takes `bytes`, if nobody has more than is left for the others then.
    // The newest Rust calls `fetch_update` by another name, which 1.85 does not know.
    #[allow(deprecated)]
    pub(super) fn take(&mut self, bytes: usize) -> bool {
        let (before, after) = (self.borrowed(self.taken), self.borrowed(self.taken + bytes));
        let left = |free: usize| free.checked_sub(after - before).filter(|&left| after <= left);
        let free = &self.budget.free;
        let granted = self.taken + bytes <= self.max
            && (after == 0 || free.fetch_update(Relaxed, Relaxed, left).is_ok());
        if granted {
            self.taken += bytes;
        }
        granted
    }

    /// Gives `bytes` back that were taken.
    pub(super) fn give_back(&mut self, bytes: usize) {
        let before = self.borrowed(self.taken);
        self.taken -= bytes;
        let returned = before - self.borrowed(self.taken);
        self.budget.free.fetch_add(returned, Relaxed);
    }

    fn borrowed(&self, taken: usize) -> usize {
        taken.saturating_sub(self.owned)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.give_back(self.taken);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_has_no_more_than_is_left_for_the_others() {
        static BUDGET: Budget = Budget::new(1000);
        let free = || BUDGET.free.load(Relaxed);
        let mut greedy = Share::new(&BUDGET, 10, usize::MAX);
        let count = std::iter::repeat_with(|| greedy.take(10)).take_while(|&took| took).count();
        assert_eq!((count, free()), (1 + 50, 500));
        let mut other = Share::new(&BUDGET, 10, usize::MAX);
        assert!(other.take(260) && !other.take(10));
        assert_eq!(free(), 250);
        greedy.give_back(505);
        assert_eq!((greedy.taken, free()), (5, 750));
        assert!(greedy.take(5), "it is its own");
        assert_eq!(free(), 750);
        drop((greedy, other));
        assert_eq!(free(), 1000);
    }
}
