//! The server: it listens, serves until it is stopped, and drains.
//!
//! An acceptor is where clients come in, a [`Reloader`] reads users and rules again, a [`Restarter`] has
//! the program started anew, and a [`Stopper`] ends it. A service manager, or the process before, may hand
//! it sockets ([`Inherited`]); the manager is told how it is ([`Notify`]).

use std::io;
use std::net::SocketAddr;
use std::sync::mpsc::Receiver;
use std::sync::{Arc, OnceLock};
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant};

use ipnet::IpNet;
use log::{info, warn};

use crate::access::in_force::AccessFiles;
use crate::access::policy::Policy;
use crate::access::users::Passwords;
use crate::commands::resolver::{Counts, Resolver};
use crate::config::Config;
use crate::proxy::Proxy;
use crate::report::Logger;
use crate::report::status::{Status, StatusServer, StatusSource};
use crate::sessions::{Limits, Sessions};
use crate::system::capacity::{Capacity, SPARE_THREADS};
use crate::system::descriptors::Descriptors;
use crate::system::pool::Pool;

mod accept;
mod channel;
mod inherited;
mod instructions;
mod listen;
mod notify;
mod predecessors;
mod reload;
mod restart;
mod shutdown;
mod stop;

pub use inherited::Inherited;
pub use notify::Notify;
pub use reload::Reloader;
pub use restart::{Restarter, start_as_parent};
pub use stop::Stopper;

use accept::{Acceptor, MOST_WAITING};
use inherited::Owner;
use predecessors::Predecessors;
use restart::Successor;
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
    predecessors: Arc<Predecessors>,
    successor: Arc<OnceLock<Successor>>,
    logger: Option<Logger>,
}

