//! Room for one more session: whom it is given to, and who makes it.

use std::fmt;
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::ending::Ending;
use super::registry::{Limits, Live, Session, Sessions};
use super::state::SessionState;
use crate::system::ip::ClientPrefix;

/// Sessions without a request may have this part of all places, but at least [`FEW_PENDING`].
const PART_PENDING: usize = 4;

/// A browser opens six connections at once, and is done with their requests at once.
const FEW_PENDING: usize = 6;

/// What a client has for its request before it may have to make room: round trips over a slow link.
const CHANCE: Duration = Duration::from_secs(1);

/// What a client has for that before it may have to give way to too many others: its answers, over
/// the same network.
const YOUNG: Duration = Duration::from_millis(50);

/// Sessions that are looked at for one that gives way.
const LOOKED_AT: usize = 16;

/// With fewer places than this there is nothing to share.
const FEW: usize = 8;

/// A tunnel that has moved nothing for so long may have to make room for a client that has none.
const LONG_IDLE: Duration = Duration::from_secs(60);

/// How long until a full server looks again whether a session has become idle enough.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Why a client gets no session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdmissionError {
    /// It has as many sessions as it may have (`--max-per-client`).
    OfThisClient(usize),
    /// It has that many, which is as many as there are places left: those are for others.
    OfWhatIsFree(usize),
    /// The server stops.
    Stopped,
}

impl fmt::Display for AdmissionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AdmissionError::OfThisClient(has) => {
                write!(f, "it has {has} connections already (--max-per-client)")
            }
            AdmissionError::OfWhatIsFree(has) => write!(
                f,
                "it has {has} connections, and the free ones are for others (--max-connections)"
            ),
            AdmissionError::Stopped => f.write_str("the server stops"),
        }
    }
}

impl Sessions {
    /// Opens a session for the client at the far end of `stream`. It closes when it is dropped.
    ///
    /// A full server ends a session to make room, or, if there is none to end, calls `when_full` and
    /// waits.
    ///
    /// # Errors
    ///
    /// [`AdmissionError`] when the client has its share already.
    pub fn open(
        self: &Arc<Self>,
        peer: SocketAddr,
        stream: TcpStream,
        when_full: impl FnOnce(),
    ) -> Result<Session, AdmissionError> {
        self.open_for(Some(peer.ip().into()), peer, stream, when_full)
    }

    /// Opens a session for a load balancer, which has no share of its own. Once it has said for whom
    /// it comes, [`Session::rehome`] has to be called.
    ///
    /// # Errors
    ///
    /// When the server stops.
    pub fn open_for_balancer(
        self: &Arc<Self>,
        peer: SocketAddr,
        stream: TcpStream,
        when_full: impl FnOnce(),
    ) -> Result<Session, AdmissionError> {
        self.open_for(None, peer, stream, when_full)
    }

    fn open_for(
        self: &Arc<Self>,
        group: Option<ClientPrefix>,
        peer: SocketAddr,
        stream: TcpStream,
        when_full: impl FnOnce(),
    ) -> Result<Session, AdmissionError> {
        let mut when_full = Some(when_full);
        let mut live = self.lock();
        loop {
            let free = self.limits.sessions.saturating_sub(live.entries.len());
            live.may_open(group, free, self.limits)?;
            if free > 0 {
                if live.has_place_for_unasked(self.limits, Instant::now()) {
                    break;
                }
                live = self.wait(live, YOUNG);
                continue;
            }
            let makes_room = live.make_room(Instant::now());
            live = match when_full.take_if(|_| !makes_room) {
                Some(when_full) => {
                    drop(live);
                    when_full();
                    self.lock()
                }
                None => self.wait(live, LOOK_AGAIN),
            };
        }
        Ok(self.add(&mut live, peer, stream, group))
    }

    /// Opens no further session, and ends every wait for one.
    pub fn close(&self) {
        self.lock().stopped = true;
        self.closed.notify_all();
    }

