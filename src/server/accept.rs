//! Where clients come in: a listener, and the workers that wait at it.
//!
//! Nobody hands a client over. A worker that has nothing to do waits in `accept`, serves the client
//! that it gets, and comes back. The last one to leave calls the next, so that there is always one
//! that waits. Admission stays before everything: a worker that has accepted a client still counts
//! as waiting until that client has a session, so a full server holds a handful of clients, and the
//! others wait in the backlog. A stop takes them out of there, and the workers go on until each has
//! had its turn.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use std::{io, mem};

use log::debug;

use super::inherited::Owner;
use super::listen::{Accepted, BACKLOG, Listener};
use super::stop::Stopper;
use crate::proxy::Proxy;
use crate::report::LastingState;
use crate::sessions::Session;
use crate::system::deadline::Deadline;
use crate::system::descriptors::Reservation;
use crate::system::pool::{Partner, Pool};
use crate::system::sync::{Condvar, Mutex};

/// Workers that wait for a client at the same time. With one, each client costs a hand-over, as the
/// worker that leaves has to wake the next: where eight connect at once, each waits 3 % longer.
pub(super) const MOST_WAITING: usize = 4;

/// Pauses between attempts to accept while accepting fails.
const SHORTEST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// How often a stop looks again for descriptors and threads for those who still wait.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// A listener, and the workers that wait at it.
pub(super) struct Acceptor {
    listener: Arc<Listener>,
    proxy: Arc<Proxy>,
    pool: Arc<Pool>,
    stopper: Arc<Stopper>,
    state: Mutex<State>,
    /// Accepting fails.
    accepts_nobody: LastingState,
    /// No thread can be created for the next worker.
    lacks_threads: LastingState,
    /// Signalled when no worker waits any more.
    left: Condvar,
}

#[derive(Default)]
struct State {
    /// Workers that wait for a client, or for a place for one.
    waiting: usize,
    /// The pause before the next attempt, while accepting fails.
    pause: Option<Duration>,
    /// No thread could be created for the next worker, and none was since.
    short_of_threads: bool,
    /// Clients that a stop has found in the kernel's backlog, each with its descriptor.
    backlog: VecDeque<(Accepted, Reservation)>,
    /// The port is closed, or not ours to close.
    is_closed: bool,
}

impl Acceptor {
    pub(super) fn new(
        listener: Arc<Listener>,
        proxy: &Arc<Proxy>,
        pool: &Arc<Pool>,
        stopper: &Arc<Stopper>,
    ) -> Arc<Self> {
        Arc::new(Acceptor {
            proxy: Arc::clone(proxy),
            pool: Arc::clone(pool),
            stopper: Arc::clone(stopper),
            state: Mutex::new(State {
                is_closed: listener.owner == Owner::Manager,
                ..State::default()
            }),
            accepts_nobody: LastingState::default(),
            lacks_threads: LastingState::default(),
            left: Condvar::default(),
            listener,
        })
    }

    pub(super) fn listener(&self) -> &Listener {
        &self.listener
    }

    /// Leaves the port and those who wait there to another process.
    pub(super) fn hand_over(&self) {
        self.state.lock().is_closed = true;
    }

    /// Whether a worker waits for a client, or has one that waits for a place.
    pub(super) fn has_workers(&self) -> bool {
        self.state.lock().waiting > 0
    }

    /// How many clients have connected and were not accepted yet, as far as the system tells.
    pub(super) fn backlog(&self) -> usize {
        self.listener.backlog() + self.state.lock().backlog.len()
    }

