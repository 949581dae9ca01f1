//! What is done beside serving, until the server is stopped.

use std::thread::ScopedJoinHandle;
use std::time::{Duration, Instant};

use super::Server;
use super::accept::Acceptor;

/// How often, while something is to be done.
const ROUND: Duration = Duration::from_secs(1);

/// How often, while nothing is: no thread is idle for too long before that.
const IDLE_ROUND: Duration = Duration::from_secs(60);

impl Server {
    /// Waits for the stop, and meanwhile gives each listener a worker, ends threads that nobody needs and
    /// says that the server is alive, as long as `watch` looks after the time limits of sessions.
    pub(super) fn keep_house(&self, watch: &ScopedJoinHandle<'_, ()>) {
        while !self.stopper.is_stopped() {
            // A listener may have lost its last worker for want of a thread. It is tried again.
            let have_workers = self.acceptors.iter().all(|it| Acceptor::ensure_worker(it).is_ok());
            let is_trimmed = self.pool.trim(Instant::now());
            let mut pause = if have_workers && is_trimmed { IDLE_ROUND } else { ROUND };
            if let Some(limit) = self.notify.watchdog() {
                pause = pause.min(limit / 2);
                // Sessions open and end only while the lock that each of them needs is given back.
                self.proxy.sessions.count();
                if !watch.is_finished() {
                    self.notify.alive();
                }
            }
            let _ = self.wakes.recv_timeout(pause);
        }
    }
}