    /// Waits until no session is left, for at most `limit`. Says how many still are.
    pub fn wait_until_empty(&self, limit: Duration) -> usize {
        let deadline = Instant::now() + limit;
        let mut live = self.lock();
        while !live.entries.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            live = self.wait(live, left);
        }
        live.entries.len()
    }

    fn wait<'a>(&self, mut live: MutexGuard<'a, Live>, limit: Duration) -> MutexGuard<'a, Live> {
        live.waiting += 1;
        let (mut live, _) =
            self.closed.wait_timeout(live, limit).unwrap_or_else(PoisonError::into_inner);
        live.waiting -= 1;
        live
    }
}

impl Session {
    /// Makes the session of a load balancer that of `client`, for whom it comes: from now on it
    /// counts against that client's share.
    ///
    /// # Errors
    ///
    /// [`AdmissionError`] when the client has its share already. The session is then still the balancer's.
    pub fn rehome(&self, client: SocketAddr) -> Result<(), AdmissionError> {
        let (group, limits) = (ClientPrefix::from(client.ip()), self.sessions.limits);
        let mut live = self.sessions.lock();
        // It has its place already, which is one that would be free otherwise.
        let free = (limits.sessions + 1).saturating_sub(live.entries.len());
        live.may_open(Some(group), free, limits)?;
        live.count(group);
        if let Some(entry) = live.entries.get_mut(&self.account.id) {
            entry.group = Some(group);
        }
        self.account.comes_for(client);
        Ok(())
    }
}

impl Live {
    /// A client may have `--max-per-client` sessions, and no more than are free: so the first one
    /// that comes gets half of all at most, the next one half of what it has left, and so on, and
    /// there is always one for who has none.
    fn may_open(
        &self,
        group: Option<ClientPrefix>,
        free: usize,
        limits: Limits,
    ) -> Result<(), AdmissionError> {
        let has = group.map_or(0, |group| self.of_group(group));
        if self.stopped {
            Err(AdmissionError::Stopped)
        } else if has >= limits.per_client {
            Err(AdmissionError::OfThisClient(has))
        } else if has > 0 && has >= free && limits.sessions >= FEW {
            Err(AdmissionError::OfWhatIsFree(has))
        } else {
            Ok(())
        }
    }

    /// Ends a session, if there is one that others may have the place of. Its threads give the place
    /// back a moment later.
    fn make_room(&mut self, now: Instant) -> bool {
        let victim = self.oldest_unasked(now).or_else(|| self.longest_idle(now));
        if let Some(victim) = &victim {
            victim.end(Ending::Evicted);
        }
        victim.is_some()
    }

    /// The oldest session without a request, if it has had its chance.
    fn oldest_unasked(&self, now: Instant) -> Option<Arc<SessionState>> {
        let pending = self.pending.iter().filter_map(|id| self.entries.get(id));
        let oldest = pending.map(|entry| &entry.account).find(|account| account.ending().is_none());
        oldest.filter(|account| now.duration_since(account.opened) >= CHANCE).map(Arc::clone)
    }

    /// Of the clients that have most sessions, the tunnel that has been idle for longest, if it has
    /// been for [`LONG_IDLE`]. Where there was none, there is none for a while: a server that is full
    /// does not look through all its sessions for each client.
    fn longest_idle(&mut self, now: Instant) -> Option<Arc<SessionState>> {
        if self.none_idle_until.is_some_and(|until| now < until) {
            return None;
        }
        let found = self
            .entries
            .values()
            .filter(|entry| entry.idle(now) > LONG_IDLE && entry.account.ending().is_none())
            .max_by_key(|entry| {
                (entry.group.map_or(0, |group| self.of_group(group)), entry.idle(now))
            })
            .map(|entry| Arc::clone(&entry.account));
        self.none_idle_until = found.is_none().then(|| now + LOOK_AGAIN);
        found
    }

