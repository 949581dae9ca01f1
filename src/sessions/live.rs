//! The live sessions by number, and how many each client has.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::accounts::Accounts;
use super::limits::{Activity, Limits};
use super::state::SessionState;
use super::totals::Totals;
use crate::system::ip::ClientPrefix;

/// What the registry knows under its lock.
#[derive(Default)]
pub(super) struct Live {
    /// The number of the next session.
    pub(super) next: u64,
    pub(super) entries: HashMap<u64, Entry>,
    per_client: HashMap<ClientPrefix, usize>,
    /// Sessions that earlier processes have left, and how many of them are those of each client.
    pub(super) elsewhere: usize,
    elsewhere_per_client: HashMap<ClientPrefix, usize>,
    /// Those whose client has not sent its request yet, the oldest first.
    pub(super) pending: BTreeSet<u64>,
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
    /// Whose share it counts against: nobody's while it is a load balancer's.
    pub(super) client: Option<ClientPrefix>,
    pub(super) activity: Activity,
}

impl Entry {
    /// For how long nothing has moved, as far as the watch has seen.
    pub(super) fn idle(&self, now: Instant) -> Duration {
        self.activity.idle(&self.state, now)
    }
}

impl Live {
    /// How many sessions `client` has, those of earlier processes among them.
    pub(super) fn of_client(&self, client: Option<ClientPrefix>) -> usize {
        let counts = [&self.per_client, &self.elsewhere_per_client];
        let count = |client| counts.iter().filter_map(|it| it.get(&client)).sum();
        client.map_or(0, count)
    }

    /// How many sessions there are, those of earlier processes among them.
    pub(super) fn count(&self) -> usize {
        self.entries.len() + self.elsewhere
    }

    /// Notes what earlier processes have left.
    pub(super) fn set_elsewhere(&mut self, sessions: usize, clients: &[(IpAddr, usize)]) {
        self.elsewhere = sessions;
        self.elsewhere_per_client.clear();
        for (client, count) in clients {
            *self.elsewhere_per_client.entry((*client).into()).or_default() += count;
        }
    }

    pub(super) fn add(&mut self, state: Arc<SessionState>, client: Option<ClientPrefix>) {
        let id = state.id;
        self.next = id + 1;
        self.entries.insert(id, Entry { state, client: None, activity: Activity::default() });
        self.pending.insert(id);
        if let Some(client) = client {
            self.assign(id, client);
        }
    }

    /// Counts the session with this number, which was nobody's, against the share of `client`.
    pub(super) fn assign(&mut self, id: u64, client: ClientPrefix) {
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.client = Some(client);
            *self.per_client.entry(client).or_default() += 1;
        }
    }

    pub(super) fn remove(&mut self, id: u64) {
        let Some(entry) = self.entries.remove(&id) else { return };
        self.pending.remove(&id);
        self.totals.add(&entry.state);
        self.ended.add_ended(&entry.state);
        if let Some(client) = entry.client {
            let count = self.per_client.entry(client).or_default();
            *count -= 1;
            if *count == 0 {
                self.per_client.remove(&client);
            }
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
