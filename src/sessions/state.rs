//! One live session: its two sides, who the client is, what it asked for, and how it ends.

use portable_atomic::AtomicU64;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{Ordering, fence};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use socket2::{SockRef, TcpKeepalive};

use super::ending::Ending;
use super::endpoint::Endpoint;
use crate::socks5::{Address, Command};
use crate::system::descriptors::{Descriptors, Reservation};
#[cfg(target_os = "linux")]
use crate::system::queue::unacknowledged;

/// A peer that says nothing for two minutes is asked whether it is still there, and then every 30 s.
/// After four questions without an answer it is gone: after four minutes in all.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(120);
const KEEPALIVE_EVERY: Duration = Duration::from_secs(30);
const KEEPALIVE_PROBES: u32 = 4;

/// Where in its life a session is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// From the connection to the request, under one deadline.
    Handshake,
    /// Lookup and connection.
    Dial,
    /// Bytes go both ways.
    Relay,
    /// The last reply is on its way.
    Farewell,
}

/// What a session's threads and those who watch it know together. It holds the session's two
/// connections: there are no others.
#[derive(Debug)]
pub struct SessionState {
    pub(super) id: u64,
    /// When the client was accepted.
    pub opened: Instant,
    /// The far end of the client's connection.
    peer: SocketAddr,
    /// For whom it comes, if that is a load balancer that has said so.
    proxied: OnceLock<SocketAddr>,
    client: Endpoint,
    target: Endpoint,
    user: OnceLock<String>,
    request: OnceLock<(Command, Address)>,
    via: OnceLock<Arc<str>>,
    /// The first destination of an association's datagrams.
    first: OnceLock<Box<Address>>,
    destinations: AtomicU64,
    stage: Mutex<Stage>,
    ending: OnceLock<Ending>,
    /// The bytes in both send queues when the watch last looked, or [`UNKNOWN`].
    queued: AtomicU64,
    held: Reservation,
}

/// The send queues have not been looked at.
const UNKNOWN: u64 = u64::MAX;

impl SessionState {
    pub(super) fn new(id: u64, peer: SocketAddr, stream: TcpStream, held: Reservation) -> Self {
        let client = Endpoint::new(Ending::ClientReset);
        client.connected(stream, peer);
        SessionState {
            id,
            opened: Instant::now(),
            peer,
            proxied: OnceLock::new(),
            client,
            target: Endpoint::new(Ending::TargetReset),
            user: OnceLock::new(),
            request: OnceLock::new(),
            via: OnceLock::new(),
            first: OnceLock::new(),
            destinations: AtomicU64::new(0),
            stage: Mutex::new(Stage::Handshake),
            ending: OnceLock::new(),
            queued: AtomicU64::new(UNKNOWN),
            held,
        }
    }

    /// The client's address; that of a load balancer until it has said for whom it comes.
    pub fn peer(&self) -> SocketAddr {
        self.proxied.get().copied().unwrap_or(self.peer)
    }

    pub(super) fn comes_for(&self, client: SocketAddr) {
        let _ = self.proxied.set(client);
    }

    /// The client's side.
    pub fn client(&self) -> &Endpoint {
        &self.client
    }

    /// The target's side. It has a connection only once one is made, and none for UDP.
    pub fn target(&self) -> &Endpoint {
        &self.target
    }

    /// The client's connection.
    ///
    /// # Panics
    ///
    /// Never: a session begins with it.
    pub fn stream(&self) -> &TcpStream {
        self.client.stream().expect("a session begins with its client's connection")
    }

    /// Those of the whole process.
    pub fn descriptors(&self) -> &Arc<Descriptors> {
        self.held.of()
    }

    /// The address that was reached, once one was.
    pub fn reached(&self) -> Option<SocketAddr> {
        self.target.address()
    }

    /// The name that the client has authenticated with, or failed to: one word of visible ASCII.
    pub fn user(&self) -> Option<&str> {
        self.user.get().map(String::as_str)
    }

    /// What the client asked for.
    pub fn request(&self) -> Option<&(Command, Address)> {
        self.request.get()
    }

    /// Notes the name that the client has sent, spelled as
    /// [`spell`](crate::access::users::spelling::spell) does.
    pub fn identified(&self, user: &str) {
        let _ = self.user.set(user.into());
    }

    /// Notes what the client asks for.
    pub(super) fn requested(&self, command: Command, destination: Address) {
        let _ = self.request.set((command, destination));
    }

    /// The upstream that the session goes through, if it goes through one: `HOST:PORT`.
    pub fn via(&self) -> Option<&str> {
        self.via.get().map(|via| &**via)
    }

    /// Notes the upstream that the session goes through.
    pub fn goes_via(&self, upstream: Arc<str>) {
        let _ = self.via.set(upstream);
    }

    /// The first destination that the client has sent a datagram for, and how many destinations there
    /// were. One to which nothing was sent for a while counts anew.
    pub fn destinations(&self) -> Option<(&Address, u64)> {
        Some((self.first.get()?, self.destinations.load(Ordering::Relaxed)))
    }

    /// Notes a further destination of an association's datagrams.
    pub fn asked_for(&self, destination: &Address) {
        self.first.get_or_init(|| Box::new(destination.clone()));
        self.destinations.fetch_add(1, Ordering::Relaxed);
    }

    /// Takes the target's connection.
    pub fn connected(&self, target: TcpStream, address: SocketAddr) {
        self.target.connected(target, address);
        // Either the caller sees an ending now, or whoever ends the session sees the target.
        fence(Ordering::SeqCst);
    }

