//! One live session: its two sides, who the client is, what it asked for, and how it ends.

use portable_atomic::AtomicU64;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::{SockRef, TcpKeepalive};

use crate::socks5::{Address, Command};
use crate::system::descriptors::{Descriptors, Held};

/// A peer that says nothing for two minutes is asked whether it is still there, and then every 30 s.
/// After four questions without an answer it is gone: after four minutes in all.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(120);
const KEEPALIVE_EVERY: Duration = Duration::from_secs(30);
const KEEPALIVE_PROBES: u32 = 4;

/// Where in its life a session is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Greeting to request, under one deadline.
    Handshake,
    /// Lookup and connection.
    Dial,
    /// Bytes go both ways.
    Relay,
    /// The failing reply is on its way.
    Farewell,
}

/// Why a session ended before both sides had sent their end of file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The client's connection failed: usually the client reset it.
    ClientReset,
    /// The target's connection failed.
    TargetReset,
    /// Greeting and request took too long.
    HandshakeTimeout,
    /// Nothing moved for too long.
    IdleTimeout,
    /// The server stops.
    Stopped,
}

/// One side of a session: the client's, or the target's. A direction of a tunnel is a pair of them,
/// the source and the sink.
#[derive(Debug)]
pub struct Side {
    /// How the session ends when this side's connection fails.
    failure: Ending,
    connection: OnceLock<(TcpStream, SocketAddr)>,
    sent: AtomicU64,
    datagrams: AtomicU64,
    ended: AtomicBool,
    blocked: AtomicBool,
}

impl Side {
    fn new(failure: Ending) -> Self {
        Side {
            failure,
            connection: OnceLock::new(),
            sent: AtomicU64::new(0),
            datagrams: AtomicU64::new(0),
            ended: AtomicBool::new(false),
            blocked: AtomicBool::new(false),
        }
    }

    /// How the session ends when this side's connection fails.
    #[must_use]
    pub fn failure(&self) -> Ending {
        self.failure
    }

    /// The TCP connection with this side, once there is one.
    #[must_use]
    pub fn stream(&self) -> Option<&TcpStream> {
        self.connection.get().map(|(stream, _)| stream)
    }

    /// The bytes that this side has sent and that were passed on to the other.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Notes that `bytes` of this side were passed on.
    pub fn count(&self, bytes: usize) {
        self.sent.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// The datagrams of UDP among them.
    #[must_use]
    pub fn datagrams(&self) -> u64 {
        self.datagrams.load(Ordering::Relaxed)
    }

    /// Notes that `datagrams` of this side were passed on.
    pub fn count_datagrams(&self, datagrams: u64) {
        self.datagrams.fetch_add(datagrams, Ordering::Relaxed);
    }

    /// Whether this side's end of file has been passed on.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// Notes that this side's end of file is about to be passed on.
    pub fn set_ended(&self) {
        self.ended.store(true, Ordering::Release);
    }

    /// Runs `write`, which writes to this side, and lets the watch know of it: while it waits, nobody
    /// reads from the other side, and the watch looks out for a reset in its stead.
    pub fn while_writing<T>(&self, write: impl FnOnce() -> T) -> T {
        self.blocked.store(true, Ordering::Relaxed);
        let written = write();
        self.blocked.store(false, Ordering::Relaxed);
        written
    }

    fn is_reset(&self) -> bool {
        self.stream().is_some_and(|stream| {
            let mut ready = [PollFd::new(stream, PollFlags::ERR)];
            matches!(poll(&mut ready, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })), Ok(1..))
                && ready[0].revents().contains(PollFlags::ERR)
        })
    }
}

/// What a session's threads and those who watch it know together. It holds the session's two
/// connections: there are no others.
#[derive(Debug)]
pub struct Account {
    pub(super) id: u64,
    /// When the client was accepted.
    pub opened: Instant,
    /// The far end of the client's connection.
    peer: SocketAddr,
    /// For whom it comes, if that is a load balancer that has said so.
    proxied: OnceLock<SocketAddr>,
    client: Side,
    target: Side,
    user: OnceLock<String>,
    request: OnceLock<(Command, Address)>,
    stage: Mutex<Stage>,
    ending: OnceLock<Ending>,
    forced: AtomicBool,
    held: Held,
}

