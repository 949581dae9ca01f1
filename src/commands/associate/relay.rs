//! An association at work: one thread that waits for datagrams and sends them on.

use std::fmt::Display;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};

use super::batch::{Batch, HEADROOM};
use super::budget::Budget;
use super::destinations::{Destinations, Way};
use super::dropped::{Dropped, Reason};
use super::port::Port;
use super::route::Route;
use super::sockets::is_unreachable;
use super::{AssociateClient, Association};
use crate::access::policy::Policy;
use crate::commands::resolver::Resolver;
use crate::sessions::Ending;
use crate::socks5::{Address, Datagram, append_header};
use crate::system::poll::poll;
use crate::system::waker::Waker;

/// An association ends when nothing has gone either way for this long (RFC 4787 REQ-5).
const IDLE: Duration = Duration::from_secs(300);

/// An association that has nothing to do for this long gives its memory back.
const KEEP_MEMORY: Duration = Duration::from_secs(5);

/// Bytes of payload, and datagrams, since the last turn.
#[derive(Default)]
struct Moved {
    up: usize,
    down: usize,
    datagrams_up: u64,
    datagrams_down: u64,
}

impl Moved {
    fn count_up(&mut self, payload: &[u8]) {
        self.up += payload.len();
        self.datagrams_up += 1;
    }

    fn count_down(&mut self, bytes: usize) {
        self.down += bytes;
        self.datagrams_down += 1;
    }
}

/// An association at work.
pub(super) struct Relay<'a> {
    association: Association,
    client: &'a AssociateClient<'a>,
    /// Where the client sends from, as far as that is known.
    port: Port,
    batch: Batch,
    route: Route,
    /// Who replied last, and the header for that.
    source: Option<SocketAddr>,
    header: Vec<u8>,
    moved: Moved,
    now: Instant,
    /// When a datagram was last sent on.
    active: Instant,
    destinations: Destinations<'a>,
    dropped: Dropped,
}

impl<'a> Relay<'a> {
    pub(super) fn new(
        association: Association,
        client: &'a AssociateClient<'a>,
        rules: &'a Policy,
        names: &'a Resolver,
        budget: &'static Budget,
    ) -> Self {
        let now = Instant::now();
        Relay {
            association,
            client,
            port: Port::new(client.announced_port()),
            batch: Batch::default(),
            route: Route::default(),
            source: None,
            header: Vec::new(),
            moved: Moved::default(),
            now,
            active: now,
            destinations: Destinations::new(client, rules, names, budget),
            dropped: Dropped::default(),
        }
    }

    /// Waits for something to do, and does it. False when the association is over.
    pub(super) fn turn(&mut self) -> bool {
        let Ok(ready) = self.wait() else { return false };
        self.now = Instant::now();
        if ready.control && self.has_ended() {
            return false;
        }
        if ready.waker {
            self.destinations.waker().map(Waker::clear);
        }
        self.follow_new_rules();
        while let Some((to, payloads)) = self.destinations.take_found(self.now) {
            for payload in payloads {
                self.send(&to, &payload);
            }
        }
        if ready.inside {
            self.take_from_client();
        }
        for index in (0..2).filter(|&index| ready.outside[index]) {
            self.take_from_outside(index);
        }
        self.count()
    }

    /// Waits until there is something to read, a lookup is over, or time is up.
    fn wait(&self) -> io::Result<Ready> {
        let idle = self.now.saturating_duration_since(self.active);
        let left = if self.batch.is_released() { IDLE.saturating_sub(idle) } else { KEEP_MEMORY };
        let pause = self.destinations.pause(self.now).map_or(left, |pause| pause.min(left));
        let outside = &self.association.outside;
        let control = self.client.account.stream();
        let mut polled = [
            PollFd::new(control, PollFlags::IN),
            PollFd::new(&self.association.inside, PollFlags::IN),
            PollFd::new(outside.socket(0), PollFlags::IN),
            PollFd::new(outside.socket(1), PollFlags::IN),
            PollFd::new(control, PollFlags::IN),
        ];
        let mut count = 2 + outside.count();
        if let Some(waker) = self.destinations.waker() {
            polled[count] = PollFd::new(waker, PollFlags::IN);
            count += 1;
        }
        poll(&mut polled[..count], pause)?;
        let news = |index: usize| !polled[index].revents().is_empty();
        let waker = self.destinations.waker().is_some() && news(count - 1);
        let outside = [news(2), outside.count() == 2 && news(3)];
        Ok(Ready { control: news(0), inside: news(1), outside, waker })
    }

    /// Whether the client's connection has ended. What the client sends on it means nothing.
    fn has_ended(&self) -> bool {
        let mut ignored = [0; 512];
        match recv(self.client.account.stream(), &mut ignored, RecvFlags::DONTWAIT) {
            Ok((_, length)) => length == 0,
            Err(Errno::AGAIN | Errno::INTR) => false,
            Err(_) => {
                self.client.account.end(Ending::ClientReset);
                true
            }
        }
    }

    /// Counts what has moved. False when nothing has for too long.
    fn count(&mut self) -> bool {
        let account = self.client.account;
        let moved = std::mem::take(&mut self.moved);
        if moved.datagrams_up + moved.datagrams_down > 0 {
            account.client().count(moved.up);
            account.client().count_datagrams(moved.datagrams_up);
            account.target().count(moved.down);
            account.target().count_datagrams(moved.datagrams_down);
            self.active = self.now;
            // Let those whom the batch has woken run first. The next batch is larger then, which
            // saves a fifth of the processor time with many associations.
            std::thread::yield_now();
            return true;
        }
        let idle = self.now.saturating_duration_since(self.active);
        if idle >= KEEP_MEMORY {
            self.batch.release();
            self.destinations.rest();
            self.route.forget();
        }
        if idle >= IDLE {
            account.end(Ending::IdleTimeout);
        }
        idle < IDLE
    }

