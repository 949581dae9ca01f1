//! Who gets one of the places for sessions, and whose session is evicted for that.

use std::fmt;
use std::time::{Duration, Instant};

use super::limits::Limits;
use super::live::{Entry, Extra, Live};
use crate::system::ip::ClientPrefix;
use crate::system::shares::{Holders, PENDING, Turn};

/// How many sessions without a request there may be in any case.
const PENDING_MIN: usize = 6;

/// How old a session without a request is before it may be evicted. From a full server: round trips
/// over a slow link. From one with too many such sessions: the client's answers, over the same network.
const EVICTABLE_WHEN_FULL: Duration = Duration::from_secs(1);
const EVICTABLE_WHEN_CROWDED: Duration = Duration::from_millis(50);

/// Sessions without a request that are looked at for one to evict.
const CANDIDATES: usize = 16;

/// How long a tunnel has moved nothing before it may be evicted for a client that has none.
const EVICTABLE_IDLE: Duration = Duration::from_secs(60);

/// A session whose peer has taken nothing for so long is stalled.
const STALLED: Duration = Duration::from_secs(1);

/// How long until a full server looks again whether a session that gives way is gone, and whether one has
/// become idle enough.
const RETRY_SOON: Duration = Duration::from_millis(100);
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Why a session is evicted.
const FOR_A_PLACE: &str = "to make room for others (--max-connections)";
const FOR_DESCRIPTORS: &str = "to make room for others (ulimit -n)";
const FOR_A_PORT: &str = "to make room for others (--udp-ports)";
const FOR_MEMORY: &str = "because memory is short";

/// Why a client gets no session, or no more for its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdmissionError {
    /// It has as many sessions as it may have (`--max-per-client`).
    PerClientLimit(usize),
    /// It has that many, which is as many as there are places left: those are for others.
    FairShare(usize),
    /// It holds so many pairs of descriptors already, and the free ones are for others.
    Descriptors(usize),
    /// It has so many of `--udp-ports` already, and the free ones, if there are any, are for others.
    UdpPorts(usize),
    /// Nothing has become free in time.
    NothingFree,
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
            AdmissionError::Descriptors(pairs) => {
                let has = 2 * pairs;
                write!(f, "it has {has} descriptors, and the free ones are for others (ulimit -n)")
            }
            AdmissionError::UdpPorts(has) => {
                write!(f, "it has {has} of --udp-ports, and there is none for it")
            }
            AdmissionError::NothingFree => {
                f.write_str("nothing has become free in time (ulimit -n, --udp-ports)")
            }
            AdmissionError::Stopped => f.write_str("the server stops"),
        }
    }
}

/// What becomes of a client that may have one more session, or of a session that may have more.
pub(super) enum Admission {
    /// There is one.
    Admitted,
    /// One will be free soon: look again when a session closes, or after so long.
    Soon(Duration),
    /// There is none, and nobody to evict. Look again in the same way.
    Full(Duration),
}

/// Decides about one more session for `client`, and evicts another one for it where that has to be. A
/// load balancer that has not said yet for whom it comes needs a place, and has no share.
pub(super) fn admit(
    live: &mut Live,
    client: ClientPrefix,
    is_balancer: bool,
    limits: Limits,
) -> Result<Admission, AdmissionError> {
    if live.stopped {
        return Err(AdmissionError::Stopped);
    }
    let now = Instant::now();
    let is_full = live.count() >= limits.sessions || live.pairs.total() >= limits.pairs;
    let turn = match (is_balancer, is_full) {
        (false, _) => turn(live, client, 0, limits)?,
        (true, true) => Turn::Wait,
        (true, false) => Turn::Free,
    };
    let has_none = live.places.of(client) == 0;
    let victim = match turn {
        Turn::Free if has_place_for_pending(live, client, limits, now) => {
            return Ok(Admission::Admitted);
        }
        Turn::Free => return Ok(Admission::Soon(EVICTABLE_WHEN_CROWDED)),
        _ if live.enough_leave(now) => return Ok(Admission::Soon(RETRY_SOON)),
        Turn::From(largest) => longest_idle(live, live.pairs.held_by(largest), now)
            // What it has may all be in earlier processes.
            .or_else(|| longest_idle_of_all(live, now).filter(|_| has_none)),
        _ => oldest_pending(live, now).or_else(|| longest_idle_of_all(live, now)),
    };
    let Some(victim) = victim else { return Ok(Admission::Full(RETRY_AFTER)) };
    live.evict(victim, now, FOR_A_PLACE);
    Ok(Admission::Soon(RETRY_SOON))
}

