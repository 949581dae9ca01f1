//! The limits that a session shares with others, and how it keeps to those on bytes a second.

use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use portable_atomic::AtomicU64;

use crate::system::rate::{NOTHING_SAVED, Rate};
use crate::system::sync::Mutex;

/// Whoever waits looks this often whether the session has ended, or has other limits.
const STEP: Duration = Duration::from_millis(100);

/// One limit, and until when the session's own part of it is used up, each way.
type Shared = (Arc<Rate>, [Instant; 2]);

/// The limits that a session shares with others.
#[derive(Debug, Default)]
pub struct Rates {
    /// Whether one of them is about bytes. Where none is, nothing else is looked at.
    are_limits: AtomicBool,
    /// Another number each time that they have changed.
    changes: AtomicUsize,
    /// `None` before it is known which they are.
    shared: Mutex<Option<Vec<Shared>>>,
    /// Grows while somebody waits.
    waits: AtomicU64,
}

impl Rates {
    /// Has the session keep to these limits from now on. Whoever comes new has saved nothing of its part.
    pub fn set(&self, rates: Vec<Arc<Rate>>) {
        let used_until = Instant::now() + NOTHING_SAVED;
        self.are_limits.store(rates.iter().any(|rate| rate.is_limit()), Ordering::Relaxed);
        *self.shared.lock() = Some(rates.into_iter().map(|rate| (rate, [used_until; 2])).collect());
        self.changes.fetch_add(1, Ordering::Release);
    }

    /// Whether it is known which limits there are.
    pub fn are_set(&self) -> bool {
        self.shared.lock().is_some()
    }

    /// Whether one of them is about bytes.
    pub fn are_limits(&self) -> bool {
        self.are_limits.load(Ordering::Relaxed)
    }

    /// The most bytes that are moved at once.
    #[inline(never)]
    pub(super) fn portion(&self) -> usize {
        let shared = self.shared.lock();
        let portions = shared.iter().flatten().map(|(rate, _)| rate.portion(sharers(rate)));
        portions.min().unwrap_or(usize::MAX)
    }

    pub(super) fn waits(&self) -> u64 {
        self.waits.load(Ordering::Relaxed)
    }

    /// Waits until so many bytes may go this way. Where it `is_over` before, they may not.
    #[inline(never)]
    pub(super) fn wait(
        &self,
        way: usize,
        bytes: usize,
        is_over: impl Fn() -> bool,
    ) -> io::Result<()> {
        let changes = self.changes.load(Ordering::Acquire);
        let until = Instant::now() + self.book(way, bytes, true).unwrap_or_default();
        loop {
            let left = until.saturating_duration_since(Instant::now());
            // What was to go at once by other limits may be too much for those of now to wait for it.
            if left.is_zero() || self.changes.load(Ordering::Acquire) != changes {
                return Ok(());
            }
            if is_over() {
                let shared = self.shared.lock();
                give_back(shared.as_deref().unwrap_or_default(), way, bytes);
                return Err(ErrorKind::ConnectionAborted.into());
            }
            self.waits.fetch_add(1, Ordering::Relaxed);
            thread::sleep(left.min(STEP));
        }
    }

    /// Books so many bytes, and says how long they have to wait. Those of which none `waits` are not booked
    /// where they would have to.
    #[inline(never)]
    pub(super) fn book(&self, way: usize, bytes: usize, waits: bool) -> Option<Duration> {
        let (mut shared, now) = (self.shared.lock(), Instant::now());
        let (shared, mut longest) = (shared.as_mut()?, Duration::ZERO);
        for index in 0..shared.len() {
            let (rate, part_until) = &mut shared[index];
            let wait = rate.book((way, bytes, waits), sharers(rate), &mut part_until[way], now);
            let Some(wait) = wait else {
                give_back(&shared[..index], way, bytes);
                return None;
            };
            longest = longest.max(wait);
        }
        Some(longest)
    }
}

fn give_back(shared: &[Shared], way: usize, bytes: usize) {
    for (rate, _) in shared {
        rate.give_back(way, bytes);
    }
}

/// How many sessions share a rate: each of them holds it once.
fn sharers(rate: &Arc<Rate>) -> u32 {
    u32::try_from(Arc::strong_count(rate)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_at_the_rate_of_before_a_reload_is_not_booked_at_that_of_now() {
        let rates = Rates::default();
        let [fast, slow] = [1_000_000, 125].map(|it| Arc::new(Rate::new(Some(it), Instant::now())));
        rates.set(vec![fast]);
        let begin = Instant::now();
        let is_over = || begin.elapsed() > Duration::from_secs(20);
        thread::scope(|scope| {
            let waiting = scope.spawn(|| rates.wait(0, 30_000_000, is_over));
            while rates.waits() == 0 {
                thread::yield_now();
            }
            rates.set(vec![Arc::clone(&slow)]);
            waiting.join().unwrap().unwrap();
        });
        let now = Instant::now();
        assert_eq!(slow.book((0, 1, true), 1, &mut { now }, now), Some(Duration::ZERO));
    }
}
