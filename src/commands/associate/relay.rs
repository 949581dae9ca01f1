//! An association at work: one thread that waits for datagrams and sends them on.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};

use super::batch::{Batch, HEADROOM};
use super::destinations::{Destinations, Found, canonical};
use super::route::Route;
use super::{Association, Client};
use crate::access::rules::Rules;
use crate::sessions::Ending;
use crate::socks5::{Datagram, append_header};
use crate::system::pool::Partner;

/// An association ends when nothing has gone either way for this long (RFC 4787 REQ-5).
const IDLE: Duration = Duration::from_secs(300);

/// An association that has nothing to do for this long gives its memory back.
const KEEP_MEMORY: Duration = Duration::from_secs(5);

/// Bytes of payload, and datagrams, since the last turn.
#[derive(Default)]
struct Moved {
    up: usize,
    down: usize,
    datagrams: u64,
}

/// An association at work. The sockets are dropped before the lookups, which may keep one waiting.
pub(super) struct Relay<'a> {
    association: Association,
    client: &'a Client<'a>,
    /// The port that the client has announced.
    port: Option<u16>,
    /// Where the client sends from, once it has.
    client_address: Option<SocketAddr>,
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
}

impl<'a> Relay<'a> {
    pub(super) fn new(
        association: Association,
        client: &'a Client<'a>,
        rules: &'a Rules,
        partner: &'a Partner,
    ) -> Self {
        let now = Instant::now();
        Relay {
            association,
            client,
            port: client.announced_port(),
            client_address: None,
            batch: Batch::default(),
            route: Route::default(),
            source: None,
            header: Vec::new(),
            moved: Moved::default(),
            now,
            active: now,
            destinations: Destinations::new(client, rules, partner),
        }
    }

    /// Waits for something to do, and does it. False when the association is over.
    pub(super) fn turn(&mut self) -> bool {
        let Ok(ready) = self.wait() else { return false };
        self.now = Instant::now();
        if ready.control && self.has_ended() {
            return false;
        }
        if let Some(found) = self.destinations.take_found() {
            self.send_found(found);
        }
        if ready.inside {
            self.take_from_client();
        }
        for index in (0..2).filter(|&index| ready.outside[index]) {
            self.take_from_outside(index);
        }
        self.count()
    }

    /// Waits until there is something to read, a lookup may be over, or time is up.
    fn wait(&self) -> Result<Ready, Errno> {
        let idle = self.now.saturating_duration_since(self.active);
        let left = if self.batch.is_released() { IDLE.saturating_sub(idle) } else { KEEP_MEMORY };
        let pause = self.destinations.pause(self.now).map_or(left, |pause| pause.min(left));
        let pause = Timespec::try_from(pause).map_err(|_| Errno::INVAL)?;
        let outside = &self.association.outside;
        let mut polled = [
            PollFd::new(self.client.account.stream(), PollFlags::IN),
            PollFd::new(&self.association.inside, PollFlags::IN),
            PollFd::new(outside.socket(0), PollFlags::IN),
            PollFd::new(outside.socket(1), PollFlags::IN),
        ];
        let count = 2 + outside.count();
        match poll(&mut polled[..count], Some(&pause)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
        let news = |index: usize| !polled[index].revents().is_empty();
        Ok(Ready { control: news(0), inside: news(1), outside: [news(2), news(3)] })
    }

    /// Whether the client's connection has ended. What the client sends on it means nothing.
    fn has_ended(&self) -> bool {
        let mut ignored = [0; 512];
        match recv(self.client.account.stream(), &mut ignored, RecvFlags::DONTWAIT) {
            Ok((_, length)) => length == 0,
            Err(error) => !matches!(error, Errno::AGAIN | Errno::INTR),
        }
    }

    /// Counts what has moved. False when nothing has for too long.
    fn count(&mut self) -> bool {
        let account = self.client.account;
        let moved = std::mem::take(&mut self.moved);
        if moved.datagrams > 0 {
            account.client().count(moved.up);
            account.target().count(moved.down);
            self.active = self.now;
            // Let those whom the batch has woken run first. The next batch is larger then, which
            // saves a fifth of the processor time with many associations.
            std::thread::yield_now();
            return true;
        }
        let idle = self.now.saturating_duration_since(self.active);
        if idle >= KEEP_MEMORY {
            self.batch.release();
        }
        if idle >= IDLE {
            account.end(Ending::IdleTimeout);
        }
        idle < IDLE
    }

    /// Sends on what the client has sent.
    fn take_from_client(&mut self) {
        let mut batch = std::mem::take(&mut self.batch);
        batch.receive(&self.association.inside);
        for (from, octets) in batch.iter_mut() {
            let octets = &octets[HEADROOM..];
            let known = (self.client_address == Some(from))
                .then(|| self.route.follow(octets, self.now))
                .flatten();
            if let Some((target, payload)) = known {
                if self.association.outside.send(payload, target).is_ok() {
                    self.moved.up += payload.len();
                    self.moved.datagrams += 1;
                }
            } else {
                self.take_up(octets, from);
            }
        }
        self.batch = batch;
    }

    /// Judges a datagram that is not like the one before.
    fn take_up(&mut self, octets: &[u8], from: SocketAddr) {
        let from_port = self.client_address.map(|address| address.port()).or(self.port);
        if canonical(from).ip() != self.client.account.peer().ip()
            || from_port.is_some_and(|port| port != from.port())
        {
            return;
        }
        let Ok(datagram) = Datagram::read(octets) else { return };
        if datagram.frag != 0 {
            return;
        }
        if self.client_address.is_none() {
            // From here on the kernel drops what others send. What it has queued before that is
            // found by comparing addresses.
            if self.association.inside.connect(from).is_err() {
                return;
            }
            self.client_address = Some(from);
        }
        let Some(judgement) = self.destinations.judge(&datagram, self.now) else { return };
        let Some(target) = judgement.target else { return };
        self.send_first(&[target], datagram.payload);
        self.route.keep(datagram.header, judgement);
    }

    /// Sends what has waited for a lookup to the first of the addresses that takes it.
    fn send_found(&mut self, found: Found) {
        let Found { destination, targets, payloads } = found;
        let mut targets = targets.as_slice();
        let mut target = None;
        for payload in payloads {
            target = self.send_first(targets, &payload);
            targets = target.as_slice();
        }
        self.destinations.keep(destination, target, self.now);
    }

    /// Sends `payload` to the first of `targets` that has a route, and says which that was. All of
    /// those that were tried may reply.
    fn send_first(&mut self, targets: &[SocketAddr], payload: &[u8]) -> Option<SocketAddr> {
        targets.iter().copied().find(|&target| {
            if self.destinations.admit(target) {
                // The table may have forgotten the last replier to make room.
                self.source = None;
            }
            let sent = self.association.outside.send(payload, target).is_ok();
            if sent {
                self.moved.up += payload.len();
                self.moved.datagrams += 1;
            }
            sent
        })
    }

    /// Sends the client what has come from socket `index` of those outside.
    fn take_from_outside(&mut self, index: usize) {
        let mut batch = std::mem::take(&mut self.batch);
        batch.receive(self.association.outside.socket(index));
        for (from, octets) in batch.iter_mut() {
            if !self.finds_header(from) {
                continue;
            }
            let start = HEADROOM - self.header.len();
            octets[start..HEADROOM].copy_from_slice(&self.header);
            // What has become too long with its header is dropped here.
            if self.association.inside.send(&octets[start..]).is_ok() {
                self.moved.down += octets.len() - HEADROOM;
                self.moved.datagrams += 1;
            }
        }
        self.batch = batch;
    }

    /// Makes the header for what has come from `from`. False if the client has not sent there.
    fn finds_header(&mut self, from: SocketAddr) -> bool {
        if self.source == Some(from) {
            return true;
        }
        if !self.destinations.admits(from) {
            return false;
        }
        self.source = Some(from);
        self.header.clear();
        append_header(from, &mut self.header).is_ok()
    }
}

struct Ready {
    control: bool,
    inside: bool,
    outside: [bool; 2],
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::associate::tests::{LOCAL, LONG, session, with_association};
    use std::net::UdpSocket;
    use std::sync::Arc;
    use std::sync::mpsc::channel;