    /// Makes sure that a worker waits for the next client. One that has come back does not end a shortage
    /// of threads: that is over once there is another one.
    ///
    /// # Errors
    ///
    /// When the system refuses a thread.
    pub(super) fn ensure_worker(self: &Arc<Self>) -> io::Result<()> {
        let mut state = self.state.lock();
        let is_wanted = state.waiting == 0;
        if !is_wanted && !state.short_of_threads {
            return Ok(());
        }
        state.waiting += usize::from(is_wanted);
        drop(state);
        let acceptor = is_wanted.then(|| Arc::clone(self));
        let started = self.pool.start(move |partner| {
            if let Some(acceptor) = acceptor {
                acceptor.run_worker(partner);
            }
        });
        let mut state = self.state.lock();
        state.short_of_threads = started.is_err();
        if is_wanted && started.is_err() {
            state.waiting -= 1;
            self.left.notify_all();
        }
        started
    }

    /// Makes sure of a worker again, and tells of the end of what has lasted. False if there is more to
    /// look after, soon.
    pub(super) fn look_after(self: &Arc<Self>) -> bool {
        let has_worker = self.ensure_worker().is_ok();
        let has_threads = has_worker && self.lacks_threads.is_not_so("threads are created again");
        let accepts = self.state.lock().pause.is_none();
        has_threads & (accepts && self.accepts_nobody.is_not_so("clients are accepted again"))
    }

    /// Serves one client after the other while few others wait for one.
    fn run_worker(self: &Arc<Self>, partner: &Partner) {
        let mut place = Some(Waiting(self));
        while let Some(waiting) = place {
            let client = self.next_admitted();
            drop(waiting);
            let Some(client) = client else { return };
            self.proxy.serve(&client, partner);
            drop(client);
            place = self.rejoin();
        }
    }

    /// Waits again, if one more worker is to wait for a client.
    fn rejoin(self: &Arc<Self>) -> Option<Waiting<'_>> {
        let mut state = self.state.lock();
        let is_wanted = state.waiting < MOST_WAITING && !self.is_left();
        state.waiting += usize::from(is_wanted);
        is_wanted.then(|| Waiting(self))
    }

    /// Whether who connects now is another process's client. Between its last client and the next a worker
    /// is nobody whom a stop waits for, so it takes none then.
    fn is_left(&self) -> bool {
        let is_managers = self.listener.owner == Owner::Manager;
        self.stopper.has_handed_over() || is_managers && self.stopper.is_over()
    }

    /// Leaves, with a client or after the end. The last one calls the next worker.
    fn leave(self: &Arc<Self>) {
        let mut state = self.state.lock();
        state.waiting -= 1;
        let is_last = state.waiting == 0;
        drop(state);
        if !is_last {
            return;
        }
        self.left.notify_all();
        if self.stopper.is_over() {
            return;
        }
        if let Err(error) = self.ensure_worker() {
            let is_new = self.lacks_threads.is_so(format_args!(
                "cannot create a thread for the next client; it waits: {error} \
                 (lower --max-connections or raise the system's limit on threads)"
            ));
            if is_new {
                // It tries it again.
                self.stopper.wake_housekeeping();
            }
        }
    }

    /// Waits for a client that is admitted. `None` once the server is stopped and nobody is left.
    fn next_admitted(&self) -> Option<Session> {
        loop {
            let (stream, peer) = self.next_client()?;
            if let Some(client) = self.proxy.admit(stream, peer) {
                return Some(client);
            }
        }
    }

    fn next_client(&self) -> Option<Accepted> {
        loop {
            match self.listener.accept() {
                Ok(client) => {
                    self.state.lock().pause = None;
                    return Some(client);
                }
                Err(error) if self.stopper.is_over() => {
                    debug!("the listener is closed: {error}");
                    return self.state.lock().backlog.pop_front().map(|(client, _)| client);
                }
                // This client has gone again; the next one may be there already.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => self.pause(&error),
            }
        }
    }

    /// Waits after an error of `accept(2)` that is not the client's: most likely there are no
    /// descriptors.
    fn pause(&self, error: &io::Error) {
        let mut state = self.state.lock();
        let pause = state.pause.map_or(SHORTEST_PAUSE, |pause| (2 * pause).min(LONGEST_PAUSE));
        state.pause = Some(pause);
        drop(state);
        if self.accepts_nobody.is_so(format_args!("cannot accept clients, trying again: {error}")) {
            // It tells when that is over.
            self.stopper.wake_housekeeping();
        }
        self.stopper.pause(pause);
    }

    /// After a stop: takes those who wait out of the kernel's backlog, closes the port behind the last
    /// one, and sees that all are admitted. Says how many still wait at `deadline`.
    pub(super) fn drain_backlog(self: &Arc<Self>, deadline: Deadline) -> usize {
        loop {
            let waiting = self.take_backlog();
            let Some(left) = deadline.left().filter(|_| waiting > 0) else { return waiting };
            let has_worker = self.ensure_worker().is_ok();
            let state = self.state.lock();
            // For want of threads or descriptors nobody may have got any further.
            if state.waiting > 0 || !has_worker || !state.is_closed {
                drop(self.left.wait(state, Some(left.min(LOOK_AGAIN))));
            }
        }
    }

    /// Accepts those who wait in the kernel's backlog, as long as there are descriptors to spare. Says
    /// how many wait to be admitted.
    fn take_backlog(&self) -> usize {
        let descriptors = self.proxy.sessions.descriptors();
        let mut state = self.state.lock();
        while !state.is_closed && state.backlog.len() < BACKLOG {
            let Some(reservation) = descriptors.try_reserve() else { break };
            match self.listener.accept_pending() {
                Ok(client) => state.backlog.push_back((client, reservation)),
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => self.close(&mut state),
                    io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted => {}
                    _ => break,
                },
            }
        }
        state.waiting + state.backlog.len() + usize::from(!state.is_closed)
    }

    /// Closes the port, and those who have been accepted and still wait. Says how many they were.
    pub(super) fn close_all(&self) -> usize {
        let mut state = self.state.lock();
        self.close(&mut state);
        mem::take(&mut state.backlog).len()
    }

    fn close(&self, state: &mut State) {
        if !mem::replace(&mut state.is_closed, true) {
            self.listener.close();
        }
    }
}

