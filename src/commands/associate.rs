//! UDP ASSOCIATE: a relay of datagrams that lives and dies with its TCP connection (RFC 1928
//! section 7).
//!
//! One thread serves an association: it waits on the client's connection and on both sockets, and
//! sends on what has come, without queues. Only names are looked up elsewhere, on the partner
//! thread.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use log::{Level, log};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};

use self::batch::{Batch, HEADROOM};
use self::lookups::{Answer, Lookups};
use self::recent::Recent;
use self::sockets::Outside;
use crate::access::rules::{Permit, Refusal, Rules};
use crate::access::users::Identity;
use crate::commands::connect::Source;
use crate::sessions::{Account, Ending};
use crate::socks5::{Address, Command, Datagram, Host, Request, append_header};
use crate::system::pool::Partner;

mod batch;
mod lookups;
mod recent;
mod sockets;

/// An association ends when nothing has gone either way for this long (RFC 4787 REQ-5).
const IDLE: Duration = Duration::from_secs(300);

/// An association that has nothing to do for this long gives its memory back.
const KEEP_MEMORY: Duration = Duration::from_secs(5);

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
            Host::Ip(ip) => ip.is_unspecified() || ip == self.account.peer().ip(),
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
        // Every session is counted as two descriptors, and this one has up to two more.
        let _more = client.account.descriptors().hold();
        let mut relay = Relay::new(self, client, rules, partner);
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
    up: usize,
    down: usize,
    datagrams_up: u64,
    datagrams_down: u64,
}

/// An association at work. The sockets are dropped before the lookups, which may keep one waiting.
struct Relay<'a> {
    association: Association,
    client: &'a Client<'a>,
    rules: &'a Rules,
    port: Option<u16>,
    /// Where the client sends from, once it has.
    client_address: Option<SocketAddr>,
    batch: Batch,
    route: Route,
    /// Who replied last, and the header for that.
    source: Option<SocketAddr>,
    header: Vec<u8>,
    judged: Recent<Address, Judgement>,
    answerers: Recent<SocketAddr, ()>,
    denied: bool,
    moved: Moved,
    now: Instant,
    /// When a datagram was last sent on.
    active: Instant,
    lookups: Lookups<'a>,
}

