//! The limit on open descriptors, and who holds how many: tunnels first, pipes and races of what is
//! left.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors that are neither of tunnels nor of pipes: standard streams, listeners, the log, and
/// lookups. A small limit is not all spent on them: they are a quarter of it at most.
const SPARE: usize = 100;
const SPARE_PART: usize = 4;

/// What a tunnel holds, and what a pipe holds.
const A_PAIR: usize = 2;

/// Descriptors of this process.
#[derive(Debug)]
pub struct Descriptors {
    limit: usize,
    held: AtomicUsize,
}

impl Descriptors {
    /// Raises the soft limit of the process to the hard one.
    #[must_use]
    pub fn raise() -> Arc<Self> {
        let limit = getrlimit(Resource::Nofile);
        let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
        let now = if setrlimit(Resource::Nofile, raised).is_ok() { raised } else { limit };
        let limit = now.current.and_then(|limit| usize::try_from(limit).ok());
        Self::new(limit.unwrap_or(usize::MAX))
    }

    /// Those of a process that may have `limit` of them.
    #[must_use]
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Descriptors { limit, held: AtomicUsize::new(0) })
    }

    /// How many there may be.
    #[must_use]
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// How many tunnels they are enough for, at least one.
    #[must_use]
    pub fn tunnels(&self) -> usize {
        ((self.limit - self.set_aside()) / A_PAIR).max(1)
    }

    /// Notes that a tunnel has two until what is given back is dropped. Tunnels always get theirs:
    /// there are no more of them than fit.
    #[must_use]
    pub fn hold(self: &Arc<Self>) -> Held {
        self.take(A_PAIR)
    }

    /// Notes that one more is taken until what is given back is dropped, for what a session can do
    /// without. `None` where there is none to spare.
    #[must_use]
    pub fn spare(self: &Arc<Self>) -> Option<Held> {
        let held = self.take(1);
        (!self.are_short()).then_some(held)
    }

    fn take(self: &Arc<Self>, count: usize) -> Held {
        self.held.fetch_add(count, Ordering::Relaxed);
        Held { of: Arc::clone(self), count }
    }

    /// Whether pipes and races have to make room for tunnels.
    #[must_use]
    pub fn are_short(&self) -> bool {
        // They notice only between two moves or attempts, so room is made before it is needed.
        let margin = self.set_aside() + self.limit / 8;
        self.held.load(Ordering::Relaxed).saturating_add(margin) > self.limit
    }

    fn set_aside(&self) -> usize {
        SPARE.min(self.limit / SPARE_PART)
    }
}

/// Descriptors that are taken for as long as this is kept.
#[derive(Debug)]
pub struct Held {
    of: Arc<Descriptors>,
    count: usize,
}

impl Held {
    /// Those of the whole process.
    #[must_use]
    pub fn of(&self) -> &Arc<Descriptors> {
        &self.of
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.of.held.fetch_sub(self.count, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tunnel_takes_two() {
        assert_eq!(Descriptors::new(20_000).tunnels(), 9_950);
        assert_eq!(Descriptors::new(64).tunnels(), 24);
        assert_eq!(Descriptors::new(0).tunnels(), 1);
    }

    #[test]
    fn pipes_make_room_before_tunnels_need_it() {
        let descriptors = Descriptors::new(1_000);
        let mut held: Vec<Held> = (0..387).map(|_| descriptors.hold()).collect();
        assert!(!descriptors.are_short());
        held.push(descriptors.hold());
        assert!(descriptors.are_short());
        held.pop();
        assert!(!descriptors.are_short());
    }

    #[test]
    fn what_a_session_can_do_without_is_of_what_is_left() {
        let descriptors = Descriptors::new(1_000);
        let tunnels: Vec<Held> = (0..387).map(|_| descriptors.hold()).collect();
        let spare = descriptors.spare();
        assert!(spare.is_some());
        assert!(descriptors.spare().is_none());
        drop(spare);
        assert!(descriptors.spare().is_some());
        drop(tunnels);
        assert_eq!(descriptors.held.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn no_limit_is_no_shortage() {
        let descriptors = Descriptors::new(usize::MAX);
        let _held = descriptors.hold();
        assert!(!descriptors.are_short());
    }
}
