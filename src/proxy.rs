//! One client's whole life, top to bottom: identity, request, permit, dial, reply, relay, account.

use std::convert::Infallible;
use std::io::{self, BufReader, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use log::{debug, info, warn};

use crate::access::rules::{Denied, Permit, Refusal, Rules};
use crate::access::users::{Identity, Users};
use crate::commands::associate::{self, Association};
use crate::commands::bind::Door;
use crate::commands::connect::{self, Source};
use crate::commands::lookup;
use crate::relay::{self, relay};
use crate::sessions::{Account, Ending, Session, Sessions, Stage};
use crate::socks5::{self, Address, Command, Host, Rep, Reply, Request};
use crate::system::pool::Partner;

/// How long a client may take to read a failing reply before the connection is closed.
const FAREWELL: Duration = Duration::from_secs(1);

/// Octets that are read at once from a client until its request is complete. Most messages fit;
/// one that does not takes a second read.
const HANDSHAKE_BUFFER: usize = 128;

/// What all sessions have in common.
pub struct Proxy {
    /// Those who may use the server.
    pub users: Users,
    /// What they may do.
    pub rules: Rules,
    /// Those who use it now.
    pub sessions: Arc<Sessions>,
    /// Local addresses of outgoing connections.
    pub source: Source,
    /// The address that clients send datagrams to, if it is not that of their connection.
    pub udp_advertise: Option<IpAddr>,
    /// From the request to the connection with the target.
    pub connect_timeout: Duration,
    /// Clients that were turned away.
    pub refusals: Refusals,
}

impl Proxy {
    /// Whether the client at `peer` is served. The log tells of one that is not.
    pub fn serves(&self, peer: SocketAddr) -> bool {
        if !self.rules.serves(peer.ip()) {
            self.refusals.log(&format!(
                "turned away client={peer}: it is in no network that is served (--allow-from)"
            ));
            return false;
        }
        if let Some(left) = self.users.turned_away(peer.ip()) {
            self.refusals.log(&format!(
                "turned away client={peer}: too many wrong passwords, for another {:.1} s (--users)",
                left.as_secs_f32()
            ));
            return false;
        }
        true
    }

    /// Serves one client until its session has ended, and logs how it went.
    pub fn serve(&self, stream: TcpStream, peer: SocketAddr, partner: &Partner) {
        let session = match self.sessions.open(peer, stream) {
            Ok(session) => session,
            Err(too_many) => {
                self.refusals.log(&format!(
                    "turned away client={peer}: it has {} connections already (--max-per-client)",
                    too_many.limit
                ));
                return;
            }
        };
        let outcome = self.attend(&session, partner);
        match &outcome {
            Err(failure) if session.ending().is_none() => {
                farewell(&session, &failure.last_words());
            }
            _ => {}
        }
        log_end(&session, outcome.err().as_ref());
    }

    fn attend(&self, session: &Session, partner: &Partner) -> Result<(), Failure> {
        if !relay::ACCEPTED_INHERITS {
            relay::prepare(session.stream())?;
        }
        let mut client = Client::new(session.stream());
        let (identity, request) = self.negotiate(session, &mut client)?;
        let asked = Asked { session, identity: &identity, request: &request, partner };
        match request.command {
            Command::Connect => self.connect(&asked, client),
            Command::Bind => self.bind(&asked, client),
            Command::UdpAssociate => self.associate(&asked, client),
        }
    }

    /// Learns who the client is and what it asks for.
    #[inline(never)]
    fn negotiate(
        &self,
        session: &Session,
        client: &mut Client<'_>,
    ) -> Result<(Identity, Request), socks5::Error> {
        let identity = self.users.authenticate(client, session.client.ip());
        let identity = identity.inspect_err(|error| {
            if let socks5::Error::BadCredentials(user) = error {
                session.identified(user);
            }
        })?;
        if let Some(user) = identity.user() {
            session.identified(user);
        }
        let request = Request::read_from(client)?;
        session.requested(request.command, request.destination.clone());
        session.enter(Stage::Dial);
        Ok((identity, request))
    }

    /// Dials, replies and relays.
    #[inline(never)]
    fn connect(&self, asked: &Asked<'_>, client: Client<'_>) -> Result<(), Failure> {
        let deadline = Instant::now() + self.connect_timeout;
        let permit = self.permit(asked, &client, deadline)?;
        let target = connect::connect(&permit, self.source, deadline, client.watched())?;
        relay::prepare(&target.stream)?;
        asked.session.connected(target.stream, target.address);
        tunnel(asked, client, Reply::succeeded(target.bound))
    }

    /// Listens, replies, waits for the peer, replies again and relays.
    #[inline(never)]
    fn bind(&self, asked: &Asked<'_>, mut client: Client<'_>) -> Result<(), Failure> {
        let Asked { session, identity, request, .. } = *asked;
        let permit = if request.destination.host.is_unspecified() {
            self.rules.permit_open(identity, session.client, Command::Bind)?
        } else {
            self.permit(asked, &client, Instant::now() + self.connect_timeout)?
        };
        let door = Door::open(&permit, self.source, control_address(session)?)?;
        Reply::succeeded(door.bound()).write_to(&mut client)?;
        let deadline = Instant::now() + 2 * self.connect_timeout;
        let (peer, address) =
            door.wait(session.stream(), deadline, |peer| self.admits(asked, peer))?;
        drop(door);
        relay::prepare(&peer)?;
        session.connected(peer, address);
        tunnel(asked, client, Reply::succeeded(address))
    }

    /// Asks the rules, and the resolver if they have to know more than a name.
    #[inline(never)]
    fn permit(
        &self,
        asked: &Asked<'_>,
        client: &Client<'_>,
        deadline: Instant,
    ) -> Result<Permit, Refusal<lookup::Error>> {
        let Asked { session, identity, request, partner } = *asked;
        self.rules.permit(identity, session.client, request, |name, port| {
            let has_left = || client.watched().is_some_and(connect::has_left);
            lookup::resolve(name, port, partner, deadline, has_left)
        })
    }

    /// Whether the rules let `peer` in for a client that has asked for a host, which may be nobody
    /// in particular. A name stays one, for the rules about names; it is not looked up again.
    fn admits(&self, asked: &Asked<'_>, peer: SocketAddr) -> bool {
        let Asked { session, identity, request, .. } = *asked;
        let host = match &request.destination.host {
            host if host.is_unspecified() => Host::Ip(peer.ip()),
            host => host.clone(),
        };
        let destination = Address { host, port: peer.port() };
        let request = Request { command: Command::Bind, destination };
        let lookup = |_: &_, _| Ok::<_, Infallible>(vec![peer]);
        let refusal = self.rules.permit(identity, session.client, &request, lookup).err();
        if let Some(Refusal::Denied(denied)) = &refusal {
            debug!("closed a peer of BIND client={} peer={peer}: {denied}", session.client);
        }
        refusal.is_none()
    }

    /// Binds, replies and relays datagrams.
    #[inline(never)]
    fn associate(&self, asked: &Asked<'_>, mut client: Client<'_>) -> Result<(), Failure> {
        let Asked { session, identity, request, partner } = *asked;
        // The destination is where the client will send from: it is no target for the rules.
        let permit = self.rules.permit_open(identity, session.client, Command::UdpAssociate)?;
        let control = control_address(session)?;
        let association = Association::open(&permit, self.source, control)
            .map_err(connect::Error::Unreachable)?;
        let port = association.bound().port();
        let bound = SocketAddr::new(self.udp_advertise.unwrap_or(control.ip()), port);
        Reply::succeeded(bound).write_to(&mut client)?;
        drop(client);
        session.enter(Stage::Relay);
        let client =
            associate::Client { account: session, identity, announced: &request.destination };
        association.serve(&client, &self.rules, partner);
        Ok(())
    }
}

/// What a client has asked for, and who serves it.
#[derive(Clone, Copy)]
struct Asked<'a> {
    session: &'a Session,
    identity: &'a Identity,
    request: &'a Request,
    partner: &'a Partner,
}