impl Account {
    pub(super) fn new(id: u64, peer: SocketAddr, stream: TcpStream, held: Held) -> Self {
        let client = Side::new(Ending::ClientReset);
        let _ = client.connection.set((stream, peer));
        Account {
            id,
            opened: Instant::now(),
            peer,
            proxied: OnceLock::new(),
            client,
            target: Side::new(Ending::TargetReset),
            user: OnceLock::new(),
            request: OnceLock::new(),
            stage: Mutex::new(Stage::Handshake),
            ending: OnceLock::new(),
            forced: AtomicBool::new(false),
            held,
        }
    }

    /// The client's address; that of a load balancer until it has said for whom it comes.
    #[must_use]
    pub fn peer(&self) -> SocketAddr {
        self.proxied.get().copied().unwrap_or(self.peer)
    }

    pub(super) fn comes_for(&self, client: SocketAddr) {
        let _ = self.proxied.set(client);
    }

    /// The client's side.
    #[must_use]
    pub fn client(&self) -> &Side {
        &self.client
    }

    /// The target's side. It has a connection only once one is made, and none for UDP.
    #[must_use]
    pub fn target(&self) -> &Side {
        &self.target
    }

    /// The client's connection.
    ///
    /// # Panics
    ///
    /// Never: a session begins with it.
    #[must_use]
    pub fn stream(&self) -> &TcpStream {
        self.client.stream().expect("a session begins with its client's connection")
    }

    /// Those of the whole process.
    #[must_use]
    pub fn descriptors(&self) -> &Arc<Descriptors> {
        self.held.of()
    }

    /// The address that was reached, once one was.
    #[must_use]
    pub fn reached(&self) -> Option<SocketAddr> {
        self.target.connection.get().map(|(_, address)| *address)
    }

    /// The name that the client has authenticated with, or failed to: one word of visible ASCII.
    #[must_use]
    pub fn user(&self) -> Option<&str> {
        self.user.get().map(String::as_str)
    }

    /// What the client asked for.
    #[must_use]
    pub fn request(&self) -> Option<&(Command, Address)> {
        self.request.get()
    }

    /// Notes the name that the client has sent, spelled as
    /// [`spell`](crate::access::users::spelling::spell) does.
    pub fn identified(&self, user: &str) {
        let _ = self.user.set(user.into());
    }

    /// Notes what the client asks for.
    pub fn requested(&self, command: Command, destination: Address) {
        let _ = self.request.set((command, destination));
    }

    /// Takes the target's connection.
    pub fn connected(&self, target: TcpStream, address: SocketAddr) {
        let _ = self.target.connection.set((target, address));
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

    /// Whether a direction waits for its sink to take bytes.
    pub(super) fn is_writing(&self) -> bool {
        self.sides().iter().any(|side| side.blocked.load(Ordering::Relaxed))
    }

    pub(super) fn end_if_reset(&self) {
        if let Some(side) = self.sides().into_iter().find(|side| side.is_reset()) {
            self.end(side.failure);
        }
    }

    /// Why the session ended early, if it did.
    #[must_use]
    pub fn ending(&self) -> Option<Ending> {
        self.ending.get().copied()
    }

    /// Ends the session early. Whoever reads from it finds an end of file that is no clean one, and
    /// both ends of a tunnel will see a reset. Only the first ending counts.
    pub fn end(&self, ending: Ending) {
        if self.ending.set(ending).is_err() {
            return;
        }
        if self.target.stream().is_some() {
            self.streams().for_each(reset_at_close);
        }
        for stream in self.streams() {
            // This wakes a reader and puts nothing on the wire.
            let _ = stream.shutdown(Shutdown::Read);
        }
    }

    /// Ends what [`Account::end`] could not: a thread that is blocked in a write. The end of file
    /// that this queues is behind bytes that nobody takes, and the reset overtakes it.
    pub(super) fn end_by_force(&self) {
        if !self.forced.swap(true, Ordering::Relaxed) {
            for stream in self.streams() {
                let _ = stream.shutdown(Shutdown::Both);
            }
        }
    }

    fn sides(&self) -> [&Side; 2] {
        [&self.client, &self.target]
    }

    fn streams(&self) -> impl Iterator<Item = &TcpStream> {
        self.sides().into_iter().filter_map(Side::stream)
    }
}

/// Makes closing `stream` send a reset, not an end of file.
fn reset_at_close(stream: &TcpStream) {
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}