    /// Notes that the next part of the session's life begins.
    pub fn enter(&self, stage: Stage) {
        *self.stage.lock().unwrap_or_else(PoisonError::into_inner) = stage;
    }

    pub(super) fn stage(&self) -> Stage {
        *self.stage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn keep_alive(&self) {
        let keepalive = TcpKeepalive::new()
            .with_time(KEEPALIVE_AFTER)
            .with_interval(KEEPALIVE_EVERY)
            .with_retries(KEEPALIVE_PROBES);
        for stream in self.streams() {
            let _ = SockRef::from(stream).set_tcp_keepalive(&keepalive);
        }
    }

    /// Grows with every byte that is passed on, and with every end of file.
    pub(super) fn moved(&self) -> u64 {
        self.sides().map(|side| side.sent() + u64::from(side.has_ended())).iter().sum()
    }

    /// Notes that something was passed on, and that the send queues may be longer than they were.
    pub(super) fn forget_queues(&self) {
        self.queued.store(UNKNOWN, Ordering::Relaxed);
    }

    /// Whether the send queues have become shorter since the watch last looked: somebody still reads,
    /// though nothing is passed on. Empty ones are not looked at again; those of which the system has
    /// not told are.
    pub(super) fn queues_shrink(&self) -> bool {
        let before = self.queued.load(Ordering::Relaxed);
        if before == 0 {
            return false;
        }
        #[cfg(target_os = "linux")]
        let told = self.streams().filter_map(unacknowledged).map(u64::from);
        #[cfg(target_os = "linux")]
        let now = told.reduce(|one, other| one + other).unwrap_or(UNKNOWN);
        #[cfg(not(target_os = "linux"))]
        let now = 0;
        self.queued.store(now, Ordering::Relaxed);
        before != UNKNOWN && now < before
    }

    /// Whether a side has sent its end of file, and it was passed on.
    pub(super) fn is_half_closed(&self) -> bool {
        self.sides().iter().any(|side| side.has_ended())
    }

    /// Whether a direction waits for its sink to take bytes.
    pub(super) fn is_writing(&self) -> bool {
        self.sides().iter().any(|side| side.is_blocked())
    }

    /// Whether a direction passes on the last of what its source has sent.
    pub(super) fn is_finishing(&self) -> bool {
        self.sides().iter().any(|side| side.finishes() && !side.has_ended())
    }

    /// Ends a session with a side that is gone and that nobody reads from: because it has ended, or
    /// because the other side takes no bytes.
    pub(super) fn end_if_lost(&self) {
        for (side, other) in self.directions() {
            if (side.has_ended() || other.is_blocked()) && side.is_lost(other) {
                self.end(side.failure());
            }
        }
    }

    /// Why the session ended early, if it did.
    pub fn ending(&self) -> Option<Ending> {
        self.ending.get().copied()
    }

    /// Ends the session early. Whoever reads from it finds an end of file that is no clean one, and
    /// both ends of a tunnel will see a reset. Without a target the client has its end of file at once.
    /// Only the first ending counts.
    ///
    /// Where no side has failed, what a side has concluded with its end of file is delivered; at an
    /// idle timeout even the part that has not been passed on yet.
    pub fn end(&self, ending: Ending) {
        let mut is_first = false;
        self.ending.get_or_init(|| {
            is_first = true;
            if ending == Ending::IdleTimeout {
                // Before anybody sees the ending, and before what it does looks like an end of file.
                for (source, sink) in self.directions() {
                    source.let_finish(sink);
                }
            }
            ending
        });
        if !is_first {
            return;
        }
        fence(Ordering::SeqCst);
        let how = if self.target.stream().is_some() {
            self.sides().iter().for_each(|side| side.reset_at_close());
            self.spare_concluded();
            // This wakes a reader and puts nothing on the wire.
            Shutdown::Read
        } else {
            // Whoever waits for an answer sees this, too, also where the client has sent bytes early.
            Shutdown::Both
        };
        for side in self.sides() {
            if let (Some(stream), false) = (side.stream(), side.finishes()) {
                let _ = stream.shutdown(how);
            }
        }
    }

    /// Takes back the reset of what is only on its way to the end of file. Called by whoever ends a
    /// session and by whoever passes on an end of file, since either may come first.
    pub fn spare_concluded(&self) {
        // Of two who come here at once, one at least sees what the other has done.
        fence(Ordering::SeqCst);
        if self.ending().is_some_and(|ending| !ending.is_failure()) {
            for (source, sink) in self.directions() {
                if source.has_ended() {
                    sink.deliver_at_close();
                }
            }
        }
    }

    /// Ends what [`SessionState::end`] could not: a thread that is blocked in a write. The end of file
    /// that this queues is behind bytes that nobody takes, and the reset overtakes it. The other side
    /// may wait for bytes, and would take an end of file for a clean one.
    pub(super) fn end_by_force(&self) {
        for side in self.sides().into_iter().filter(|side| side.is_blocked()) {
            if let Some(stream) = side.stream() {
                let _ = stream.shutdown(Shutdown::Both);
            }
        }
    }

    /// Each side with the other one.
    pub fn directions(&self) -> [(&Endpoint, &Endpoint); 2] {
        [(&self.client, &self.target), (&self.target, &self.client)]
    }

    fn sides(&self) -> [&Endpoint; 2] {
        [&self.client, &self.target]
    }

    fn streams(&self) -> impl Iterator<Item = &TcpStream> {
        self.sides().into_iter().filter_map(Endpoint::stream)
    }
}
