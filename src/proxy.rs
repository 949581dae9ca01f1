//! One client's whole life, top to bottom: admission, identity, request, permit, dial, reply, relay.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::access::policy::{Denied, Permit, Policy, UpstreamRoute};
use crate::access::users::{Identity, Users};
use crate::commands::associate::{AssociateClient, Association, DropCounts};
use crate::commands::bind::BindListener;
use crate::commands::connect::{self, Connection, Dial};
use crate::commands::egress::Egress;
use crate::commands::resolver::Resolver;
use crate::commands::{self, resolve, upstream};
use crate::config::Config;
use crate::relay::{self, relay};
use crate::report::{ClientLog, Metrics, Outcome, RateLimitedWarning, Rejection, SessionEntry};
use crate::sessions::{AdmissionError, Ending, Extra, Session, SessionState, Sessions, Stage};
use crate::system::deadline::Deadline;
use crate::system::ip::canonical;
use crate::system::pool::Partner;
use crate::system::timed_stream::TimedStream;
use crate::wire::address::{Address, Host, Name};
use crate::wire::http::Body;
use crate::wire::proxy_protocol::Header;
use crate::wire::refusal::Refusal;
use crate::wire::request::{Command, Request};
use crate::wire::socks5;

mod client;
mod failure;
mod negotiation;

use client::ClientStream;
use failure::Failure;
use negotiation::Negotiated;

/// How long a client may take to read the last reply before the connection is closed.
const LAST_REPLY: Duration = Duration::from_secs(1);

const UDP_PORTS_USED_UP: &str = "a client had no UDP: all --udp-ports are in use";

/// What all sessions have in common.
pub(crate) struct Proxy {
    /// The options of the server.
    pub config: Config,
    /// Those who may use the server.
    pub users: Users,
    /// What they may do.
    pub policy: Policy,
    /// The names that they ask for.
    pub resolver: Arc<Resolver>,
    /// Those who use it now.
    pub sessions: Arc<Sessions>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Datagrams that were dropped.
    pub dropped: DropCounts,
    /// What clients have done.
    pub client_log: ClientLog,
    /// Clients wait because the server is full.
    full: RateLimitedWarning,
    /// Sessions were ended because the server was full.
    evictions: RateLimitedWarning,
    /// Associations found no port of `--udp-ports` free.
    udp_ports_used_up: RateLimitedWarning,
}

/// Why a client is not served: the kind of reason, and what the log says.
type Rejected = (Rejection, String);

impl Proxy {
    /// Serves as `config` says, by `policy`.
    pub(crate) fn new(
        mut config: Config,
        policy: Policy,
        resolver: Arc<Resolver>,
        sessions: Arc<Sessions>,
    ) -> Self {
        // A reload frees the users and rules that it replaces: they are not held here as well.
        config.files = Arc::default();
        Proxy {
            users: Users::new(Arc::clone(policy.in_force()))
                .with_no_password_from(config.no_password_from.clone()),
            client_log: ClientLog::new(config.log_rate_limit),
            config,
            policy,
            resolver,
            sessions,
            metrics: Arc::default(),
            dropped: DropCounts::default(),
            full: RateLimitedWarning::default(),
            evictions: RateLimitedWarning::default(),
            udp_ports_used_up: RateLimitedWarning::default(),
        }
    }

    /// Opens a session for a client that is served and has not had its share. It waits where all places
    /// are taken. A client that is rejected has a line in the log.
    pub(crate) fn admit(&self, stream: TcpStream, peer: SocketAddr) -> Option<Session> {
        let peer = canonical(peer);
        self.metrics.accepted();
        let opened = self.open(stream, peer).inspect_err(|(kind, why)| {
            self.metrics.rejected(*kind);
            self.client_log.turned_away(peer, why);
        });
        opened.ok()
    }

    fn open(&self, stream: TcpStream, peer: SocketAddr) -> Result<Session, Rejected> {
        let is_balancer = self.is_balancer(peer);
        let checked = if is_balancer { Ok(()) } else { self.check(peer) };
        // What is on this machine may be a probe.
        checked.or_else(|why| if is_here(peer, &stream) { Ok(()) } else { Err(why) })?;
        let when_full = || {
            let text = "all connections are in use; further clients wait (--max-connections)";
            self.full.log(text);
        };
        self.sessions.open(peer, is_balancer, stream, when_full).map_err(rejected)
    }

