//! What is done beside serving, about once a second.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread::ScopedJoinHandle;
use std::time::{Duration, Instant};

use super::accept::Acceptor;
use super::notify::Notify;
use super::stop::Stop;
use crate::sessions::Sessions;
use crate::system::pool::Pool;

/// How often, unless the service manager wants a sign of life more often than that.
const ROUND: Duration = Duration::from_secs(1);

/// What is looked after.
pub(super) struct Housekeeping<'a> {
    pub(super) sessions: &'a Sessions,
    pub(super) pool: &'a Pool,
    pub(super) acceptors: &'a [Arc<Acceptor>],
    pub(super) stop: &'a Stop,
    pub(super) notify: &'a Notify,
    /// The thread that ends sessions whose time is up.
    pub(super) watch: ScopedJoinHandle<'a, ()>,
}

impl Housekeeping<'_> {
    /// Looks after everything until `end` has no sender any more.
    pub(super) fn run(&self, end: &Receiver<()>) {
        let pause = self.notify.watchdog().map(|limit| limit / 2);
        let round = pause.filter(|pause| *pause < 2 * ROUND).unwrap_or(ROUND);
        let mut next_sign = Instant::now();
        loop {
            let now = Instant::now();
            self.round(now);
            if let Some(pause) = pause.filter(|_| now >= next_sign && self.is_alive()) {
                self.notify.alive();
                next_sign = now + pause;
            }
            if end.recv_timeout(round) != Err(RecvTimeoutError::Timeout) {
                return;
            }
        }
    }

    fn round(&self, now: Instant) {
        if !self.stop.is_stopped() {
            // A listener may have lost its last worker for want of a thread. It is tried again.
            self.acceptors.iter().for_each(|acceptor| drop(acceptor.ensure_worker()));
        }
        self.pool.trim(now);
    }

    /// Whether sessions open and end: somebody watches over their time limits, and the lock that each
    /// of them needs is given back.
    fn is_alive(&self) -> bool {
        self.sessions.count();
        !self.watch.is_finished()
    }
}