/// A worker that waits for a client, until this is dropped, also by a panic.
struct Waiting<'a>(&'a Arc<Acceptor>);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.leave();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli;
    use crate::server::{Inherited, Notify, Server};
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::panic::{AssertUnwindSafe, catch_unwind};

    /// One that came back after the drain has counted who is left would take a client, and lose it.
    #[test]
    fn after_a_stop_no_worker_comes_back_to_a_listener_that_another_process_has() {
        for owner in [Owner::Tabi, Owner::Manager] {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let inherited =
                Inherited { listeners: vec![(listener, owner)], ..Inherited::default() };
            let arguments = cli::parse(["tabi"]).unwrap();
            let server = Server::bind(arguments.config, inherited, Notify::default()).unwrap();
            let acceptor = Arc::clone(&server.acceptors[0]);
            assert!(acceptor.rejoin().is_some(), "it serves");
            server.stopper().stop();
            // Who waits in the backlog of a port of its own is served first.
            assert_eq!(acceptor.rejoin().is_some(), owner == Owner::Tabi);
            acceptor.close_all();
        }
    }

    #[test]
    fn a_worker_that_panics_while_it_waits_leaves_another_one_waiting() {
        let arguments = cli::parse(["tabi", "127.0.0.1:0"]).unwrap();
        let server =
            Server::bind(arguments.config, Inherited::default(), Notify::default()).unwrap();
        let acceptor = Arc::clone(&server.acceptors[0]);
        acceptor.state.lock().waiting = 1;
        catch_unwind(AssertUnwindSafe(|| {
            let _waiting = Waiting(&acceptor);
            panic!("as this test wants it");
        }))
        .unwrap_err();
        let mut client = TcpStream::connect(server.addresses()[0]).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        client.write_all(b"\x05\x01\x00").unwrap();
        let mut selection = [0; 2];
        client.read_exact(&mut selection).unwrap();
        assert_eq!(selection, [0x05, 0x00]);
        server.stopper().stop();
        acceptor.close_all();
    }
}