    /// Whether one more session without a request has a place: where there are too many, the oldest
    /// gives way, if it is the client who keeps us waiting.
    fn has_place_for_unasked(&mut self, limits: Limits, now: Instant) -> bool {
        let most = (limits.sessions / PART_PENDING).max(FEW_PENDING);
        if self.pending.len() < most {
            return true;
        }
        let keeps_waiting = |id: &u64| {
            let account = &self.entries.get(id)?.account;
            let is_slow = now.duration_since(account.opened) >= YOUNG;
            (is_slow && !account.client().has_unread()).then(|| (*id, Arc::clone(account)))
        };
        let Some((id, account)) = self.pending.iter().take(LOOKED_AT).find_map(keeps_waiting)
        else {
            return false;
        };
        self.pending.remove(&id);
        account.end(Ending::Evicted);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::socks5::{Address, Command, Host};
    use crate::system::descriptors::Descriptors;
    use std::net::TcpListener;
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
        sessions.lock().entries.get_mut(&session.account().id).unwrap().seen = Some((0, since));
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
            assert_eq!(more, Some(AdmissionError::OfWhatIsFree(share)), "of {host}");
        }
        assert_eq!(live.len(), 16);
    }

    #[test]
    fn where_there_is_little_to_share_one_client_may_have_it_all() {
        let sessions = sessions(FEW - 1);
        let live: Vec<_> = (1..FEW).map(|_| tunnel(&sessions, 1).unwrap()).collect();
        assert_eq!(live.len(), FEW - 1);
    }

    #[test]
    fn the_oldest_of_too_many_sessions_without_a_request_gives_way() {
        let sessions = sessions(40);
        let asked = tunnel(&sessions, 1).unwrap();
        let silent: Vec<_> = (0..12).map(|_| open(&sessions, 1).unwrap()).collect();
        let ended = silent.iter().map(|session| session.ending().is_some()).collect::<Vec<_>>();
        assert_eq!(ended, [[true; 2].as_slice(), &[false; 10]].concat());
        assert_eq!(silent[0].ending(), Some(Ending::Evicted));
        assert_eq!(asked.ending(), None);
    }

    #[test]
    fn a_client_that_has_sent_its_request_does_not_give_way_to_others() {
        let sessions = sessions(16);
        let silent: Vec<_> = (0..FEW_PENDING).map(|_| open(&sessions, 1).unwrap()).collect();
        thread::scope(|scope| {
            let waiting = scope.spawn(|| open(&sessions, 2).map(drop));
            let to = Address { host: Host::Ip([192, 0, 2, 99].into()), port: 80 };
            silent[0].requested(Command::Connect, to);
            assert_eq!(waiting.join().unwrap(), Ok(()));
        });
        assert_eq!(silent[0].ending(), None);
    }

    #[test]
    fn a_full_server_makes_room_by_the_longest_idle_tunnel_of_who_has_most() {
        let sessions = sessions(4);
        let [one, older, newer] = [1, 2, 2].map(|host| tunnel(&sessions, host).unwrap());
        let busy = tunnel(&sessions, 2).unwrap();
        set_idle(&sessions, &one, 9 * LONG_IDLE);
        set_idle(&sessions, &older, 4 * LONG_IDLE);
        set_idle(&sessions, &newer, 2 * LONG_IDLE);
        set_idle(&sessions, &busy, LONG_IDLE / 2);
        thread::scope(|scope| {
            let waiting = scope.spawn(|| open(&sessions, 3).map(drop));
            let begin = Instant::now();
            while older.ending().is_none() {
                assert!(begin.elapsed() < LONG, "nobody makes room");
                thread::yield_now();
            }
            assert_eq!(older.ending(), Some(Ending::Evicted));
            drop(older);
            assert_eq!(waiting.join().unwrap(), Ok(()));
        });
        assert_eq!([&one, &newer, &busy].map(|session| session.ending()), [None; 3]);
    }

    #[test]
    fn who_waits_for_room_is_told_and_gets_the_next_place_or_the_end() {
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
