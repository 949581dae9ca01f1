//! Where the numbers come from that are shown.

use std::collections::BTreeSet;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use crate::report::metrics::{Counts, Gauges, Metrics};
use crate::report::queue::lines_lost;
use crate::sessions::Sessions;
use crate::system::usage;

/// What is shown.
pub struct StatusSource {
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// The live sessions.
    pub sessions: Arc<Sessions>,
    /// Threads that there may be at once.
    pub max_threads: usize,
    /// Asks how many names were looked up.
    pub lookups: Ask<Counts>,
    /// Asks how many datagrams were dropped.
    pub dropped: Ask<Counts>,
    /// Asks which users there are.
    pub users: Ask<BTreeSet<Arc<str>>>,
    /// Says how many connections, and bytes a second, a user may have.
    pub limits_of: Box<LimitsOf>,
    /// Asks how many clients wait to be accepted.
    pub backlog: Ask<usize>,
    /// Names by which visitors may come, besides those of this machine.
    pub hosts: Vec<String>,
    /// Says whether a visitor gets to see anything, and logs who does not.
    pub admits: Box<Admits>,
}

type Admits = dyn Fn(&TcpStream, SocketAddr) -> bool + Send + Sync;

type LimitsOf = dyn Fn(&str) -> (Option<usize>, Option<u64>) + Send + Sync;

type Ask<T> = Box<dyn Fn() -> T + Send + Sync>;

impl StatusSource {
    pub(super) fn gauges(&self) -> Gauges {
        let totals = self.sessions.totals();
        let accounts = self.sessions.accounts().users;
        let account = |name| accounts.get(&name).copied().unwrap_or_default();
        let users = (self.users)().into_iter();
        Gauges {
            users: users.map(|name| (Arc::clone(&name), account(name))).collect(),
            earlier: self.sessions.elsewhere(),
            totals,
            waiting: totals.waiting + (self.backlog)(),
            max_connections: self.sessions.max(),
            threads: usage::threads(),
            open_fds: usage::descriptors(),
            max_fds: self.sessions.descriptors().limit(),
            processor_time: usage::processor_time(),
            resident_memory: usage::resident_memory(),
            lookups: (self.lookups)(),
            dropped: (self.dropped)(),
            lines_lost: lines_lost(),
        }
    }

    /// Bytes up and down since the start.
    pub(super) fn bytes(&self) -> [u64; 2] {
        let totals = self.sessions.totals();
        [totals.up.bytes, totals.down.bytes]
    }
}
