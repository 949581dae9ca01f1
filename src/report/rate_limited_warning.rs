//! Warnings about a state that lasts, at most one a minute.

use std::time::{Duration, Instant};

use log::warn;

use crate::system::sync::Mutex;

/// From one warning to the next, at least.
const INTERVAL: Duration = Duration::from_secs(60);

/// Logs one warning a minute.
#[derive(Debug, Default)]
pub struct RateLimitedWarning {
    last: Mutex<Option<Instant>>,
}

impl RateLimitedWarning {
    /// Logs `line` as a warning, unless there was one in the last minute.
    pub fn log(&self, line: &str) {
        if self.is_due(Instant::now()) {
            warn!("{line}");
        }
    }

    fn is_due(&self, now: Instant) -> bool {
        let mut last = self.last.lock();
        let is_due = last.is_none_or(|last| now.duration_since(last) >= INTERVAL);
        if is_due {
            *last = Some(now);
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minute_has_one_line() {
        let (warning, now) = (RateLimitedWarning::default(), Instant::now());
        assert!(warning.is_due(now));
        assert!(!warning.is_due(now + INTERVAL / 2));
        assert!(warning.is_due(now + INTERVAL));
    }
}
