//! The bytes of each of the last seconds, for the page's chart.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// How often the sums are looked at.
pub(super) const INTERVAL: Duration = Duration::from_secs(1);

/// Five minutes.
const LENGTH: usize = 5 * 60;

/// Bytes of each of the last seconds, the oldest first.
pub(super) struct History {
    /// When the sums were last looked at, and what they were.
    last: (Instant, [u64; 2]),
    /// Bytes up and down.
    pub(super) seconds: VecDeque<[u64; 2]>,
}

impl History {
    /// Begins with these sums.
    pub(super) fn new(now: Instant, sums: [u64; 2]) -> Self {
        History { last: (now, sums), seconds: VecDeque::new() }
    }

    /// When the sums have to be looked at again.
    pub(super) fn next(&self) -> Instant {
        self.last.0 + INTERVAL
    }

    /// Notes the sums of this moment. Who is late has the bytes of several seconds, which each of
    /// them gets its share of.
    pub(super) fn note(&mut self, now: Instant, sums: [u64; 2]) {
        let (before, earlier) = self.last;
        let passed = now.saturating_duration_since(before);
        let seconds = (passed + INTERVAL / 2).as_secs().max(1);
        let share =
            [0, 1].map(|direction| sums[direction].saturating_sub(earlier[direction]) / seconds);
        for _ in 0..seconds.min(LENGTH as u64) {
            if self.seconds.len() == LENGTH {
                self.seconds.pop_front();
            }
            self.seconds.push_back(share);
        }
        self.last = (now, sums);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_second_has_its_bytes_and_a_late_look_shares_them_out() {
        let begin = Instant::now();
        let after = |seconds| begin + Duration::from_millis(seconds);
        let mut history = History::new(begin, [100, 1000]);
        history.note(after(1000), [101, 1000]);
        history.note(after(1990), [103, 1500]);
        assert_eq!(history.seconds, [[1, 0], [2, 500]]);
        history.note(after(4010), [103, 3500]);
        assert_eq!(history.seconds, [[1, 0], [2, 500], [0, 1000], [0, 1000]]);
        assert_eq!(history.next(), after(5010));
    }

    #[test]
    fn five_minutes_are_kept() {
        let begin = Instant::now();
        let mut history = History::new(begin, [0, 0]);
        history.note(begin + 1000 * INTERVAL, [5000, 0]);
        assert_eq!(history.seconds.len(), LENGTH);
        history.note(begin + 1001 * INTERVAL, [5007, 0]);
        assert_eq!(history.seconds.len(), LENGTH);
        assert_eq!(history.seconds.back(), Some(&[7, 0]));
    }
}
