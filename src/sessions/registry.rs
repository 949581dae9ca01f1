//! The registry of live sessions.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::ops::Deref;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::account::{Account, Ending};
use super::totals::Totals;
use crate::system::descriptors::Descriptors;

/// How many sessions one client may have, and how long a session may do nothing.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Sessions that one client address may have at once.
    pub per_client: usize,
    /// From the first byte of the greeting to the last of the request.
    pub handshake: Duration,
    /// Without a byte in either direction.
    pub idle: Duration,
}

/// Every live session of this process.
pub struct Sessions {
    pub(super) limits: Limits,
    descriptors: Arc<Descriptors>,
    live: Mutex<Live>,
    /// Signalled when a session opens while the watch sleeps without a limit, and at the end.
    pub(super) opened: Condvar,
}

#[derive(Default)]
pub(super) struct Live {
    /// The number of the next session.
    pub(super) next: u64,
    pub(super) entries: HashMap<u64, Entry>,
    clients: HashMap<IpAddr, usize>,
    pub(super) watch_sleeps: bool,
    pub(super) watch_ends: bool,
    /// What the sessions that are over have moved.
    pub(super) totals: Totals,
}

pub(super) struct Entry {
    pub(super) account: Arc<Account>,
    /// The client whose limit it counts against: nobody's while it is a load balancer's.
    counted: Option<IpAddr>,
    /// The bytes that the watch saw moved, and when it first saw so many. `None` until it has seen
    /// the session relaying.
    pub(super) seen: Option<(u64, Instant)>,
    /// The watch has seen it ended in an earlier round.
    pub(super) told: bool,
}

/// One client has as many sessions as it may.
#[derive(Debug)]
pub struct TooMany {
    /// The limit that it is at.
    pub limit: usize,
}

impl Sessions {
    /// An empty registry of sessions that hold some of `descriptors`.
    #[must_use]
    pub fn new(limits: Limits, descriptors: Arc<Descriptors>) -> Arc<Self> {
        Arc::new(Sessions { limits, descriptors, live: Mutex::default(), opened: Condvar::new() })
    }

    /// Opens a session for the client at the far end of `stream`. It ends when it is dropped.
    ///
    /// # Errors
    ///
    /// [`TooMany`] when the client's address has as many sessions as it may.
    pub fn open(self: &Arc<Self>, peer: SocketAddr, stream: TcpStream) -> Result<Session, TooMany> {
        let mut live = self.lock();
        live.count(peer.ip(), self.limits)?;
        Ok(self.add(&mut live, peer, stream, Some(peer.ip())))
    }

    /// Opens a session for a load balancer, which has no limit of its own. Once it has said for whom
    /// it comes, [`Session::rehome`] has to be called.
    pub fn open_for_balancer(self: &Arc<Self>, peer: SocketAddr, stream: TcpStream) -> Session {
        self.add(&mut self.lock(), peer, stream, None)
    }

    fn add(
        self: &Arc<Self>,
        live: &mut Live,
        peer: SocketAddr,
        stream: TcpStream,
        counted: Option<IpAddr>,
    ) -> Session {
        let id = live.next;
        live.next += 1;
        let account = Arc::new(Account::new(id, peer, stream, self.descriptors.hold()));
        let entry = Entry { account: Arc::clone(&account), counted, seen: None, told: false };
        live.entries.insert(id, entry);
        if live.watch_sleeps {
            self.opened.notify_one();
        }
        Session { account, sessions: Arc::clone(self) }
    }

    /// Those of the whole process.
    #[must_use]
    pub fn descriptors(&self) -> &Descriptors {
        &self.descriptors
    }

    /// Ends every live session.
    pub fn end_all(&self, ending: Ending) {
        for entry in self.lock().entries.values() {
            entry.account.end(ending);
        }
    }

    fn close(&self, account: &Account) {
        let mut live = self.lock();
        let entry = live.entries.remove(&account.id);
        if let Some(client) = entry.as_ref().and_then(|entry| entry.counted) {
            live.discount(client);
        }
        live.totals.add(account);
        drop(live);
        drop(entry);
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Live> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Live {
    /// Counts one more session of `client`.
    fn count(&mut self, client: IpAddr, limits: Limits) -> Result<(), TooMany> {
        let count = self.clients.entry(client).or_default();
        if *count >= limits.per_client {
            return Err(TooMany { limit: limits.per_client });
        }
        *count += 1;
        Ok(())
    }

    fn discount(&mut self, client: IpAddr) {
        if let Some(count) = self.clients.get_mut(&client) {
            *count -= 1;
            if *count == 0 {
                self.clients.remove(&client);
            }
        }
    }
}

/// A live session. It leaves the registry when it is dropped.
pub struct Session {
    account: Arc<Account>,
    sessions: Arc<Sessions>,
}

impl Session {
    /// The account, to be shared with a second thread.
    #[must_use]
    pub fn account(&self) -> &Arc<Account> {
        &self.account
    }

    /// Makes the session of a load balancer that of `client`, for whom it comes: from now on it
    /// counts against that client's limit.
    ///
    /// # Errors
    ///
    /// [`TooMany`] when the client has as many sessions as it may. It is then still the balancer's.
    pub fn rehome(&self, client: SocketAddr) -> Result<(), TooMany> {
        let mut live = self.sessions.lock();
        live.count(client.ip(), self.sessions.limits)?;
        let entry = live.entries.get_mut(&self.account.id);
        let before = entry.and_then(|entry| entry.counted.replace(client.ip()));
        if let Some(before) = before {
            live.discount(before);
        }
        self.account.comes_for(client);
        Ok(())
    }
}

impl Deref for Session {
    type Target = Account;

    fn deref(&self) -> &Account {
        &self.account
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.sessions.close(&self.account);
    }
}
