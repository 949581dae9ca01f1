//! One client's whole life, top to bottom: identity, request, permit, dial, reply, relay.

use std::convert::Infallible;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use log::debug;

use crate::access::policy::{Permit, PermitError, Policy, UpstreamRoute};
use crate::access::users::{Identity, Users};
use crate::commands::associate::{self, Association};
use crate::commands::bind::BindListener;
use crate::commands::connect::{self, Dial};
use crate::commands::egress::Egress;
use crate::commands::resolver::Resolver;
use crate::commands::{self, resolve, upstream};
use crate::relay::{self, relay};
use crate::report::{Metrics, Outcome, RateLimitedWarning, RejectionLog, SessionLog};
use crate::sessions::{Ending, Session, Sessions, Stage};
use crate::socks5::{self, Address, Command, Host, Name, Reply, Request};
use crate::system::deadline::Deadline;
use crate::system::ip::canonical;
use crate::system::pool::Partner;

mod admission;
mod client;
mod failure;

use client::ClientStream;
use failure::Failure;

/// How long a client may take to read the last reply before the connection is closed.
const FAREWELL: Duration = Duration::from_secs(1);

/// What all sessions have in common.
pub(crate) struct Proxy {
    /// Those who may use the server.
    pub users: Users,
    /// What they may do.
    pub rules: Policy,
    /// The names that they ask for.
    pub names: Arc<Resolver>,
    /// Those who use it now.
    pub sessions: Arc<Sessions>,
    /// Where outgoing sockets leave this machine.
    pub source: Egress,
    /// The address that clients send datagrams to, if it is not that of their connection.
    pub udp_advertise: Option<IpAddr>,
    /// The ports on which clients send datagrams, if not any.
    pub udp_ports: Option<RangeInclusive<u16>>,
    /// Associations that found none of those free.
    pub udp_ports_used_up: RateLimitedWarning,
    /// From the request to the connection with the target.
    pub connect_timeout: Duration,
    /// Clients that were turned away.
    pub refusals: RejectionLog,
    /// Sessions that have ended.
    pub ends: SessionLog,
    /// Clients that wait because the server is full.
    pub fullness: RateLimitedWarning,
    /// Sessions that were ended because the server was full.
    pub evictions: RateLimitedWarning,
    /// Load balancers, which say for whom they come.
    pub balancers: Vec<IpNet>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
}

impl Proxy {
    /// Serves one client until its session has ended, and tells how it went.
    pub(crate) fn serve(&self, session: &Session, partner: &Partner) {
        let entry = self.ends.entry(session, &self.metrics);
        let result = self.attend(session, partner).map_err(|failure| failure.report());
        match &result {
            Err((message, ..)) if session.ending().is_none() => farewell(session, message),
            _ => {}
        }
        if session.ending() == Some(Ending::Fault) {
            // The entry says so when it is dropped.
            return;
        }
        let (outcome, why) = match (session.ending(), result) {
            (Some(ending), _) => (ending.into(), None),
            (None, Err((_, outcome, why))) => (outcome, why),
            (None, Ok(())) => (Outcome::Closed, None),
        };
        if outcome == Outcome::Evicted {
            self.evictions.log(&format!(
                "ended the session of client={} to make room for others (--max-connections)",
                session.peer()
            ));
        }
        entry.write(outcome, why.as_deref());
    }

    fn attend(&self, session: &Session, partner: &Partner) -> Result<(), Failure> {
        if !relay::ACCEPTED_INHERITS {
            relay::prepare(session.stream())?;
        }
        let mut client = ClientStream::new(session.stream());
        if let Some(reply) = self.carry_out(session, &mut client)? {
            tunnel(session, partner, client, &reply);
        }
        Ok(())
    }

