//! An association at work: one thread that waits for datagrams and sends them on.

use std::fmt::Display;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};

use super::batch::{Batch, HEADROOM};
use super::client::{AssociateClient, Port};
use super::destinations::Destinations;
use super::dropped::{DropCounts, DropLog, Reason};
use super::inside::Inside;
use super::outside::{Outside, is_unreachable};
use super::targets::Route;
use crate::access::policy::Policy;
use crate::commands::resolver::Resolver;
use crate::sessions::Ending;
use crate::system::poll::poll;
use crate::system::waker::Waker;
use crate::wire::address::Address;
use crate::wire::socks5::{Datagram, append_header};

/// An association that has nothing to do for this long gives its memory back.
const KEEP_MEMORY: Duration = Duration::from_secs(5);

/// After so many bytes on its connection, which mean nothing, a client is not heard there for so long: a
/// gigabyte of them took 2.9 s of processor time.
const MOST_IGNORED: usize = 512;
const IGNORED_FOR: Duration = Duration::from_millis(10);

/// An association at work.
pub(super) struct DatagramRelay<'a> {
    /// Towards the client.
    inside: Inside,
    /// Towards everyone else.
    outside: Outside,
    client: &'a AssociateClient<'a>,
    /// Where the client sends from, as far as that is known.
    port: Port,
    batch: Batch,
    header: Vec<u8>,
    now: Instant,
    /// When the client's connection is looked at again.
    control_from: Instant,
    /// When a datagram was last sent on.
    active: Instant,
    destinations: Destinations<'a>,
    dropped: DropLog<'a>,
}

impl<'a> DatagramRelay<'a> {
    pub(super) fn new(
        (inside, outside): (Inside, Outside),
        client: &'a AssociateClient<'a>,
        policy: &'a Policy,
        resolver: &'a Arc<Resolver>,
        dropped: &'a DropCounts,
    ) -> Self {
        let now = Instant::now();
        DatagramRelay {
            inside,
            outside,
            client,
            port: client.port(),
            batch: Batch::default(),
            header: Vec::new(),
            now,
            control_from: now,
            active: now,
            destinations: Destinations::new(client, policy, resolver),
            dropped: DropLog::new(dropped),
        }
    }

    /// Waits for something to do, and does it. False when the association is over.
    pub(super) fn turn(&mut self) -> bool {
        let Ok([control, inside, waker, outside @ ..]) = self.wait() else { return false };
        self.now = Instant::now();
        if control && self.has_ended() {
            return false;
        }
        if waker {
            self.destinations.waker().map(Waker::clear);
        }
        self.follow_changes();
        while let Some((to, payloads)) = self.destinations.take_resolved(self.now) {
            for payload in payloads {
                self.send(&to, &payload);
            }
        }
        if inside {
            self.take_from_client();
        }
        for index in (0..3).filter(|&index| outside[index]) {
            self.take_from_outside(index);
        }
        self.is_alive()
    }

    /// What rules have said, and which addresses were this machine's, counts for nothing once it is
    /// otherwise.
    fn follow_changes(&mut self) {
        if self.destinations.follow_changes() {
            self.outside.forget();
        }
    }

    /// Waits until there is something to read, a lookup is over, or time is up. Says what is ready: the
    /// client's connection, the socket towards it, the waker of lookups, the sockets outside.
    fn wait(&self) -> io::Result<[bool; 6]> {
        let idle = self.now.saturating_duration_since(self.active);
        let left = self.client.idle_timeout.saturating_sub(idle);
        let left = if self.batch.is_released() { left } else { left.min(KEEP_MEMORY) };
        let left = self.destinations.time_left(self.now).map_or(left, |lookup| lookup.min(left));
        let ignored = self.control_from.saturating_duration_since(self.now);
        let (left, of_control) = match ignored {
            Duration::ZERO => (left, PollFlags::IN),
            ignored => (left.min(ignored), PollFlags::empty()),
        };
        let control = self.client.session.stream();
        let absent = PollFd::new(control, PollFlags::empty());
        let readable = |socket| PollFd::new(socket, PollFlags::IN);
        let waker = self.destinations.waker().map(|waker| PollFd::new(waker, PollFlags::IN));
        let outside = self.outside.sockets.each_ref();
        let [ipv4, ipv6, here] = outside.map(|socket| socket.as_ref().map(readable));
        let mut polled = [
            PollFd::new(control, of_control),
            PollFd::new(&self.inside, PollFlags::IN),
            waker.unwrap_or_else(|| absent.clone()),
            ipv4.unwrap_or_else(|| absent.clone()),
            ipv6.unwrap_or_else(|| absent.clone()),
            here.unwrap_or_else(|| absent.clone()),
        ];
        poll(&mut polled, left)?;
        Ok(polled.map(|polled| !polled.revents().is_empty()))
    }

    /// Whether the client's connection has ended. What the client sends on it means nothing.
    fn has_ended(&mut self) -> bool {
        let mut ignored = [0; MOST_IGNORED];
        match recv(self.client.session.stream(), &mut ignored, RecvFlags::DONTWAIT) {
            Ok((_, length)) => {
                if length == MOST_IGNORED {
                    self.control_from = self.now + IGNORED_FOR;
                }
                length == 0
            }
            Err(Errno::AGAIN | Errno::INTR) => false,
            Err(_) => {
                self.client.session.end(Ending::ClientReset);
                true
            }
        }
    }

    /// False when nothing has moved for too long.
    fn is_alive(&mut self) -> bool {
        let idle = self.now.saturating_duration_since(self.active);
        if idle.is_zero() {
            // Let those whom the batch has woken run first. The next batch is larger then, which
            // saves a fifth of the processor time with many associations.
            std::thread::yield_now();
        }
        if idle >= KEEP_MEMORY {
            self.batch.release();
            self.destinations.forget_verdicts();
        }
        if idle >= self.client.idle_timeout {
            self.client.session.end(Ending::IdleTimeout);
        }
        idle < self.client.idle_timeout
    }

