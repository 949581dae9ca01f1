//! A state that lasts, such as that there are no descriptors: one line when it begins, one at its end.

use std::fmt;
use std::time::{Duration, Instant};

use log::{info, warn};

use crate::system::sync::Mutex;

/// What has not been seen for so long is over. What comes and goes faster lasts.
const OVER_AFTER: Duration = Duration::from_secs(1);

/// Whether something lasts that the log tells of.
#[derive(Debug, Default)]
pub struct LastingState {
    seen: Mutex<Option<Instant>>,
}

impl LastingState {
    /// It is so now. Logs `beginning` as a warning, and is true, if it was not so before.
    pub fn is_so(&self, beginning: fmt::Arguments<'_>) -> bool {
        let is_new = self.seen.lock().replace(Instant::now()).is_none();
        if is_new {
            warn!("{beginning}");
        }
        is_new
    }

    /// It is not so now. Logs `end` once that has been so for a second. True if it is over.
    pub fn is_not_so(&self, end: &str) -> bool {
        let mut seen = self.seen.lock();
        let is_over = seen.is_some_and(|at| at.elapsed() >= OVER_AFTER);
        if is_over {
            *seen = None;
            info!("{end}");
        }
        seen.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_and_goes_is_over_when_it_has_not_come_for_a_second() {
        let state = LastingState::default();
        assert!(state.is_not_so("it never was"));
        for number in 0..100 {
            assert_eq!(state.is_so(format_args!("it is so")), number == 0);
            assert!(!state.is_not_so("too early"));
        }
        *state.seen.lock() = Instant::now().checked_sub(OVER_AFTER);
        assert!(state.is_not_so("it is over"));
        assert_eq!(*state.seen.lock(), None);
    }
}
