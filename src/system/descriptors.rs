//! The limit on open descriptors, and who holds how many: pipes have a part for themselves, tunnels are
//! first of the others, and races have what is left.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::shares::PIPES;

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
    pipes: AtomicUsize,
}

impl Descriptors {
    /// Raises the soft limit of the process to the hard one.
    pub fn raise() -> Arc<Self> {
        let limit = getrlimit(Resource::Nofile);
        let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
        let now = if setrlimit(Resource::Nofile, raised).is_ok() { raised } else { limit };
        let limit = now.current.and_then(|limit| usize::try_from(limit).ok());
        Self::new(limit.unwrap_or(usize::MAX))
    }

    /// Those of a process that may have `limit` of them.
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Descriptors { limit, held: AtomicUsize::new(0), pipes: AtomicUsize::new(0) })
    }

    /// How many there may be.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// How many tunnels they are enough for, at least one.
    pub fn tunnels(&self) -> usize {
        (self.of_tunnels() / A_PAIR).max(1)
    }

    /// Notes that a tunnel has two until what is given back is dropped. Tunnels always get theirs:
    /// there are no more of them than fit.
    pub fn reserve(self: &Arc<Self>) -> Reservation {
        self.take(A_PAIR)
    }

    /// Notes that one more is taken until what is given back is dropped, for what a session can do
    /// without. `None` where there is none to spare.
    pub fn try_reserve(self: &Arc<Self>) -> Option<Reservation> {
        let held = self.take(1);
        (!self.are_short()).then_some(held)
    }

    /// Notes that there is one more pipe until what is given back is dropped. `None` where pipes have their
    /// part already.
    pub fn try_pipe(self: &Arc<Self>) -> Option<PipeReservation> {
        let pipe = PipeReservation(Arc::clone(self));
        let pipes = self.pipes.fetch_add(1, Ordering::Relaxed) + 1;
        (pipes <= self.limit / PIPES.all / A_PAIR).then_some(pipe)
    }

    fn take(self: &Arc<Self>, count: usize) -> Reservation {
        self.held.fetch_add(count, Ordering::Relaxed);
        Reservation { of: Arc::clone(self), count }
    }

    /// Whether races have to make room for tunnels.
    pub fn are_short(&self) -> bool {
        // They notice only between two attempts, so room is made before it is needed.
        let margin = self.limit / 8;
        self.held.load(Ordering::Relaxed).saturating_add(margin) > self.of_tunnels()
    }

    fn of_tunnels(&self) -> usize {
        self.limit - self.limit / PIPES.all - SPARE.min(self.limit / SPARE_PART)
    }
}

/// A pipe's descriptors, which are taken for as long as this is kept.
#[derive(Debug)]
pub struct PipeReservation(Arc<Descriptors>);

impl Drop for PipeReservation {
    fn drop(&mut self) {
        self.0.pipes.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Descriptors that are taken for as long as this is kept.
#[derive(Debug)]
pub struct Reservation {
    of: Arc<Descriptors>,
    count: usize,
}

impl Reservation {
    /// Those of the whole process.
    pub fn of(&self) -> &Arc<Descriptors> {
        &self.of
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.of.held.fetch_sub(self.count, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tunnel_takes_two_and_pipes_have_an_eighth() {
        assert_eq!(Descriptors::new(20_000).tunnels(), 8_700);
        assert_eq!(Descriptors::new(64).tunnels(), 20);
        assert_eq!(Descriptors::new(0).tunnels(), 1);
        let descriptors = Descriptors::new(1_000);
        let pipes: Vec<_> = (0..100).map_while(|_| descriptors.try_pipe()).collect();
        assert_eq!(pipes.len(), 1_000 / 8 / 2);
        drop(pipes);
        assert_eq!(descriptors.pipes.load(Ordering::Relaxed), 0);
        assert!(descriptors.try_pipe().is_some());
        assert!(Descriptors::new(0).try_pipe().is_none());
    }

    #[test]
    fn what_a_session_can_do_without_is_of_what_is_left() {
        let descriptors = Descriptors::new(1_000);
        let tunnels: Vec<Reservation> = (0..325).map(|_| descriptors.reserve()).collect();
        assert!(descriptors.try_reserve().is_none());
        let others = descriptors.tunnels();
        drop(tunnels);
        assert_eq!(descriptors.held.load(Ordering::Relaxed), 0);
        let _tunnels: Vec<Reservation> = (0..others / 2).map(|_| descriptors.reserve()).collect();
        assert!(descriptors.try_reserve().is_some());
    }

    #[test]
    fn no_limit_is_no_shortage() {
        let descriptors = Descriptors::new(usize::MAX);
        let _held = descriptors.reserve();
        assert!(descriptors.try_reserve().is_some());
    }
}