    fn is_balancer(&self, peer: SocketAddr) -> bool {
        self.config.proxy_protocol.iter().any(|net| net.contains(&peer.ip()))
    }

    /// Whether a visitor gets to see the status page: whoever is served as a client, and this machine in
    /// any case. One who is turned away has the same line in the log as a client.
    pub(crate) fn admits_visitor(&self, stream: &TcpStream, visitor: SocketAddr) -> bool {
        let visitor = canonical(visitor);
        let rejection = self.policy.rejection(visitor).filter(|_| !is_here(visitor, stream));
        if let Some(why) = rejection {
            let why = format!("{why} (--allow-from); it came to the status page");
            self.client_log.turned_away(visitor, &why);
        }
        rejection.is_none()
    }

    /// Whether the client is served at all.
    fn check(&self, client: SocketAddr) -> Result<(), Rejected> {
        if let Some(why) = self.policy.rejection(client) {
            return Err((Rejection::Network, format!("{why} (--allow-from)")));
        }
        let Some(left) = self.users.penalty_left(client.ip()) else { return Ok(()) };
        let left = left.as_secs_f32();
        let why = format!("wrong passwords for too many names, for another {left:.1} s (--users)");
        Err((Rejection::Penalty, why))
    }

    /// Has a session that reaches one of `addresses` keep to the limits that match it. Only one that has none
    /// yet can find a place lacking: it would count itself.
    #[inline(never)]
    fn limit(&self, state: &SessionState, addresses: &[SocketAddr]) -> Result<(), Denied> {
        let Some(request) = state.request() else { return Ok(()) };
        loop {
            let generation = self.policy.generation();
            let client = (state.login(), state.peer());
            let is_new = !state.rates.are_set();
            state.rates.set(self.policy.limits(client, request, addresses, is_new)?);
            // Should the rules have changed meanwhile, whoever looks through all sessions for that may have
            // passed this one by.
            if generation == self.policy.generation() {
                return Ok(());
            }
        }
    }

    /// Has all sessions that have their limits keep to those of now.
    pub(crate) fn limit_again(&self) {
        self.sessions.each(|_, state, _| {
            if state.rates.are_set() {
                // There is no error for one that has its places.
                let _ = self.limit(state, state.reached().as_slice());
            }
        });
    }

    /// Serves one client until its session has ended, and logs how it went.
    pub(crate) fn serve(&self, session: &Session, partner: &Partner) {
        let state = session.state();
        let entry = self.client_log.entry(state, &self.metrics);
        let result = self.run(session, partner);
        self.conclude(state, entry, &result);
    }

    /// Tells the client what has failed, and logs how the session went.
    // The tunnel is on the stack of `serve`: what comes after it has a frame of its own.
    #[inline(never)]
    fn conclude(
        &self,
        state: &SessionState,
        entry: SessionEntry<'_>,
        result: &Result<(), Failure>,
    ) {
        let refusal = match result {
            Err(failure) if state.ending().is_none() => failure.refusal.as_ref(),
            _ => Some(&Refusal::Malformed).filter(|_| state.is_answered_at_end()),
        };
        if let (Some(protocol), Some(refusal)) = (state.protocol(), refusal) {
            close_with(state, &protocol.refusal(refusal));
        }
        let (outcome, why) = match (state.ending(), result) {
            (Some(ending), _) => (ending.into(), ending.why()),
            (None, Err(failure)) => (failure.outcome, failure.why.as_deref()),
            (None, Ok(())) => (Outcome::Closed, None),
        };
        if let Some(Ending::Evicted(why)) = state.ending() {
            let client = state.peer();
            self.evictions.log(&format!("ended the session of client={client} {why}"));
        }
        entry.write(outcome, why);
    }

    fn run(&self, session: &Session, partner: &Partner) -> Result<(), Failure> {
        let state = session.state();
        if !relay::ACCEPTED_INHERITS {
            relay::prepare(state.stream());
        }
        let mut client = ClientStream::new(state.stream());
        match self.carry_out(session, &mut client)? {
            Some(Begun::Tunnel(bound)) => tunnel(state, partner, client, &bound),
            Some(Begun::Exchange(request)) => {
                drop(client);
                exchange(state, partner, &request.0, request.1)?;
            }
            None => {}
        }
        Ok(())
    }

