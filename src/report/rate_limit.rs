//! How many lines of one kind the log takes: a burst, then some each second. The others are counted,
//! and after a while a line says how many they were.

use std::cell::Cell;
use std::hash::Hash;
use std::mem;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crate::system::lru::LruMap;
use crate::system::sync::Mutex;

/// Kinds of lines that are counted apart: 1,024 of about 200 bytes each are 200 KiB. Beyond that all
/// further kinds are one.
const MAX_KINDS: usize = 1024;

/// Stack of the thread that logs a summary, in bytes.
const STACK: usize = 128 * 1024;

/// What each kind of lines may have.
#[derive(Debug)]
pub(super) struct Rate<K> {
    /// Lines at once.
    pub(super) burst: u32,
    /// From then on, a line in each of these spans.
    pub(super) every: Duration,
    /// How long lines are counted before a summary says how many they were.
    pub(super) summary_after: Duration,
    /// Logs how many lines of this kind, or of all further kinds together, were not logged.
    pub(super) summary: fn(Option<K>, u64),
}

/// Lines of kinds `K`, of which only so many are logged.
#[derive(Debug)]
pub(super) struct LogRateLimit<K> {
    rate: Rate<K>,
    state: Mutex<State<K>>,
}

#[derive(Debug)]
struct State<K> {
    kinds: LruMap<K, Usage>,
    /// That of all kinds for which `kinds` has no place.
    others: Usage,
    /// A thread waits to log a summary.
    awaits_summary: bool,
}

#[derive(Debug, Default)]
struct Usage {
    /// When the whole burst may come again. `None` before the first line.
    full_burst: Option<Instant>,
    /// Lines since the last summary that were not logged.
    suppressed: Cell<u64>,
}

impl<K: Copy + Eq + Hash + Send + 'static> LogRateLimit<K> {
    pub(super) fn new(rate: Rate<K>) -> Arc<Self> {
        let state = State {
            kinds: LruMap::new(MAX_KINDS),
            others: Usage::default(),
            awaits_summary: false,
        };
        Arc::new(LogRateLimit { rate, state: Mutex::new(state) })
    }

    /// Whether a line of this kind is logged. If not, it is counted for the next summary.
    pub(super) fn admits(self: &Arc<Self>, kind: K) -> bool {
        let is_logged = self.take(kind, Instant::now());
        if !is_logged && !mem::replace(&mut self.state.lock().awaits_summary, true) {
            self.start_summary();
        }
        is_logged
    }

    /// A thread that sleeps until the summary is due costs nothing while no lines are suppressed.
    fn start_summary(self: &Arc<Self>) {
        let limit = Arc::clone(self);
        let summarize = move || {
            thread::sleep(limit.rate.summary_after);
            limit.summarize();
        };
        let thread = thread::Builder::new().name("tabi summary".into()).stack_size(STACK);
        if thread.spawn(summarize).is_err() {
            // The next line that is not logged tries again.
            self.state.lock().awaits_summary = false;
        }
    }

    /// Logs how many lines were not logged since the last summary.
    pub(super) fn summarize(&self) {
        for (kind, count) in self.take_suppressed() {
            (self.rate.summary)(kind, count);
        }
    }

    pub(super) fn take(&self, kind: K, now: Instant) -> bool {
        let State { kinds, others, .. } = &mut *self.state.lock();
        let is_full = kinds.len() == MAX_KINDS
            && kinds.oldest().is_some_and(|(_, usage)| usage.is_in_use(now));
        if !is_full && kinds.peek(&kind).is_none() {
            kinds.insert(kind, Usage::default(), 1);
        }
        kinds.get(&kind).unwrap_or(others).take(&self.rate, now)
    }

    /// The numbers for a summary, `None` standing for all further kinds.
    pub(super) fn take_suppressed(&self) -> Vec<(Option<K>, u64)> {
        let mut state = self.state.lock();
        state.awaits_summary = false;
        let kinds = state.kinds.iter().map(|(kind, usage)| (Some(*kind), usage));
        let all = kinds.chain([(None, &state.others)]);
        all.map(|(kind, usage)| (kind, usage.suppressed.take()))
            .filter(|(_, count)| *count > 0)
            .collect()
    }
}

impl Usage {
    fn take<K>(&mut self, rate: &Rate<K>, now: Instant) -> bool {
        let full_burst = self.full_burst.map_or(now, |at| at.max(now)) + rate.every;
        let is_logged = full_burst <= now + rate.every * rate.burst;
        if is_logged {
            self.full_burst = Some(full_burst);
        } else {
            self.suppressed.set(self.suppressed.get() + 1);
        }
        is_logged
    }

    fn is_in_use(&self, now: Instant) -> bool {
        self.suppressed.get() > 0 || self.full_burst.is_some_and(|at| at > now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use portable_atomic::{AtomicU64, Ordering};

    const SECOND: Duration = Duration::from_secs(1);

    fn limit() -> Arc<LogRateLimit<u32>> {
        LogRateLimit::new(Rate {
            burst: 5,
            every: Duration::from_millis(500),
            summary_after: 3 * SECOND,
            summary: |_, _| (),
        })
    }

    #[test]
    fn a_burst_is_logged_then_some_a_second_and_the_rest_is_counted() {
        let (limit, now) = (limit(), Instant::now());
        let logged = |at: Duration, lines| (0..lines).filter(|_| limit.take(7, now + at)).count();
        assert_eq!(logged(Duration::ZERO, 100), 5);
        assert_eq!(logged(SECOND, 100), 2);
        assert_eq!(limit.take_suppressed(), [(Some(7), 95 + 98)]);
        assert!(limit.take_suppressed().is_empty());
        assert_eq!(logged(20 * SECOND, 100), 5);
    }

    #[test]
    fn one_kind_takes_nothing_from_another() {
        let (limit, now) = (limit(), Instant::now());
        assert_eq!((0..100).filter(|_| limit.take(1, now)).count(), 5);
        assert!(limit.take(2, now));
    }

    #[test]
    fn the_table_is_bounded_and_what_is_quiet_makes_room_in_it() {
        let (limit, now) = (limit(), Instant::now());
        let kinds = u32::try_from(MAX_KINDS).unwrap();
        assert!((0..kinds).all(|kind| limit.take(kind, now)));
        assert_eq!((kinds..2 * kinds).filter(|kind| limit.take(*kind, now)).count(), 5);
        assert_eq!(limit.state.lock().kinds.len(), MAX_KINDS);
        assert_eq!(limit.take_suppressed(), [(None, u64::from(kinds) - 5)]);
        assert!((kinds..2 * kinds).all(|kind| limit.take(kind, now + 3 * SECOND)));
        assert_eq!(limit.state.lock().kinds.len(), MAX_KINDS);
    }

    #[test]
    fn a_summary_comes_without_a_further_line() {
        static SUPPRESSED: AtomicU64 = AtomicU64::new(0);
        let limit = LogRateLimit::new(Rate {
            burst: 1,
            every: 20 * SECOND,
            summary_after: SECOND / 10,
            summary: |kind, count| {
                assert_eq!(kind, Some(1));
                SUPPRESSED.fetch_add(count, Ordering::SeqCst);
            },
        });
        for expected in [9, 19] {
            (0..10).for_each(|_| _ = limit.admits(1));
            let begin = Instant::now();
            while SUPPRESSED.load(Ordering::SeqCst) < expected {
                assert!(begin.elapsed() < 20 * SECOND, "no summary");
                thread::yield_now();
            }
            assert_eq!(SUPPRESSED.load(Ordering::SeqCst), expected);
        }
    }
}
