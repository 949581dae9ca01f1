//! Who gets one of the places for sessions, and whose session is evicted for that.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::ending::Ending;
use super::limits::Limits;
use super::live::Live;
use super::state::SessionState;
use crate::system::ip::ClientPrefix;

/// The part of all places that sessions without a request may have, and how many they may have in any
/// case: a browser opens six connections at once, and is done with their requests at once.
const PENDING_PART: usize = 4;
const PENDING_MIN: usize = 6;

/// How old a session without a request is before it may be evicted. From a full server: round trips
/// over a slow link. From one with too many such sessions: the client's answers, over the same network.
const EVICTABLE_WHEN_FULL: Duration = Duration::from_secs(1);
const EVICTABLE_WHEN_CROWDED: Duration = Duration::from_millis(50);

/// Sessions without a request that are looked at for one to evict.
const CANDIDATES: usize = 16;

/// With fewer places than this there is nothing to share.
const SHARED_FROM: usize = 8;

/// How long a tunnel has moved nothing before it may be evicted for a client that has none.
const EVICTABLE_IDLE: Duration = Duration::from_secs(60);

/// How long until a full server looks again whether a session has become idle enough.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Why a client gets no session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdmissionError {
    /// It has as many sessions as it may have (`--max-per-client`).
    PerClientLimit(usize),
    /// It has that many, which is as many as there are places left: those are for others.
    FairShare(usize),
    /// The server stops.
    Stopped,
}

impl fmt::Display for AdmissionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AdmissionError::PerClientLimit(has) => {
                write!(f, "it has {has} connections already (--max-per-client)")
            }
            AdmissionError::FairShare(has) => write!(
                f,
                "it has {has} connections, and the free ones are for others (--max-connections)"
            ),
            AdmissionError::Stopped => f.write_str("the server stops"),
        }
    }
}

/// What becomes of a client that may have one more session.
pub(super) enum Admission {
    /// There is a place.
    Admitted,
    /// A place will be free soon: look again when a session closes, or after so long.
    Soon(Duration),
    /// There is none, and nobody to evict. Look again in the same way.
    Full(Duration),
}

/// Decides about one more session for `client`, and evicts another one for it where that has to be.
pub(super) fn admit(
    live: &mut Live,
    client: Option<ClientPrefix>,
    limits: Limits,
) -> Result<Admission, AdmissionError> {
    let (free, now) = (limits.sessions.saturating_sub(live.count()), Instant::now());
    may_open(live, client, free, limits)?;
    Ok(match free {
        1.. if has_place_for_pending(live, limits, now) => Admission::Admitted,
        1.. => Admission::Soon(EVICTABLE_WHEN_CROWDED),
        0 if evict(live, now) => Admission::Soon(RETRY_AFTER),
        0 => Admission::Full(RETRY_AFTER),
    })
}

/// A client may have `--max-per-client` sessions, and no more than are `free`: so the first one that
/// comes gets half of all at most, the next one half of what it has left, and so on, and there is always
/// one for who has none.
pub(super) fn may_open(
    live: &Live,
    client: Option<ClientPrefix>,
    free: usize,
    limits: Limits,
) -> Result<(), AdmissionError> {
    let has = live.of_client(client);
    if live.stopped {
        Err(AdmissionError::Stopped)
    } else if has >= limits.per_client {
        Err(AdmissionError::PerClientLimit(has))
    } else if has > 0 && has >= free && limits.sessions >= SHARED_FROM {
        Err(AdmissionError::FairShare(has))
    } else {
        Ok(())
    }
}

/// Evicts a session, if there is one that others may have the place of. Its threads give the place back
/// a moment later.
fn evict(live: &mut Live, now: Instant) -> bool {
    let victim = oldest_pending(live, now).or_else(|| longest_idle(live, now));
    if let Some(victim) = &victim {
        victim.end(Ending::Evicted);
    }
    victim.is_some()
}