    /// Learns what the client asks for and does it. Gives back the reply that a tunnel begins with, if
    /// there is to be one.
    // A tunnel lives on the stack of `Proxy::serve`. What is over before it or comes after it has a
    // frame of its own, here and below, so that an idle tunnel touches few pages and holds nothing
    // that it does not need.
    #[inline(never)]
    fn carry_out(
        &self,
        session: &Session,
        client: &mut ClientStream<'_>,
    ) -> Result<Option<Reply>, Failure> {
        if self.is_balancer(session.peer()) {
            self.meet(session, client)?;
        }
        let (identity, request) = self.negotiate(session, client)?;
        let context = RequestContext { session, identity: &identity, request: &request };
        match request.command {
            Command::Connect => self.connect(&context, client).map(Some),
            Command::Bind => self.bind(&context, client).map(Some),
            Command::UdpAssociate => self.associate(&context, client).map(|()| None),
            Command::Resolve | Command::ResolvePtr => self.resolve(&context, client).map(|()| None),
        }
    }

    /// Learns who the client is and what it asks for.
    #[inline(never)]
    fn negotiate(
        &self,
        session: &Session,
        client: &mut ClientStream<'_>,
    ) -> Result<(Identity, Request), socks5::Error> {
        let identity = self.users.authenticate(client, session.peer().ip());
        let identity = identity.inspect_err(|error| {
            if let socks5::Error::BadCredentials(user)
            | socks5::Error::IgnoredCredentials(user, _) = error
            {
                session.identified(user);
            }
        })?;
        if let Some(user) = identity.user() {
            session.identified(user);
        }
        let request = Request::read_from(client)?;
        session.requested(request.command, request.destination.clone());
        Ok((identity, request))
    }

    /// Dials.
    #[inline(never)]
    fn connect(
        &self,
        context: &RequestContext<'_>,
        client: &ClientStream<'_>,
    ) -> Result<Reply, Failure> {
        let begin = Instant::now();
        let deadline = Deadline::after(self.connect_timeout);
        let permit = self.permit(context, client, deadline)?;
        let (stream, address, reply) = match permit.route() {
            None => {
                let target = connect::connect(&permit, self.dial(context, client, deadline)?)?;
                if let Host::Name(name) = &context.request.destination.host {
                    self.names.won(name, target.address.ip());
                }
                (target.stream, target.address, Reply::succeeded(target.bound))
            }
            Some(route) => {
                let target = self.go_up(context, client, route, deadline)?;
                (target.stream, target.address, target.reply)
            }
        };
        relay::prepare(&stream).map_err(commands::Error::Unreachable)?;
        context.session.connected(stream, address);
        self.metrics.connected(begin.elapsed());
        Ok(reply)
    }

    /// Goes through the upstream of `route`.
    fn go_up(
        &self,
        context: &RequestContext<'_>,
        client: &ClientStream<'_>,
        route: &UpstreamRoute,
        deadline: Deadline,
    ) -> Result<upstream::Connection, Failure> {
        let dial = self.dial(context, client, deadline)?;
        context.session.goes_via(Arc::clone(route.upstream().shown()));
        let lookup = |name: &_, port| self.lookup(context, client, deadline, name, port);
        let reached = upstream::connect(route, dial, lookup)?;
        if let Host::Name(name) = &route.upstream().address().host {
            self.names.won(name, reached.address.ip());
        }
        Ok(reached)
    }