impl<'a> Relay<'a> {
    fn new(
        association: Association,
        client: &'a Client<'a>,
        rules: &'a Rules,
        partner: &'a Partner,
    ) -> Self {
        let now = Instant::now();
        Relay {
            association,
            client,
            rules,
            port: client.announced_port(),
            client_address: None,
            batch: Batch::default(),
            route: Route::default(),
            source: None,
            header: Vec::new(),
            judged: Recent::new(MOST_DESTINATIONS),
            answerers: Recent::new(MOST_DESTINATIONS),
            denied: false,
            moved: Moved::default(),
            now,
            active: now,
            lookups: Lookups::new(partner),
        }
    }

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
        if moved.datagrams_up + moved.datagrams_down > 0 {
            account.client().count(moved.up);
            account.client().count_datagrams(moved.datagrams_up);
            account.target().count(moved.down);
            account.target().count_datagrams(moved.datagrams_down);
            self.active = self.now;
            // Those who were sent something run first, here too: the next batch is larger then, and
            // beside other associations that saves a fifth of the processor time.
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
                    self.moved.datagrams_up += 1;
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
        if let Some(judgement) = self.judged.get(destination) {
            if judgement.until.is_none_or(|until| self.now < until) {
                return Some(*judgement);
            }
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
        let permit = self.rules.permit(identity, account.peer(), &request, |_, _| found.ok_or(()));
        if let Err(Refusal::Denied(denied)) = &permit {
            // A client that scans is not to fill the log.
            let level = if self.denied { Level::Debug } else { Level::Info };
            log!(
                level,
                "denied client={} command=UDP dest={destination} why={:?}",
                account.peer(),
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
                self.moved.up += payload.len();
                self.moved.datagrams_up += 1;
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
                self.moved.datagrams_down += 1;
            }
        }
        self.batch = batch;
    }

    /// Makes the header for what has come from `from`. False if the client has not sent there.
    fn finds_header(&mut self, from: SocketAddr) -> bool {
        if self.source == Some(from) {
            return true;
        }
        if self.answerers.peek(&canonical(from)).is_none() {
            return false;
        }
        self.source = Some(from);
        self.header.clear();
        append_header(from, &mut self.header).is_ok()
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::users::Users;
    use crate::sessions::{Limits, Session, Sessions};
    use crate::socks5::Name;
    use crate::system::descriptors::Descriptors;
    use crate::system::pool::Pool;
    use std::io::Cursor;
    use std::net::{TcpListener, TcpStream};
    use std::sync::mpsc::channel;

    const LONG: Duration = Duration::from_secs(20);
    const LOCAL: &str = "127.0.0.1:0";

    /// A session of a client at `address`, and the client's end of its connection.
    fn session(address: &str) -> (Session, TcpStream) {
        let listener = TcpListener::bind(LOCAL).unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let limits = Limits { per_client: 1, handshake: LONG, idle: LONG };
        let (stream, _) = listener.accept().unwrap();
        let sessions = Sessions::new(limits, Descriptors::raise());
        (sessions.open(address.parse().unwrap(), stream).unwrap(), client)
    }

    /// Runs `job` with an association, beside a partner. What it gives back waits for the result.
    fn with_relay<T: Send + 'static>(
        session: Session,
        job: impl FnOnce(Relay<'_>, &Partner) -> T + Send + 'static,
    ) -> impl FnOnce() -> T {
        let (sender, result) = channel();
        Pool::new(1).slot().unwrap().execute(move |partner| {
            let mut greeting = Cursor::new(b"\x05\x01\x00\0\0".to_vec());
            let ip = session.peer().ip();
            let identity = Users::default().authenticate(&mut greeting, ip).unwrap();
            let rules = Rules::new(&[], vec![]);
            let command = Command::UdpAssociate;
            let permit = rules.permit_open(&identity, session.peer(), command).unwrap();
            let association =
                Association::open(&permit, Source::default(), LOCAL.parse().unwrap()).unwrap();
            let announced = Address { host: Host::Ip([0, 0, 0, 0].into()), port: 0 };
            let client = Client { account: &session, identity: &identity, announced: &announced };
            let relay = Relay::new(association, &client, &rules, partner);
            sender.send(job(relay, partner)).unwrap();
        });
        move || result.recv_timeout(LONG).unwrap()
    }

    fn to(destination: &str, port: u16) -> Datagram<'static> {
        let host = match destination.parse() {
            Ok(ip) => Host::Ip(ip),
            Err(_) => Host::Name(Name::new(destination.into()).unwrap()),
        };
        Datagram { frag: 0, destination: Address { host, port }, header: b"", payload: b"x" }
    }

    #[test]
    fn a_slow_lookup_does_not_stall_the_other_datagrams() {
        let (session, control) = session("127.0.0.1:1");
        let (bound_to, bound) = channel();
        let (release, held) = channel::<()>();
        let ended = with_relay(session, move |mut relay, partner| {
            let (begun_to, begun) = channel();
            let resolver_hangs = partner.start_job(move || {
                begun_to.send(()).unwrap();
                held.recv()
            });
            begun.recv_timeout(LONG).unwrap();
            bound_to.send(relay.association.bound()).unwrap();
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
    fn a_client_elsewhere_sends_nothing_to_this_machine() {
        let (session, _control) = session("192.168.1.7:1");
        with_relay(session, |mut relay, _| {
            for closed in ["127.0.0.1", "::1", "0.0.0.0", "169.254.1.1", "255.255.255.255"] {
                let judgement = relay.judgement(&to(closed, 9)).unwrap();
                assert!(judgement.target.is_none(), "{closed}");
            }
            let open = relay.judgement(&to("192.0.2.1", 9)).unwrap();
            assert_eq!(open.target, Some("192.0.2.1:9".parse().unwrap()));
            let name = to("rebinding.example", 9);
            relay.answer(Answer {
                destination: name.destination.clone(),
                addresses: vec!["127.0.0.1:9".parse().unwrap(), "[::1]:9".parse().unwrap()],
                payloads: vec![b"x".to_vec()],
            });
            assert!(relay.judgement(&name).unwrap().target.is_none());
            assert_eq!(relay.moved.datagrams_up, 0);
        })();
    }

    #[test]
    fn five_minutes_of_nothing_end_it() {
        let (session, _control) = session("127.0.0.1:1");
        let account = std::sync::Arc::clone(session.account());
        with_relay(session, |mut relay, _| {
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

    #[test]
    fn a_datagram_like_the_one_before_goes_the_same_way() {
        let now = Instant::now();
        let target = "192.0.2.1:9".parse().unwrap();
        let mut route = Route { header: b"header".to_vec(), judgement: None };
        assert_eq!(route.follow(b"header", now), None);
        route.judgement = Some((target, None));
        assert_eq!(route.follow(b"headerpayload", now), Some((target, b"payload".as_slice())));
        assert_eq!(route.follow(b"header", now), Some((target, b"".as_slice())));
        assert_eq!(route.follow(b"heade", now), None);
        assert_eq!(route.follow(b"Header", now), None);
        route.judgement = Some((target, Some(now)));
        assert_eq!(route.follow(b"header", now), None, "a name is not good for ever");
    }
}
