//! Where clients come in: a listener, and the workers that wait at it.
//!
//! Nobody hands a client over. A worker that has nothing to do waits in `accept`, serves the client
//! that it gets, and comes back. The last one to leave calls the next, so that there is always one
//! that waits. Admission stays before everything: a worker that has accepted a client still counts
//! as waiting until that client has a session, so a full server holds a handful of clients, and the
//! others wait in the backlog. A stop takes them out of there, and the workers go on until each has
//! had its turn.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use std::{io, mem};

use log::{debug, info, warn};

use super::backlog::{Accepted, Backlog};
use super::close::MOST_WAITING;
use super::listen::Listener;
use super::stop::Stop;
use crate::proxy::Proxy;
use crate::sessions::Session;
use crate::system::pool::{Partner, Pool};

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
    stop: Arc<Stop>,
    state: Mutex<State>,
    /// Signalled when nobody waits for a client any more.
    left: Condvar,
    /// Who waited in the kernel's backlog when the server was stopped.
    backlog: Backlog,
}

#[derive(Default)]
struct State {
    /// Workers that wait for a client, or for room for one.
    waiting: usize,
    /// The pause before the next attempt, while accepting fails.
    trouble: Option<Duration>,
    /// No thread could be created for the next worker.
    short_of_threads: bool,
    /// The port is closed, or not ours to close.
    is_closed: bool,
}

impl Acceptor {
    pub(super) fn new(
        listener: Arc<Listener>,
        proxy: Arc<Proxy>,
        pool: Arc<Pool>,
        stop: Arc<Stop>,
    ) -> Arc<Self> {
        let state = State { is_closed: listener.outlives(), ..State::default() };
        let (state, left, backlog) = (Mutex::new(state), Condvar::new(), Backlog::default());
        Arc::new(Acceptor { listener, proxy, pool, stop, state, left, backlog })
    }

    /// Makes sure that a worker waits for the next client.
    ///
    /// # Errors
    ///
    /// When the system refuses a thread.
    pub(super) fn open(self: &Arc<Self>) -> io::Result<()> {
        {
            let mut state = self.lock();
            if state.waiting > 0 {
                return Ok(());
            }
            state.waiting = 1;
        }
        let entrance = Arc::clone(self);
        let started = self.pool.start(move |partner| entrance.attend(partner));
        let mut state = self.lock();
        state.short_of_threads = started.is_err();
        state.waiting -= usize::from(started.is_err());
        drop(state);
        if started.is_err() {
            self.left.notify_all();
        }
        started
    }

    /// Serves one client after the other while few others wait for one.
    fn attend(self: &Arc<Self>, partner: &Partner) {
        let mut place = Some(Place(self));
        while let Some(waiting) = place {
            let session = self.next_session();
            drop(waiting);
            let Some(session) = session else { return };
            self.proxy.serve(&session, partner);
            drop(session);
            place = self.come_back();
        }
    }

    /// Waits for a client that is admitted. `None` once the server is stopped and nobody is left.
    fn next_session(&self) -> Option<Session> {
        loop {
            let (stream, peer) = self.next_client()?;
            if let Some(session) = self.proxy.admit(stream, peer) {
                return Some(session);
            }
        }
    }

    fn next_client(&self) -> Option<Accepted> {
        loop {
            match self.listener.accept() {
                Ok(client) => {
                    self.accepted();
                    return Some(client);
                }
                Err(error) if self.stop.is_stopped() => {
                    debug!("the listener is closed: {error}");
                    return self.backlog.next();
                }
                // This client has gone again; the next one may be there already.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {
                    debug!("a client left before it was accepted");
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => self.pause(&error),
            }
        }
    }

    /// Leaves, with a client or after the end. The last one calls the next worker.
    fn leave(self: &Arc<Self>) {
        let is_last = {
            let mut state = self.lock();
            state.waiting -= 1;
            state.waiting == 0
        };
        if is_last {
            self.left.notify_all();
        }
        if is_last && !self.stop.is_stopped() {
            let was_short = self.lock().short_of_threads;
            if let Err(error) = self.open() {
                if !was_short {
                    warn!(
                        "cannot create a thread for the next client; it waits: {error} \
                         (lower --max-connections or raise the system's limit on threads)"
                    );
                }
                self.stop.ask_for_help();
            }
        }
    }

    /// After a stop: accepts those who wait in the kernel's backlog, closes the port behind the last
    /// one, and sees that all are admitted. Says how many still wait at `deadline`.
    pub(super) fn let_in_the_last(self: &Arc<Self>, deadline: Instant) -> usize {
        loop {
            let waiting = self.waiting();
            let left = deadline.saturating_duration_since(Instant::now());
            if waiting == 0 || left.is_zero() {
                return waiting;
            }
            let is_open = self.open().is_ok();
            let _ = self.left.wait_timeout_while(self.lock(), left.min(LOOK_AGAIN), |state| {
                // For want of threads or descriptors nobody may have got any further.
                state.waiting > 0 || !is_open || !state.is_closed
            });
        }
    }

    /// How many wait to be admitted, after a stop.
    fn waiting(&self) -> usize {
        let descriptors = self.proxy.sessions.descriptors();
        let is_closed = self.lock().is_closed;
        let socket = self.listener.own().filter(|_| !is_closed);
        if socket.is_some_and(|socket| self.backlog.take(socket, descriptors)) {
            self.close();
        }
        let state = self.lock();
        state.waiting + self.backlog.len() + usize::from(!state.is_closed)
    }

    /// Closes the port, and those who wait. Says how many they were.
    pub(super) fn turn_away_the_last(&self) -> usize {
        self.close();
        self.backlog.clear()
    }

    fn close(&self) {
        if !mem::replace(&mut self.lock().is_closed, true) {
            self.listener.close();
        }
    }

    /// Waits again, if one more worker is to wait for a client.
    fn come_back(self: &Arc<Self>) -> Option<Place<'_>> {
        let mut state = self.lock();
        let is_wanted = state.waiting < MOST_WAITING;
        state.waiting += usize::from(is_wanted);
        is_wanted.then(|| Place(self))
    }

    fn accepted(&self) {
        if self.lock().trouble.take().is_some() {
            info!("clients are accepted again");
        }
    }

    /// Waits after an error of `accept(2)` that is not the client's: most likely there are no
    /// descriptors.
    fn pause(&self, error: &io::Error) {
        let mut state = self.lock();
        let pause = state.trouble.map_or(SHORTEST_PAUSE, |pause| (2 * pause).min(LONGEST_PAUSE));
        let is_new = state.trouble.replace(pause).is_none();
        drop(state);
        if is_new {
            warn!("cannot accept clients, trying again: {error}");
        }
        self.stop.wait(pause);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The place of a worker that waits for a client. It is given up when this is dropped, also by a panic.
struct Place<'a>(&'a Arc<Acceptor>);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.leave();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli;
    use crate::server::Server;
    use std::io::{Read, Write};
    use std::net::TcpStream;
    use std::panic::{AssertUnwindSafe, catch_unwind};

    #[test]
    fn a_worker_that_panics_while_it_waits_leaves_the_entrance_open() {
        let arguments = cli::parse(["tabi", "127.0.0.1:0"]).unwrap();
        let server = Server::bind(&arguments.config).unwrap();
        let entrance = server.entrances().remove(0);
        entrance.lock().waiting = 1;
        catch_unwind(AssertUnwindSafe(|| {
            let _place = Place(&entrance);
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
        entrance.turn_away_the_last();
    }
}
