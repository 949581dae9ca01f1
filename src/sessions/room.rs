//! Room for one more session: whom it is given to, and who makes it.

use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::account::{Account, Ending};
use super::group::Group;
use super::registry::{Entry, Limits, Live, Session, Sessions};

/// Sessions without a request may have this part of all places, but at least [`FEW_UNASKED`].
const PART_UNASKED: usize = 4;

/// A browser opens six connections at once, and is done with their requests at once.
const FEW_UNASKED: usize = 6;

/// With fewer places than this there is nothing to share.
const FEW: usize = 8;

/// A tunnel that has moved nothing for so long may have to make room for a client that has none.
const LONG_IDLE: Duration = Duration::from_secs(60);

/// How long until a full server looks again whether a session has become idle enough.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Why a client gets no session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TooMany {
    /// It has as many sessions as it may have (`--max-per-client`).
    OfThisClient(usize),
    /// It has that many, which is as many as there are places left: those are for others.
    OfWhatIsFree(usize),
    /// The server stops.
    Stopped,
}

impl Sessions {
    /// Opens a session for the client at the far end of `stream`. It closes when it is dropped.
    ///
    /// A full server ends a session to make room, or, if there is none to end, calls `when_full` and
    /// waits.
    ///
    /// # Errors
    ///
    /// [`TooMany`] when the client has its share already.
    pub fn open(
        self: &Arc<Self>,
        peer: SocketAddr,
        stream: TcpStream,
        when_full: impl FnOnce(),
    ) -> Result<Session, TooMany> {
        let group = Group::from(peer.ip());
        let mut when_full = Some(when_full);
        let mut live = self.lock();
        loop {
            live.may_open(group, self.limits)?;
            if live.entries.len() < self.limits.sessions {
                break;
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
        let session = self.add(&mut live, peer, stream);
        live.limit_unasked(self.limits);
        Ok(session)
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

impl Live {
    /// A client may have `--max-per-client` sessions, and no more than are free: so the first one
    /// that comes gets half of all at most, the next one half of what it has left, and so on, and
    /// there is always one for who has none.
    fn may_open(&self, group: Group, limits: Limits) -> Result<(), TooMany> {
        let has = self.of_group(group);
        let free = limits.sessions.saturating_sub(self.entries.len());
        if self.stopped {
            Err(TooMany::Stopped)
        } else if has >= limits.per_client {
            Err(TooMany::OfThisClient(has))
        } else if has > 0 && has >= free && limits.sessions >= FEW {
            Err(TooMany::OfWhatIsFree(has))
        } else {
            Ok(())
        }
    }

    /// Ends a session, if there is one that others may have the place of. Its threads give the place
    /// back a moment later.
    fn make_room(&mut self, now: Instant) -> bool {
        let victim = self.oldest_unasked().or_else(|| self.longest_idle(now));
        if let Some(victim) = &victim {
            victim.end(Ending::MadeRoom);
        }
        victim.is_some()
    }

    /// The oldest session without a request.
    fn oldest_unasked(&self) -> Option<Arc<Account>> {
        let unasked = self.unasked.iter().filter_map(|id| self.entries.get(id));
        let accounts = unasked.map(|entry| &entry.account);
        accounts.filter(|account| account.ending().is_none()).map(Arc::clone).next()
    }

    /// Of the clients that have most sessions, the tunnel that has been idle for longest, if it has
    /// been for [`LONG_IDLE`]. Where there was none, there is none for a while: a server that is full
    /// does not look through all its sessions for each client.
    fn longest_idle(&mut self, now: Instant) -> Option<Arc<Account>> {
        if self.none_idle_until.is_some_and(|until| now < until) {
            return None;
        }
        let idle = |entry: &Entry| entry.seen.map_or(Duration::ZERO, |(_, since)| now - since);
        let found = self
            .entries
            .values()
            .filter(|entry| idle(entry) > LONG_IDLE && entry.account.ending().is_none())
            .max_by_key(|entry| (self.of_group(entry.account.peer.ip().into()), idle(entry)))
            .map(|entry| Arc::clone(&entry.account));
        self.none_idle_until = found.is_none().then(|| now + LOOK_AGAIN);
        found
    }

    /// Ends the oldest sessions without a request where there are too many of them.
    fn limit_unasked(&mut self, limits: Limits) {
        let most = (limits.sessions / PART_UNASKED).max(FEW_UNASKED);
        while self.unasked.len() > most {
            let Some(oldest) = self.unasked.pop_first() else { return };
            if let Some(entry) = self.entries.get(&oldest) {
                entry.account.end(Ending::MadeRoom);
            }
        }
    }
}
