//! The live sessions by number, and how many each client has.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{iter, mem};

use super::accounts::Accounts;
use super::ending::Ending;
use super::limits::{Activity, Limits};
use super::state::SessionState;
use super::totals::Totals;
use crate::system::deadline::Deadline;
use crate::system::descriptors::Reservation;
use crate::system::ip::ClientPrefix;
use crate::system::shares::Holders;

/// So long a session that gives way takes to be gone. One that takes longer waits for a peer that takes no
/// bytes, until the watch ends it.
const GONE_AFTER: Duration = Duration::from_millis(100);

/// What the registry knows under its lock.
#[derive(Default)]
pub(super) struct Live {
    /// The number of the next session.
    pub(super) next: u64,
    pub(super) entries: HashMap<u64, Entry>,
    /// Sessions that earlier processes have left, and the places and ports that their clients have there.
    pub(super) elsewhere: usize,
    held_elsewhere: [Vec<(ClientPrefix, u64)>; 2],
    /// Who has which of them. Those of load balancers count once it is known for whom they come.
    pub(super) places: Holders,
    /// Who has how many pairs of descriptors: each session one, by its number, and some have more.
    pub(super) pairs: Holders,
    /// Which associations have a port of `--udp-ports`.
    pub(super) ports: Holders,
    /// Those whose client has not sent its request yet.
    pub(super) pending: Holders,
    /// Those that give way to others and are not gone yet, and since when.
    leaving: BTreeMap<u64, Instant>,
    /// Until when clients of a backlog come in.
    pub(super) rush_until: Option<Deadline>,
    /// Clients that wait for a place.
    pub(super) waiting: usize,
    /// Until when it is known that no tunnel has been idle for long.
    pub(super) none_idle_until: Option<Instant>,
    pub(super) watch_sleeps: bool,
    pub(super) watch_ends: bool,
    /// No further session opens.
    pub(super) stopped: bool,
    /// What the sessions that are over have moved.
    pub(super) totals: Totals,
    /// And who has moved it.
    ended: Accounts,
}

/// A live session, and what the watch has seen of it.
pub(super) struct Entry {
    pub(super) state: Arc<SessionState>,
    /// Who the client is: a load balancer until it has said for whom it comes.
    pub(super) client: ClientPrefix,
    /// Pairs of descriptors beside the first.
    more_pairs: Vec<Reservation>,
    pub(super) activity: Activity,
}

/// What an association takes beside its place.
#[derive(Clone, Copy, Debug)]
pub enum Extra {
    /// A pair of descriptors.
    Pair,
    /// One of so many UDP ports.
    UdpPort(usize),
}

/// The number of a pair beside the first, which is no session's: these come down from the greatest. A
/// session has at most two.
fn further_pair(id: u64, pair: usize) -> u64 {
    u64::MAX - 2 * id - pair as u64
}

impl Entry {
    /// For how long nothing has moved, as far as the watch has seen.
    pub(super) fn idle(&self, now: Instant) -> Duration {
        self.activity.idle(&self.state, now)
    }
}

/// The numbers of places and ports from here on are those that clients have in earlier processes.
const ELSEWHERE: u64 = 1 << 62;

impl Live {
    /// How many sessions there are, those of earlier processes among them.
    pub(super) fn count(&self) -> usize {
        self.entries.len() + self.elsewhere
    }

    /// How many sessions each client has, and how many UDP ports.
    pub(super) fn by_client(&self) -> BTreeMap<IpAddr, [usize; 2]> {
        let mut clients = BTreeMap::<IpAddr, [usize; 2]>::new();
        for (id, entry) in &self.entries {
            let counts = clients.entry(entry.state.peer().ip()).or_default();
            counts[0] += 1;
            counts[1] += usize::from(self.ports.has(entry.client, *id));
        }
        clients
    }

    /// Notes what earlier processes have left.
    pub(super) fn set_elsewhere(&mut self, sessions: usize, clients: &[(IpAddr, [usize; 2])]) {
        self.elsewhere = sessions;
        for (index, holders) in [&mut self.places, &mut self.ports].into_iter().enumerate() {
            for (client, number) in mem::take(&mut self.held_elsewhere[index]) {
                holders.remove(client, number);
            }
            let each = clients.iter().flat_map(|(ip, counts)| iter::repeat_n(*ip, counts[index]));
            for (client, number) in each.map(ClientPrefix::from).zip(ELSEWHERE..) {
                holders.add(client, number, 0);
                self.held_elsewhere[index].push((client, number));
            }
        }
    }

