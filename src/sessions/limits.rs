//! How many sessions there may be, and how long each may do nothing.
//!
//! One thread looks at every live session about once a second ([`Sessions::watch`]). With it, somebody
//! looks at every socket in every state: a thread that reads from it, or else the watch.
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
//!
//! [`Sessions::watch`]: super::Sessions::watch

use std::mem;
use std::time::{Duration, Instant};

use super::ending::Ending;
use super::state::{SessionState, Stage};

/// The watch looks again after an eighth of the shortest limit, so that a session ends at most an
/// eighth late; but neither more often than 100 times a second nor less often than once.
const ROUNDS_A_LIMIT: u32 = 8;
const SHORTEST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// How long nothing may move once a side has sent its end of file: as long as RFC 5382 (REQ-5) has
/// a connection kept that is being closed. Many clients close for good, and their targets never
/// notice.
const HALF_CLOSED: Duration = Duration::from_secs(240);

/// How many sessions there may be, and how long a session may do nothing.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Sessions at once.
    pub sessions: usize,
    /// Pairs of descriptors at once. A session takes one, and an association takes more.
    pub pairs: usize,
    /// Sessions at once of one client.
    pub per_client: usize,
    /// From the connection to the last byte of the request.
    pub handshake: Duration,
    /// Without a byte in either direction.
    pub idle: Duration,
}

impl Limits {
    /// How long the watch pauses between two looks at a session.
    pub(super) fn pause(&self) -> Duration {
        let shortest = self.idle.min(self.handshake);
        (shortest / ROUNDS_A_LIMIT).clamp(SHORTEST_PAUSE, LONGEST_PAUSE)
    }
}

/// What the watch has seen of a session.
#[derive(Debug, Default)]
pub(super) struct Activity {
    /// The bytes that it saw moved, and when it first saw so many. `None` until it has seen the session
    /// relaying.
    pub(super) moved: Option<(u64, Instant)>,
    /// The bytes in both send queues when it last looked at them. `None` if it has not looked since
    /// something moved, and where the system does not say.
    queued: Option<u64>,
    /// The session had ended.
    ended: bool,
}

impl Activity {
    /// Ends `session` if its time is up. Says when that will be, if it has a deadline.
    pub(super) fn check(
        &mut self,
        session: &SessionState,
        now: Instant,
        limits: Limits,
    ) -> Option<Instant> {
        if session.ending().is_some() {
            if mem::replace(&mut self.ended, true) {
                session.end_writes();
            }
            return None;
        }
        match session.stage() {
            Stage::Handshake => {
                let deadline = session.opened + limits.handshake;
                if now < deadline {
                    return Some(deadline);
                }
                session.end(Ending::HandshakeTimeout);
            }
            Stage::Relay => self.check_relay(session, now, limits.idle),
            // What happens here has a deadline of its own.
            Stage::Dial | Stage::Farewell => {}
        }
        None
    }

    /// Nobody reads from a side whose end of file was passed on, nor from one whose bytes the other does
    /// not take: the watch looks at those sockets.
    fn check_relay(&mut self, session: &SessionState, now: Instant, idle: Duration) {
        if self.moved.is_none() {
            // Most sessions are over before anyone could miss their peers, and do without these
            // system calls.
            session.keep_alive();
        }
        let limit = if session.is_half_closed() { idle.min(HALF_CLOSED) } else { idle };
        if self.is_idle(session, now, limit) {
            session.end(Ending::IdleTimeout);
        } else {
            session.end_if_lost();
        }
    }