impl Server {
    /// Listens on the sockets that were `inherited`, if any were, or else on every address of `config`, and
    /// raises the limit on descriptors. `notify` is told how the server is.
    ///
    /// # Errors
    ///
    /// When an address cannot be listened on, or used for outgoing connections; the error says
    /// which.
    pub fn bind(config: Config, inherited: Inherited, notify: Notify) -> io::Result<Self> {
        let predecessors = Predecessors::new(inherited.predecessors)?;
        let (listeners, addresses) = listen::open(inherited.listeners, &config.listen)?;
        let bind =
            |address| inherited.status.map_or_else(|| Status::bind(address), |it| Ok(it.into()));
        let status = config.status.map(bind).transpose()?;
        // Nobody may come to the page by way of this server, and so from this machine.
        let page = status.as_ref().map(Status::address).transpose()?;
        if let Some(page) = page {
            info!("status page at http://{page}/ (--status)");
        }
        let own = addresses.iter().chain(&page).copied().collect();
        config.egress.check()?.iter().for_each(|doubt| warn!("{doubt}"));
        let descriptors = Descriptors::raise();
        let waiting = MOST_WAITING * listeners.len();
        let limits = Limits {
            sessions: fit(config.max_connections, &descriptors, waiting),
            pairs: descriptors.tunnels(),
            per_client: config.max_per_client,
            handshake: config.handshake_timeout,
            idle: config.idle_timeout,
        };
        let resolver = Resolver::new(config.name_cache, &descriptors);
        let policy = config.policy(own);
        if let Some(error) = policy.upstream_is_self(&config.files.rules) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, error));
        }
        log_policy(&config, &policy, &addresses);
        instructions::log(&config, &policy, &addresses);
        let sessions = Sessions::new(limits, descriptors);
        let proxy = Arc::new(Proxy::new(config, policy, resolver, sessions));
        let pool = Pool::new(limits.sessions + waiting);
        let (stopper, wakes) = Stopper::new(listeners.clone());
        let acceptor = |listener| Acceptor::new(listener, &proxy, &pool, &stopper);
        let acceptors = listeners.into_iter().map(acceptor).collect();
        let notify = Arc::new(notify);
        Ok(Server {
            acceptors,
            addresses,
            proxy,
            pool,
            stopper,
            wakes,
            status,
            notify,
            predecessors,
            successor: Arc::default(),
            logger: None,
        })
    }

    /// Has `logger` open its file anew with each reload.
    #[must_use]
    pub fn with_logger(self, logger: Logger) -> Self {
        Server { logger: Some(logger), ..self }
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
            predecessors: Arc::clone(&self.predecessors),
            logger: self.logger.clone(),
        }
    }

    /// The means to have the program started anew, without a client that notices.
    pub fn restarter(&self) -> Restarter {
        Restarter {
            acceptors: self.acceptors.clone(),
            status: self.status.as_ref().map(Status::listener),
            proxy: Arc::clone(&self.proxy),
            stopper: Arc::clone(&self.stopper),
            notify: Arc::clone(&self.notify),
            predecessors: Arc::clone(&self.predecessors),
            successor: Arc::clone(&self.successor),
        }
    }

    /// The means to stop the server from another thread.
    pub fn stopper(&self) -> Arc<Stopper> {
        Arc::clone(&self.stopper)
    }

    /// Takes over from the process that has started this one, if one has that serves the same clients. Then
    /// serves until it is stopped, and until the last session has finished or the grace is over.
    ///
    /// # Errors
    ///
    /// When the system refuses the threads to begin with, and when the process before goes on itself.
    pub fn run(mut self) -> io::Result<()> {
        let no_thread = |error| because("cannot start a thread", &error);
        let status = self.status.take();
        let status = status.map(|status| status.start(self.status_source())).transpose();
        let status = status.map_err(no_thread)?;
        let sessions = &self.proxy.sessions;
        thread::scope(|scope| {
            let watch = thread::Builder::new().name("tabi watch".into());
            let watch = watch.spawn_scoped(scope, || sessions.watch()).map_err(no_thread)?;
            // All threads are there before another process leaves its clients.
            let threads = self.pool.prepare(self.acceptors.len()).map_err(no_thread);
            let served = threads.and_then(|()| {
                let taken_over = self.predecessors.take_over(sessions);
                taken_over.map_err(|error| because("cannot take over", &error))?;
                self.serve(status, &watch).map_err(no_thread)
            });
            sessions.stop_watch();
            served
        })
    }

    fn serve(
        &self,
        status: Option<StatusServer>,
        watch: &ScopedJoinHandle<'_, ()>,
    ) -> io::Result<()> {
        let sessions = &self.proxy.sessions;
        if self.acceptors.iter().any(|acceptor| acceptor.listener().owner == Owner::Manager) {
            sessions.expect_rush();
        }
        let started = self.acceptors.iter().try_for_each(Acceptor::ensure_worker);
        if started.is_ok() {
            self.notify.ready();
            self.keep_house(watch);
            self.finish(status, &self.restarter());
        } else {
            self.stopper.stop();
            drain(sessions, &self.acceptors, Duration::ZERO);
        }
        started
    }

    /// Waits for the stop. Meanwhile it gives each listener a worker, ends threads that nobody needs, and
    /// says that the server is alive, as long as `watch` looks after the time limits of sessions; no
    /// service manager asks that of one that stops.
    fn keep_house(&self, watch: &ScopedJoinHandle<'_, ()>) {
        while !self.stopper.is_over() {
            // A listener may have lost its last worker for want of a thread. It is tried again.
            let is_calm = self.acceptors.iter().fold(true, |calm, it| it.look_after() & calm);
            let is_trimmed = self.pool.trim(Instant::now());
            let mut pause = if is_calm && is_trimmed { IDLE_ROUND } else { ROUND };
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
        let (resolver, proxy) = (Arc::clone(&self.proxy.resolver), Arc::clone(&self.proxy));
        let (acceptors, to_admit) = (self.acceptors.clone(), Arc::clone(&self.proxy));
        let [users, limits] = [(); 2].map(|()| Arc::clone(self.proxy.policy.in_force()));
        StatusSource {
            metrics: Arc::clone(&self.proxy.metrics),
            sessions: Arc::clone(&self.proxy.sessions),
            max_threads: 2 * self.pool.max() + SPARE_THREADS,
            lookups: Box::new(move || {
                let Counts { found, failed, remembered } = resolver.counts();
                vec![("found", found), ("failed", failed), ("remembered", remembered)]
            }),
            dropped: Box::new(move || proxy.dropped.each()),
            users: Box::new(move || {
                users.get().users.as_ref().map(Passwords::names).unwrap_or_default()
            }),
            limits_of: Box::new(move |user| limits.get().rules.limits_of(user)),
            backlog: Box::new(move || acceptors.iter().map(|it| it.backlog()).sum()),
            hosts: self.proxy.config.status_host.clone(),
            admits: Box::new(move |stream, visitor| to_admit.admits_visitor(stream, visitor)),
        }
    }

    /// Lets live sessions finish within the grace, then ends them. Where another process has taken over, the
    /// page is that one's, and the grace begins when this one is stopped.
    fn finish(&self, mut status: Option<StatusServer>, restarter: &Restarter) {
        if let Some(successor) = self.successor.get().filter(|_| self.stopper.has_handed_over()) {
            restarter.hand_over(successor);
            drop(status.take());
            restarter.finish(&successor.channel, &self.reloader(), &self.pool);
        } else {
            self.notify.stopping();
        }
        if let Some(status) = &status {
            status.drain();
        }
        drain(&self.proxy.sessions, &self.acceptors, self.proxy.config.grace);
        self.proxy.client_log.summarize();
        info!("stopped");
    }
}

fn because(what: &str, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{what}: {error}"))
}

/// Logs who may do what, and what of it is hardly meant.
fn log_policy(config: &Config, policy: &Policy, addresses: &[SocketAddr]) {
    let list = |networks: &[IpNet]| -> String {
        networks.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    };
    info!("serving clients from {} (--allow-from)", list(&policy.clients()));
    if !config.proxy_protocol.is_empty() {
        info!("taking PROXY headers from {} (--proxy-protocol)", list(&config.proxy_protocol));
    }
    let AccessFiles { users, rules } = &*config.files;
    if rules.count() > 0 {
        info!("following {} (--rules)", counted(rules.count(), "rule"));
    }
    if let Some(upstream) = &config.upstream {
        info!("what no rule decides goes through {upstream} (--upstream); BIND and UDP do not");
    }
    policy.exposure(addresses).iter().for_each(|warning| warn!("{warning}"));
    config.doubts_of(policy).iter().for_each(|doubt| warn!("{doubt}"));
    if let Some(passwords) = users {
        info!("serving nobody but {} (--users)", counted(passwords.count(), "user"));
    }
    config.without_password().iter().for_each(|line| info!("{line}"));
}

/// As many connections as the machine has capacity for beside `waiting` workers, `wanted` at the most.
fn fit(wanted: usize, descriptors: &Descriptors, waiting: usize) -> usize {
    let Capacity { connections, limited_by } = Capacity::of_this_machine(descriptors, waiting);
    if wanted > connections {
        warn!("--max-connections is {connections}, not {wanted}: {limited_by}");
    }
    wanted.min(connections)
}
