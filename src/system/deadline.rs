//! A moment by which something has to be done.

use std::io::{self, ErrorKind};
use std::time::{Duration, Instant};

/// A moment by which something has to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline(Instant);

impl Deadline {
    /// `limit` from now.
    pub fn after(limit: Duration) -> Self {
        Deadline(Instant::now() + limit)
    }

    /// The time that is left, if any is.
    pub fn left(self) -> Option<Duration> {
        let left = self.0.saturating_duration_since(Instant::now());
        (!left.is_zero()).then_some(left)
    }

    /// The time that is left, for those who report a deadline that has passed.
    ///
    /// # Errors
    ///
    /// `TimedOut` when none is.
    pub fn time_left(self) -> io::Result<Duration> {
        self.left().ok_or_else(|| ErrorKind::TimedOut.into())
    }

    /// Whether it has passed.
    pub fn has_passed(self) -> bool {
        self.left().is_none()
    }
}

impl From<Deadline> for Instant {
    fn from(deadline: Deadline) -> Self {
        deadline.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_left_until_the_deadline() {
        let deadline = Deadline::after(Duration::from_secs(60));
        assert!(deadline.left().is_some_and(|left| left <= Duration::from_secs(60)));
        assert!(!deadline.has_passed());
        let passed = Deadline::after(Duration::ZERO);
        assert!(passed.has_passed());
        assert_eq!(passed.time_left().unwrap_err().kind(), ErrorKind::TimedOut);
    }
}