    /// Nothing that was sent after the rules have changed goes where the earlier ones let it.
    fn follow_new_rules(&mut self) {
        if self.destinations.follow_new_rules() {
            self.route.forget();
        }
    }

    /// Sends on what the client has sent.
    fn take_from_client(&mut self) {
        self.settle();
        let mut batch = std::mem::take(&mut self.batch);
        batch.receive(&self.association.inside);
        self.follow_new_rules();
        for (from, bytes) in batch.iter_mut() {
            let bytes = &bytes[HEADROOM..];
            let known = (self.port.address() == Some(from))
                .then(|| self.route.follow(bytes, self.now))
                .flatten();
            if let Some((target, payload)) = known {
                if self.association.outside.send(payload, target).is_ok() {
                    self.moved.count_up(payload);
                    continue;
                }
                self.route.forget();
            }
            self.take_up(bytes, from);
        }
        self.batch = batch;
    }

    /// Judges a datagram that is not like the one before.
    fn take_up(&mut self, bytes: &[u8], from: SocketAddr) {
        let is_ours = from.ip().to_canonical() == self.client.account.peer().ip();
        if !is_ours || !self.port.admits(from) {
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
        if let Some((target, until)) = self.send(&datagram.destination, datagram.payload) {
            self.route.keep(datagram.header, target, until);
        }
    }

    /// Keeps to the client's port once it has had time to change. From then on the kernel drops what
    /// others send; what it has queued before that is found by comparing addresses.
    fn settle(&mut self) {
        if let Some(address) = self.port.due(self.now) {
            if self.association.inside.connect(address).is_ok() {
                self.port = Port::Settled(address);
            }
        }
    }

    /// Sends `payload` to the first address of its destination that has a route, if it need not wait.
    /// Says which that was, and until when further ones go there, too.
    fn send(&mut self, to: &Address, payload: &[u8]) -> Option<(SocketAddr, Option<Instant>)> {
        let mut tried = 0;
        loop {
            let (target, until) = match self.destinations.judge(to, payload, self.now) {
                Way::To(target, until) => (target, until),
                Way::Waits => return None,
                Way::Nowhere(reason) => {
                    self.drop(reason, to);
                    return None;
                }
            };
            if self.destinations.admit(target.ip()) || self.destinations.are_unanswered() {
                // The table may have forgotten the last replier to make room, or it is to be told
                // of its next reply.
                self.source = None;
            }
            match self.association.outside.send(payload, target) {
                Ok(()) => {
                    self.moved.count_up(payload);
                    return Some((target, until));
                }
                Err(error) => {
                    tried += 1;
                    if !is_unreachable(&error) || !self.destinations.try_next(to, tried) {
                        self.drop(Reason::NotSent, to);
                        return None;
                    }
                }
            }
        }
    }

    fn drop(&mut self, reason: Reason, about: &dyn Display) {
        self.dropped.tell(reason, self.client.account.peer(), about);
    }

    /// Sends the client what has come from socket `index` of those outside.
    fn take_from_outside(&mut self, index: usize) {
        let mut batch = std::mem::take(&mut self.batch);
        batch.receive(self.association.outside.socket(index));
        for (from, bytes) in batch.iter_mut() {
            let Some(client) = self.port.address().filter(|_| self.finds_header(from)) else {
                self.drop(Reason::Unasked, &from);
                continue;
            };
            let start = HEADROOM - self.header.len();
            bytes[start..HEADROOM].copy_from_slice(&self.header);
            // What has become too long with its header fails here.
            let sent = match self.port {
                Port::Settled(_) => self.association.inside.send(&bytes[start..]),
                Port::Unknown | Port::Announced(_) | Port::Latest(..) => {
                    self.association.inside.send_to(&bytes[start..], client)
                }
            };
            match sent {
                Ok(_) => self.moved.count_down(bytes.len() - HEADROOM),
                Err(_) => self.drop(Reason::NotReturned, &from),
            }
        }
        self.batch = batch;
    }

    /// Makes the header for what has come from `from`. False if the client has not sent there.
    fn finds_header(&mut self, from: SocketAddr) -> bool {
        if self.source == Some(from) {
            return true;
        }
        if !self.destinations.admits(from.ip()) {
            return false;
        }
        if self.destinations.are_unanswered() && self.destinations.heard(from.ip()) {
            self.route.forget();
        }
        self.source = Some(from);
        self.header.clear();
        append_header(from, &mut self.header);
        true
    }
}

struct Ready {
    control: bool,
    inside: bool,
    outside: [bool; 2],
    waker: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::associate::tests::{names, session, with_association};
    use std::sync::Arc;

    #[test]
    fn five_minutes_of_nothing_end_it() {
        let (session, _control) = session("127.0.0.1:1");
        let account = Arc::clone(session.account());
        with_association(session, names(&[]), |association, client, rules, names| {
            let mut relay = Relay::new(
                association,
                client,
                rules,
                names,
                &crate::commands::associate::budget::ALL,
            );
            relay.now = relay.active + IDLE.checked_sub(Duration::from_millis(1)).unwrap();
            assert!(relay.count());
            relay.now += Duration::from_millis(1);
            relay.moved.datagrams_up = 1;
            assert!(relay.count(), "a datagram without payload is one, too");
            relay.now += IDLE;
            assert!(!relay.count());
        })();
        assert_eq!(account.ending(), Some(Ending::IdleTimeout));
    }
}