    fn dial<'a>(
        &'a self,
        context: &RequestContext<'a>,
        client: &'a ClientStream<'_>,
        deadline: Deadline,
    ) -> io::Result<Dial<'a>> {
        let egress = self.source(context.session)?;
        let descriptors = context.session.descriptors();
        let families = self.names.families();
        Ok(Dial { egress, deadline, client: Some(client.waiting()), descriptors, families })
    }

    /// Where what is done for the client leaves this machine.
    fn source(&self, session: &Session) -> io::Result<Egress> {
        if !self.source.same {
            return Ok(self.source);
        }
        Ok(self.source.for_client_at(control_address(session)?))
    }

    /// Listens, replies, and waits for the peer.
    #[inline(never)]
    fn bind(
        &self,
        context: &RequestContext<'_>,
        client: &mut ClientStream<'_>,
    ) -> Result<Reply, Failure> {
        let RequestContext { session, identity, request, .. } = *context;
        let permit = if request.destination.host.is_unspecified() {
            self.rules.permit_open(identity, session.peer(), Command::Bind)?
        } else {
            self.permit(context, client, Deadline::after(self.connect_timeout))?
        };
        let listener =
            BindListener::open(&permit, self.source(session)?, control_address(session)?)?;
        Reply::succeeded(listener.bound()).write_to(client)?;
        let deadline = Deadline::after(2 * self.connect_timeout);
        let (peer, address) =
            listener.wait(client.waiting(), deadline, |peer| self.admits(context, peer))?;
        drop(listener);
        relay::prepare(&peer).map_err(commands::Error::Unreachable)?;
        session.connected(peer, address);
        Ok(Reply::succeeded(address))
    }

    /// Asks the rules, and the resolver if they have to know more than a name.
    #[inline(never)]
    fn permit(
        &self,
        context: &RequestContext<'_>,
        client: &ClientStream<'_>,
        deadline: Deadline,
    ) -> Result<Permit, PermitError<commands::Error>> {
        let RequestContext { session, identity, request, .. } = *context;
        self.rules.permit(identity, session.peer(), request, |name, port| {
            self.lookup(context, client, deadline, name, port)
        })
    }

    fn lookup(
        &self,
        context: &RequestContext<'_>,
        client: &ClientStream<'_>,
        deadline: Deadline,
        name: &Name,
        port: u16,
    ) -> Result<Vec<SocketAddr>, commands::Error> {
        self.names.resolve(
            name,
            port,
            context.session.peer().ip(),
            deadline,
            Some(client.waiting()),
        )
    }

    /// Whether the rules let `peer` in for a client that has context for a host, which may be nobody
    /// in particular. A name stays one, for the rules about names; it is not looked up again.
    fn admits(&self, context: &RequestContext<'_>, peer: SocketAddr) -> bool {
        let RequestContext { session, identity, request, .. } = *context;
        let host = match &request.destination.host {
            host if host.is_unspecified() => Host::Ip(peer.ip()),
            host => host.clone(),
        };
        let destination = Address { host, port: peer.port() };
        let request = Request { command: Command::Bind, destination };
        let lookup = |_: &_, _| Ok::<_, Infallible>(vec![peer]);
        let refusal = self.rules.permit(identity, session.peer(), &request, lookup).err();
        if let Some(PermitError::Denied(denied)) = &refusal {
            debug!("closed a peer of BIND client={} peer={peer}: {denied}", session.peer());
        }
        refusal.is_none()
    }

    /// Answers what the address of a name is, or the name of an address.
    #[inline(never)]
    fn resolve(
        &self,
        context: &RequestContext<'_>,
        client: &ClientStream<'_>,
    ) -> Result<(), Failure> {
        let deadline = Deadline::after(self.connect_timeout);
        let permit = self.permit(context, client, deadline)?;
        let reply = if let Some(route) = permit.route() {
            self.go_up(context, client, route, deadline)?.reply
        } else {
            let peer = context.session.peer().ip();
            resolve::resolve(&permit, &self.names, peer, deadline, client.waiting())?
        };
        let mut message = Vec::new();
        reply.write_to(&mut message)?;
        farewell(context.session, &message);
        Ok(())
    }

    /// Binds, replies and relays datagrams.
    #[inline(never)]
    fn associate(
        &self,
        context: &RequestContext<'_>,
        client: &mut ClientStream<'_>,
    ) -> Result<(), Failure> {
        let RequestContext { session, identity, request, .. } = *context;
        // The destination is where the client will send from: it is no target for the rules.
        let permit = self.rules.permit_open(identity, session.peer(), Command::UdpAssociate)?;
        let control = control_address(session)?;
        let ports = self.udp_ports.as_ref();
        let (source, descriptors) = (self.source(session)?, session.descriptors());
        let association = Association::open(&permit, source, control, ports, descriptors);
        let association = association.map_err(|error| {
            if ports.is_some() && error.kind() == ErrorKind::AddrInUse {
                self.udp_ports_used_up.log("a client had no UDP: all --udp-ports are in use");
            }
            commands::Error::Unreachable(error)
        })?;
        let port = association.bound().port();
        let bound = SocketAddr::new(self.udp_advertise.unwrap_or(control.ip()), port);
        Reply::succeeded(bound).write_to(client)?;
        session.enter(Stage::Relay);
        let client =
            associate::AssociateClient { session, identity, announced: &request.destination };
        association.serve(&client, &self.rules, &self.names);
        Ok(())
    }
}

