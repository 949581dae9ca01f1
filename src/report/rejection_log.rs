//! The lines about clients that were rejected, limited so that they cannot fill a disk.

use std::sync::Arc;
use std::time::{Duration, Instant};

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

    /// Summaries come by themselves.
    pub fn tell_hidden(&self, _: Instant) -> Option<Duration> {
        None
    }
}
