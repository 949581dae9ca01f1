//! UDP ASSOCIATE: a relay of datagrams that lives and dies with its TCP connection (RFC 1928
//! section 7).
//!
//! One thread serves an association: it waits on the client's connection and on both sockets, and
//! sends on what has come, without queues. Only names are looked up elsewhere, on the partner
//! thread.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use log::{Level, log};
use rustix::buffer::spare_capacity;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv, recvfrom};

use self::lookups::{Answer, Lookups};
use self::recent::Recent;
use self::sockets::Outside;
use crate::connect::Source;
use crate::pool::Partner;
use crate::rules::{Permit, Refusal, Rules};
use crate::sessions::{Account, Ending};
use crate::socks5::{Address, Command, Datagram, Host, LONGEST_HEADER, Request, append_header};
use crate::users::Identity;

mod lookups;
mod recent;
mod sockets;

/// An association ends when nothing has gone either way for this long (RFC 4787 REQ-5).
const IDLE: Duration = Duration::from_secs(300);

/// An association that has nothing to do for this long gives its buffer back.
const KEEP_BUFFER: Duration = Duration::from_secs(5);

/// What precedes a datagram in the buffer: room for the header that a reply gets.
const HEADROOM: usize = LONGEST_HEADER;

/// No UDP datagram has more octets.
const LONGEST_DATAGRAM: usize = 65_535;

/// Datagrams that are taken from one socket before the others have their turn.
const BATCH: usize = 64;

/// Destinations that the rules have judged for one association, by address or by name, and
/// addresses that may reply to it.
const MOST_DESTINATIONS: usize = 2048;

/// How long the addresses of a name are good for: the system's resolver does not say.
const NAME_LASTS: Duration = Duration::from_secs(60);

/// How long a name that led nowhere is not looked up again.
const FAILURE_LASTS: Duration = Duration::from_secs(5);

/// Whom an association is for.
pub struct Client<'a> {
    /// The session: the client's address and connection, and what it has moved.
    pub account: &'a Account,
    /// Who the client is.
    pub identity: &'a Identity,
    /// DST.ADDR and DST.PORT: where the client will send from, as far as it knows.
    pub announced: &'a Address,
}

impl Client<'_> {
    /// The port that the client has to send from, if it has said so. One that announces an address
    /// other than its own is behind an address translation, and its port says as little.
    fn announced_port(&self) -> Option<u16> {
        let here = match self.announced.host {
            Host::Ip(ip) => ip.is_unspecified() || ip == self.account.client.ip(),
            Host::Name(_) => false,
        };
        (here && self.announced.port != 0).then_some(self.announced.port)
    }
}

/// The sockets of an association. They close when it is dropped.
pub struct Association {
    /// Towards the client, connected to it once it is known.
    inside: UdpSocket,
    /// Towards everyone else.
    outside: Outside,
    bound: SocketAddr,
}

impl Association {
    /// Binds the sockets: the client's to the address of its connection here, `control`, the others
    /// to `source`.
    ///
    /// # Errors
    ///
    /// Whatever the system has against it.
    ///
    /// # Panics
    ///
    /// If `permit` is for another command.
    pub fn open(permit: &Permit, source: Source, control: SocketAddr) -> io::Result<Self> {
        assert_eq!(permit.command(), Command::UdpAssociate);
        let inside = sockets::inside(control)?;
        let bound = inside.local_addr()?;
        Ok(Association { inside, outside: Outside::open(source)?, bound })
    }

    /// The address to which the client is to send.
    #[must_use]
    pub fn bound(&self) -> SocketAddr {
        self.bound
    }

    /// Relays datagrams until the client's connection ends, or [`Account::end`] ends it, or nothing
    /// has moved for five minutes.
    pub fn serve(self, client: &Client<'_>, rules: &Rules, partner: &Partner) {
        let mut relay = Relay {
            association: self,
            client,
            rules,
            port: client.announced_port(),
            client_address: None,
            buffer: Vec::new(),
            route: Route::default(),
            header: Vec::new(),
            source: None,
            judged: Recent::new(MOST_DESTINATIONS),
            answerers: Recent::new(MOST_DESTINATIONS),
            denied: false,
            moved: Moved::default(),
            now: Instant::now(),
            active: Instant::now(),
            lookups: Lookups::new(partner),
        };
        while relay.turn() {}
    }
}

/// What the rules said of a destination as the client spells it.
#[derive(Clone, Copy)]
struct Judgement {
    /// Where its datagrams go; nowhere if it is closed or its name leads nowhere.
    target: Option<SocketAddr>,
    /// When it is to be judged anew, if ever.
    until: Option<Instant>,
}

/// Where the latest datagram of the client went: usually the next one goes there, too.
#[derive(Default)]
struct Route {
    header: Vec<u8>,
    judgement: Option<(SocketAddr, Option<Instant>)>,
}

