//! The accept loops: admission, accept errors, and the end.

use std::io;
use std::net::{
    IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket,
};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use ipnet::IpNet;
use log::{debug, info, warn};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use crate::access::rules::{RuleFile, Rules};
use crate::access::users::{Passwords, Users};
use crate::commands::connect::Source;
use crate::proxy::Proxy;
use crate::relay;
use crate::report::Refusals;
use crate::report::status::{Shown, Status};
use crate::sessions::{Ending, Limits, Sessions};
use crate::system::descriptors::Descriptors;
use crate::system::mappings;
use crate::system::pool::Pool;

/// Clients that the kernel keeps waiting while no slot is free; it may allow fewer.
const BACKLOG: i32 = 4096;

/// Pauses between attempts to accept while accepting fails.
const SHORTEST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Doubts about a configuration that are told at once.
const MOST_DOUBTS: usize = 10;

/// How long sessions may take to notice that they were ended.
const LAST_MOMENT: Duration = Duration::from_secs(3);

/// Everything that a server can be told.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where to listen. The unspecified IPv6 address means every address, of IPv4 too.
    pub listen: Vec<SocketAddr>,
    /// Networks whose clients are served; none means [`crate::access::rules::DEFAULT_CLIENTS`].
    pub allow_from: Vec<IpNet>,
    /// Who may do what, and where, before what is so by default.
    pub rules: Arc<RuleFile>,
    /// Who has to authenticate, and how; `None` where nobody has to.
    pub users: Option<Arc<Passwords>>,
    /// Local addresses of outgoing connections.
    pub source: Source,
    /// The address that clients are told to send datagrams to, if it is not that of their
    /// connection.
    pub udp_advertise: Option<IpAddr>,
    /// Sessions at once.
    pub max_connections: usize,
    /// Sessions at once of one client address.
    pub max_per_client: usize,
    /// From the greeting to the request.
    pub handshake_timeout: Duration,
    /// From the request to the connection with the target.
    pub connect_timeout: Duration,
    /// Without an octet in either direction.
    pub idle_timeout: Duration,
    /// For live sessions to finish once the server stops.
    pub grace: Duration,
    /// Load balancers whose PROXY header is believed and required.
    pub proxy_protocol: Vec<IpNet>,
    /// Where the status page is served, if it is.
    pub status: Option<SocketAddr>,
}

impl Config {
    /// What is in order but hardly meant: rules about users that there are not.
    #[must_use]
    pub fn doubts(&self) -> Vec<String> {
        let is_known = |user| self.users.as_ref().is_some_and(|users| users.has(user));
        let unknown = self.rules.users().filter(|(user, _)| !is_known(user));
        let told = unknown.map(|(user, place)| {
            format!("{place}: this rule matches nobody: there is no user {user} (--users)")
        });
        told.take(MOST_DOUBTS).collect()
    }
}

/// A server that listens, and that [`Server::run`] makes serve.
pub struct Server {
    listeners: Vec<Arc<TcpListener>>,
    proxy: Arc<Proxy>,
    pool: Arc<Pool>,
    stop: Arc<Stop>,
    status: Option<Status>,
    grace: Duration,
}

impl Server {
    /// Listens on every address of `config`, and raises the limit on descriptors.
    ///
    /// # Errors
    ///
    /// When an address cannot be listened on; the error names it.
    pub fn bind(config: &Config) -> io::Result<Self> {
        let mut listeners = Vec::new();
        for &address in &config.listen {
            listeners.push(Arc::new(listen(address).map_err(|error| told(address, &error))?));
        }
        let descriptors = Descriptors::raise();
        let max_connections = fit(config.max_connections, &descriptors);
        let mut ports = Vec::new();
        for listener in &listeners {
            let address = listener.local_addr()?;
            info!("listening on {address}{}", scope(address.ip()));
            ports.push(address.port());
        }
        let status = config.status.map(Status::bind).transpose()?;
        if let Some(status) = &status {
            let address = status.address()?;
            info!("status page at http://{address}/ (--status)");
            // Nobody is to come to it by way of this server, and so from this machine.
            ports.push(address.port());
        }
        check_source(config.source);
        let sessions = Sessions::new(
            Limits {
                per_client: config.max_per_client,
                handshake: config.handshake_timeout,
                idle: config.idle_timeout,
            },
            descriptors,
        );
        let rules = Rules::new(&config.allow_from, ports).with_file(Arc::clone(&config.rules));
        tell_policy(config, &rules);
        let proxy = Proxy {
            users: Users::new(config.users.clone()),
            rules,
            sessions,
            source: config.source,
            udp_advertise: config.udp_advertise,
            connect_timeout: config.connect_timeout,
            refusals: Refusals::default(),
            balancers: config.proxy_protocol.clone(),
            metrics: Arc::default(),
        };
        let pool = Pool::new(max_connections);
        let stop = Arc::new(Stop {
            listeners: Mutex::new(Some(listeners.clone())),
            stopped: Condvar::new(),
            pool: Arc::clone(&pool),
        });
        let grace = config.grace;
        Ok(Server { listeners, proxy: Arc::new(proxy), pool, stop, status, grace })
    }

