//! One live session: its two sides, who the client is, what it asked for, and how it ends.
//!
//! # How a tunnel ends
//!
//! A tunnel is two directions, each from a source to a sink. It ends by itself once both ends of file
//! were passed on. Or [`SessionState::end`] ends it early: a thread for which a side has failed, or the
//! watch over time limits, or whoever needs its place. What the sink of a direction gets then depends on
//! what has come from the source:
//!
//! | the source's end of file | sink after a failure | after an idle timeout | evicted, or the server stops |
//! |---|---|---|---|
//! | has not come | a reset | a reset | a reset |
//! | has come in ([`Endpoint::fin_received`]) | a reset | the rest, by the direction's thread | a reset |
//! | was passed on ([`Endpoint::fin_passed_on`]) | a reset | the rest, by the kernel | the rest, by the kernel |
//!
//! The rest is what the source has sent, and its end of file. A sink that takes nothing of it for
//! [`DELIVERY`] is given up by the kernel, which also makes the thread's write fail. Everything else is a
//! reset: what was cut off never looks complete.
//!
//! Who acts, and in which order:
//!
//! 1. `end` notes why, says what closing each connection will do, and wakes those who read.
//! 2. A thread that is blocked in a write does not see that. The watch ends it when it looks for the
//!    second time ([`SessionState::end_writes`]).
//! 3. The worker takes in what nobody has read where closing would reset what the kernel has still to
//!    deliver ([`SessionState::discard_unread`]), and both connections are closed with the session.
//!
//! Whoever ends the session, passes on an end of file, or brings the connection with the target holds
//! one lock while doing so: each sees what the others have done.

use std::io::{self, Read};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::ptr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use portable_atomic::AtomicU64;
use socket2::{SockRef, TcpKeepalive};

use super::ending::Ending;
use super::endpoint::Endpoint;
use super::rates::Rates;
use crate::system::descriptors::{Descriptors, Reservation};
#[cfg(target_os = "linux")]
use crate::system::queue::unacknowledged;
use crate::system::sync::Mutex;
use crate::wire::address::Address;
use crate::wire::protocol::Protocol;
use crate::wire::request::Command;

/// A peer that says nothing for 90 s is asked whether it is still there, and then every 30 s. After three
/// questions without an answer it is gone: after three minutes in all, before a half-closed session is
/// ended as idle.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(90);
const KEEPALIVE_EVERY: Duration = Duration::from_secs(30);
const KEEPALIVE_PROBES: u32 = 3;

/// The queues of a connection whose reader takes nothing while memory is tight, in bytes.
const SMALL_QUEUE: usize = 64 * 1024;

/// What a reader that is slow gets after the session's end: it takes some of it at least once a minute.
const DELIVERY: Duration = Duration::from_secs(60);

/// More than a receive queue holds, with the limits on its size that systems have.
const MOST_UNREAD: u64 = 64 * 1024 * 1024;

/// What waits in a send queue is not known here.
#[cfg(not(target_os = "linux"))]
fn unacknowledged(_: &TcpStream) -> Option<u32> {
    Some(0)
}

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
    /// What it shares with others. In front: whoever sees its end finds its places free.
    pub rates: Rates,
    pub(super) id: u64,
    /// When the client was accepted.
    pub opened: Instant,
    /// For whom it comes, if that is a load balancer that has said so.
    proxied: OnceLock<SocketAddr>,
    client: Endpoint,
    target: Endpoint,
    protocol: OnceLock<Protocol>,
    user: OnceLock<Arc<str>>,
    request: OnceLock<(Command, Address)>,
    via: OnceLock<Arc<str>>,
    /// The first destination of an association's datagrams.
    first: OnceLock<Box<Address>>,
    destinations: AtomicU64,
    /// Why the first of an association's destinations, or of those that would connect to a BIND, was
    /// denied.
    first_denial: OnceLock<Box<str>>,
    denials: AtomicU64,
    progress: Mutex<Progress>,
    held: Reservation,
}