impl Route {
    /// The target and the payload of a datagram that has the same header as the latest.
    fn follow<'d>(&self, octets: &'d [u8], now: Instant) -> Option<(SocketAddr, &'d [u8])> {
        let (target, until) = self.judgement?;
        let payload = octets.strip_prefix(self.header.as_slice())?;
        until.is_none_or(|until| now < until).then_some((target, payload))
    }
}

/// Octets of payload since the last turn.
#[derive(Default)]
struct Moved {
    up: u64,
    down: u64,
    datagrams: u64,
}

/// An association at work. The sockets are dropped before the lookups, which may keep one waiting.
struct Relay<'a> {
    association: Association,
    client: &'a Client<'a>,
    rules: &'a Rules,
    port: Option<u16>,
    /// Where the client sends from, once it has.
    client_address: Option<SocketAddr>,
    /// [`HEADROOM`], and behind it the latest datagram. Empty while there is nothing to do.
    buffer: Vec<u8>,
    route: Route,
    header: Vec<u8>,
    /// Whose header is in the headroom, and where it begins.
    source: Option<(SocketAddr, usize)>,
    judged: Recent<Address, Judgement>,
    answerers: Recent<SocketAddr, ()>,
    denied: bool,
    moved: Moved,
    now: Instant,
    /// When a datagram was last sent on.
    active: Instant,
    lookups: Lookups<'a>,
}