    /// Where the status page is, if there is one.
    ///
    /// # Errors
    ///
    /// The error of `getsockname(2)`.
    pub fn status_address(&self) -> io::Result<Option<SocketAddr>> {
        self.status.as_ref().map(Status::address).transpose()
    }

    /// Where the server listens, with the port that the system chose where 0 was asked for.
    ///
    /// # Errors
    ///
    /// Whatever the system says against a listener.
    pub fn addresses(&self) -> io::Result<Vec<SocketAddr>> {
        self.listeners.iter().map(|listener| listener.local_addr()).collect()
    }

    /// The means to stop the server from another thread.
    #[must_use]
    pub fn stopper(&self) -> Stopper {
        Stopper(Arc::clone(&self.stop))
    }

    /// Serves until it is stopped, and then until the last session has finished or the grace is
    /// over.
    ///
    /// # Errors
    ///
    /// When the system has no thread to begin with.
    pub fn run(self) -> io::Result<()> {
        let Server { listeners, proxy, pool, stop, status, grace } = self;
        let status = status.map(|status| status.start(shown(&proxy, &pool))).transpose()?;
        thread::scope(|scope| {
            let (sessions, trimmed) = (&proxy.sessions, &pool);
            thread::Builder::new()
                .name("tabi watch".into())
                .spawn_scoped(scope, || sessions.watch(|now| trimmed.trim(now)))?;
            let mut accepting = Vec::new();
            for listener in listeners {
                let (proxy, pool, stop) = (&proxy, &pool, &stop);
                let spawned = thread::Builder::new()
                    .spawn_scoped(scope, move || accept_loop(&listener, proxy, pool, stop));
                if spawned.is_err() {
                    stop.stop();
                    sessions.stop_watch();
                }
                accepting.push(spawned?);
            }
            for accepting in accepting {
                let _ = accepting.join();
            }
            if let Some(status) = &status {
                status.drain();
            }
            drain(sessions, &pool, grace);
            sessions.stop_watch();
            Ok(())
        })
    }
}

/// Hands each client of one listener to the pool, until the server stops.
fn accept_loop(listener: &TcpListener, proxy: &Arc<Proxy>, pool: &Arc<Pool>, stop: &Stop) {
    let mut trouble: Option<Duration> = None;
    while pool.wait_for_room() {
        match listener.accept() {
            Ok((stream, peer)) => {
                if trouble.take().is_some() {
                    info!("clients are accepted again");
                }
                admit(stream, peer, proxy, pool);
            }
            Err(error) if stop.is_stopped() => {
                debug!("the listener is closed: {error}");
                return;
            }
            // This client has gone again; the next one may be there already.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {
                debug!("a client left before it was accepted");
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => {
                let pause = trouble.map_or(SHORTEST_PAUSE, |pause| (2 * pause).min(LONGEST_PAUSE));
                if trouble.replace(pause).is_none() {
                    warn!("no client can be accepted, trying on: {error}");
                }
                stop.wait(pause);
            }
        }
    }
}

fn admit(stream: TcpStream, peer: SocketAddr, proxy: &Arc<Proxy>, pool: &Arc<Pool>) {
    let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
    proxy.metrics.accepted();
    if !proxy.serves(peer) {
        return;
    }
    // There was room before the client was accepted, so this waits only where a second listener
    // has filled it, or no thread is to be had.
    if let Some(slot) = pool.slot() {
        let proxy = Arc::clone(proxy);
        slot.execute(move |partner| proxy.serve(stream, peer, partner));
    }
}

fn shown(proxy: &Proxy, pool: &Pool) -> Shown {
    /// The main thread, the watch, the one for signals, and that of the status page.
    const OTHERS: usize = 4;
    Shown {
        metrics: Arc::clone(&proxy.metrics),
        sessions: Arc::clone(&proxy.sessions),
        max_connections: pool.max(),
        max_threads: 2 * pool.max() + OTHERS,
        max_fds: proxy.sessions.descriptors().limit(),
    }
}

/// Lets live sessions finish within `grace`, then ends them.
fn drain(sessions: &Sessions, pool: &Pool, grace: Duration) {
    let mut left = pool.live();
    if left > 0 {
        info!("stopping; {left} sessions have {} s to finish", grace.as_secs_f32());
    }
    let mut grace = grace;
    while left > 0 && !grace.is_zero() {
        let round = grace.min(Duration::from_secs(1));
        left = pool.wait_until_idle(round);
        grace -= round;
        info!("{left} sessions left");
    }
    if left > 0 {
        warn!("ending {left} sessions that have not finished");
        sessions.end_all(Ending::Stopped);
        pool.wait_until_idle(LAST_MOMENT);
    }
    info!("stopped");
}

/// Stops a server. Every clone stops the same one.
#[derive(Clone)]
pub struct Stopper(Arc<Stop>);

