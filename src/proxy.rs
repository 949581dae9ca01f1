//! One client's whole life, top to bottom: identity, request, permit, dial, reply, relay.

use std::convert::Infallible;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use log::debug;

use crate::access::rules::{Permit, Refusal, Rules};
use crate::access::users::{Identity, Users};
use crate::commands::associate::{self, Association};
use crate::commands::bind::Door;
use crate::commands::connect::{self, Source};
use crate::commands::lookup;
use crate::proxy_protocol::{self, Header};
use crate::relay::{self, relay};
use crate::report::{Lookup, Metrics, Outcome, Refusals, Refused, line};
use crate::sessions::{Session, Sessions, Stage, TooMany};
use crate::socks5::{self, Address, Command, Host, Reply, Request};
use crate::system::pool::Partner;

mod client;
mod failure;

use client::Client;
use failure::Failure;

/// How long a client may take to read a failing reply before the connection is closed.
const FAREWELL: Duration = Duration::from_secs(1);

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
    /// Load balancers, which say for whom they come.
    pub balancers: Vec<IpNet>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
}

impl Proxy {
    /// Whether the client at `peer` is served, as far as that can be said yet: a load balancer has
    /// still to say for whom it comes. The log tells of one that is not.
    pub fn serves(&self, peer: SocketAddr) -> bool {
        self.is_balancer(peer) || self.serves_client(peer)
    }

    fn is_balancer(&self, peer: SocketAddr) -> bool {
        self.balancers.iter().any(|net| net.contains(&peer.ip()))
    }

    fn serves_client(&self, peer: SocketAddr) -> bool {
        if !self.rules.serves(peer.ip()) {
            self.metrics.refused(Refused::Network);
            self.refusals.log(&format!(
                "turned away client={peer}: it is in no network that is served (--allow-from)"
            ));
            return false;
        }
        if let Some(left) = self.users.turned_away(peer.ip()) {
            self.metrics.refused(Refused::Penalty);
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
        let session = if self.is_balancer(peer) {
            self.sessions.open_for_balancer(peer, stream)
        } else {
            match self.sessions.open(peer, stream) {
                Ok(session) => session,
                Err(too_many) => return self.turn_away(peer, &too_many),
            }
        };
        let mut client = Client::new(session.stream());
        let outcome = match self.meet(&session, &mut client) {
            Ok(true) => self.attend(&session, client, partner),
            Ok(false) => return,
            Err(error) => Err(error.into()),
        };
        match &outcome {
            Err(failure) if session.ending().is_none() => {
                farewell(&session, &failure.last_words());
            }
            _ => {}
        }
        let (outcome, why) = match (session.ending(), outcome) {
            (Some(ending), _) => (ending.into(), None),
            (None, Err(failure)) => failure.outcome(),
            (None, Ok(())) => (Outcome::Closed, None),
        };
        self.metrics.ended(session.request().map(|(command, _)| *command), outcome);
        line::log_end(&session, outcome, why.as_deref());
    }

    fn turn_away(&self, client: SocketAddr, too_many: &TooMany) {
        self.metrics.refused(Refused::PerClient);
        self.refusals.log(&format!(
            "turned away client={client}: it has {} connections already (--max-per-client)",
            too_many.limit
        ));
    }

    /// Learns from a load balancer for whom it comes, and whether that client is served: the same is
    /// asked as of one that has come itself. The log tells of one that is not.
    #[inline(never)]
    fn meet(
        &self,
        session: &Session,
        client: &mut Client<'_>,
    ) -> Result<bool, proxy_protocol::Error> {
        if !self.is_balancer(session.peer()) {
            return Ok(true);
        }
        let balancer = session.peer();
        let Header::Client(mut client) = Header::read_from(client)? else {
            return Ok(self.serves_client(balancer));
        };
        if client.ip().is_loopback() {
            // It is on the balancer's machine, which may be another one than this.
            client.set_ip(balancer.ip());
        }
        if !self.serves_client(client) {
            return Ok(false);
        }
        let rehomed = session.rehome(client);
        Ok(rehomed.inspect_err(|too_many| self.turn_away(client, too_many)).is_ok())
    }

    fn attend(
        &self,
        session: &Session,
        mut client: Client<'_>,
        partner: &Partner,
    ) -> Result<(), Failure> {
        if !relay::ACCEPTED_INHERITS {
            relay::prepare(session.stream())?;
        }
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
        let identity = self.users.authenticate(client, session.peer().ip());
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
        let begin = Instant::now();
        let deadline = begin + self.connect_timeout;
        let permit = self.permit(asked, &client, deadline)?;
        let target = connect::connect(&permit, self.source, deadline, client.watched())?;
        relay::prepare(&target.stream)?;
        asked.session.connected(target.stream, target.address);
        self.metrics.connected(begin.elapsed());
        tunnel(asked, client, Reply::succeeded(target.bound))
    }

    /// Listens, replies, waits for the peer, replies again and relays.
    #[inline(never)]
    fn bind(&self, asked: &Asked<'_>, mut client: Client<'_>) -> Result<(), Failure> {
        let Asked { session, identity, request, .. } = *asked;
        let permit = if request.destination.host.is_unspecified() {
            self.rules.permit_open(identity, session.peer(), Command::Bind)?
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
        self.rules.permit(identity, session.peer(), request, |name, port| {
            let has_left = || client.watched().is_some_and(connect::has_left);
            let found = lookup::resolve(name, port, partner, deadline, has_left);
            match &found {
                Ok(_) => self.metrics.looked_up(Lookup::Found),
                Err(lookup::Error::Unresolved(_) | lookup::Error::TimedOut) => {
                    self.metrics.looked_up(Lookup::Failed);
                }
                Err(lookup::Error::ClientLeft) => {}
            }
            found
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
        let refusal = self.rules.permit(identity, session.peer(), &request, lookup).err();
        if let Some(Refusal::Denied(denied)) = &refusal {
            debug!("closed a peer of BIND client={} peer={peer}: {denied}", session.peer());
        }
        refusal.is_none()
    }

    /// Binds, replies and relays datagrams.
    #[inline(never)]
    fn associate(&self, asked: &Asked<'_>, mut client: Client<'_>) -> Result<(), Failure> {
        let Asked { session, identity, request, partner } = *asked;
        // The destination is where the client will send from: it is no target for the rules.
        let permit = self.rules.permit_open(identity, session.peer(), Command::UdpAssociate)?;
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
    client.pass_on_early_bytes(session)?;
    drop(client);
    relay(session.account(), partner, || reply.write_to(&mut session.stream()));
    Ok(())
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