/// The address at which the client has reached this server.
fn control_address(session: &Session) -> io::Result<SocketAddr> {
    let address = session.stream().local_addr()?;
    Ok(match address.ip().to_canonical() {
        IpAddr::V4(ip) => (ip, address.port()).into(),
        // A link-local address is nothing without its scope.
        IpAddr::V6(_) => address,
    })
}

/// Passes on what the client has sent early, replies, and relays.
fn tunnel(asked: &Asked<'_>, client: Client<'_>, reply: Reply) -> Result<(), Failure> {
    let Asked { session, partner, .. } = *asked;
    session.enter(Stage::Relay);
    client.pass_on_early_octets(session)?;
    drop(client);
    relay(session.account(), partner, || reply.write_to(&mut session.stream()));
    Ok(())
}

/// The client's connection until the relay begins: read through a buffer, written to at once.
struct Client<'a> {
    reader: BufReader<&'a TcpStream>,
}

impl<'a> Client<'a> {
    fn new(stream: &'a TcpStream) -> Self {
        Client { reader: BufReader::with_capacity(HANDSHAKE_BUFFER, stream) }
    }

    /// The connection, if an end of file on it means that the client has gone: one who has sent
    /// octets for its target waits for an answer to them.
    fn watched(&self) -> Option<&'a TcpStream> {
        self.reader.buffer().is_empty().then_some(*self.reader.get_ref())
    }

    /// Sends the target what the client has sent behind its request.
    fn pass_on_early_octets(&self, session: &Session) -> io::Result<()> {
        let early = self.reader.buffer();
        if let (false, Some(mut target)) = (early.is_empty(), session.target()) {
            target.write_all(early)?;
            session
                .up_counter()
                .fetch_add(early.len() as u64, std::sync::atomic::Ordering::Relaxed);
        }
        Ok(())
    }
}

