//! The lines about clients that were rejected, limited so that they cannot fill a disk.

use std::sync::Arc;
use std::time::Duration;

use log::warn;

use super::rate_limit::{LogRateLimit, Rate};

/// Ten lines a second. At 100 bytes a line, a flood of strangers fills at most 86 MB a day, and the log
/// still says what goes on.
const RATE: Rate<()> = Rate {
    burst: 10,
    every: Duration::from_millis(100),
    summary_after: Duration::from_secs(1),
    summary: |_, count| warn!("turned away {count} more clients"),
};

/// Logs rejected clients, up to ten a second, and counts the others.
#[derive(Debug)]
pub struct RejectionLog(Arc<LogRateLimit<()>>);

impl Default for RejectionLog {
    fn default() -> Self {
        RejectionLog(LogRateLimit::new(RATE))
    }
}

impl RejectionLog {
    /// Logs `line` as a warning, unless there were too many.
    pub fn log(&self, line: &str) {
        if self.0.admits(()) {
            warn!("{line}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn ten_a_second_are_logged_and_the_others_counted() {
        let (log, now) = (RejectionLog::default(), Instant::now());
        for number in 0..25 {
            assert_eq!(log.0.take((), now), number < 10, "{number}");
        }
        assert_eq!(log.0.take_suppressed(), [(Some(()), 15)]);
        assert!(log.0.take((), now + Duration::from_secs(1)));
        assert!(log.0.take_suppressed().is_empty());
    }
}
