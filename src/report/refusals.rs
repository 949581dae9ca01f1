//! The lines about clients that were turned away, limited so that they cannot fill a disk.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use log::warn;

/// Lines in each second. At 100 bytes a line, a flood of strangers then fills at most 86 MB a day,
/// and it is still told what goes on.
const LINES: u32 = 10;
const WINDOW: Duration = Duration::from_secs(1);

/// Logs those who are turned away, up to ten a second, and counts the others.
#[derive(Debug, Default)]
pub struct Refusals {
    window: Mutex<Option<Window>>,
}

#[derive(Debug)]
struct Window {
    since: Instant,
    logged: u32,
    hidden: u32,
}

impl Refusals {
    /// Logs `line` as a warning, unless there were too many in this second.
    pub fn log(&self, line: &str) {
        let (hidden, logs) = self.take(Instant::now());
        if hidden > 0 {
            warn!("turned away {hidden} more clients");
        }
        if logs {
            warn!("{line}");
        }
    }

    /// How many lines the second that has just ended has hidden, and whether the next one is logged.
    fn take(&self, now: Instant) -> (u32, bool) {
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        let mut hidden = 0;
        if window.as_ref().is_none_or(|window| now.duration_since(window.since) >= WINDOW) {
            let fresh = Window { since: now, logged: 0, hidden: 0 };
            hidden = window.replace(fresh).map_or(0, |ended| ended.hidden);
        }
        let Some(window) = window.as_mut() else { return (hidden, true) };
        let logs = window.logged < LINES;
        window.logged += u32::from(logs);
        window.hidden += u32::from(!logs);
        (hidden, logs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_a_second_are_logged_and_the_others_counted() {
        let (refusals, now) = (Refusals::default(), Instant::now());
        for number in 0..25 {
            assert_eq!(refusals.take(now), (0, number < 10), "{number}");
        }
        assert_eq!(refusals.take(now + WINDOW), (15, true));
        assert_eq!(refusals.take(now + 2 * WINDOW), (0, true));
    }
}