impl Stopper {
    /// Closes the listeners at once and makes [`Server::run`] drain and return.
    pub fn stop(&self) {
        self.0.stop();
    }
}

struct Stop {
    /// `None` once the server is stopped.
    listeners: Mutex<Option<Vec<Arc<TcpListener>>>>,
    stopped: Condvar,
    pool: Arc<Pool>,
}

impl Stop {
    fn stop(&self) {
        let listeners = self.lock().take();
        self.pool.close();
        self.stopped.notify_all();
        for listener in listeners.into_iter().flatten() {
            // This closes the port and wakes the thread that is blocked in `accept`.
            let _ = SockRef::from(&*listener).shutdown(Shutdown::Both);
            // Elsewhere only a client wakes that thread.
            #[cfg(not(target_os = "linux"))]
            if let Ok(address) = listener.local_addr() {
                let _ = TcpStream::connect_timeout(&reachable(address), SHORTEST_PAUSE);
            }
        }
    }

    fn is_stopped(&self) -> bool {
        self.lock().is_none()
    }

    fn wait(&self, limit: Duration) {
        let listeners = self.lock();
        if listeners.is_some() {
            let _ = self.stopped.wait_timeout(listeners, limit);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Vec<Arc<TcpListener>>>> {
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(not(target_os = "linux"))]
fn reachable(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => (Ipv4Addr::LOCALHOST, address.port()).into(),
        IpAddr::V6(ip) if ip.is_unspecified() => (Ipv6Addr::LOCALHOST, address.port()).into(),
        _ => address,
    }
}

/// Listens on `address`. The unspecified IPv6 address takes IPv4 as well, and IPv4 alone where
/// there is no IPv6.
fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let every = address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED);
    match listen_exactly(address, every) {
        Err(error) if every && is_without_ipv6(&error) => {
            listen_exactly((Ipv4Addr::UNSPECIFIED, address.port()).into(), false)
        }
        result => result,
    }
}

fn listen_exactly(address: SocketAddr, dual_stack: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(!dual_stack)?;
    }
    // A restart is not to wait until the last connections of the earlier process have timed out.
    socket.set_reuse_address(true)?;
    relay::prepare(&socket)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn is_without_ipv6(error: &io::Error) -> bool {
    const NO_FAMILY: i32 = rustix::io::Errno::AFNOSUPPORT.raw_os_error();
    error.raw_os_error() == Some(NO_FAMILY) || error.kind() == io::ErrorKind::AddrNotAvailable
}

fn told(address: SocketAddr, error: &io::Error) -> io::Error {
    let hint = match error.kind() {
        io::ErrorKind::AddrInUse => "another program listens there; stop it or choose another port",
        io::ErrorKind::AddrNotAvailable => "this machine has no such address",
        io::ErrorKind::PermissionDenied => "ports below 1024 need privileges; choose another port",
        _ => "see the system's message",
    };
    io::Error::new(error.kind(), format!("cannot listen on {address}: {error}; {hint}"))
}

fn scope(address: IpAddr) -> &'static str {
    match address {
        IpAddr::V6(ip) if ip.is_unspecified() => ", every address of IPv6 and IPv4",
        IpAddr::V4(ip) if ip.is_unspecified() => ", every address of IPv4",
        _ => "",
    }
}

/// Logs who may do what, and what of it is hardly meant.
fn tell_policy(config: &Config, rules: &Rules) {
    let clients: Vec<String> = rules.clients().iter().map(ToString::to_string).collect();
    info!("serving clients from {} (--allow-from)", clients.join(", "));
    if !config.proxy_protocol.is_empty() {
        let balancers: Vec<String> =
            config.proxy_protocol.iter().map(ToString::to_string).collect();
        info!("taking PROXY headers from {} (--proxy-protocol)", balancers.join(", "));
    }
    if config.rules.count() > 0 {
        info!("following {} rules (--rules)", config.rules.count());
    }
    config.doubts().iter().for_each(|doubt| warn!("{doubt}"));
    if let Some(passwords) = &config.users {
        info!("serving only who is among {} users (--users)", passwords.count());
    }
}

/// An address may yet come, so a missing one is no reason not to start.
fn check_source(source: Source) {
    for address in source.ipv4.iter().chain(&source.ipv6) {
        if let Err(error) = UdpSocket::bind((*address, 0)) {
            warn!("--source {address} cannot be used at present: {error}");
        }
    }
}

/// As many connections as the system has descriptors and mappings for, `wanted` at the most.
fn fit(wanted: usize, descriptors: &Descriptors) -> usize {
    let by_descriptors = descriptors.tunnels();
    let by_mappings = mappings::tunnels();
    let most = by_descriptors.min(by_mappings).max(1);
    if wanted > most {
        let reason = if by_mappings < by_descriptors {
            "the system allows no more threads (sysctl vm.max_map_count)".into()
        } else {
            format!("there are {} descriptors, and a connection takes two", descriptors.limit())
        };
        warn!("--max-connections is {most}, not {wanted}: {reason}");
    }
    wanted.min(most)
}