    /// Whether the watch has seen nothing move for as long as `limit`. What the system has taken over
    /// still moves while the peer reads it; that is looked at only when nothing else has moved for
    /// half of the limit.
    fn is_idle(&mut self, session: &SessionState, now: Instant, limit: Duration) -> bool {
        let moved = session.moved();
        let since = match self.moved {
            Some((seen, since)) if seen == moved => since,
            Some(_) | None => {
                self.queued = None;
                self.moved = Some((moved, now));
                return false;
            }
        };
        let idle = now.duration_since(since);
        if idle < limit / 2 || self.queued == Some(0) {
            return idle >= limit;
        }
        let before = mem::replace(&mut self.queued, session.unacknowledged());
        match (before, self.queued) {
            (Some(before), Some(now_queued)) if now_queued < before => {
                self.moved = Some((moved, now));
                false
            }
            // A first look that comes late has nothing to compare with: half of the limit is left from it.
            (None, Some(1..)) if idle >= limit => {
                self.moved = Some((moved, since + idle.saturating_sub(limit / 2)));
                false
            }
            (_, Some(_)) => idle >= limit,
            // What the system does not tell of may still move: it has as much time again.
            (_, None) => idle >= 2 * limit,
        }
    }

    /// For how long nothing has moved, as far as the watch has seen.
    pub(super) fn idle(&self, session: &SessionState, now: Instant) -> Duration {
        let moved = session.moved();
        match self.moved {
            Some((seen, since)) if seen == moved => now.saturating_duration_since(since),
            None if moved == 0 => now.saturating_duration_since(session.opened),
            Some(_) | None => Duration::ZERO,
        }
    }
}

#[cfg(test)]
impl Limits {
    /// Those of a test that has one session.
    pub(crate) fn of_one(handshake: Duration, idle: Duration) -> Self {
        Limits { sessions: 1, pairs: 8, per_client: 1, handshake, idle }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sessions::Sessions;
    use crate::system::descriptors::Descriptors;
    use crate::system::rate::Rate;
    use std::io::{Read, Write};
    use std::net::{Shutdown, TcpListener, TcpStream};
    use std::sync::Arc;
    use std::thread;

    /// A relaying session, and the far ends of its two connections.
    fn relaying(limits: Limits) -> (Arc<SessionState>, TcpStream, TcpStream) {
        let sessions = Sessions::new(limits, Descriptors::new(usize::MAX));
        let (client, near_client) = connection();
        let (target, near_target) = connection();
        let session =
            sessions.open(client.local_addr().unwrap(), false, near_client, || ()).unwrap();
        let session = Arc::clone(session.state());
        session.connected(near_target, target.local_addr().unwrap());
        session.enter(Stage::Relay);
        (session, client, target)
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
            let limits = Limits::of_one(NEVER_HERE, idle);
            let (session, client, _target) = relaying(limits);
            let (begin, mut activity) = (Instant::now(), Activity::default());
            activity.check(&session, begin, limits);
            let half_closed = begin + 9 * idle / 10;
            client.shutdown(Shutdown::Write).unwrap();
            session.stream().read_exact(&mut [0]).unwrap_err();
            session.pass_on_fin(session.client(), session.target());
            activity.check(&session, half_closed, limits);
            activity.check(&session, half_closed + 9 * limit / 10, limits);
            assert_eq!(session.ending(), None);
            activity.check(&session, half_closed + limit, limits);
            assert_eq!(session.ending(), Some(Ending::IdleTimeout));
        }
    }

    /// The machine is busy, or has had no descriptor to look by.
    #[test]
    #[cfg(target_os = "linux")]
    fn one_who_reads_is_not_idle_where_the_first_look_at_what_is_queued_comes_late() {
        let idle = Duration::from_secs(100);
        let limits = Limits::of_one(NEVER_HERE, idle);
        let (session, mut client, _target) = relaying(limits);
        let queued = || session.unacknowledged().unwrap();
        let mut near = session.client().stream().unwrap();
        near.set_nonblocking(true).unwrap();
        // Until neither system takes more.
        while near.write(&[0; 4096]).is_ok() || queued() == 0 {}
        let (begin, mut activity) = (Instant::now(), Activity::default());
        activity.check(&session, begin, limits);
        activity.check(&session, begin + idle, limits);
        assert_eq!(session.ending(), None, "there was one look");
        let before = queued();
        while queued() >= before {
            client.read_exact(&mut [0; 4096]).unwrap();
        }
        let later = begin + idle + idle / 4;
        activity.check(&session, later, limits);
        activity.check(&session, later + 9 * idle / 10, limits);
        assert_eq!(session.ending(), None, "it has read");
        activity.check(&session, later + idle, limits);
        assert_eq!(session.ending(), Some(Ending::IdleTimeout));
    }