/// How far a session has come.
#[derive(Debug)]
struct Progress {
    stage: Stage,
    ending: Option<Ending>,
}

impl SessionState {
    pub(super) fn new(id: u64, peer: SocketAddr, stream: TcpStream, held: Reservation) -> Self {
        let client = Endpoint::new(Ending::ClientReset);
        client.connected(stream, peer);
        SessionState {
            rates: Rates::default(),
            id,
            opened: Instant::now(),
            proxied: OnceLock::new(),
            client,
            target: Endpoint::new(Ending::TargetReset),
            protocol: OnceLock::new(),
            user: OnceLock::new(),
            request: OnceLock::new(),
            via: OnceLock::new(),
            first: OnceLock::new(),
            destinations: AtomicU64::new(0),
            first_denial: OnceLock::new(),
            denials: AtomicU64::new(0),
            progress: Mutex::new(Progress { stage: Stage::Handshake, ending: None }),
            held,
        }
    }

    /// The client's address; that of a load balancer until it has said for whom it comes.
    pub fn peer(&self) -> SocketAddr {
        let peer = self.proxied.get().copied().unwrap_or_else(|| self.far_end());
        SocketAddr::new(peer.ip(), peer.port())
    }

    /// The far end of the client's connection, with the scope of a link-local address, which is for the
    /// check alone whether it is served.
    ///
    /// # Panics
    ///
    /// Never, as [`SessionState::stream`].
    pub fn far_end(&self) -> SocketAddr {
        self.client.address().expect("a session begins with its client's connection")
    }