    /// Learns what the client asks for and does it, or what can be done of it before bytes go both ways.
    // A tunnel lives on the stack of `Proxy::serve`. What is over before it or comes after it has a
    // frame of its own, here and below, so that an idle tunnel touches few pages and holds nothing
    // that it does not need.
    #[inline(never)]
    fn carry_out(
        &self,
        session: &Session,
        client: &mut ClientStream<'_>,
    ) -> Result<Option<Begun>, Failure> {
        let state = session.state();
        if self.is_balancer(state.far_end()) {
            self.read_proxy_header(session, client)?;
        } else {
            self.check_far_end(state, client)?;
        }
        let Negotiated { identity, request, forwarded } = self.negotiate(state, client)?;
        // Here, and not deeper on the stack.
        session.requested(request.command, request.destination.clone());
        let exchange =
            Exchange { proxy: self, state, client, identity: &identity, request: &request };
        match request.command {
            Command::Connect | Command::Http => {
                let bound = exchange.connect()?;
                Ok(Some(forwarded.map_or(Begun::Tunnel(bound), Begun::Exchange)))
            }
            Command::Bind => exchange.bind().map(Begun::Tunnel).map(Some),
            Command::UdpAssociate => exchange.associate(session).map(|()| None),
            Command::Resolve | Command::ResolvePtr => exchange.resolve().map(|()| None),
        }
    }

    /// Learns from a load balancer for whom it comes, and whether that client is served: the same is
    /// asked as of one that has come itself.
    #[inline(never)]
    fn read_proxy_header(
        &self,
        session: &Session,
        client: &mut ClientStream<'_>,
    ) -> Result<(), Failure> {
        let balancer = session.state().far_end();
        let named = match Header::read_from(client)? {
            Header::Client(mut named) => {
                if named.ip().is_loopback() {
                    // It is on the balancer's machine, which may be another one than this.
                    named.set_ip(balancer.ip());
                }
                self.check(named).map_err(|rejected| self.refuse(rejected))?;
                named
            }
            Header::Balancer => {
                self.check_far_end(session.state(), client)?;
                balancer
            }
        };
        session.rehome(named).map_err(|error| self.refuse(rejected(error)))
    }

    /// Whether the far end of the client's connection is served. If it is not but is on this machine, its
    /// greeting is answered first, which is all that a probe wants to know.
    #[inline(never)]
    fn check_far_end(
        &self,
        state: &SessionState,
        client: &mut ClientStream<'_>,
    ) -> Result<(), Failure> {
        let Err(rejected) = self.check(state.far_end()) else { return Ok(()) };
        if is_here(state.far_end(), state.stream()) {
            match self.greet(client, state.far_end().ip()) {
                // It is no probe.
                Err(socks5::Error::Version(_)) => {}
                greeted => {
                    greeted?;
                    client.read_exact(&mut [0])?;
                }
            }
        }
        Err(self.refuse(rejected))
    }

    fn refuse(&self, (kind, why): Rejected) -> Failure {
        self.metrics.rejected(kind);
        Failure::rejected(why)
    }
}

/// Whether the far end of `stream` is on this machine. A connection of a machine with itself has one address
/// at both ends, which nobody else can have; loopback has several.
fn is_here(peer: SocketAddr, stream: &TcpStream) -> bool {
    let here = || stream.local_addr().is_ok_and(|here| canonical(here).ip() == peer.ip());
    peer.ip().is_loopback() || here()
}

fn rejected(error: AdmissionError) -> Rejected {
    (error.into(), error.to_string())
}

/// What has begun when the target is reached.
enum Begun {
    /// Bytes go both ways, once the client is told this address.
    Tunnel(Address),
    /// A request goes to the target, of which so much has come, and a response comes from it.
    Exchange(Box<(Vec<u8>, Body)>),
}

/// One client's request, and what is needed to carry it out.
struct Exchange<'a, 's> {
    proxy: &'a Proxy,
    state: &'a SessionState,
    client: &'a ClientStream<'s>,
    identity: &'a Identity,
    request: &'a Request,
}