    /// Adds a session of `client`, which is a load balancer's unless it `has_place`.
    pub(super) fn add(&mut self, state: Arc<SessionState>, client: ClientPrefix, has_place: bool) {
        let id = state.id;
        self.next = id + 1;
        let activity = Activity::default();
        self.entries.insert(id, Entry { state, client, more_pairs: Vec::new(), activity });
        self.hold(id, client, has_place);
    }

    /// Counts the session with this number, which was a load balancer's, against the share of `client`.
    pub(super) fn assign(&mut self, id: u64, client: ClientPrefix) {
        if let Some(entry) = self.entries.get_mut(&id) {
            self.pending.remove(entry.client, id);
            self.pairs.remove(entry.client, id);
            entry.client = client;
            self.hold(id, client, true);
        }
    }

    /// Notes what a session without a request holds.
    fn hold(&mut self, id: u64, client: ClientPrefix, has_place: bool) {
        self.pairs.add(client, id, id);
        if has_place {
            self.places.add(client, id, id);
        }
        self.pending.add(client, id, self.places.since(client).unwrap_or(id));
    }

    /// Notes that a session has one `extra` more, for as long as it lives.
    pub(super) fn add_extra(&mut self, id: u64, extra: Extra) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        match extra {
            Extra::Pair => {
                self.pairs.add(entry.client, further_pair(id, entry.more_pairs.len()), id);
                entry.more_pairs.push(entry.state.descriptors().reserve());
            }
            Extra::UdpPort(_) => self.ports.add(entry.client, id, id),
        }
    }

    /// The session with this number has its request, or gives way.
    pub(super) fn not_pending(&mut self, id: u64) {
        if let Some(entry) = self.entries.get(&id) {
            self.pending.remove(entry.client, id);
        }
    }

    /// Ends a session that gives way to others, and says `why`.
    pub(super) fn evict(&mut self, id: u64, now: Instant, why: &'static str) {
        self.not_pending(id);
        if let Some(entry) = self.entries.get(&id) {
            self.leaving.insert(id, now);
            entry.state.end(Ending::Evicted(why));
        }
    }

    /// Whether enough sessions are about to be gone for all who wait.
    pub(super) fn enough_leave(&self, now: Instant) -> bool {
        let soon = |since: &&Instant| now.saturating_duration_since(**since) < GONE_AFTER;
        self.leaving.values().filter(soon).count() >= self.waiting
    }

    pub(super) fn remove(&mut self, id: u64) {
        self.not_pending(id);
        self.leaving.remove(&id);
        let Some(entry) = self.entries.remove(&id) else { return };
        self.totals.add(&entry.state);
        self.ended.add_ended(&entry.state);
        for holders in [&mut self.places, &mut self.pairs, &mut self.ports] {
            holders.remove(entry.client, id);
        }
        for pair in 0..entry.more_pairs.len() {
            self.pairs.remove(entry.client, further_pair(id, pair));
        }
    }

    /// What all sessions have moved.
    pub(super) fn totals(&self) -> Totals {
        let live = self.entries.len();
        let mut totals = Totals { opened: self.next, live, waiting: self.waiting, ..self.totals };
        self.entries.values().for_each(|entry| totals.add(&entry.state));
        totals
    }

    /// What each client and each user has moved.
    pub(super) fn accounts(&self) -> Accounts {
        let mut accounts = self.ended.clone();
        self.entries.values().for_each(|entry| accounts.add_live(&entry.state));
        accounts
    }

    /// Ends what has to end now, and says when to look again: `None` when nothing is live.
    pub(super) fn check(&mut self, now: Instant, limits: Limits) -> Option<Instant> {
        let deadlines = self
            .entries
            .values_mut()
            .filter_map(|entry| entry.activity.check(&entry.state, now, limits));
        let next = deadlines.fold(now + limits.pause(), Instant::min);
        (!self.entries.is_empty()).then_some(next)
    }
}
