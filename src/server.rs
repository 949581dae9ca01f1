//! The server: it listens, serves until it is stopped, and drains.
//!
//! An acceptor is where clients come in, a [`Reloader`] reads users and rules again, and a [`Stopper`]
//! ends it. A service manager may hand it sockets ([`inherited_sockets`]), and is told how it is
//! ([`Notify`]).

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant};

use ipnet::IpNet;
use log::{info, warn};

use crate::access::policy::Policy;
use crate::commands::resolver::{Counts, Resolver};
use crate::config::Config;
use crate::proxy::Proxy;
use crate::report::status::{Status, StatusServer, StatusSource};
use crate::sessions::{Limits, Sessions};
use crate::system::capacity::{Capacity, SPARE_THREADS};
use crate::system::descriptors::Descriptors;
use crate::system::pool::Pool;

mod accept;
mod activation;
mod instructions;
mod listen;
mod notify;
mod reload;
mod shutdown;
mod stop;

pub use activation::inherited_sockets;
pub use notify::Notify;
pub use reload::Reloader;
pub use stop::Stopper;

use accept::{Acceptor, MOST_WAITING};
use shutdown::{counted, drain};

/// How often housekeeping is done while there is something to do, and while there is nothing: no thread is
/// idle for too long before that.
const ROUND: Duration = Duration::from_secs(1);
const IDLE_ROUND: Duration = Duration::from_secs(60);

/// A server that listens, and that [`Server::run`] makes serve.
pub struct Server {
    acceptors: Vec<Arc<Acceptor>>,
    addresses: Vec<SocketAddr>,
    proxy: Arc<Proxy>,
    pool: Arc<Pool>,
    stopper: Arc<Stopper>,
    /// Begin a round of the housekeeping early.
    wakes: Receiver<()>,
    status: Option<Status>,
    notify: Arc<Notify>,
}