impl Exchange<'_, '_> {
    /// Asks the policy, and dials.
    fn connect(&self) -> Result<Address, Failure> {
        let begin = Instant::now();
        let deadline = Deadline::after(self.proxy.config.connect_timeout);
        let permit = self.permit(deadline)?;
        self.limit(&permit)?;
        let bound = self.dial_permitted(&permit, deadline)?;
        self.proxy.metrics.connected(begin.elapsed());
        Ok(bound)
    }

    // Apart: the stack is deepest under this and under `permit`, and each page of it that was used stays.
    #[inline(never)]
    fn dial_permitted(&self, permit: &Permit, deadline: Deadline) -> Result<Address, Failure> {
        let Connection { stream, address, bound } = match permit.route() {
            None => {
                let target = connect::connect(permit, &self.dial(deadline)?)?;
                self.proxy.resolver.won(&self.request.destination.host, target.address.ip());
                target
            }
            Some(route) => self.connect_upstream(route, deadline)?,
        };
        relay::prepare(&stream);
        self.state.connected(stream, address);
        Ok(bound)
    }

    /// Has the upstream of `route` carry out the request.
    fn connect_upstream(
        &self,
        route: &UpstreamRoute,
        deadline: Deadline,
    ) -> Result<Connection, Failure> {
        let dial = self.dial(deadline)?;
        self.state.goes_via(Arc::clone(route.upstream().shown()));
        let lookup = |name: &_, port| self.lookup(name, port, deadline);
        let addresses = upstream::addresses(route.upstream(), lookup)?;
        let peer = self.state.peer();
        let addresses = self.proxy.policy.permit_upstream(route, peer, addresses)?;
        let reached = upstream::connect(route, &addresses, &dial)?;
        self.proxy.resolver.won(&route.upstream().address().host, reached.address.ip());
        Ok(reached)
    }

    /// Listens, replies, and waits for the peer.
    #[inline(never)]
    fn bind(&self) -> Result<Address, Failure> {
        let timeout = self.proxy.config.connect_timeout;
        let permit = if self.request.destination.host.is_unspecified() {
            self.proxy.policy.permit_open(self.identity, self.state.peer(), Command::Bind)?
        } else {
            self.permit(Deadline::after(timeout))?
        };
        self.limit(&permit)?;
        let listener = BindListener::open(&permit, self.egress()?, self.control_address()?)?;
        self.reply(listener.bound)?;
        let deadline = Deadline::after(2 * timeout);
        let (peer, address) =
            listener.wait(self.client.watch(), deadline, |peer| self.admits(peer))?;
        drop(listener);
        relay::prepare(&peer);
        self.state.connected(peer, address);
        self.proxy.limit(self.state, &[address])?;
        Ok(address.into())
    }

    /// Whether the rules let `peer` in for a client that has asked for a host, which may be nobody
    /// in particular. A name stays one, for the rules about names; it is not looked up again.
    fn admits(&self, peer: SocketAddr) -> bool {
        let host = match &self.request.destination.host {
            host if host.is_unspecified() => Host::Ip(peer.ip()),
            host => host.clone(),
        };
        let destination = Address { host, port: peer.port() };
        let request = Request { command: Command::Bind, destination };
        let lookup = |_: &_, _| Ok::<_, Denied>(vec![peer]);
        let client = self.state.peer();
        let refusal = self.proxy.policy.permit(self.identity, client, &request, lookup).err();
        if let Some(denied) = &refusal {
            self.state.denied(&denied.to_string());
            self.proxy.client_log.detail(client, format_args!("closed {peer}, BIND: {denied}"));
        }
        refusal.is_none()
    }