    #[test]
    fn a_slow_lookup_does_not_stall_the_other_datagrams() {
        let (session, control) = session("127.0.0.1:1");
        let (bound_to, bound) = channel();
        let (release, held) = channel::<()>();
        let ended = with_association(session, move |association, client, rules, partner| {
            let (begun_to, begun) = channel();
            let resolver_hangs = partner.start_job(move || {
                begun_to.send(()).unwrap();
                held.recv()
            });
            begun.recv_timeout(LONG).unwrap();
            bound_to.send(association.bound()).unwrap();
            let mut relay = Relay::new(association, client, rules, partner);
            while relay.turn() {}
            assert!(resolver_hangs.wait().is_some());
        });
        let (client, target) = (UdpSocket::bind(LOCAL).unwrap(), UdpSocket::bind(LOCAL).unwrap());
        client.connect(bound.recv_timeout(LONG).unwrap()).unwrap();
        target.set_read_timeout(Some(LONG)).unwrap();
        let port = target.local_addr().unwrap().port().to_be_bytes();
        let by_name = [b"\0\0\0\x03\x05127.1", &port[..], b"late"].concat();
        let by_address = [b"\0\0\0\x01\x7f\0\0\x01", &port[..], b"at once"].concat();
        client.send(&by_name).unwrap();
        let mut octets = [0; 64];
        for _ in 0..100 {
            client.send(&by_address).unwrap();
            let length = target.recv(&mut octets).unwrap();
            assert_eq!(&octets[..length], b"at once");
        }
        release.send(()).unwrap();
        let length = target.recv(&mut octets).unwrap();
        assert_eq!(&octets[..length], b"late");
        drop(control);
        ended();
    }

    #[test]
    fn five_minutes_of_nothing_end_it() {
        let (session, _control) = session("127.0.0.1:1");
        let account = Arc::clone(session.account());
        with_association(session, |association, client, rules, partner| {
            let mut relay = Relay::new(association, client, rules, partner);
            relay.now = relay.active + IDLE.checked_sub(Duration::from_millis(1)).unwrap();
            assert!(relay.count());
            relay.now += Duration::from_millis(1);
            relay.moved.datagrams = 1;
            assert!(relay.count(), "a datagram without payload is one, too");
            relay.now += IDLE;
            assert!(!relay.count());
        })();
        assert_eq!(account.ending(), Some(Ending::IdleTimeout));
    }
}