impl Read for Client<'_> {
    fn read(&mut self, octets: &mut [u8]) -> io::Result<usize> {
        if self.reader.buffer().is_empty() {
            // Where cores are scarce the client gets to run, and its message is there when it is
            // asked for: that costs less than to fall asleep and be woken.
            thread::yield_now();
        }
        self.reader.read(octets)
    }
}

impl Write for Client<'_> {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.reader.get_mut().write(octets)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Why a session has come to no relay.
enum Failure {
    Socks(socks5::Error),
    Denied(Denied),
    Lookup(lookup::Error),
    Connect(connect::Error),
}

impl Failure {
    /// What the client is told: the one place where a failing reply is made.
    fn last_words(&self) -> Vec<u8> {
        let mut words = Vec::new();
        let written = match self {
            Failure::Socks(socks5::Error::Socks4) => words.write_all(socks5::SOCKS4_REJECTION),
            Failure::Socks(socks5::Error::Http) => words.write_all(socks5::HTTP_REJECTION),
            Failure::Socks(socks5::Error::NoAcceptableMethod) => {
                socks5::write_selection(None, &mut words)
            }
            Failure::Socks(
                socks5::Error::CredentialsVersion(_) | socks5::Error::BadCredentials(_),
            ) => socks5::write_status(false, &mut words),
            _ => match self.rep() {
                Some(rep) => Reply::failed(rep).write_to(&mut words),
                None => Ok(()),
            },
        };
        written.expect("memory takes every message");
        words
    }

    /// The REP that the client is owed, if it is owed one.
    fn rep(&self) -> Option<Rep> {
        Some(match self {
            Failure::Denied(_) => Rep::NotAllowed,
            Failure::Lookup(lookup::Error::Unresolved(_)) => Rep::HostUnreachable,
            Failure::Lookup(lookup::Error::TimedOut) => Rep::TtlExpired,
            Failure::Connect(connect::Error::Unreachable(error)) => Rep::from(error),
            Failure::Socks(error) => match error {
                socks5::Error::Command(_) => Rep::CommandNotSupported,
                socks5::Error::AddressType(_) => Rep::AddressTypeNotSupported,
                socks5::Error::Name(_) | socks5::Error::RequestVersion(_) => Rep::GeneralFailure,
                socks5::Error::Socks4
                | socks5::Error::Http
                | socks5::Error::NotSocks(_)
                | socks5::Error::NoAcceptableMethod
                | socks5::Error::CredentialsVersion(_)
                | socks5::Error::BadCredentials(_)
                | socks5::Error::Io(_) => return None,
            },
            Failure::Lookup(lookup::Error::ClientLeft)
            | Failure::Connect(connect::Error::ClientLeft) => return None,
        })
    }

    /// A word for the log, and the sentence behind it where there is one.
    fn tell(&self) -> (&'static str, Option<String>) {
        match self {
            Failure::Socks(socks5::Error::Io(_))
            | Failure::Lookup(lookup::Error::ClientLeft)
            | Failure::Connect(connect::Error::ClientLeft) => ("client-left", None),
            Failure::Socks(socks5::Error::BadCredentials(_)) => ("bad-credentials", None),
            Failure::Socks(error) => ("bad-request", Some(error.to_string())),
            Failure::Denied(denied) => ("denied", Some(denied.to_string())),
            Failure::Lookup(lookup::Error::Unresolved(error)) => {
                ("unresolved", Some(error.to_string()))
            }
            Failure::Lookup(lookup::Error::TimedOut) => ("timed-out", None),
            Failure::Connect(connect::Error::Unreachable(error)) => match Rep::from(error) {
                Rep::ConnectionRefused => ("refused", None),
                Rep::NetworkUnreachable => ("network-unreachable", None),
                Rep::HostUnreachable => ("host-unreachable", None),
                Rep::TtlExpired => ("timed-out", None),
                _ => ("failed", Some(error.to_string())),
            },
        }
    }
}

