//! One side of a session: its connection, what has come from it, and what is true of it now.

use std::net::{SocketAddr, TcpStream};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use portable_atomic::AtomicU64;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::SockRef;

use super::ending::Ending;

/// What a side has concluded is delivered after the session's end, too, to a reader that takes some
/// of it at least once a minute.
pub(super) const DELIVERY: Duration = Duration::from_secs(60);

/// One side of a session: the client's, or the target's. A direction of a tunnel is a pair of them,
/// the source and the sink.
#[derive(Debug)]
pub struct Endpoint {
    /// How the session ends when this side's connection fails.
    failure: Ending,
    connection: OnceLock<(TcpStream, SocketAddr)>,
    sent: AtomicU64,
    datagrams: AtomicU64,
    ended: AtomicBool,
    finishes: AtomicBool,
    blocked: AtomicBool,
}

impl Endpoint {
    pub(super) fn new(failure: Ending) -> Self {
        Endpoint {
            failure,
            connection: OnceLock::new(),
            sent: AtomicU64::new(0),
            datagrams: AtomicU64::new(0),
            ended: AtomicBool::new(false),
            finishes: AtomicBool::new(false),
            blocked: AtomicBool::new(false),
        }
    }

    /// How the session ends when this side's connection fails.
    pub fn failure(&self) -> Ending {
        self.failure
    }

    /// The TCP connection with this side, once there is one.
    pub fn stream(&self) -> Option<&TcpStream> {
        self.connection.get().map(|(stream, _)| stream)
    }

    /// The address of the far end, once there is a connection.
    pub(super) fn address(&self) -> Option<SocketAddr> {
        self.connection.get().map(|(_, address)| *address)
    }

    /// Takes the connection with the far end at `address`.
    pub(super) fn connected(&self, stream: TcpStream, address: SocketAddr) {
        let _ = self.connection.set((stream, address));
    }

    /// The bytes that this side has sent and that were passed on to the other.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Notes that `bytes` of this side were passed on.
    pub fn count(&self, bytes: usize) {
        self.sent.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// The datagrams of UDP among them.
    pub fn datagrams(&self) -> u64 {
        self.datagrams.load(Ordering::Relaxed)
    }

    /// Notes that `datagrams` of this side were passed on.
    pub fn count_datagrams(&self, datagrams: u64) {
        self.datagrams.fetch_add(datagrams, Ordering::Relaxed);
    }

    /// Whether this side's end of file has been passed on.
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

    pub(super) fn is_blocked(&self) -> bool {
        self.blocked.load(Ordering::Relaxed)
    }

    /// Notes whether the end of file has come in, now that the session is ended for idleness.
    pub(super) fn let_finish(&self, other: &Endpoint) {
        self.finishes.store(self.has_concluded(other), Ordering::Release);
    }

    /// Whether this side had sent its end of file when the session was ended for idleness: then all
    /// that it has sent is still passed on.
    pub fn finishes(&self) -> bool {
        self.finishes.load(Ordering::Acquire)
    }

    /// Whether the connection is gone. One that was closed in both directions looks gone, too;
    /// `other` has ended then.
    pub(super) fn is_lost(&self, other: &Endpoint) -> bool {
        let seen = self.poll(PollFlags::ERR | PollFlags::HUP);
        seen.contains(PollFlags::ERR) || (seen.contains(PollFlags::HUP) && !other.has_ended())
    }

    /// Whether there is something to read.
    pub(super) fn has_unread(&self) -> bool {
        !self.poll(PollFlags::IN).is_empty()
    }

    /// Whether the end of file has come in, be it passed on or not.
    pub(crate) fn has_concluded(&self, other: &Endpoint) -> bool {
        #[cfg(target_os = "linux")]
        let has_come = self.poll(PollFlags::RDHUP).contains(PollFlags::RDHUP);
        #[cfg(not(target_os = "linux"))]
        let has_come = self.has_ended();
        has_come && !self.is_lost(other)
    }

    /// What is true of the connection now.
    fn poll(&self, events: PollFlags) -> PollFlags {
        let Some(stream) = self.stream() else { return PollFlags::empty() };
        let mut ready = [PollFd::new(stream, events)];
        match poll(&mut ready, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })) {
            Ok(1..) => ready[0].revents(),
            _ => PollFlags::empty(),
        }
    }

    /// Makes closing the connection send a reset, not an end of file.
    pub(super) fn reset_at_close(&self) {
        if let Some(stream) = self.stream() {
            let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
        }
    }

    /// Makes closing the connection deliver what is on its way, for as long as it is taken.
    pub(super) fn deliver_at_close(&self) {
        if let Some(stream) = self.stream() {
            let socket = SockRef::from(stream);
            let _ = socket.set_linger(None);
            #[cfg(target_os = "linux")]
            let _ = socket.set_tcp_user_timeout(Some(DELIVERY));
        }
    }
}