    /// Binds, replies and relays datagrams.
    #[inline(never)]
    fn associate(&self, session: &Session) -> Result<(), Failure> {
        let Exchange { proxy, state, .. } = *self;
        // The destination is where the client will send from: it is no target for the rules.
        let permit =
            proxy.policy.permit_open(self.identity, state.peer(), Command::UdpAssociate)?;
        self.limit(&permit)?;
        let told = match proxy.config.advertised[usize::from(state.peer().is_ipv6())] {
            Some(ip) => (ip, 0).into(),
            None => self.control_address()?,
        };
        let ports = proxy.config.udp_ports.as_ref();
        let egress = self.egress()?;
        self.take_extras(session, Association::more_pairs(egress), ports)?;
        let association = Association::open(&permit, egress, told, ports);
        let association = association.map_err(|error| {
            // Those that are left are another program's.
            if ports.is_some() && error.kind() == ErrorKind::AddrInUse {
                proxy.udp_ports_used_up.log(UDP_PORTS_USED_UP);
            }
            commands::Error::Unreachable(error)
        })?;
        self.reply(association.bound)?;
        state.enter(Stage::Relay);
        let client = AssociateClient {
            session: state,
            identity: self.identity,
            announced: &self.request.destination,
            idle_timeout: proxy.config.udp_idle_timeout,
            log: &|detail| proxy.client_log.detail(state.peer(), detail),
        };
        association.serve(&client, &proxy.policy, &proxy.resolver, &proxy.dropped);
        Ok(())
    }

    /// Takes what an association has beside its place: so many pairs of descriptors, and one of `ports`.
    fn take_extras(
        &self,
        session: &Session,
        pairs: usize,
        ports: Option<&RangeInclusive<u16>>,
    ) -> Result<(), Failure> {
        let pairs = (0..pairs).map(|_| Extra::Pair);
        for extra in pairs.chain(ports.map(|ports| Extra::UdpPort(ports.len()))) {
            session.take(extra).map_err(|error| {
                if matches!(error, AdmissionError::UdpPorts(_)) {
                    self.proxy.udp_ports_used_up.log(UDP_PORTS_USED_UP);
                }
                commands::Error::Unreachable(io::Error::other(error.to_string()))
            })?;
        }
        Ok(())
    }

    /// Answers what the addresses of a name are (RESOLVE), or the name of an address (`RESOLVE_PTR`):
    /// Tor's extension, of which torsocks and others make use.
    #[inline(never)]
    fn resolve(&self) -> Result<(), Failure> {
        let deadline = Deadline::after(self.proxy.config.connect_timeout);
        let permit = self.permit(deadline)?;
        let found = if let Some(route) = permit.route() {
            self.connect_upstream(route, deadline)?.bound
        } else {
            let (resolver, peer) = (&self.proxy.resolver, self.state.peer().ip());
            resolve::resolve(&permit, resolver, peer, deadline, self.client.watch())?
        };
        close_with(self.state, &success(self.state, &found));
        Ok(())
    }

    /// Asks the rules, and the resolver if they have to know more than a name.
    #[inline(never)]
    fn permit(&self, deadline: Deadline) -> Result<Permit, Failure> {
        let lookup = |name: &_, port| self.lookup(name, port, deadline).map_err(Failure::from);
        self.proxy.policy.permit(self.identity, self.state.peer(), self.request, lookup)
    }

    /// Takes a place in each limit that matches.
    fn limit(&self, permit: &Permit) -> Result<(), Denied> {
        self.proxy.limit(self.state, permit.addresses())
    }

    fn lookup(
        &self,
        name: &Name,
        port: u16,
        deadline: Deadline,
    ) -> Result<Vec<SocketAddr>, commands::Error> {
        let (peer, watch) = (self.state.peer().ip(), self.client.watch());
        Ok(self.proxy.resolver.resolve(name, peer, deadline, watch)?.with_port(port))
    }

    fn dial(&self, deadline: Deadline) -> io::Result<Dial<'_>> {
        Ok(Dial {
            egress: self.egress()?,
            deadline,
            client: self.client.watch(),
            descriptors: self.state.descriptors(),
            families: self.proxy.resolver.families(),
        })
    }

    /// Where what is done for the client leaves this machine.
    fn egress(&self) -> io::Result<Egress> {
        let egress = self.proxy.config.egress;
        if egress.same { Ok(egress.for_client_at(self.control_address()?)) } else { Ok(egress) }
    }

    /// The address at which the client has reached this server.
    fn control_address(&self) -> io::Result<SocketAddr> {
        self.state.stream().local_addr().map(canonical)
    }

    /// Tells the client that its request has succeeded so far.
    fn reply(&self, bound: SocketAddr) -> io::Result<()> {
        self.state.stream().write_all(&success(self.state, &bound.into()))
    }
}

