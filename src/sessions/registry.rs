//! The registry of live sessions.

use std::collections::{BTreeSet, HashMap};
use std::net::{SocketAddr, TcpStream};
use std::ops::Deref;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::ending::Ending;
use super::state::{SessionState, Stage};
use super::totals::Totals;
use crate::socks5::{Address, Command};
use crate::system::descriptors::Descriptors;
use crate::system::ip::ClientPrefix;

/// Sessions that are shown under one lock: nobody who opens or closes one waits for the others.
pub(super) const AT_ONCE: usize = 32;

/// How many sessions there may be, and how long a session may do nothing.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Sessions at once.
    pub sessions: usize,
    /// Sessions at once of one client: an IPv4 address, or an IPv6 /64.
    pub per_client: usize,
    /// From the connection to the last byte of the request.
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
    /// Signalled when a session closes or has its request while somebody waits for that, and at the
    /// end.
    pub(super) closed: Condvar,
}

#[derive(Default)]
pub(super) struct Live {
    /// The number of the next session.
    pub(super) next: u64,
    pub(super) entries: HashMap<u64, Entry>,
    groups: HashMap<ClientPrefix, usize>,
    /// Those whose client has not sent its request yet, the oldest first.
    pub(super) pending: BTreeSet<u64>,
    /// Until when it is known that no tunnel has been idle for long.
    pub(super) none_idle_until: Option<Instant>,
    pub(super) watch_sleeps: bool,
    pub(super) watch_ends: bool,
    /// How many wait for a session to close; a signal that nobody waits for is a system call, too.
    pub(super) waiting: usize,
    /// No further session opens.
    pub(super) stopped: bool,
    /// What the sessions that are over have moved.
    pub(super) totals: Totals,
}

pub(super) struct Entry {
    pub(super) account: Arc<SessionState>,
    /// Whose share it counts against: nobody's while it is a load balancer's.
    pub(super) group: Option<ClientPrefix>,
    /// The bytes that the watch saw moved, and when it first saw so many. `None` until it has seen
    /// the session relaying.
    pub(super) seen: Option<(u64, Instant)>,
    /// The watch has seen it ended in an earlier round.
    pub(super) told: bool,
}

impl Sessions {
    /// An empty registry of sessions that hold some of `descriptors`.
    pub fn new(limits: Limits, descriptors: Arc<Descriptors>) -> Arc<Self> {
        Arc::new(Sessions {
            limits,
            descriptors,
            live: Mutex::default(),
            opened: Condvar::new(),
            closed: Condvar::new(),
        })
    }

    /// How many sessions there may be at once.
    pub fn max(&self) -> usize {
        self.limits.sessions
    }

    /// How many sessions there are.
    pub fn count(&self) -> usize {
        self.lock().entries.len()
    }

    /// Those of the whole process.
    pub fn descriptors(&self) -> &Arc<Descriptors> {
        &self.descriptors
    }

    /// What all sessions have moved. It takes a microsecond for some hundred live sessions.
    pub fn totals(&self) -> Totals {
        let live = self.lock();
        let mut totals = live.totals;
        totals.opened = live.next;
        totals.live = live.entries.len();
        live.entries.values().for_each(|entry| totals.add(&entry.account));
        totals
    }

    /// Shows each live session, with its number and for how long nothing has moved in it, in the
    /// order in which they were opened. A session that opens or closes meanwhile may be among them
    /// or not.
    pub fn each(&self, mut show: impl FnMut(u64, &SessionState, Duration)) {
        let mut numbers: Vec<u64> = self.lock().entries.keys().copied().collect();
        numbers.sort_unstable();
        for some in numbers.chunks(AT_ONCE) {
            let live = self.lock();
            let now = Instant::now();
            for (number, entry) in some.iter().filter_map(|id| Some((id, live.entries.get(id)?))) {
                show(*number, &entry.account, entry.idle(now));
            }
        }
    }

    /// Ends every live session.
    pub fn end_all(&self, ending: Ending) {
        for entry in self.lock().entries.values() {
            entry.account.end(ending);
        }
    }

    pub(super) fn add(
        self: &Arc<Self>,
        live: &mut Live,
        peer: SocketAddr,
        stream: TcpStream,
        group: Option<ClientPrefix>,
    ) -> Session {
        let id = live.next;
        live.next += 1;
        let account = Arc::new(SessionState::new(id, peer, stream, self.descriptors.reserve()));
        let entry = Entry { account: Arc::clone(&account), group, seen: None, told: false };
        live.entries.insert(id, entry);
        live.pending.insert(id);
        if let Some(group) = group {
            live.count(group);
        }
        if live.watch_sleeps {
            self.opened.notify_one();
        }
        Session { account, sessions: Arc::clone(self) }
    }

    fn remove(&self, account: &SessionState) {
        let mut live = self.lock();
        let entry = live.entries.remove(&account.id);
        live.pending.remove(&account.id);
        if let Some(group) = entry.as_ref().and_then(|entry| entry.group) {
            live.discount(group);
        }
        live.totals.add(account);
        self.tell_those_who_wait(live);
        drop(entry);
    }

    fn tell_those_who_wait(&self, live: MutexGuard<'_, Live>) {
        let somebody_waits = live.waiting > 0;
        drop(live);
        if somebody_waits {
            self.closed.notify_all();
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Live> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    /// For how long nothing has moved, as far as the watch has seen.
    pub(super) fn idle(&self, now: Instant) -> Duration {
        let moved = self.account.moved();
        match self.seen {
            Some((seen, since)) if seen == moved => now.saturating_duration_since(since),
            None if moved == 0 => now.saturating_duration_since(self.account.opened),
            Some(_) | None => Duration::ZERO,
        }
    }
}

impl Live {
    /// How many sessions the clients of `group` have.
    pub(super) fn of_group(&self, group: ClientPrefix) -> usize {
        self.groups.get(&group).copied().unwrap_or(0)
    }

    pub(super) fn count(&mut self, group: ClientPrefix) {
        *self.groups.entry(group).or_default() += 1;
    }

    fn discount(&mut self, group: ClientPrefix) {
        if let Some(count) = self.groups.get_mut(&group) {
            *count -= 1;
            if *count == 0 {
                self.groups.remove(&group);
            }
        }
    }
}

/// A live session. It leaves the registry when it is dropped.
pub struct Session {
    pub(super) account: Arc<SessionState>,
    pub(super) sessions: Arc<Sessions>,
}

impl Session {
    /// What the threads of the session know together.
    pub fn state(&self) -> &Arc<SessionState> {
        &self.account
    }

    /// The account, to be shared with a second thread.
    pub fn account(&self) -> &Arc<SessionState> {
        &self.account
    }

    /// Notes what the client asks for. The handshake is over, and its time limit with it.
    pub fn requested(&self, command: Command, destination: Address) {
        self.account.requested(command, destination);
        self.account.enter(Stage::Dial);
        let mut live = self.sessions.lock();
        live.pending.remove(&self.account.id);
        self.sessions.tell_those_who_wait(live);
    }
}

impl Deref for Session {
    type Target = SessionState;

    fn deref(&self) -> &SessionState {
        &self.account
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.sessions.remove(&self.account);
    }
}