/// Decides about a session for `client` that has a place already, as a load balancer's.
pub(super) fn readmit(
    live: &mut Live,
    client: ClientPrefix,
    limits: Limits,
) -> Result<(), AdmissionError> {
    let now = Instant::now();
    if let Turn::From(client) = turn(live, client, 1, limits)? {
        if let Some(victim) = longest_idle(live, live.pairs.held_by(client), now) {
            live.evict(victim, now, FOR_A_PLACE);
        }
    }
    Ok(())
}

/// A client may have `--max-per-client` sessions, and its share of all, and of the descriptors. Of each it
/// has `own` already that are not counted as its.
fn turn(
    live: &Live,
    client: ClientPrefix,
    own: usize,
    limits: Limits,
) -> Result<Turn, AdmissionError> {
    let has = live.places.of(client);
    if has >= limits.per_client {
        return Err(AdmissionError::PerClientLimit(has));
    }
    let free = |all: usize, taken| (all + own).saturating_sub(taken);
    match live.places.turn(client, limits.sessions, free(limits.sessions, live.count())) {
        Turn::Refused => return Err(AdmissionError::FairShare(has)),
        Turn::Free => {}
        turn => return Ok(turn),
    }
    match live.pairs.turn(client, limits.pairs, free(limits.pairs, live.pairs.total())) {
        Turn::Refused => Err(AdmissionError::Descriptors(live.pairs.of(client))),
        turn => Ok(turn),
    }
}

/// Decides about one `extra` more for a session that has a place.
pub(super) fn admit_extra(
    live: &mut Live,
    id: u64,
    extra: Extra,
    limits: Limits,
) -> Result<Admission, AdmissionError> {
    let now = Instant::now();
    let entry = live.entries.get(&id).filter(|entry| entry.state.ending().is_none());
    let client = entry.ok_or(AdmissionError::Stopped)?.client;
    let (holders, all, why) = match extra {
        Extra::Pair => (&live.pairs, limits.pairs, FOR_DESCRIPTORS),
        Extra::UdpPort(all) => (&live.ports, all, FOR_A_PORT),
    };
    match (holders.turn(client, all, all.saturating_sub(holders.total())), extra) {
        (Turn::Free, _) => {
            live.add_extra(id, extra);
            return Ok(Admission::Admitted);
        }
        (Turn::From(client), _) if !live.enough_leave(now) => {
            if let Some(victim) = longest_idle(live, holders.held_by(client), now) {
                live.evict(victim, now, why);
            }
        }
        (Turn::From(_), _) | (Turn::Wait, Extra::Pair) => {}
        (Turn::Refused, Extra::Pair) => {
            return Err(AdmissionError::Descriptors(holders.of(client)));
        }
        (Turn::Wait | Turn::Refused, Extra::UdpPort(_)) => {
            return Err(AdmissionError::UdpPorts(holders.of(client)));
        }
    }
    Ok(Admission::Soon(RETRY_SOON))
}

/// Gives memory back: the sessions whose peer takes nothing keep small queues from now on, and where memory
/// is short one of the client that has most of them ends, the one that has moved nothing for longest.
pub(super) fn relieve(live: &mut Live, is_short: bool, now: Instant) {
    let mut stalled = Holders::default();
    for (id, entry) in &live.entries {
        let is_stalled = entry.state.is_writing() && entry.idle(now) >= STALLED;
        if is_stalled && entry.state.ending().is_none() {
            entry.state.limit_queues();
            stalled.add(entry.client, *id, *id);
        }
    }
    if !is_short {
        return;
    }
    let idle = |id: &u64| live.entries.get(id).map(|entry| entry.idle(now));
    let victim = stalled.largest().and_then(|client| stalled.held_by(client).max_by_key(idle));
    if let Some(victim) = victim {
        live.evict(victim, now, FOR_MEMORY);
    }
}

/// Of the client that has most sessions without a request the oldest one, if it is old enough.
fn oldest_pending(live: &Live, now: Instant) -> Option<u64> {
    let oldest = live.pending.held_by(live.pending.largest()?).next()?;
    let age = now.duration_since(live.entries.get(&oldest)?.state.opened);
    (age >= EVICTABLE_WHEN_FULL).then_some(oldest)
}

/// Of these sessions the one that has been idle for longest, rather one that is not stuck in a write.
fn longest_idle(live: &Live, ids: impl Iterator<Item = u64>, now: Instant) -> Option<u64> {
    let entries = ids.filter_map(|id| live.entries.get(&id));
    let stays = entries.filter(|entry| entry.state.ending().is_none());
    let longest = stays.max_by_key(|entry| (!entry.state.is_writing(), entry.idle(now)));
    longest.map(|entry| entry.state.id)
}