    /// Sends on what the client has sent.
    fn take_from_client(&mut self) {
        self.settle();
        let mut batch = std::mem::take(&mut self.batch);
        let is_settled = matches!(self.port, Port::Settled(_));
        let client = self.client.session.peer().ip();
        if self.inside.receive(&mut batch, client, is_settled) {
            self.unsettle();
        }
        self.follow_changes();
        for (from, bytes) in batch.iter_mut() {
            self.send_on(&bytes[HEADROOM..], from);
        }
        self.batch = batch;
    }

    fn send_on(&mut self, bytes: &[u8], from: SocketAddr) {
        let is_ours = from.ip().to_canonical() == self.client.session.peer().ip();
        if !is_ours || !self.port.admits(from, self.now) {
            return self.drop(Reason::NotTheClient, &from);
        }
        let Ok(datagram) = Datagram::read(bytes) else {
            return self.drop(Reason::Malformed, &from);
        };
        if datagram.frag != 0 {
            return self.drop(Reason::Fragment, &datagram.destination);
        }
        self.port = self.port.after(from, self.now);
        self.settle();
        self.send(&datagram.destination, datagram.payload);
    }

    /// Keeps to the client's port once it has had time to change. From then on the kernel drops what
    /// others send, as a rule; what it has queued before that is found by comparing addresses.
    fn settle(&mut self) {
        if let Some(address) = self.port.due(self.now) {
            if self.inside.settle(address).is_ok() {
                self.port = Port::Settled(address);
            }
        }
    }

    /// Nobody is at the client's port any more, or nobody ever was and its first datagram was forged: hears
    /// any other, unless the client has announced this one.
    fn unsettle(&mut self) {
        if let (Port::Settled(_), Port::Unknown) = (self.port, self.client.port()) {
            self.port = Port::Unknown;
            if self.inside.unsettle().is_err() {
                // The port is somebody else's now.
                self.client.session.end(Ending::Fault);
            }
        }
    }

    /// Sends `payload` to the first address of its destination that has a route, if it need not wait.
    fn send(&mut self, to: &Address, payload: &[u8]) {
        let (session, mut tried) = (self.client.session, 0);
        loop {
            let target = match self.destinations.route(to, payload, self.now) {
                Route::To(_) if tried == 0 && !session.admits(session.client(), payload.len()) => {
                    return self.drop(Reason::OverRate, to);
                }
                Route::To(target) => target,
                Route::Pending => return,
                Route::Dropped(reason) => return self.drop(reason, to),
            };
            match self.outside.send(payload, target) {
                Ok(()) => {
                    session.client().count(payload.len());
                    session.client().count_datagrams(1);
                    self.active = self.now;
                    return;
                }
                Err(error) => {
                    tried += 1;
                    if !is_unreachable(&error) || !self.destinations.try_next(to, tried) {
                        return self.drop(Reason::NotSent, to);
                    }
                }
            }
        }
    }

    fn drop(&mut self, reason: Reason, about: &dyn Display) {
        self.dropped.log(reason, self.client.log, about);
    }

    /// Sends the client what has come from socket `index` of those outside.
    fn take_from_outside(&mut self, index: usize) {
        let Some(socket) = &self.outside.sockets[index] else { return };
        let mut batch = std::mem::take(&mut self.batch);
        batch.receive(socket, usize::MAX);
        for (from, bytes) in batch.iter_mut() {
            self.send_back(bytes, from);
        }
        self.batch = batch;
    }

    /// Sends the client a reply, with space for its header in front.
    fn send_back(&mut self, bytes: &mut [u8], from: SocketAddr) {
        let client = self.port.address().filter(|_| self.destinations.is_reply(from.ip()));
        let Some(client) = client else {
            return self.drop(Reason::Unsolicited, &from);
        };
        let session = self.client.session;
        if !session.admits(session.target(), bytes.len() - HEADROOM) {
            return self.drop(Reason::OverRate, &from);
        }
        self.header.clear();
        append_header(from, &mut self.header);
        let start = HEADROOM - self.header.len();
        bytes[start..HEADROOM].copy_from_slice(&self.header);
        // What has become too long with its header fails here.
        if let Err(error) = self.inside.send(&bytes[start..], client) {
            if error.kind() == ErrorKind::ConnectionRefused {
                self.unsettle();
            }
            return self.drop(Reason::NotReturned, &from);
        }
        session.target().count(bytes.len() - HEADROOM);
        session.target().count_datagrams(1);
        self.active = self.now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::associate::tests::{names, session, with_association};

    #[test]
    fn nothing_either_way_for_the_idle_timeout_ends_it() {
        let (session, _control) = session("127.0.0.1:1");
        let state = Arc::clone(session.state());
        with_association(session, names(&[]), |association, client, policy, names| {
            let sockets = (association.inside, association.outside);
            let dropped = DropCounts::default();
            let mut relay = DatagramRelay::new(sockets, client, policy, names, &dropped);
            relay.now =
                relay.active + client.idle_timeout.checked_sub(Duration::from_millis(1)).unwrap();
            assert!(relay.is_alive());
            relay.now += Duration::from_millis(1);
            // A datagram without payload is one, too.
            relay.send(&Address::from(SocketAddr::from(([127, 0, 0, 1], 9))), b"");
            assert!(relay.is_alive());
            relay.now += client.idle_timeout;
            assert!(!relay.is_alive());
        })();
        assert_eq!(state.ending(), Some(Ending::IdleTimeout));
    }
}
