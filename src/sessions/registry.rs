//! The registry of live sessions.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::{Arc, MutexGuard};
use std::time::{Duration, Instant};

use super::accounts::Accounts;
use super::admission::{Admission, AdmissionError, admit, admit_extra, readmit, relieve};
use super::ending::Ending;
use super::limits::Limits;
use super::live::{Entry, Extra, Live};
use super::state::{SessionState, Stage};
use super::totals::Totals;
use crate::system::deadline::Deadline;
use crate::system::descriptors::Descriptors;
use crate::system::ip::ClientPrefix;
use crate::system::memory::{self, Memory};
use crate::system::sync::{Condvar, Mutex};
use crate::wire::address::Address;
use crate::wire::request::Command;

/// Sessions that are shown under one lock: nobody who opens or closes one waits for the others.
pub(super) const AT_ONCE: usize = 32;

/// How long the clients of a backlog are let in, and how long one waits that has its share meanwhile.
const RUSH: Duration = Duration::from_secs(10);
const PATIENCE: Duration = Duration::from_secs(1);

/// How often the watch looks while memory is tight.
const TIGHT_PAUSE: Duration = Duration::from_millis(100);

/// Every live session of this process.
pub struct Sessions {
    limits: Limits,
    descriptors: Arc<Descriptors>,
    pub(super) live: Mutex<Live>,
    /// Signalled when a session opens while the watch sleeps without a limit, and at the end.
    opened: Condvar,
    /// Signalled when a session closes or has its request, and at the end.
    closed: Condvar,
}

impl Sessions {
    /// An empty registry of sessions that hold some of `descriptors`.
    pub fn new(limits: Limits, descriptors: Arc<Descriptors>) -> Arc<Self> {
        Arc::new(Sessions {
            limits,
            descriptors,
            live: Mutex::default(),
            opened: Condvar::default(),
            closed: Condvar::default(),
        })
    }

    /// How many sessions there may be at once.
    pub fn max(&self) -> usize {
        self.limits.sessions
    }

    /// How many sessions there are.
    pub fn count(&self) -> usize {
        self.live.lock().entries.len()
    }

    /// How many sessions earlier processes have left, which count against the same limits.
    pub fn elsewhere(&self) -> usize {
        self.live.lock().elsewhere
    }

    /// How many sessions each client has, and how many of `--udp-ports`.
    pub fn by_client(&self) -> BTreeMap<IpAddr, [usize; 2]> {
        self.live.lock().by_client()
    }

    /// Notes how many that are, and what of both each client has there.
    pub fn set_elsewhere(&self, sessions: usize, clients: &[(IpAddr, [usize; 2])]) {
        self.live.lock().set_elsewhere(sessions, clients);
        self.closed.notify_all();
    }

    /// Those of the whole process.
    pub fn descriptors(&self) -> &Arc<Descriptors> {
        &self.descriptors
    }

    /// What all sessions have moved. It takes a microsecond for some hundred live sessions.
    pub fn totals(&self) -> Totals {
        self.live.lock().totals()
    }

    /// What each client and each user has moved. Of those without a live session only the thousand
    /// that have moved most are among them.
    pub fn accounts(&self) -> Accounts {
        self.live.lock().accounts()
    }

    /// Shows each live session, with its number and for how long nothing has moved in it, in the
    /// order in which they were opened. A session that opens or closes meanwhile may be among them
    /// or not.
    pub fn each(&self, mut show: impl FnMut(u64, &SessionState, Duration)) {
        let mut numbers: Vec<u64> = self.live.lock().entries.keys().copied().collect();
        numbers.sort_unstable();
        for some in numbers.chunks(AT_ONCE) {
            let live = self.live.lock();
            let now = Instant::now();
            for (number, entry) in some.iter().filter_map(|id| Some((id, live.entries.get(id)?))) {
                show(*number, &entry.state, entry.idle(now));
            }
        }
    }

    /// Opens a session for `peer`, at the far end of `stream`. It closes when it is dropped. That of a load
    /// balancer counts against nobody's share: once it has said for whom it comes, be it itself,
    /// [`Session::rehome`] has to be called.
    ///
    /// A full server evicts a session, or, if there is none to evict, calls `when_full` and waits.
    ///
    /// # Errors
    ///
    /// When the client has its share already, or the server stops.
    // The session is served by who opens it: this has a frame of its own, which is gone by then.
    #[inline(never)]
    pub fn open(
        self: &Arc<Self>,
        peer: SocketAddr,
        is_balancer: bool,
        stream: TcpStream,
        when_full: impl FnOnce(),
    ) -> Result<Session, AdmissionError> {
        let prefix = ClientPrefix::from(peer.ip());
        let patience = Deadline::after(PATIENCE);
        let mut live = self.wait_for(None, when_full, |live| {
            let admitted = admit(live, prefix, is_balancer, self.limits);
            let is_rush = live.rush_until.is_some_and(|until| !until.has_passed());
            match patience.left() {
                Some(left) if admitted.is_err() && is_rush && !live.stopped => {
                    Ok(Admission::Soon(left))
                }
                _ => admitted,
            }
        })?;
        let state = SessionState::new(live.next, peer, stream, self.descriptors.reserve());
        let state = Arc::new(state);
        live.add(Arc::clone(&state), prefix, !is_balancer);
        if live.watch_sleeps {
            self.opened.notify_one();
        }
        Ok(Session { state, sessions: Arc::clone(self) })
    }