/// What the client is told whose request has succeeded.
fn success(state: &SessionState, bound: &Address) -> Vec<u8> {
    state.protocol().map(|protocol| protocol.success(bound)).unwrap_or_default()
}

/// Passes on what the client has sent early, replies, and relays.
fn tunnel(state: &Arc<SessionState>, partner: &Partner, client: ClientStream<'_>, bound: &Address) {
    state.enter(Stage::Relay);
    if client.pass_on_early_bytes(state).is_err() {
        state.end(state.target().failure);
    }
    drop(client);
    relay(state, partner, || state.stream().write_all(&success(state, bound)));
}

/// Passes on one request and its response. The client may have sent more than that.
#[inline(never)]
fn exchange(
    state: &Arc<SessionState>,
    partner: &Partner,
    request: &[u8],
    body: Body,
) -> Result<(), Failure> {
    state.enter(Stage::Relay);
    let answered = relay::exchange(state, partner, request, body);
    answered.map_err(|error| Failure::new(Refusal::BadResponse, error.to_string()))?;
    if state.ending().is_none() {
        state.enter(Stage::Farewell);
        let deadline = Deadline::after(LAST_REPLY);
        let _ = TimedStream::new(state.stream(), deadline).finish(deadline);
    }
    Ok(())
}

/// Sends the last `bytes` and gives the client a moment to read them.
#[inline(never)]
fn close_with(state: &SessionState, bytes: &[u8]) {
    if bytes.is_empty() {
        return;
    }
    state.enter(Stage::Farewell);
    let deadline = Deadline::after(LAST_REPLY);
    let mut stream = TimedStream::new(state.stream(), deadline);
    // Whoever does not read it has left.
    let _ = stream.write_all(bytes).and_then(|()| stream.finish(deadline));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli;
    use crate::sessions::Limits;
    use crate::system::descriptors::Descriptors;
    use crate::system::pool::Pool;
    use socket2::SockRef;
    use std::net::{Ipv4Addr, TcpListener};
    use std::sync::mpsc::channel;

    pub(super) const LONG: Duration = Duration::from_secs(20);

    pub(super) fn connection() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        near.set_read_timeout(Some(LONG)).unwrap();
        (near, listener.accept().unwrap().0)
    }

    fn proxy() -> Proxy {
        let config = cli::parse(["tabi"]).unwrap().config;
        let descriptors = Descriptors::new(100);
        let limits = Limits::of_one(LONG, LONG);
        let resolver = Resolver::new(LONG, &descriptors);
        let sessions = Sessions::new(limits, descriptors);
        Proxy::new(config, Policy::new(&[], Vec::new()), resolver, sessions)
    }

    /// Does `job` with a client's session, and its partner.
    fn with_session<J>(stream: TcpStream, job: J) -> (Proxy, Option<Ending>)
    where
        J: FnOnce(&Proxy, &Session, &Partner) + Send + 'static,
    {
        let (proxy, peer) = (proxy(), stream.peer_addr().unwrap());
        let (over_to, over) = channel();
        let started = Pool::new(1).start(move |partner| {
            let session = proxy.admit(stream, peer).unwrap();
            job(&proxy, &session, partner);
            let ending = session.state().ending();
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
        let (_, ending) = with_session(stream, move |_, session, partner| {
            let state = session.state();
            state.connected(outgoing, bound);
            let mut client = ClientStream::new(state.stream());
            client.read_exact(&mut [0; 7]).unwrap();
            tunnel(state, partner, client, &bound.into());
        });
        assert_eq!(ending, Some(Ending::TargetReset));
        let error = client.read(&mut [0]).expect_err("the client sees no clean end");
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    }

    #[test]
    fn a_session_whose_partner_panics_has_failed_and_is_counted_once() {
        let (_client, stream) = connection();
        let (proxy, _) = with_session(stream, |proxy, session, partner| {
            session.state().end(Ending::Fault);
            proxy.serve(session, partner);
        });
        let counted: Vec<_> = proxy.metrics.outcomes().filter(|(_, count)| *count > 0).collect();
        assert_eq!(counted, [("failed", 1)]);
    }
}
