//! What all sessions together have moved.

use super::endpoint::Endpoint;
use super::state::SessionState;

/// What has gone one way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Bytes of payload.
    pub bytes: u64,
    /// UDP datagrams.
    pub datagrams: u64,
}

/// What all sessions have moved since the start, those that are over included. It never shrinks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Sessions that have been opened.
    pub opened: u64,
    /// Sessions that are live.
    pub live: usize,
    /// Clients that were accepted and wait for a place.
    pub waiting: usize,
    /// From the clients.
    pub up: Traffic,
    /// To the clients.
    pub down: Traffic,
}

impl Totals {
    pub(super) fn add(&mut self, session: &SessionState) {
        self.up.add(session.client());
        self.down.add(session.target());
    }
}

impl Traffic {
    fn add(&mut self, side: &Endpoint) {
        self.bytes += side.sent();
        self.datagrams += side.datagrams();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sessions::registry::AT_ONCE;
    use crate::sessions::{Limits, Session, Sessions};
    use crate::system::descriptors::Descriptors;
    use std::net::{TcpListener, TcpStream};
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    fn open(sessions: &Arc<Sessions>) -> Session {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        sessions.open(client.local_addr().unwrap(), false, client, || ()).unwrap()
    }

    fn sessions() -> Arc<Sessions> {
        let limits = Limits {
            sessions: 400,
            pairs: 400,
            per_client: 200,
            handshake: Duration::MAX,
            idle: Duration::MAX,
        };
        Sessions::new(limits, Descriptors::new(usize::MAX))
    }

    #[test]
    fn what_a_session_has_moved_stays_when_it_is_over() {
        let sessions = sessions();
        let (first, second) = (open(&sessions), open(&sessions));
        first.state().client().count(1);
        first.state().target().count(2);
        second.state().client().count(4);
        second.state().client().count_datagrams(8);
        second.state().target().count_datagrams(16);
        let up = Traffic { bytes: 5, datagrams: 8 };
        let down = Traffic { bytes: 2, datagrams: 16 };
        assert_eq!(sessions.totals(), Totals { opened: 2, live: 2, waiting: 0, up, down });
        drop(first);
        assert_eq!(sessions.totals(), Totals { opened: 2, live: 1, waiting: 0, up, down });
        drop(second);
        assert_eq!(sessions.totals(), Totals { opened: 2, live: 0, waiting: 0, up, down });
    }

    #[test]
    fn each_live_session_is_shown_once_the_oldest_first() {
        let sessions = sessions();
        let mut all: Vec<_> = (0..2 * AT_ONCE + 3).map(|_| open(&sessions)).collect();
        drop(all.swap_remove(1));
        let mut shown = Vec::new();
        sessions.each(|number, session, _| {
            assert_eq!(session.peer(), session.stream().local_addr().unwrap());
            shown.push(number);
        });
        let last = 2 * AT_ONCE as u64 + 2;
        assert_eq!(shown, [0].into_iter().chain(2..=last).collect::<Vec<_>>());
    }

    #[test]
    fn a_session_is_idle_since_it_has_moved_something() {
        let sessions = sessions();
        let session = open(&sessions);
        let idle = |now: Instant| sessions.live.lock().entries[&0].idle(now);
        let later = session.state().opened + Duration::from_secs(60);
        assert_eq!(idle(later), Duration::from_secs(60), "nobody has ever said anything");
        session.state().client().count(1);
        assert_eq!(idle(later), Duration::ZERO, "the watch has not seen it yet");
        sessions.live.lock().entries.get_mut(&0).unwrap().activity.moved =
            Some((1, session.state().opened));
        assert_eq!(idle(later), Duration::from_secs(60));
    }

    #[test]
    fn a_half_closed_session_is_idle_too() {
        let sessions = sessions();
        let session = open(&sessions);
        session.state().client().count(1);
        let (client, target) = (session.state().client(), session.state().target());
        session.state().pass_on_fin(client, target);
        let seen = Some((session.state().moved(), session.state().opened));
        sessions.live.lock().entries.get_mut(&0).unwrap().activity.moved = seen;
        let later = session.state().opened + Duration::from_secs(60);
        assert_eq!(sessions.live.lock().entries[&0].idle(later), Duration::from_secs(60));
    }
}