    /// Waits until `decide` admits, until the deadline if there is one.
    fn wait_for(
        &self,
        deadline: Option<Deadline>,
        when_full: impl FnOnce(),
        decide: impl Fn(&mut Live) -> Result<Admission, AdmissionError>,
    ) -> Result<MutexGuard<'_, Live>, AdmissionError> {
        let mut when_full = Some(when_full);
        let mut live = self.live.lock();
        live.waiting += 1;
        let admitted = loop {
            live = match decide(&mut live) {
                Err(error) => break Err(error),
                Ok(Admission::Admitted) => break Ok(()),
                Ok(_) if deadline.is_some_and(Deadline::has_passed) => {
                    break Err(AdmissionError::NothingFree);
                }
                Ok(Admission::Soon(limit)) => self.closed.wait(live, Some(limit)),
                Ok(Admission::Full(limit)) => match when_full.take() {
                    None => self.closed.wait(live, Some(limit)),
                    Some(when_full) => {
                        drop(live);
                        when_full();
                        self.live.lock()
                    }
                },
            };
        };
        live.waiting -= 1;
        admitted.map(|()| live)
    }

    /// From now on clients come who have waited in a backlog, all at once: whoever has its share waits a
    /// moment, as it did not choose to come with so many.
    pub fn expect_rush(&self) {
        self.live.lock().rush_until = Some(Deadline::after(RUSH));
    }

    /// Opens no further session, and ends every wait for one.
    pub fn close(&self) {
        self.live.lock().stopped = true;
        self.closed.notify_all();
    }

    /// Waits until no session is left, for at most `limit`. Says how many still are.
    pub fn wait_until_empty(&self, limit: Duration) -> usize {
        let deadline = Deadline::after(limit);
        let mut live = self.live.lock();
        while let (false, Some(left)) = (live.entries.is_empty(), deadline.left()) {
            live = self.closed.wait(live, Some(left));
        }
        live.entries.len()
    }

    /// Ends every live session.
    pub fn end_all(&self, ending: Ending) {
        for entry in self.live.lock().entries.values() {
            entry.state.end(ending);
        }
    }

    /// Ends the sessions of users whom `revoked` gives a reason for, and says how many they were. One that
    /// has no request yet is left to whoever judges that; one that was judged is over.
    pub fn end_revoked(&self, revoked: impl Fn(&Arc<str>) -> Option<&'static str>) -> usize {
        let mut ended = 0;
        for Entry { state, .. } in self.live.lock().entries.values() {
            let is_served = matches!(state.stage(), Stage::Dial | Stage::Relay);
            if let Some(why) = state.login().filter(|_| is_served).and_then(&revoked) {
                state.end(Ending::Revoked(why));
                ended += 1;
            }
        }
        ended
    }

    /// Ends sessions whose time is up, and where memory is short one after the other of those whose peer
    /// takes nothing, until [`Sessions::stop_watch`].
    pub fn watch(&self) {
        let memory = Memory::of_this_machine();
        loop {
            memory.iter().for_each(Memory::look);
            let mut live = self.live.lock();
            if live.watch_ends {
                return;
            }
            let now = Instant::now();
            let next = live.check(now, self.limits);
            if memory::is_tight() {
                relieve(&mut live, memory::is_short(), now);
            }
            let pause = next.map(|next| next.saturating_duration_since(now));
            let pause = pause.map(|it| if memory::is_tight() { it.min(TIGHT_PAUSE) } else { it });
            live.watch_sleeps = pause.is_none();
            self.opened.wait(live, pause).watch_sleeps = false;
        }
    }

    /// Makes [`Sessions::watch`] return.
    pub fn stop_watch(&self) {
        self.live.lock().watch_ends = true;
        self.opened.notify_one();
    }
}

/// A live session. It leaves the registry when it is dropped.
pub struct Session {
    state: Arc<SessionState>,
    sessions: Arc<Sessions>,
}

impl Session {
    /// What is known of the session, to be shared with those who watch it and with a second thread.
    pub fn state(&self) -> &Arc<SessionState> {
        &self.state
    }

    /// Notes what the client asks for. The handshake is over, and its time limit with it.
    pub fn requested(&self, command: Command, destination: Address) {
        self.state.requested(command, destination);
        self.state.enter(Stage::Dial);
        self.sessions.live.lock().not_pending(self.state.id);
        self.sessions.closed.notify_all();
    }

    /// Takes one `extra` more for the session, until it is over. Where there is none, a client that has more
    /// of them gives way.
    ///
    /// # Errors
    ///
    /// When the client has its share already, or none becomes free in time.
    pub fn take(&self, extra: Extra) -> Result<(), AdmissionError> {
        let (limits, id) = (self.sessions.limits, self.state.id);
        let deadline = Deadline::after(limits.handshake);
        let decide = |live: &mut Live| admit_extra(live, id, extra, limits);
        self.sessions.wait_for(Some(deadline), || (), decide).map(drop)
    }

    /// Makes the session of a load balancer that of `client`, for whom it comes: from now on it
    /// counts against that client's share. The balancer itself may be that client.
    ///
    /// # Errors
    ///
    /// When the client has its share already. The session is then still the balancer's.
    pub fn rehome(&self, client: SocketAddr) -> Result<(), AdmissionError> {
        let (prefix, limits) = (ClientPrefix::from(client.ip()), self.sessions.limits);
        let mut live = self.sessions.live.lock();
        readmit(&mut live, prefix, limits)?;
        live.assign(self.state.id, prefix);
        self.state.set_proxied(client);
        Ok(())
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.sessions.live.lock().remove(self.state.id);
        self.sessions.closed.notify_all();
    }
}
