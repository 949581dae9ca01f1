//! Warnings about a state that lasts, at most one a minute.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use log::warn;

const BETWEEN: Duration = Duration::from_secs(60);

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
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = last.is_none_or(|last| now.duration_since(last) >= BETWEEN);
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
        let (rarely, now) = (RateLimitedWarning::default(), Instant::now());
        assert!(rarely.is_due(now));
        assert!(!rarely.is_due(now + BETWEEN / 2));
        assert!(rarely.is_due(now + BETWEEN));
    }
}