impl Relay<'_> {
    /// Waits for something to do, and does it. False when the association is over.
    fn turn(&mut self) -> bool {
        let Ok(ready) = self.wait() else { return false };
        self.now = Instant::now();
        if ready.control && self.has_ended() {
            return false;
        }
        if let Some(answer) = self.lookups.take() {
            self.answer(answer);
        }
        if self.buffer.is_empty() && ready.any() {
            self.buffer.reserve_exact(HEADROOM + LONGEST_DATAGRAM);
            self.buffer.resize(HEADROOM, 0);
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
        let left = if self.buffer.is_empty() { IDLE.saturating_sub(idle) } else { KEEP_BUFFER };
        let pause = self.lookups.pause(self.now).map_or(left, |pause| pause.min(left));
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

    /// Whether the client's connection has. What the client says there means nothing.
    fn has_ended(&self) -> bool {
        let mut ignored = [0; 512];
        match recv(self.client.account.stream(), &mut ignored, RecvFlags::DONTWAIT) {
            Ok((_, length)) => length == 0,
            Err(error) => !matches!(error, Errno::AGAIN | Errno::INTR),
        }
    }

    /// Tells what has moved. False when nothing has for too long.
    fn count(&mut self) -> bool {
        let account = self.client.account;
        let moved = std::mem::take(&mut self.moved);
        if moved.datagrams > 0 {
            account.up_counter().fetch_add(moved.up, Ordering::Relaxed);
            account.down_counter().fetch_add(moved.down, Ordering::Relaxed);
            self.active = self.now;
            return true;
        }
        let idle = self.now.saturating_duration_since(self.active);
        if idle >= KEEP_BUFFER {
            self.buffer = Vec::new();
            self.source = None;
        }
        if idle >= IDLE {
            account.end(Ending::IdleTimeout);
        }
        idle < IDLE
    }

    /// Sends on what the client has sent.
    fn take_from_client(&mut self) {
        for _ in 0..BATCH {
            let from = match receive(&self.association.inside, &mut self.buffer) {
                Ok(from) => from,
                Err(Errno::AGAIN) => return,
                // The client's port was closed, perhaps for a moment only.
                Err(_) => continue,
            };
            let octets = &self.buffer[HEADROOM..];
            if self.client_address == Some(from)
                && let Some((target, payload)) = self.route.follow(octets, self.now)
            {
                if self.association.outside.send(payload, target).is_ok() {
                    self.moved.up += payload.len() as u64;
                    self.moved.datagrams += 1;
                }
            } else {
                let buffer = std::mem::take(&mut self.buffer);
                self.take_up(&buffer[HEADROOM..], from);
                self.buffer = buffer;
            }
        }
    }

    /// Judges a datagram that is not like the one before.
    fn take_up(&mut self, octets: &[u8], from: SocketAddr) {
        let from_port = self.client_address.map(|address| address.port()).or(self.port);
        if canonical(from).ip() != self.client.account.client.ip()
            || from_port.is_some_and(|port| port != from.port())
        {
            return;
        }
        let Ok(datagram) = Datagram::read(octets) else { return };
        if datagram.frag != 0 {
            return;
        }
        if self.client_address.is_none() {
            // From here on the kernel drops what others send here. What it has taken already, the
            // comparison of addresses finds.
            if self.association.inside.connect(from).is_err() {
                return;
            }
            self.client_address = Some(from);
        }
        let Some(judgement) = self.judgement(&datagram) else { return };
        let Some(target) = judgement.target else { return };
        self.send_first(&[target], datagram.payload);
        self.route.header.clear();
        self.route.header.extend_from_slice(datagram.header);
        self.route.judgement = Some((target, judgement.until));
    }

    /// What is known of a datagram's destination; a name that is not known is looked up, and the
    /// datagram waits.
    fn judgement(&mut self, datagram: &Datagram<'_>) -> Option<Judgement> {
        let destination = &datagram.destination;
        if let Some(judgement) = self.judged.get(destination)
            && judgement.until.is_none_or(|until| self.now < until)
        {
            return Some(*judgement);
        }
        let lasts = matches!(destination.host, Host::Name(_)).then(|| self.now + NAME_LASTS);
        let judgement = match self.permit(destination, None) {
            Ok(permit) => Judgement { target: permit.addresses().first().copied(), until: lasts },
            Err(Refusal::Denied(_)) => Judgement { target: None, until: lasts },
            Err(Refusal::Lookup(())) => {
                self.lookups.add(destination.clone(), datagram.payload);
                return None;
            }
        };
        self.judged.insert(destination.clone(), judgement);
        Some(judgement)
    }

    /// Asks the rules. A name of which nothing is `found` yet is judged as far as that goes, and
    /// then is a failed lookup.
    fn permit(
        &mut self,
        destination: &Address,
        found: Option<Vec<SocketAddr>>,
    ) -> Result<Permit, Refusal<()>> {
        let Client { account, identity, .. } = self.client;
        let request = Request { command: Command::UdpAssociate, destination: destination.clone() };
        let permit = self.rules.permit(identity, account.client, &request, |_, _| found.ok_or(()));
        if let Err(Refusal::Denied(denied)) = &permit {
            // A client that scans is not to fill the log.
            let level = if self.denied { Level::Debug } else { Level::Info };
            log!(
                level,
                "denied client={} command=UDP dest={destination} why={:?}",
                account.client,
                denied.to_string()
            );
            self.denied = true;
        }
        permit
    }

    /// Sends what has waited for a lookup to the first of the addresses that takes it.
    fn answer(&mut self, answer: Answer) {
        let Answer { destination, addresses, payloads } = answer;
        let permit = self.permit(&destination, Some(addresses));
        let mut targets = permit.as_ref().map_or(&[][..], Permit::addresses);
        let mut target = None;
        for payload in payloads {
            target = self.send_first(targets, &payload);
            targets = target.as_slice();
        }
        let lasts = if target.is_some() { NAME_LASTS } else { FAILURE_LASTS };
        let judgement = Judgement { target, until: Some(self.now + lasts) };
        self.judged.insert(destination, judgement);
    }

    /// Sends `payload` to the first of `targets` that has a route, and says which that was. All of
    /// those that were tried may reply.
    fn send_first(&mut self, targets: &[SocketAddr], payload: &[u8]) -> Option<SocketAddr> {
        targets.iter().copied().find(|&target| {
            let answerer = canonical(target);
            if self.answerers.get(&answerer).is_none() {
                self.answerers.insert(answerer, ());
                // The one whose header is at hand may be the one that was forgotten for this one.
                self.source = None;
            }
            let sent = self.association.outside.send(payload, target).is_ok();
            if sent {
                self.moved.up += payload.len() as u64;
                self.moved.datagrams += 1;
            }
            sent
        })
    }

    /// Sends the client what has come from socket `index` of those outside.
    fn take_from_outside(&mut self, index: usize) {
        for _ in 0..BATCH {
            let socket = self.association.outside.socket(index);
            let from = match receive(socket, &mut self.buffer) {
                Ok(from) => from,
                Err(Errno::AGAIN) => return,
                Err(_) => continue,
            };
            let Some(start) = self.header(from) else { continue };
            // What has become too long with its header is dropped here.
            if self.association.inside.send(&self.buffer[start..]).is_ok() {
                self.moved.down += (self.buffer.len() - HEADROOM) as u64;
                self.moved.datagrams += 1;
            }
        }
    }

    /// Puts the header for what has come from `from` into the headroom, and says where it begins.
    /// `None` if the client has not sent anything there.
    fn header(&mut self, from: SocketAddr) -> Option<usize> {
        if let Some((source, start)) = self.source
            && source == from
        {
            return Some(start);
        }
        self.answerers.peek(&canonical(from))?;
        self.header.clear();
        append_header(from, &mut self.header).ok()?;
        let start = HEADROOM - self.header.len();
        self.buffer[start..HEADROOM].copy_from_slice(&self.header);
        self.source = Some((from, start));
        Some(start)
    }
}

/// Receives one datagram behind the headroom of `buffer`.
fn receive(socket: &UdpSocket, buffer: &mut Vec<u8>) -> Result<SocketAddr, Errno> {
    buffer.truncate(HEADROOM);
    let (_, _, from) = recvfrom(socket, spare_capacity(buffer), RecvFlags::DONTWAIT)?;
    from.and_then(|from| from.try_into().ok()).ok_or(Errno::INVAL)
}

/// The address as a client spells it: not IPv4-mapped, without scope.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

struct Ready {
    control: bool,
    inside: bool,
    outside: [bool; 2],
}

impl Ready {
    fn any(&self) -> bool {
        self.inside || self.outside != [false; 2]
    }
}
