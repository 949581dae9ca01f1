//! The watch over time limits: one thread looks at every live session about once a second.
//!
//! Somebody looks at every socket in every state: a thread that reads from it, or else the watch.
//!
//! | state of the session | client's socket | target's socket |
//! |---|---|---|
//! | handshake, farewell | read, under a deadline | - |
//! | dial, or the wait of BIND | polled by the one who dials or waits | polled, under a deadline |
//! | relay | read | read |
//! | relay, while the other side takes no bytes | the watch | the watch |
//! | relay, after the side's end of file | the watch | the watch |
//! | UDP | read by the association | - |
//!
//! A peer that vanishes without a word is found by keepalive, whose failure the same eyes see.

use std::sync::PoisonError;
use std::time::{Duration, Instant};

use super::ending::Ending;
use super::endpoint::DELIVERY;
use super::registry::{Entry, Limits, Live, Sessions};
use super::state::Stage;

/// The watch looks again after an eighth of the shortest limit, so that a session ends at most an
/// eighth late; but neither more often than 100 times a second nor less often than once.
const ROUNDS_A_LIMIT: u32 = 8;
const SHORTEST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// How long nothing may move once a side has sent its end of file: as long as RFC 5382 (REQ-5) has
/// a connection kept that is being closed. Many clients close for good, and their targets never
/// notice.
const HALF_CLOSED: Duration = Duration::from_secs(240);

impl Sessions {
    /// Ends sessions whose time is up, until [`Sessions::stop_watch`].
    pub fn watch(&self) {
        let mut live = self.lock();
        while !live.watch_ends {
            // A session that has opened meanwhile has its deadline after `next` or finds the watch
            // asleep and wakes it.
            live = if let Some(next) = live.sweep(Instant::now(), self.limits) {
                let pause = next.saturating_duration_since(Instant::now());
                self.opened.wait_timeout(live, pause).unwrap_or_else(PoisonError::into_inner).0
            } else {
                live.watch_sleeps = true;
                let mut live = self.opened.wait(live).unwrap_or_else(PoisonError::into_inner);
                live.watch_sleeps = false;
                live
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
            self.see_off(now);
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

    /// Nobody reads from a side that has ended, nor from one whose bytes the other does not take: the
    /// watch looks at those sockets.
    fn look_at_relay(&mut self, now: Instant, idle: Duration) {
        if self.seen.is_none() {
            // Most sessions are over before anyone could miss their peers, and do without these
            // system calls.
            self.account.keep_alive();
        }
        let limit = if self.account.is_half_closed() { idle.min(HALF_CLOSED) } else { idle };
        if self.is_quiet(now, limit) {
            self.account.end(Ending::IdleTimeout);
        } else {
            self.account.end_if_lost();
        }
    }

    /// Ends a session's threads that are blocked in a write when it was ended, except one that
    /// delivers the last bytes to somebody who takes them.
    fn see_off(&mut self, now: Instant) {
        if !self.told {
            self.told = true;
            self.seen = Some((self.account.moved(), now));
            return;
        }
        let delivers = self.account.is_finishing() && !self.is_quiet(now, DELIVERY);
        if self.account.is_writing() && !delivers {
            self.account.end_by_force();
        }
    }

    /// Whether the watch has seen nothing move for as long as `limit`. What the system has taken over
    /// still moves while the peer reads it; that is looked at only when nothing else has moved for
    /// half of the limit.
    fn is_quiet(&mut self, now: Instant, limit: Duration) -> bool {
        let moved = self.account.moved();
        let since = match self.seen {
            Some((seen, since)) if seen == moved => since,
            Some(_) | None => {
                self.account.forget_queues();
                self.seen = Some((moved, now));
                return false;
            }
        };
        let quiet = now.duration_since(since);
        if quiet >= limit / 2 && self.account.queues_shrink() {
            self.seen = Some((moved, now));
            return false;
        }
        quiet >= limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system::descriptors::Descriptors;
    use std::net::{TcpListener, TcpStream};
    use std::sync::Arc;

    /// The registry's entry of a relaying session, and the far ends of its two connections.
    fn relaying(limits: Limits) -> (Entry, TcpStream, TcpStream) {
        let sessions = Sessions::new(limits, Descriptors::new(usize::MAX));
        let (client, near_client) = connection();
        let (target, near_target) = connection();
        let session = sessions.open(client.local_addr().unwrap(), near_client, || ()).unwrap();
        session.connected(near_target, target.local_addr().unwrap());
        session.enter(Stage::Relay);
        let entry =
            Entry { account: Arc::clone(session.account()), group: None, seen: None, told: false };
        (entry, client, target)
    }

    fn connection() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let far = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (far, listener.accept().unwrap().0)
    }

    #[test]
    fn a_half_closed_session_may_be_silent_for_four_minutes() {
        for (idle, limit) in [(7440, 240), (100, 100)] {
            let (idle, limit) = (Duration::from_secs(idle), Duration::from_secs(limit));
            let limits = Limits { sessions: 1, per_client: 1, handshake: NEVER_HERE, idle };
            let (mut entry, _client, _target) = relaying(limits);
            let begin = Instant::now();
            entry.look(begin, limits);
            let half_closed = begin + 9 * idle / 10;
            entry.account.client().set_ended();
            entry.look(half_closed, limits);
            entry.look(half_closed + 9 * limit / 10, limits);
            assert_eq!(entry.account.ending(), None);
            entry.look(half_closed + limit, limits);
            assert_eq!(entry.account.ending(), Some(Ending::IdleTimeout));
        }
    }

    #[test]
    fn what_was_cut_off_does_not_look_complete_for_an_idle_timeout_that_comes_late() {
        let limits = Limits { sessions: 1, per_client: 1, handshake: NEVER_HERE, idle: NEVER_HERE };
        let (entry, _client, _target) = relaying(limits);
        entry.account.end(Ending::Evicted);
        entry.account.end(Ending::IdleTimeout);
        assert!(entry.account.directions().iter().all(|(source, _)| !source.finishes()));
    }

    /// Far longer than the test takes.
    const NEVER_HERE: Duration = Duration::from_secs(20);
}