impl From<socks5::Error> for Failure {
    fn from(error: socks5::Error) -> Self {
        Failure::Socks(error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Failure::Socks(error.into())
    }
}

impl From<Refusal<lookup::Error>> for Failure {
    fn from(refusal: Refusal<lookup::Error>) -> Self {
        match refusal {
            Refusal::Denied(denied) => Failure::Denied(denied),
            Refusal::Lookup(error) => Failure::Lookup(error),
        }
    }
}

impl From<Denied> for Failure {
    fn from(denied: Denied) -> Self {
        Failure::Denied(denied)
    }
}

impl From<connect::Error> for Failure {
    fn from(error: connect::Error) -> Self {
        Failure::Connect(error)
    }
}

/// Says `words` and gives the client a moment to read them. Closing at once would reset a
/// connection on which the client has sent more than was read, and the words would be lost.
// A tunnel lives on the stack of `Proxy::serve`. What is over before it or comes after it has a frame
// of its own, here and above, so that an idle tunnel's threads touch two pages each and not three.
#[inline(never)]
fn farewell(session: &Session, words: &[u8]) {
    if words.is_empty() {
        return;
    }
    session.enter(Stage::Farewell);
    let mut stream = session.stream();
    if stream.write_all(words).and_then(|()| stream.shutdown(Shutdown::Write)).is_err() {
        return;
    }
    let deadline = Instant::now() + FAREWELL;
    let mut unread = [0; 1024];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() || stream.set_read_timeout(Some(left)).is_err() {
            return;
        }
        if let Ok(0) | Err(_) = stream.read(&mut unread) {
            return;
        }
    }
}

/// The one line that a session leaves in the log. What the client chose in it was checked to be
/// harmless (host names) or is escaped (user names).
#[inline(never)]
fn log_end(account: &Account, failure: Option<&Failure>) {
    let (outcome, why) = match (account.ending(), failure) {
        (Some(Ending::ClientReset), _) => ("client-reset", None),
        (Some(Ending::TargetReset), _) => ("target-reset", None),
        (Some(Ending::HandshakeTimeout), _) => ("handshake-timeout", None),
        (Some(Ending::IdleTimeout), _) => ("idle-timeout", None),
        (Some(Ending::Stopped), _) => ("stopped", None),
        (None, Some(failure)) => failure.tell(),
        (None, None) => ("closed", None),
    };
    let or_none = |field: Option<String>| field.unwrap_or_else(|| "-".into());
    let line = format!(
        "client={} user={} command={} dest={} reached={} up={} down={} seconds={:.3} outcome={outcome}{}",
        account.client,
        or_none(account.user().map(str::to_owned)),
        or_none(account.request().map(|(command, _)| command.to_string())),
        or_none(account.request().and_then(destination)),
        or_none(account.reached().map(|address| address.to_string())),
        account.up(),
        account.down(),
        account.opened.elapsed().as_secs_f64(),
        why.map(|why| format!(" why={why:?}")).unwrap_or_default(),
    );
    // Port scanners and health checks come and go without a request.
    if outcome == "client-left" && account.request().is_none() {
        debug!("{line}");
    } else if outcome == "bad-credentials" {
        warn!("{line}");
    } else {
        info!("{line}");
    }
}

/// What a session was to reach. For UDP it is many, and DST is where the client sends from.
fn destination((command, destination): &(Command, Address)) -> Option<String> {
    (*command != Command::UdpAssociate).then(|| destination.to_string())
}

/// Logs those who are turned away, but not more than a few a second: they are not to fill a disk.
#[derive(Default)]
pub struct Refusals {
    window: Mutex<Option<Window>>,
}

struct Window {
    since: Instant,
    said: u32,
    hidden: u32,
}

impl Refusals {
    const A_SECOND: u32 = 10;

    fn log(&self, line: &str) {
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        if window.as_ref().is_none_or(|window| window.since.elapsed().as_secs() > 0) {
            if let Some(Window { hidden: hidden @ 1.., .. }) = *window {
                warn!("turned away {hidden} more clients");
            }
            *window = Some(Window { since: Instant::now(), said: 0, hidden: 0 });
        }
        if let Some(window) = window.as_mut() {
            if window.said < Self::A_SECOND {
                window.said += 1;
                warn!("{line}");
            } else {
                window.hidden += 1;
            }
        }
    }
}
