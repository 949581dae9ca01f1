//! The watch over time limits: one thread looks at every live session about once a second.

use std::sync::PoisonError;
use std::time::{Duration, Instant};

use super::account::{Ending, Stage};
use super::registry::{Entry, Limits, Live, Sessions};

/// The watch looks again after an eighth of the shortest limit, so that a session ends at most an
/// eighth late; but neither more often than 100 times a second nor less often than once.
const ROUNDS_A_LIMIT: u32 = 8;
const SHORTEST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

impl Sessions {
    /// Ends sessions whose time is up, until [`Sessions::stop_watch`]. `each_round` is called about
    /// once a second while sessions live, and says how soon it has to be called again when none do.
    pub fn watch(&self, mut each_round: impl FnMut(Instant) -> Option<Duration>) {
        let mut live = self.lock();
        while !live.watch_ends {
            let now = Instant::now();
            let next = live.sweep(now, self.limits);
            drop(live);
            let again = each_round(now);
            live = self.lock();
            // A session that has opened meanwhile has its deadline after `next` or finds the watch
            // asleep and wakes it.
            live = match next {
                Some(next) => {
                    let pause = next.saturating_duration_since(Instant::now());
                    self.opened.wait_timeout(live, pause).unwrap_or_else(PoisonError::into_inner).0
                }
                None if live.entries.is_empty() && !live.watch_ends => {
                    live.watch_sleeps = true;
                    let mut live = match again {
                        None => self.opened.wait(live).unwrap_or_else(PoisonError::into_inner),
                        Some(again) => {
                            let woken = self.opened.wait_timeout(live, again);
                            woken.unwrap_or_else(PoisonError::into_inner).0
                        }
                    };
                    live.watch_sleeps = false;
                    live
                }
                None => live,
            };
        }
    }

    /// Makes [`Sessions::watch`] return.
    pub fn stop_watch(&self) {
        self.lock().watch_ends = true;
        self.opened.notify_one();
    }
}

impl Live {
    /// Ends what has to end now, and says when to look again: `None` when nothing is live.
    fn sweep(&mut self, now: Instant, limits: Limits) -> Option<Instant> {
        let pause = (limits.idle.min(limits.handshake) / ROUNDS_A_LIMIT)
            .clamp(SHORTEST_PAUSE, LONGEST_PAUSE);
        let mut next = now + pause;
        for entry in self.entries.values_mut() {
            if let Some(deadline) = entry.look(now, limits) {
                next = next.min(deadline);
            }
        }
        (!self.entries.is_empty()).then_some(next)
    }
}

impl Entry {
    /// Ends the session if its time is up. Says when that will be, if it has a deadline.
    fn look(&mut self, now: Instant, limits: Limits) -> Option<Instant> {
        let account = &self.account;
        if account.ending().is_some() {
            if self.told && account.is_writing() {
                account.end_by_force();
            }
            self.told = true;
            return None;
        }
        match account.stage() {
            Stage::Handshake => {
                let deadline = account.opened + limits.handshake;
                if now < deadline {
                    return Some(deadline);
                }
                account.end(Ending::HandshakeTimeout);
            }
            Stage::Relay => self.look_at_relay(now, limits.idle),
            // What happens here has a deadline of its own.
            Stage::Dial | Stage::Farewell => {}
        }
        None
    }

    fn look_at_relay(&mut self, now: Instant, idle: Duration) {
        let account = &self.account;
        let moved = account.client().sent() + account.target().sent();
        match self.seen {
            Some((seen, since)) if seen == moved => {
                if now.duration_since(since) >= idle {
                    account.end(Ending::IdleTimeout);
                } else if account.is_writing() {
                    account.end_if_reset();
                }
            }
            Some(_) => self.seen = Some((moved, now)),
            None => {
                // Most sessions are over before anyone could miss their peers, and do without these
                // system calls.
                account.keep_alive();
                self.seen = Some((moved, now));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system::descriptors::Descriptors;
    use std::sync::mpsc::channel;
    use std::thread;

    #[test]
    fn the_watch_comes_back_to_what_is_not_done_though_nobody_is_there() {
        let limits = Limits { sessions: 1, per_client: 1, handshake: NEVER_HERE, idle: NEVER_HERE };
        let sessions = Sessions::new(limits, Descriptors::new(usize::MAX));
        let (sender, rounds) = channel();
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut left = 3;
                sessions.watch(|_| {
                    left -= 1;
                    sender.send(left).unwrap();
                    (left > 0).then_some(Duration::from_millis(10))
                });
            });
            for left in (0..3).rev() {
                assert_eq!(rounds.recv_timeout(NEVER_HERE), Ok(left));
            }
            assert!(rounds.recv_timeout(Duration::from_millis(100)).is_err(), "it sleeps now");
            sessions.stop_watch();
        });
    }

    /// Far longer than the test takes.
    const NEVER_HERE: Duration = Duration::from_secs(20);
}
