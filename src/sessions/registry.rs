//! The registry of live sessions.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::ops::Deref;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::account::{Account, Ending};
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
    next: u64,
    pub(super) entries: HashMap<u64, Entry>,
    clients: HashMap<IpAddr, usize>,
    pub(super) watch_sleeps: bool,
    pub(super) watch_ends: bool,
}

pub(super) struct Entry {
    pub(super) account: Arc<Account>,
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
        let count = live.clients.entry(peer.ip()).or_default();
        if *count >= self.limits.per_client {
            return Err(TooMany { limit: self.limits.per_client });
        }
        *count += 1;
        let id = live.next;
        live.next += 1;
        let account = Arc::new(Account::new(id, peer, stream, self.descriptors.hold()));
        let entry = Entry { account: Arc::clone(&account), seen: None, told: false };
        live.entries.insert(id, entry);
        if live.watch_sleeps {
            self.opened.notify_one();
        }
        Ok(Session { account, sessions: Arc::clone(self) })
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
        let ip = account.peer.ip();
        if let Some(count) = live.clients.get_mut(&ip) {
            *count -= 1;
            if *count == 0 {
                live.clients.remove(&ip);
            }
        }
        drop(live);
        drop(entry);
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Live> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
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
