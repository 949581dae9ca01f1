//! How many lines of one kind the log takes: a burst, then some each second. The others are counted.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Kinds of lines that are told apart at once: 1,024 of about 100 bytes each are 100 KiB. Beyond that
/// all further kinds are one.
const MOST_KINDS: usize = 1024;

/// How often the kinds are looked through, at most.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What each kind may have.
#[derive(Clone, Copy, Debug)]
pub(super) struct LogDecision {
    /// Lines at once.
    pub(super) burst: u32,
    /// From then on, a line in each of these spans.
    pub(super) every: Duration,
    /// How long to count what is not logged before the log says how much it was.
    pub(super) told_after: Duration,
}

/// The lines of kinds `K`, counted.
#[derive(Debug)]
pub(super) struct LogRateLimit<K> {
    allowance: LogDecision,
    state: Mutex<State<K>>,
}

#[derive(Debug)]
struct State<K> {
    kinds: HashMap<K, Meter>,
    /// Those for which there is no room in `kinds`.
    others: Meter,
    looked: Option<Instant>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Meter {
    /// When the whole burst may come again. `None` before the first line.
    rested: Option<Instant>,
    hidden: u64,
    /// When the first of the hidden lines came.
    hiding: Option<Instant>,
}

/// Lines that were not logged: of which kind, `None` for several, and how many.
pub(super) type Hidden<K> = (Option<K>, u64);

impl<K: Copy + Eq + Hash> LogRateLimit<K> {
    pub(super) fn new(allowance: LogDecision) -> Self {
        let state = State { kinds: HashMap::new(), others: Meter::default(), looked: None };
        LogRateLimit { allowance, state: Mutex::new(state) }
    }

    /// Whether a line of this kind is logged. If not, it is counted.
    pub(super) fn take(&self, kind: K, now: Instant) -> bool {
        let mut state = self.lock();
        let is_known = state.kinds.contains_key(&kind);
        let meter = if is_known || state.kinds.len() < MOST_KINDS {
            state.kinds.entry(kind).or_default()
        } else {
            &mut state.others
        };
        meter.take(self.allowance, now)
    }

    /// What the log should tell of now. It looks at most once a second.
    pub(super) fn hidden(&self, now: Instant) -> Vec<Hidden<K>> {
        let mut hidden = Vec::new();
        let mut state = self.lock();
        if state.looked.is_some_and(|looked| now.duration_since(looked) < LOOK_EVERY) {
            return hidden;
        }
        state.looked = Some(now);
        let told_after = self.allowance.told_after;
        state.kinds.retain(|kind, meter| {
            hidden.extend(meter.tell(now, told_after).map(|count| (Some(*kind), count)));
            meter.is_in_use(now)
        });
        hidden.extend(state.others.tell(now, told_after).map(|count| (None, count)));
        hidden
    }

    /// Whether there will be something to tell.
    pub(super) fn has_hidden(&self) -> bool {
        let state = self.lock();
        state.others.hidden > 0 || state.kinds.values().any(|meter| meter.hidden > 0)
    }

    fn lock(&self) -> MutexGuard<'_, State<K>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Meter {
    fn take(&mut self, allowance: LogDecision, now: Instant) -> bool {
        let rested = self.rested.map_or(now, |rested| rested.max(now)) + allowance.every;
        let logs = rested <= now + allowance.every * allowance.burst;
        if logs {
            self.rested = Some(rested);
        } else {
            self.hidden += 1;
            self.hiding.get_or_insert(now);
        }
        logs
    }

    fn tell(&mut self, now: Instant, after: Duration) -> Option<u64> {
        let is_due = self.hiding.is_some_and(|since| now.duration_since(since) >= after);
        is_due.then(|| {
            self.hiding = None;
            std::mem::take(&mut self.hidden)
        })
    }

    fn is_in_use(&self, now: Instant) -> bool {
        self.hidden > 0 || self.rested.is_some_and(|rested| rested > now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const ALLOWANCE: LogDecision = LogDecision {
        burst: 5,
        every: Duration::from_millis(500),
        told_after: Duration::from_secs(3),
    };

    #[test]
    fn a_burst_is_logged_then_some_a_second_and_the_rest_is_told() {
        let (quota, now) = (LogRateLimit::new(ALLOWANCE), Instant::now());
        let logged = |at: Duration, lines| (0..lines).filter(|_| quota.take(7, now + at)).count();
        assert_eq!(logged(Duration::ZERO, 100), 5);
        assert_eq!(logged(SECOND, 100), 2);
        assert!(quota.hidden(now + SECOND).is_empty() && quota.has_hidden());
        assert_eq!(quota.hidden(now + 3 * SECOND), [(Some(7), 95 + 98)]);
        assert!(quota.hidden(now + 5 * SECOND).is_empty() && !quota.has_hidden());
        assert_eq!(logged(20 * SECOND, 100), 5);
    }

    #[test]
    fn one_kind_takes_nothing_from_another() {
        let (quota, now) = (LogRateLimit::new(ALLOWANCE), Instant::now());
        assert_eq!((0..100).filter(|_| quota.take(1, now)).count(), 5);
        assert!(quota.take(2, now));
    }

    #[test]
    fn the_table_is_bounded_and_what_is_quiet_leaves_it() {
        let (quota, now) = (LogRateLimit::new(ALLOWANCE), Instant::now());
        let kinds = u32::try_from(MOST_KINDS).unwrap();
        assert!((0..kinds).all(|kind| quota.take(kind, now)));
        assert_eq!((kinds..2 * kinds).filter(|kind| quota.take(*kind, now)).count(), 5);
        assert_eq!(quota.lock().kinds.len(), MOST_KINDS);
        assert_eq!(quota.hidden(now + 3 * SECOND), [(None, u64::from(kinds) - 5)]);
        assert_eq!(quota.lock().kinds.len(), 0);
    }
}
