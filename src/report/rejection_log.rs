//! The lines about clients that were turned away, limited so that they cannot fill a disk.

use std::time::{Duration, Instant};

use log::warn;

use super::rate_limit::{LogDecision, LogRateLimit};

/// Ten lines a second. At 100 bytes a line, a flood of strangers fills at most 86 MB a day, and the log
/// still says what goes on.
const ALLOWANCE: LogDecision = LogDecision {
    burst: 10,
    every: Duration::from_millis(100),
    told_after: Duration::from_secs(1),
};

/// Logs those who are turned away, up to ten a second, and counts the others.
#[derive(Debug)]
pub struct RejectionLog {
    quota: LogRateLimit<()>,
}

impl Default for RejectionLog {
    fn default() -> Self {
        RejectionLog { quota: LogRateLimit::new(ALLOWANCE) }
    }
}

impl RejectionLog {
    /// Logs `line` as a warning, unless there were too many.
    pub fn log(&self, line: &str) {
        let (hidden, logs) = self.take(Instant::now());
        tell(hidden);
        if logs {
            warn!("{line}");
        }
    }

    /// Logs how many lines were not logged. Says when to call it again, if there is something to tell
    /// then.
    pub fn tell_hidden(&self, now: Instant) -> Option<Duration> {
        tell(self.hidden(now));
        self.quota.has_hidden().then_some(Duration::from_secs(1))
    }

    /// How many lines the time that has just ended has hidden, and whether the next one is logged.
    fn take(&self, now: Instant) -> (u64, bool) {
        (self.hidden(now), self.quota.take((), now))
    }

    fn hidden(&self, now: Instant) -> u64 {
        self.quota.hidden(now).into_iter().map(|(_, count)| count).sum()
    }
}

fn tell(hidden: u64) {
    if hidden > 0 {
        warn!("turned away {hidden} more clients");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn ten_a_second_are_logged_and_the_others_counted() {
        let (refusals, now) = (RejectionLog::default(), Instant::now());
        for number in 0..25 {
            assert_eq!(refusals.take(now), (0, number < 10), "{number}");
        }
        assert_eq!(refusals.take(now + SECOND), (15, true));
        assert_eq!(refusals.take(now + 2 * SECOND), (0, true));
    }
}