impl Server {
    /// Listens on the sockets `inherited`, if there are any, or else on every address of `config`, and
    /// raises the limit on descriptors. `notify` is told how the server is.
    ///
    /// # Errors
    ///
    /// When an address cannot be listened on, or used for outgoing connections; the error says
    /// which.
    pub fn bind(config: Config, inherited: Vec<TcpListener>, notify: Notify) -> io::Result<Self> {
        let (listeners, addresses) = listen::open(inherited, &config.listen)?;
        let status = config.status.map(Status::bind).transpose()?;
        // Nobody may come to the page by way of this server, and so from this machine.
        let page = status.as_ref().map(Status::address).transpose()?;
        if let Some(page) = page {
            info!("status page at http://{page}/ (--status)");
        }
        let ports = addresses.iter().chain(&page).map(SocketAddr::port).collect();
        config.egress.check()?.iter().for_each(|doubt| warn!("{doubt}"));
        let descriptors = Descriptors::raise();
        let limits = Limits {
            sessions: fit(config.max_connections, &descriptors),
            pairs: descriptors.tunnels(),
            per_client: config.max_per_client,
            handshake: config.handshake_timeout,
            idle: config.idle_timeout,
        };
        let resolver = Resolver::new(config.name_cache, &descriptors);
        let policy = Policy::new(&config.allow_from, ports)
            .with_file(Arc::clone(&config.rules))
            .with_upstream(config.upstream.clone());
        if let Some(error) = policy.upstream_is_self(&config.rules, &addresses) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, error));
        }
        log_policy(&config, &policy, &addresses);
        instructions::log(config.users.is_some(), &policy.reached_at(&addresses), &addresses);
        let sessions = Sessions::new(limits, descriptors);
        let proxy = Arc::new(Proxy::new(config, policy, resolver, sessions));
        let pool = Pool::new(limits.sessions + MOST_WAITING * listeners.len());
        let (stopper, wakes) = Stopper::new(listeners.clone());
        let acceptor = |listener| Acceptor::new(listener, &proxy, &pool, &stopper);
        let acceptors = listeners.into_iter().map(acceptor).collect();
        let notify = Arc::new(notify);
        Ok(Server { acceptors, addresses, proxy, pool, stopper, wakes, status, notify })
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
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// The means to have users and rules read again.
    pub fn reloader(&self) -> Reloader {
        Reloader {
            proxy: Arc::clone(&self.proxy),
            notify: Arc::clone(&self.notify),
            addresses: self.addresses.clone(),
        }
    }

    /// The means to stop the server from another thread.
    pub fn stopper(&self) -> Arc<Stopper> {
        Arc::clone(&self.stopper)
    }

    /// Serves until it is stopped, and then until the last session has finished or the grace is
    /// over.
    ///
    /// # Errors
    ///
    /// When the system refuses the threads to begin with.
    pub fn run(mut self) -> io::Result<()> {
        let status = self.status.take();
        let status = status.map(|status| status.start(self.status_source())).transpose()?;
        let sessions = &self.proxy.sessions;
        thread::scope(|scope| {
            let watch = thread::Builder::new().name("tabi watch".into());
            let watch = watch.spawn_scoped(scope, || sessions.watch())?;
            let started = self.acceptors.iter().try_for_each(Acceptor::ensure_worker);
            if started.is_ok() {
                self.notify.ready();
                self.keep_house(&watch);
                self.finish(status.as_ref());
            } else {
                self.stopper.stop();
                drain(sessions, &self.acceptors, Duration::ZERO);
            }
            sessions.stop_watch();
            started
        })
    }

    /// Waits for the stop. Meanwhile it gives each listener a worker, ends threads that nobody needs, and
    /// says that the server is alive, as long as `watch` looks after the time limits of sessions; no
    /// service manager asks that of one that stops.
    fn keep_house(&self, watch: &ScopedJoinHandle<'_, ()>) {
        while !self.stopper.is_stopped() {
            // A listener may have lost its last worker for want of a thread. It is tried again.
            let have_workers = self.acceptors.iter().all(|it| Acceptor::ensure_worker(it).is_ok());
            let is_trimmed = self.pool.trim(Instant::now());
            let mut pause = if have_workers && is_trimmed { IDLE_ROUND } else { ROUND };
            if let Some(limit) = self.notify.watchdog() {
                pause = pause.min(limit / 2);
                // Sessions open and end only while the lock that each of them needs is given back.
                self.proxy.sessions.count();
                if !watch.is_finished() {
                    self.notify.alive();
                }
            }
            let _ = self.wakes.recv_timeout(pause);
        }
    }

    fn status_source(&self) -> StatusSource {
        let resolver = Arc::clone(&self.proxy.resolver);
        StatusSource {
            metrics: Arc::clone(&self.proxy.metrics),
            sessions: Arc::clone(&self.proxy.sessions),
            max_threads: 2 * self.pool.max() + SPARE_THREADS,
            max_fds: self.proxy.sessions.descriptors().limit(),
            lookups: Box::new(move || {
                let Counts { found, failed, remembered } = resolver.counts();
                [("found", found), ("failed", failed), ("remembered", remembered)]
            }),
        }
    }

    /// Lets live sessions finish within the grace, then ends them.
    fn finish(&self, status: Option<&StatusServer>) {
        self.notify.stopping();
        if let Some(status) = status {
            status.drain();
        }
        drain(&self.proxy.sessions, &self.acceptors, self.proxy.config.grace);
        self.proxy.session_log.summarize();
        info!("stopped");
    }
}

/// Logs who may do what, and what of it is hardly meant.
fn log_policy(config: &Config, policy: &Policy, addresses: &[SocketAddr]) {
    let list = |networks: &[IpNet]| -> String {
        networks.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    };
    info!("serving clients from {} (--allow-from)", list(policy.clients()));
    if !config.proxy_protocol.is_empty() {
        info!("taking PROXY headers from {} (--proxy-protocol)", list(&config.proxy_protocol));
    }
    if config.rules.count() > 0 {
        info!("following {} (--rules)", counted(config.rules.count(), "rule"));
    }
    if let Some(upstream) = &config.upstream {
        info!("what no rule decides goes through {upstream} (--upstream); BIND and UDP do not");
    }
    policy.exposure(addresses).iter().for_each(|warning| warn!("{warning}"));
    config.doubts().iter().for_each(|doubt| warn!("{doubt}"));
    if let Some(passwords) = &config.users {
        info!("serving nobody but {} (--users)", counted(passwords.count(), "user"));
    }
}

/// As many connections as the machine has capacity for, `wanted` at the most.
fn fit(wanted: usize, descriptors: &Descriptors) -> usize {
    let Capacity { connections, limited_by } = Capacity::of_this_machine(descriptors);
    if wanted > connections {
        warn!("--max-connections is {connections}, not {wanted}: {limited_by}");
    }
    wanted.min(connections)
}