/// What a client has context for.
#[derive(Clone, Copy)]
struct RequestContext<'a> {
    session: &'a Session,
    identity: &'a Identity,
    request: &'a Request,
}

/// The address at which the client has reached this server.
fn control_address(session: &Session) -> io::Result<SocketAddr> {
    session.stream().local_addr().map(canonical)
}

/// Passes on what the client has sent early, replies, and relays.
fn tunnel(session: &Session, partner: &Partner, client: ClientStream<'_>, reply: &Reply) {
    session.enter(Stage::Relay);
    if client.pass_on_early_bytes(session).is_err() {
        session.end(session.target().failure());
    }
    drop(client);
    relay(session.account(), partner, || reply.write_to(&mut session.stream()));
}

/// Says `words` and gives the client a moment to read them. Closing at once would reset a
/// connection on which the client has sent more than was read, and the words would be lost.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sessions::Limits;
    use crate::system::descriptors::Descriptors;
    use crate::system::pool::Pool;
    use socket2::SockRef;
    use std::net::{Ipv4Addr, TcpListener, TcpStream};
    use std::sync::mpsc::channel;

    pub(super) const LONG: Duration = Duration::from_secs(20);

    pub(super) fn connection() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        near.set_read_timeout(Some(LONG)).unwrap();
        (near, listener.accept().unwrap().0)
    }

    fn proxy() -> Proxy {
        let descriptors = Descriptors::new(100);
        let limits = Limits { sessions: 1, per_client: 1, handshake: LONG, idle: LONG };
        Proxy {
            users: Users::default(),
            rules: Policy::new(&[], Vec::new()),
            names: Resolver::new(LONG, &descriptors),
            sessions: Sessions::new(limits, descriptors),
            source: Egress::default(),
            udp_advertise: None,
            udp_ports: None,
            udp_ports_used_up: RateLimitedWarning::default(),
            connect_timeout: LONG,
            refusals: RejectionLog::default(),
            ends: SessionLog::default(),
            fullness: RateLimitedWarning::default(),
            evictions: RateLimitedWarning::default(),
            balancers: Vec::new(),
            metrics: Arc::default(),
        }
    }

    /// Does `job` with a client's session, and its partner.
    fn attend<J>(stream: TcpStream, job: J) -> (Proxy, Option<Ending>)
    where
        J: FnOnce(&Proxy, &Session, &Partner) + Send + 'static,
    {
        let (proxy, peer) = (proxy(), stream.peer_addr().unwrap());
        let (over_to, over) = channel();
        let started = Pool::new(1).start(move |partner| {
            let session = proxy.admit(stream, peer).unwrap();
            job(&proxy, &session, partner);
            let ending = session.ending();
            drop(session);
            over_to.send((proxy, ending)).unwrap();
        });
        started.unwrap();
        over.recv_timeout(LONG).expect("the session ends")
    }

    #[test]
    fn a_target_that_resets_before_the_early_bytes_is_not_a_client_that_leaves() {
        let (mut client, stream) = connection();
        let (target, outgoing) = connection();
        client.write_all(b"request, and early bytes").unwrap();
        SockRef::from(&target).set_linger(Some(Duration::ZERO)).unwrap();
        drop(target);
        outgoing.peek(&mut [0]).expect_err("the target has reset the connection");
        let bound = SocketAddr::from((Ipv4Addr::LOCALHOST, 9));
        let (_, ending) = attend(stream, move |_, session, partner| {
            session.connected(outgoing, bound);
            let mut client = ClientStream::new(session.stream());
            client.read_exact(&mut [0; 7]).unwrap();
            tunnel(session, partner, client, &Reply::succeeded(bound));
        });
        assert_eq!(ending, Some(Ending::TargetReset));
        let error = client.read(&mut [0]).expect_err("the client sees no clean end");
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    }

    #[test]
    fn a_session_whose_partner_panics_has_failed_and_is_counted_once() {
        let (_client, stream) = connection();
        let (proxy, _) = attend(stream, |proxy, session, partner| {
            session.end(Ending::Fault);
            proxy.serve(session, partner);
        });
        let counted: Vec<_> = proxy.metrics.outcomes().filter(|(_, count)| *count > 0).collect();
        assert_eq!(counted, [("failed", 1)]);
    }
}