/// The oldest session without a request, if it is old enough.
fn oldest_pending(live: &Live, now: Instant) -> Option<Arc<SessionState>> {
    let pending = live.pending.iter().filter_map(|id| live.entries.get(id));
    let oldest = pending.map(|entry| &entry.state).find(|state| state.ending().is_none());
    oldest.filter(|state| now.duration_since(state.opened) >= EVICTABLE_WHEN_FULL).map(Arc::clone)
}

/// Of the clients that have most sessions, the tunnel that has been idle for longest, if it has been for
/// [`EVICTABLE_IDLE`]. Where there was none, there is none for a while: a server that is full does not
/// look through all its sessions for each client.
fn longest_idle(live: &mut Live, now: Instant) -> Option<Arc<SessionState>> {
    if live.none_idle_until.is_some_and(|until| now < until) {
        return None;
    }
    let found = live
        .entries
        .values()
        .filter(|entry| entry.idle(now) > EVICTABLE_IDLE && entry.state.ending().is_none())
        .max_by_key(|entry| (live.of_client(entry.client), entry.idle(now)))
        .map(|entry| Arc::clone(&entry.state));
    live.none_idle_until = found.is_none().then(|| now + RETRY_AFTER);
    found
}

/// Whether one more session without a request has a place: where there are too many, the oldest one is
/// evicted of which it is the client who keeps the server waiting.
fn has_place_for_pending(live: &mut Live, limits: Limits, now: Instant) -> bool {
    if live.pending.len() < (limits.sessions / PENDING_PART).max(PENDING_MIN) {
        return true;
    }
    let keeps_waiting = |id: &u64| {
        let state = &live.entries.get(id)?.state;
        let is_slow = now.duration_since(state.opened) >= EVICTABLE_WHEN_CROWDED;
        (is_slow && !state.client().has_unread()).then(|| Arc::clone(state))
    };
    let slow = live.pending.iter().take(CANDIDATES).find_map(keeps_waiting);
    if let Some(state) = &slow {
        live.pending.remove(&state.id);
        state.end(Ending::Evicted);
    }
    slow.is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sessions::{Session, Sessions};
    use crate::socks5::{Address, Command, Host};
    use crate::system::descriptors::Descriptors;
    use std::net::{TcpListener, TcpStream};
    use std::sync::Mutex;
    use std::thread;

    const LONG: Duration = Duration::from_secs(20);

    /// The clients, which stay and say nothing.
    static FAR_ENDS: Mutex<Vec<TcpStream>> = Mutex::new(Vec::new());

    fn sessions(sessions: usize) -> Arc<Sessions> {
        let limits = Limits { sessions, per_client: 1024, handshake: LONG, idle: LONG };
        Sessions::new(limits, Descriptors::new(usize::MAX))
    }

    fn open(sessions: &Arc<Sessions>, host: u8) -> Result<Session, AdmissionError> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        FAR_ENDS.lock().unwrap().push(listener.accept().unwrap().0);
        sessions.open(([192, 0, 2, host], 5000).into(), stream, || ())
    }

    fn tunnel(sessions: &Arc<Sessions>, host: u8) -> Result<Session, AdmissionError> {
        let session = open(sessions, host)?;
        let to = Address { host: Host::Ip([192, 0, 2, 99].into()), port: 80 };
        session.requested(Command::Connect, to);
        Ok(session)
    }

    fn set_idle(sessions: &Sessions, session: &Session, idle: Duration) {
        let since = Instant::now().checked_sub(idle).unwrap();
        let mut live = sessions.live.lock();
        live.entries.get_mut(&session.state().id).unwrap().activity.moved = Some((0, since));
    }

    #[test]
    fn a_client_gets_no_more_than_it_leaves_free_and_the_last_place_is_for_who_has_none() {
        let sessions = sessions(16);
        let mut live = Vec::new();
        for (host, share) in [(1, 8), (2, 4), (3, 2), (4, 1), (5, 1)] {
            for _ in 0..share {
                live.push(tunnel(&sessions, host).unwrap());
            }
            let more = tunnel(&sessions, host).err();
            assert_eq!(more, Some(AdmissionError::FairShare(share)), "of {host}");
        }
        assert_eq!(live.len(), 16);
    }

    #[test]
    fn where_there_is_little_to_share_one_client_may_have_it_all() {
        let sessions = sessions(SHARED_FROM - 1);
        let live: Vec<_> = (1..SHARED_FROM).map(|_| tunnel(&sessions, 1).unwrap()).collect();
        assert_eq!(live.len(), SHARED_FROM - 1);
    }

    #[test]
    fn the_oldest_of_too_many_sessions_without_a_request_is_evicted() {
        let sessions = sessions(40);
        let requested = tunnel(&sessions, 1).unwrap();
        let silent: Vec<_> = (0..12).map(|_| open(&sessions, 1).unwrap()).collect();
        let ended =
            silent.iter().map(|session| session.state().ending().is_some()).collect::<Vec<_>>();
        assert_eq!(ended, [[true; 2].as_slice(), &[false; 10]].concat());
        assert_eq!(silent[0].state().ending(), Some(Ending::Evicted));
        assert_eq!(requested.state().ending(), None);
    }

    #[test]
    fn a_client_that_has_sent_its_request_is_not_evicted_for_others() {
        let sessions = sessions(16);
        let silent: Vec<_> = (0..PENDING_MIN).map(|_| open(&sessions, 1).unwrap()).collect();
        thread::scope(|scope| {
            let waiting = scope.spawn(|| open(&sessions, 2).map(drop));
            let to = Address { host: Host::Ip([192, 0, 2, 99].into()), port: 80 };
            silent[0].requested(Command::Connect, to);
            assert_eq!(waiting.join().unwrap(), Ok(()));
        });
        assert_eq!(silent[0].state().ending(), None);
    }

    #[test]
    fn a_full_server_evicts_the_longest_idle_tunnel_of_who_has_most() {
        let sessions = sessions(4);
        let [one, older, newer] = [1, 2, 2].map(|host| tunnel(&sessions, host).unwrap());
        let busy = tunnel(&sessions, 2).unwrap();
        set_idle(&sessions, &one, 9 * EVICTABLE_IDLE);
        set_idle(&sessions, &older, 4 * EVICTABLE_IDLE);
        set_idle(&sessions, &newer, 2 * EVICTABLE_IDLE);
        set_idle(&sessions, &busy, EVICTABLE_IDLE / 2);
        thread::scope(|scope| {
            let waiting = scope.spawn(|| open(&sessions, 3).map(drop));
            let begin = Instant::now();
            while older.state().ending().is_none() {
                assert!(begin.elapsed() < LONG, "nobody is evicted");
                thread::yield_now();
            }
            assert_eq!(older.state().ending(), Some(Ending::Evicted));
            drop(older);
            assert_eq!(waiting.join().unwrap(), Ok(()));
        });
        assert_eq!([&one, &newer, &busy].map(|session| session.state().ending()), [None; 3]);
    }

    #[test]
    fn who_waits_for_a_place_is_noticed_and_gets_the_next_one_or_the_end() {
        let sessions = sessions(1);
        let first = tunnel(&sessions, 1).unwrap();
        let (sender, full) = std::sync::mpsc::channel();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let wait = |sender: std::sync::mpsc::Sender<()>| {
            let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let peer = ([192, 0, 2, 2], 5000).into();
            sessions.open(peer, stream, move || sender.send(()).unwrap())
        };
        thread::scope(|scope| {
            let waiting = scope.spawn(|| wait(sender.clone()));
            full.recv_timeout(LONG).unwrap();
            drop(first);
            let second = waiting.join().unwrap().unwrap();
            second.requested(
                Command::Connect,
                Address { host: Host::Ip([192, 0, 2, 99].into()), port: 80 },
            );
            let waiting = scope.spawn(|| wait(sender.clone()).err());
            full.recv_timeout(LONG).unwrap();
            sessions.close();
            assert_eq!(waiting.join().unwrap(), Some(AdmissionError::Stopped));
        });
    }
}