    #[test]
    fn a_client_that_has_asked_by_http_may_wait_for_its_response_as_long_as_for_anything() {
        let idle = Duration::from_secs(7440);
        let limits = Limits::of_one(NEVER_HERE, idle);
        let (session, _client, _target) = relaying(limits);
        session.conclude_request();
        let (begin, mut activity) = (Instant::now(), Activity::default());
        activity.check(&session, begin, limits);
        activity.check(&session, begin + 9 * idle / 10, limits);
        assert_eq!(session.ending(), None);
        activity.check(&session, begin + idle, limits);
        assert_eq!(session.ending(), Some(Ending::IdleTimeout));
    }

    #[test]
    fn who_waits_for_a_turn_is_not_idle_and_what_it_has_booked_is_there_again_at_the_end() {
        let idle = Duration::from_secs(100);
        let limits = Limits::of_one(NEVER_HERE, idle);
        let (session, _client, _target) = relaying(limits);
        let (begin, mut activity) = (Instant::now(), Activity::default());
        let rate = Arc::new(Rate::new(Some(1), begin));
        session.rates.set(vec![Arc::clone(&rate)]);
        let wait_until_seen = |before| {
            while session.moved() == before {
                thread::yield_now();
            }
        };
        thread::scope(|scope| {
            scope.spawn(|| session.wait_for_turn(session.client(), 1000));
            wait_until_seen(0);
            activity.check(&session, begin, limits);
            wait_until_seen(session.moved());
            activity.check(&session, begin + 2 * idle, limits);
            assert_eq!(session.ending(), None);
            session.end(Ending::Stopped);
        });
        let now = Instant::now();
        let wait = rate.book((0, 1, true), 1, &mut { now }, now);
        assert!(wait.is_some_and(|wait| wait < Duration::from_secs(2)), "{wait:?}");
    }

    #[test]
    fn an_association_with_empty_datagrams_is_not_idle() {
        let idle = Duration::from_secs(100);
        let limits = Limits::of_one(NEVER_HERE, idle);
        let (session, _client, _target) = relaying(limits);
        let (begin, mut activity) = (Instant::now(), Activity::default());
        for minute in 0..5 {
            session.target().count_datagrams(1);
            activity.check(&session, begin + minute * Duration::from_secs(60), limits);
        }
        assert_eq!(session.ending(), None);
    }

    #[test]
    fn what_was_cut_off_does_not_look_complete_for_an_idle_timeout_that_comes_late() {
        let limits = Limits::of_one(NEVER_HERE, NEVER_HERE);
        let (session, _client, _target) = relaying(limits);
        session.end(Ending::Evicted("for others"));
        session.end(Ending::IdleTimeout);
        assert!(session.directions().iter().all(|(source, _)| !source.is_delivered_after_end()));
    }

    /// The thread that delivers is gone then, and what the other one writes may wait for ever.
    #[test]
    #[cfg(target_os = "linux")]
    fn a_failure_after_an_idle_end_ends_the_delivery() {
        let limits = Limits::of_one(NEVER_HERE, NEVER_HERE);
        let (session, client, _target) = relaying(limits);
        client.shutdown(Shutdown::Write).unwrap();
        while !session.client().fin_received(session.target()) {
            thread::yield_now();
        }
        session.end(Ending::IdleTimeout);
        assert!(session.client().is_delivered_after_end());
        session.end(Ending::TargetReset);
        assert_eq!(session.ending(), Some(Ending::IdleTimeout));
        assert!(!session.client().is_delivered_after_end());
    }

    /// Far longer than the test takes.
    const NEVER_HERE: Duration = Duration::from_secs(20);
}
