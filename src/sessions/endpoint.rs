//! One side of a session: its connection, what has come from it, and what is true of it now.

use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use portable_atomic::AtomicU64;
use rustix::event::{PollFd, PollFlags};
use socket2::SockRef;

use super::ending::Ending;
use crate::system::poll::poll;

/// One side of a session: the client's, or the target's. A direction of a tunnel is a pair of them,
/// the source and the sink.
#[derive(Debug)]
pub struct Endpoint {
    /// How the session ends when this side's connection fails.
    pub failure: Ending,
    connection: OnceLock<(TcpStream, SocketAddr)>,
    sent: AtomicU64,
    datagrams: AtomicU64,
    /// This side's end of file was passed on to the other. Set under the session's lock.
    fin_passed_on: AtomicBool,
    /// What this side has sent is passed on though the session has ended. Set under the session's lock.
    delivered_after_end: AtomicBool,
    /// Somebody is writing to this side.
    is_written_to: AtomicBool,
}

impl Endpoint {
    pub(super) fn new(failure: Ending) -> Self {
        Endpoint {
            failure,
            connection: OnceLock::new(),
            sent: AtomicU64::new(0),
            datagrams: AtomicU64::new(0),
            fin_passed_on: AtomicBool::new(false),
            delivered_after_end: AtomicBool::new(false),
            is_written_to: AtomicBool::new(false),
        }
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

    /// Whether this side's end of file was passed on.
    pub fn fin_passed_on(&self) -> bool {
        self.fin_passed_on.load(Ordering::Acquire)
    }

    pub(super) fn set_fin_passed_on(&self) {
        self.fin_passed_on.store(true, Ordering::Release);
    }

    /// Whether what this side has sent is passed on though the session has ended.
    pub fn is_delivered_after_end(&self) -> bool {
        self.delivered_after_end.load(Ordering::Acquire)
    }

    pub(super) fn set_delivered_after_end(&self, is_delivered: bool) {
        self.delivered_after_end.store(is_delivered, Ordering::Release);
    }

    /// Runs `write`, which writes to this side, and lets the watch know of it: while it waits, nobody
    /// reads from the other side, and the watch looks out for a reset in its stead.
    pub fn while_writing<T>(&self, write: impl FnOnce() -> T) -> T {
        self.is_written_to.store(true, Ordering::Relaxed);
        let written = write();
        self.is_written_to.store(false, Ordering::Relaxed);
        written
    }

    pub(super) fn is_written_to(&self) -> bool {
        self.is_written_to.load(Ordering::Relaxed)
    }

    /// Whether the connection has no peer any more: it was reset, or closed in both directions.
    pub(super) fn is_disconnected(&self) -> bool {
        self.stream().is_none_or(|stream| SockRef::from(stream).peer_addr().is_err())
    }

    /// Whether the connection is gone. One that was closed in both directions looks gone, too; the end
    /// of file of `other` was passed on then.
    pub(super) fn is_lost(&self, other: &Endpoint) -> bool {
        let seen = self.poll(PollFlags::ERR | PollFlags::HUP);
        seen.contains(PollFlags::ERR) || (seen.contains(PollFlags::HUP) && !other.fin_passed_on())
    }

    /// Whether there is something to read.
    pub(super) fn has_unread(&self) -> bool {
        !self.poll(PollFlags::IN).is_empty()
    }

    /// Whether this side's end of file has come in, be it passed on or not.
    pub(crate) fn fin_received(&self, other: &Endpoint) -> bool {
        #[cfg(target_os = "linux")]
        let has_come = self.poll(PollFlags::RDHUP).contains(PollFlags::RDHUP);
        #[cfg(not(target_os = "linux"))]
        let has_come = self.fin_passed_on();
        has_come && !self.is_lost(other)
    }

    /// What is true of the connection now.
    fn poll(&self, events: PollFlags) -> PollFlags {
        let Some(stream) = self.stream() else { return PollFlags::empty() };
        let mut polled = [PollFd::new(stream, events)];
        match poll(&mut polled, Duration::ZERO) {
            Ok(()) => polled[0].revents(),
            Err(_) => PollFlags::empty(),
        }
    }

    /// Shuts the connection down in one direction, or in both.
    pub(super) fn shut_down(&self, how: Shutdown) {
        if let Some(stream) = self.stream() {
            let _ = stream.shutdown(how);
        }
    }

    /// Makes closing the connection send a reset, or else deliver what is on its way and an end of file.
    pub(super) fn set_reset_at_close(&self, resets: bool) {
        if let Some(stream) = self.stream() {
            let _ = SockRef::from(stream).set_linger(resets.then_some(Duration::ZERO));
        }
    }

    /// Lets the connection fail once its reader has taken nothing of what waits for it for so long
    /// (`TCP_USER_TIMEOUT`). The kernel sees to that also after the connection was closed.
    pub(super) fn limit_delivery(&self, limit: Duration) {
        #[cfg(target_os = "linux")]
        if let Some(stream) = self.stream() {
            let _ = SockRef::from(stream).set_tcp_user_timeout(Some(limit));
        }
        #[cfg(not(target_os = "linux"))]
        let _ = limit;
    }
}