/// Of the clients that have most sessions, the tunnel that has been idle for longest, if it has been for
/// [`EVICTABLE_IDLE`]. Where there was none, there is none for a while: a server that is full does not
/// look through all its sessions for each client.
fn longest_idle_of_all(live: &mut Live, now: Instant) -> Option<u64> {
    if live.none_idle_until.is_some_and(|until| now < until) {
        return None;
    }
    let found = live
        .entries
        .values()
        .filter(|entry| entry.idle(now) > EVICTABLE_IDLE && entry.state.ending().is_none())
        .max_by_key(|entry| (live.places.of(entry.client), entry.idle(now)))
        .map(|entry| entry.state.id);
    live.none_idle_until = found.is_none().then(|| now + RETRY_AFTER);
    found
}

/// Whether one more session without a request has a place: where there are too many, the client that has
/// most of them gives up the oldest one of which it is the client who keeps the server waiting.
fn has_place_for_pending(
    live: &mut Live,
    client: ClientPrefix,
    limits: Limits,
    now: Instant,
) -> bool {
    let all = (limits.sessions / PENDING.all).max(PENDING_MIN);
    let Some(largest) = live.pending.too_many(client, all) else { return true };
    let keeps_waiting = |id: &u64| {
        live.entries.get(id).is_some_and(|Entry { state, .. }| {
            let is_slow = now.duration_since(state.opened) >= EVICTABLE_WHEN_CROWDED;
            is_slow && !state.client().has_unread()
        })
    };
    let slow = live.pending.held_by(largest).take(CANDIDATES).find(keeps_waiting);
    if let Some(id) = slow {
        live.evict(id, now, FOR_A_PLACE);
    }
    slow.is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sessions::ending::Ending;
    use crate::sessions::{Session, Sessions};
    use crate::system::descriptors::Descriptors;
    use crate::system::shares::SHARED_FROM;
    use crate::wire::address::{Address, Host};
    use crate::wire::request::Command;
    use std::net::{SocketAddr, TcpListener, TcpStream};
    use std::sync::{Arc, Mutex};
    use std::thread;

    const LONG: Duration = Duration::from_secs(20);

    const EVICTED: Option<Ending> = Some(Ending::Evicted(FOR_A_PLACE));

    /// The clients, which stay and say nothing.
    static FAR_ENDS: Mutex<Vec<TcpStream>> = Mutex::new(Vec::new());

    fn sessions(sessions: usize) -> Arc<Sessions> {
        let limits =
            Limits { sessions, pairs: sessions, per_client: 1024, handshake: LONG, idle: LONG };
        Sessions::new(limits, Descriptors::new(usize::MAX))
    }

    fn peer(host: u8) -> SocketAddr {
        ([192, 0, 2, host], 5000).into()
    }

    fn open(sessions: &Arc<Sessions>, host: u8) -> Result<Session, AdmissionError> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        FAR_ENDS.lock().unwrap().push(listener.accept().unwrap().0);
        sessions.open(peer(host), false, stream, || ())
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

    fn ended(all: &[Session]) -> usize {
        all.iter().filter(|session| session.state().ending() == EVICTED).count()
    }

    /// Opens a tunnel where one of `all` has to give way: the session that has to is over a moment later.
    fn tunnel_over(
        sessions: &Arc<Sessions>,
        host: u8,
        all: &mut Vec<Session>,
    ) -> Result<Session, AdmissionError> {
        thread::scope(|scope| {
            let opening = scope.spawn(|| tunnel(sessions, host));
            let begin = Instant::now();
            while !opening.is_finished() {
                if begin.elapsed() > LONG {
                    sessions.close();
                }
                all.retain(|session| session.state().ending().is_none());
                thread::yield_now();
            }
            opening.join().unwrap()
        })
    }

    #[test]
    fn who_has_less_than_a_fair_share_takes_it_from_the_largest_and_nobody_falls_below_one() {
        let sessions = sessions(16);
        let mut live = Vec::new();
        for (host, fair) in [(1, 8), (2, 5), (3, 4), (4, 3), (5, 2)] {
            let refused = loop {
                match tunnel_over(&sessions, host, &mut live) {
                    Ok(session) => live.push(session),
                    Err(error) => break error,
                }
            };
            assert_eq!(refused, AdmissionError::FairShare(fair), "of {host}");
            let of = |host| live.iter().filter(|it| it.state().peer() == peer(host)).count();
            let shares: Vec<_> = (1..=host).map(of).collect();
            assert!(shares.iter().all(|share| *share >= fair), "{shares:?}");
        }
    }

    #[test]
    fn many_busy_tunnels_do_not_end_the_idle_ones_of_a_small_client() {
        let sessions = sessions(64);
        let honest: Vec<_> = (0..3).map(|_| tunnel(&sessions, 99).unwrap()).collect();
        for session in &honest {
            set_idle(&sessions, session, 9 * EVICTABLE_IDLE);
        }
        let mut attackers = Vec::new();
        for (host, count) in (1..).zip([20, 10, 8, 6, 5, 4, 2, 1, 1, 1, 1, 1, 1]) {
            attackers.extend((0..count).map(|_| tunnel(&sessions, host).unwrap()));
        }
        assert_eq!(sessions.count(), 64, "it is full");
        let fourth = tunnel_over(&sessions, 99, &mut attackers).unwrap();
        assert_eq!(attackers.len(), 60, "the largest has given one up");
        assert_eq!(ended(&honest) + usize::from(fourth.state().ending().is_some()), 0);
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
        assert_eq!(silent[0].state().ending(), EVICTED);
        assert_eq!(requested.state().ending(), None);
    }

    #[test]
    fn of_sessions_without_a_request_those_of_who_has_most_are_evicted() {
        let sessions = sessions(60);
        let slow: Vec<_> = (0..3).map(|_| open(&sessions, 1).unwrap()).collect();
        let flood: Vec<_> = (0..20).map(|_| open(&sessions, 2).unwrap()).collect();
        assert_eq!((ended(&slow), ended(&flood)), (0, 3 + 20 - 60 / PENDING.all));
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
            assert_eq!(older.state().ending(), EVICTED);
            drop(older);
            assert_eq!(waiting.join().unwrap(), Ok(()));
        });
        assert_eq!([&one, &newer, &busy].map(|session| session.state().ending()), [None; 3]);
    }

    #[test]
    fn the_descriptors_of_an_association_are_counted_from_when_it_takes_them_until_it_is_over() {
        let limits = Limits::of_one(LONG, LONG);
        // There are enough for a session, and nothing beside it.
        let descriptors = Descriptors::new(4);
        let session = open(&Sessions::new(limits, Arc::clone(&descriptors)), 1).unwrap();
        assert!(!descriptors.are_short());
        session.take(Extra::Pair).unwrap();
        assert!(descriptors.are_short());
        drop(session);
        assert!(!descriptors.are_short());
    }

    #[test]
    fn where_the_largest_client_has_all_it_has_in_an_earlier_process_another_tunnel_gives_way() {
        let sessions = sessions(16);
        sessions.set_elsewhere(10, &[(peer(1).ip(), [10, 0])]);
        let mut live: Vec<_> = [2, 2, 3, 3, 4, 4].map(|it| tunnel(&sessions, it).unwrap()).into();
        for session in &live {
            set_idle(&sessions, session, 2 * EVICTABLE_IDLE);
        }
        let ninth = tunnel_over(&sessions, 9, &mut live).unwrap();
        assert_eq!((ninth.state().ending(), live.len()), (None, 5));
    }

    #[test]
    fn a_client_of_a_load_balancer_has_the_place_and_the_descriptors_that_it_came_with() {
        let sessions = sessions(16);
        let hosts = [1, 1, 1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 5, 5];
        let live = hosts.map(|host| tunnel(&sessions, host).unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let last = sessions.open(peer(99), true, stream, || ()).unwrap();
        assert_eq!(last.rehome(peer(6)), Ok(()));
        assert_eq!(last.state().peer(), peer(6));
        assert_eq!(ended(&live), 0);
    }

    #[test]
    fn where_memory_is_short_the_longest_stalled_tunnel_of_who_has_most_ends() {
        let sessions = sessions(40);
        let all: Vec<_> = [1, 2, 2, 2].map(|host| tunnel(&sessions, host).unwrap()).into();
        for (session, idle) in all.iter().zip([90, 9, 30, 60]) {
            set_idle(&sessions, session, Duration::from_secs(idle));
        }
        let relieve = |is_short| {
            relieve(&mut sessions.live.lock(), is_short, Instant::now());
            all.iter().map(|session| session.state().ending().is_some()).collect::<Vec<_>>()
        };
        // The last one reads what it gets.
        all[0].state().client().while_writing(|| {
            all[1].state().client().while_writing(|| {
                all[2].state().target().while_writing(|| {
                    assert_eq!(relieve(false), [false; 4], "it is not short");
                    assert_eq!(relieve(true), [false, false, true, false]);
                    assert_eq!(relieve(true).iter().filter(|ended| **ended).count(), 2);
                });
            });
        });
        assert_eq!(relieve(true).iter().filter(|ended| **ended).count(), 2, "nobody is stalled");
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
            sessions.open(peer, false, stream, move || sender.send(()).unwrap())
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