    pub(super) fn set_proxied(&self, client: SocketAddr) {
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
    pub fn user(&self) -> Option<&Arc<str>> {
        self.user.get()
    }

    /// The user who has logged in, if one had to: of SOCKS4 the name is anybody's, and so it is before there
    /// is a request.
    pub fn login(&self) -> Option<&Arc<str>> {
        let proves = self.request().is_some() && self.protocol() != Some(Protocol::Socks4);
        self.user().filter(|_| proves)
    }

    /// What the client speaks, once it has begun to.
    pub fn protocol(&self) -> Option<Protocol> {
        self.protocol.get().copied()
    }

    /// Notes what the client speaks.
    pub fn speaks(&self, protocol: Protocol) {
        let _ = self.protocol.set(protocol);
    }

    /// What the client asked for.
    pub fn request(&self) -> Option<&(Command, Address)> {
        self.request.get()
    }

    /// Notes the name that the client has sent, spelled as
    /// [`spell`](crate::access::users::spelling::spell) does.
    pub fn identified(&self, user: impl Into<Arc<str>>) {
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

    /// Why the first of the destinations or peers was denied that the session has gone on without, and how
    /// many there were.
    pub fn denials(&self) -> Option<(&str, u64)> {
        Some((self.first_denial.get()?, self.denials.load(Ordering::Relaxed)))
    }

    /// Notes that the session goes on without a destination or a peer, and `why`.
    pub fn denied(&self, why: &str) {
        self.first_denial.get_or_init(|| why.into());
        self.denials.fetch_add(1, Ordering::Relaxed);
    }

    /// Takes the target's connection. Either the caller sees an ending now, or whoever ends the session
    /// sees the target.
    pub fn connected(&self, target: TcpStream, address: SocketAddr) {
        let _progress = self.progress.lock();
        self.target.connected(target, address);
    }

    /// From here on whatever closes the connections resets them, the kernel included when this process
    /// dies: only an end of file that was passed on makes the rest of a direction look complete.
    pub fn reset_at_close(&self) {
        self.sides().iter().for_each(|side| side.set_reset_at_close(true));
    }

    /// Notes that the next part of the session's life begins. The last reply is not cut off by a reset.
    pub fn enter(&self, stage: Stage) {
        let mut progress = self.progress.lock();
        progress.stage = stage;
        if stage == Stage::Farewell && progress.ending.is_none() {
            self.client.set_reset_at_close(false);
        }
    }

    pub(super) fn stage(&self) -> Stage {
        self.progress.lock().stage
    }

    pub(super) fn keep_alive(&self) {
        let keepalive = TcpKeepalive::new()
            .with_time(KEEPALIVE_AFTER)
            .with_interval(KEEPALIVE_EVERY)
            .with_retries(KEEPALIVE_PROBES);
        for stream in self.sides().into_iter().filter_map(Endpoint::stream) {
            let _ = SockRef::from(stream).set_tcp_keepalive(&keepalive);
        }
    }

    /// How many bytes are passed on at once: everybody who shares a limit has a turn.
    pub fn portion(&self) -> usize {
        if self.rates.are_limits() { self.rates.portion() } else { usize::MAX }
    }

    /// Waits until so many bytes from `source` may be passed on.
    ///
    /// # Errors
    ///
    /// When the session has ended, and they may not any more.
    pub fn wait_for_turn(&self, source: &Endpoint, bytes: usize) -> io::Result<()> {
        if !self.rates.are_limits() {
            return Ok(());
        }
        let way = self.way(source);
        let is_over = || self.ending().is_some() && !source.is_delivered_after_end();
        // Nobody reads from the source meanwhile: the watch looks out for a reset.
        let sink = self.directions()[way].1;
        sink.while_writing(|| self.rates.wait(way, bytes, is_over))
    }

    /// Whether a datagram from `source` may be passed on: none waits.
    pub fn admits(&self, source: &Endpoint, bytes: usize) -> bool {
        !self.rates.are_limits() || self.rates.book(self.way(source), bytes, false).is_some()
    }

    fn way(&self, source: &Endpoint) -> usize {
        usize::from(!ptr::eq(source, &raw const self.client))
    }

    /// Grows with every byte and every datagram that is passed on, with every end of file, and while somebody
    /// waits for a turn.
    pub(super) fn moved(&self) -> u64 {
        let moved =
            |side: &Endpoint| side.sent() + side.datagrams() + u64::from(side.fin_passed_on());
        self.sides().map(moved).iter().sum::<u64>() + self.rates.waits()
    }

    /// The bytes on their way to both sides that their systems have not acknowledged. `None` where this
    /// system does not say so.
    pub(super) fn unacknowledged(&self) -> Option<u64> {
        let streams = self.sides().into_iter().filter_map(Endpoint::stream);
        streams.map(|stream| unacknowledged(stream).map(u64::from)).sum()
    }

    /// Whether a side has sent its end of file, and all that it has sent was passed on.
    pub(super) fn is_half_closed(&self) -> bool {
        self.directions()
            .iter()
            .any(|(side, other)| side.fin_passed_on() && side.fin_received(other))
    }

    /// Why the session ended early, if it did.
    pub fn ending(&self) -> Option<Ending> {
        self.progress.lock().ending
    }

    /// Ends the session early: see the table above. Whoever reads from it finds an end of file that is no
    /// clean one. Without a target the client has its end of file at once. Only the first ending counts; a
    /// later failure ends what is still delivered.
    pub fn end(&self, ending: Ending) {
        let mut progress = self.progress.lock();
        if progress.ending.is_some() {
            if ending.is_failure() {
                self.sides().iter().for_each(|side| side.set_delivered_after_end(false));
            }
            return;
        }
        progress.ending = Some(ending);
        if self.target.stream().is_none() {
            // Whoever waits for an answer sees this, too, also where the client has sent bytes early.
            self.client.shut_down(Shutdown::Both);
            return;
        }
        for (source, sink) in self.directions() {
            if source.fin_passed_on() && !ending.is_failure() {
                sink.limit_delivery(DELIVERY);
                continue;
            }
            sink.set_reset_at_close(true);
            if ending == Ending::IdleTimeout && source.fin_received(sink) {
                sink.limit_delivery(DELIVERY);
                source.set_delivered_after_end(true);
            } else if !matches!(
                (ending, source.failure),
                (Ending::BadRequest(_), Ending::ClientReset)
            ) {
                // This wakes a reader and puts nothing on the wire. Who has found a request bad has read it
                // itself, and reads what follows once the client is told.
                source.shut_down(Shutdown::Read);
            }
        }
    }

    /// Passes on the end of file that was read from `source`, if it is the source's own.
    ///
    /// The system tells of a reset once: should the other direction have been told while it wrote, this
    /// one finds a mere end of file, and only that the source has no peer any more gives it away. The
    /// source has none either when it was closed in both directions.
    pub fn pass_on_fin(&self, source: &Endpoint, sink: &Endpoint) {
        let progress = self.progress.lock();
        let has_ended = progress.ending.is_some();
        if has_ended && !source.is_delivered_after_end() {
            return;
        }
        if !sink.fin_passed_on() && source.is_disconnected() {
            drop(progress);
            self.end(source.failure);
            return;
        }
        source.set_fin_passed_on();
        // Before the end of file: with a reset at its close a connection drops what is still on its way.
        sink.set_reset_at_close(false);
        sink.shut_down(Shutdown::Write);
        if sink.fin_passed_on() {
            // It may have been concluded without an end of file.
            source.set_reset_at_close(false);
        }
    }

    /// Notes that all of a request was passed on that ends without an end of file, or that its target wants no
    /// more of it, and that nobody reads what the client sends behind it. Closing the target's connection resets
    /// it until the response has ended.
    pub fn conclude_request(&self) {
        let progress = self.progress.lock();
        if progress.ending.is_none() {
            self.client.set_fin_passed_on();
        }
    }

    /// Lets a client be told why its session has ended, if it has been sent nothing yet.
    pub fn is_answered_at_end(&self) -> bool {
        let is_untold =
            matches!(self.ending(), Some(Ending::BadRequest(_))) && self.target.sent() == 0;
        if is_untold {
            self.client.set_reset_at_close(false);
        }
        is_untold
    }

    /// Whether somebody writes to a side, and may wait for it to take the bytes.
    pub(super) fn is_writing(&self) -> bool {
        self.sides().into_iter().any(Endpoint::is_written_to)
    }

    /// Lets the queues of both connections grow no further.
    pub(super) fn limit_queues(&self) {
        for stream in self.sides().into_iter().filter_map(Endpoint::stream) {
            let _ = SockRef::from(stream).set_recv_buffer_size(SMALL_QUEUE);
            let _ = SockRef::from(stream).set_send_buffer_size(SMALL_QUEUE);
        }
    }

    /// Ends a session with a side that is gone and that nobody reads from: because its end of file was
    /// passed on, or because the other side takes no bytes.
    pub(super) fn end_if_lost(&self) {
        for (side, other) in self.directions() {
            if (side.fin_passed_on() || other.is_written_to()) && side.is_lost(other) {
                self.end(side.failure);
            }
        }
    }

    /// Ends the writes of a session that has ended, unless one of them delivers the last bytes. The end of
    /// file that this queues is behind bytes that nobody takes, and the reset overtakes it. The other side
    /// may wait for bytes, and would take an end of file for a clean one.
    pub(super) fn end_writes(&self) {
        let delivers = |side: &&Endpoint| side.is_delivered_after_end() && !side.fin_passed_on();
        if self.sides().iter().any(delivers) {
            return;
        }
        for side in self.sides().into_iter().filter(|side| side.is_written_to()) {
            side.shut_down(Shutdown::Both);
        }
    }

    /// Closing a connection with unread bytes would reset it. Where what was sent to a side is still on
    /// its way, the side's own bytes are taken first. None of this waits: the session was ended.
    #[inline(never)]
    pub fn discard_unread(&self) {
        for (source, sink) in self.directions() {
            if let (true, false, Some(stream)) =
                (source.fin_passed_on(), sink.fin_passed_on(), sink.stream())
            {
                let _ = io::copy(&mut stream.take(MOST_UNREAD), &mut io::sink());
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
}
