//! The server: it listens, serves until it is stopped, and drains.
//!
//! [`Config`] is what it can be told, an entrance is where clients come in, a [`Reloader`] reads
//! its files again, and a [`Stopper`] ends it. A service manager may hand it sockets
//! ([`handed_over`]), and is told how it is ([`Notify`]).

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use log::{info, warn};

use crate::access::policy::Policy;
use crate::access::users::Users;
use crate::commands::resolver::{Counts, Resolver};
use crate::proxy::Proxy;
use crate::report::status::{Status, StatusServer, StatusSource};
use crate::report::{Lookups, RateLimitedWarning, RejectionLog, SessionLog};
use crate::sessions::{Limits, Sessions};
use crate::system::capacity::{Capacity, SPARE_THREADS};
use crate::system::descriptors::Descriptors;
use crate::system::pool::Pool;

mod acceptor;
mod backlog;
mod close;
mod config;
mod drain;
mod handed;
mod invitation;
mod listen;
mod notify;
mod reload;
mod stop;

pub use config::Config;
pub use handed::handed_over;
pub use notify::Notify;
pub use reload::Reloader;
pub use stop::Stopper;

use acceptor::Acceptor;
use close::MOST_WAITING;
use listen::Listener;
use stop::Stop;

/// How long to wait before asking the system again for a thread that it has refused.
const THREAD_RETRY: Duration = Duration::from_millis(250);

/// A server that listens, and that [`Server::run`] makes serve.
pub struct Server {
    listeners: Vec<Arc<Listener>>,
    addresses: Vec<SocketAddr>,
    proxy: Arc<Proxy>,
    pool: Arc<Pool>,
    stop: Arc<Stop>,
    status: Option<Status>,
    grace: Duration,
    notify: Arc<Notify>,
    rules_file: Option<PathBuf>,
    users_file: Option<PathBuf>,
}

impl Server {
    /// Listens on every address of `config`, and raises the limit on descriptors.
    ///
    /// # Errors
    ///
    /// When an address cannot be listened on, or used for outgoing connections; the error says
    /// which.
    pub fn bind(config: &Config) -> io::Result<Self> {
        Self::on(Vec::new(), Notify::default(), config)
    }

    /// The same, but listens on `handed`, if there are any, and not on the addresses of `config`;
    /// and tells `notify` how it is.
    ///
    /// # Errors
    ///
    /// Those of [`Server::bind`].
    pub fn on(handed: Vec<TcpListener>, notify: Notify, config: &Config) -> io::Result<Self> {
        let (listeners, addresses) = listen::open(handed, &config.listen)?;
        let status = config.status.map(Status::bind).transpose()?;
        // Nobody may come to the page by way of this server, and so from this machine.
        let page = status.as_ref().map(Status::address).transpose()?;
        if let Some(page) = page {
            info!("status page at http://{page}/ (--status)");
        }
        let ports = addresses.iter().chain(&page).map(SocketAddr::port).collect();
        config.source.check()?.iter().for_each(|doubt| warn!("{doubt}"));
        let descriptors = Descriptors::raise();
        let limits = Limits {
            sessions: fit(config.max_connections, &descriptors),
            per_client: config.max_per_client,
            handshake: config.handshake_timeout,
            idle: config.idle_timeout,
        };
        let names = Resolver::new(config.name_cache, &descriptors);
        let rules = Policy::new(&config.allow_from, ports)
            .with_file(Arc::clone(&config.rules))
            .with_upstream(config.upstream.clone());
        if let Some(told) = rules.upstream_is_self(&config.rules, &addresses) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, told));
        }
        tell_policy(config, &rules, &addresses);
        let sessions = Sessions::new(limits, descriptors);
        let pool = Pool::new(limits.sessions + MOST_WAITING * listeners.len());
        let stop = Stop::new(listeners.clone());
        invitation::invite(config, &rules.reached_at(&addresses), &addresses);
        let proxy = Proxy {
            users: Users::new(config.users.clone()),
            rules,
            names,
            sessions,
            source: config.source,
            udp_advertise: config.udp_advertise,
            udp_ports: config.udp_ports.clone(),
            udp_ports_used_up: RateLimitedWarning::default(),
            connect_timeout: config.connect_timeout,
            refusals: RejectionLog::default(),
            ends: SessionLog::default(),
            fullness: RateLimitedWarning::default(),
            evictions: RateLimitedWarning::default(),
            balancers: config.proxy_protocol.clone(),
            metrics: Arc::default(),
        };
        Ok(Server {
            listeners,
            addresses,
            proxy: Arc::new(proxy),
            pool,
            stop,
            status,
            grace: config.grace,
            notify: Arc::new(notify),
            rules_file: config.rules_file.clone(),
            users_file: config.users_file.clone(),
        })
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
            rules: self.rules_file.clone(),
            users: self.users_file.clone(),
        }
    }

    /// The means to stop the server from another thread.
    pub fn stopper(&self) -> Stopper {
        Stopper(Arc::clone(&self.stop))
    }

    /// Serves until it is stopped, and then until the last session has finished or the grace is
    /// over.
    ///
    /// # Errors
    ///
    /// When the system refuses the threads to begin with.
    pub fn run(mut self) -> io::Result<()> {
        let status = self.status.take().map(|status| status.start(self.shown())).transpose()?;
        thread::scope(|scope| {
            let Proxy { sessions, ends, refusals, .. } = &*self.proxy;
            let (pool, mut watchdog) = (&self.pool, self.notify.watchdog());
            let each_round = move |now| {
                let again = [pool.trim(now), ends.tell_hidden(now), refusals.tell_hidden(now)];
                again.into_iter().chain([watchdog.round(now)]).flatten().min()
            };
            thread::Builder::new()
                .name("tabi watch".into())
                .spawn_scoped(scope, move || sessions.watch(each_round))?;
            let entrances = self.entrances();
            let result = self.serve(&entrances);
            if result.is_ok() {
                self.finish(&entrances, status.as_ref());
            } else {
                drain::drain(sessions, &entrances, Duration::ZERO);
            }
            sessions.stop_watch();
            result
        })
    }

    fn shown(&self) -> StatusSource {
        let names = Arc::clone(&self.proxy.names);
        StatusSource {
            metrics: Arc::clone(&self.proxy.metrics),
            sessions: Arc::clone(&self.proxy.sessions),
            max_threads: 2 * self.pool.max() + SPARE_THREADS,
            max_fds: self.proxy.sessions.descriptors().limit(),
            lookups: Box::new(move || {
                let Counts { found, failed, remembered } = names.counts();
                Lookups { found, failed, remembered }
            }),
        }
    }

    fn entrances(&self) -> Vec<Arc<Acceptor>> {
        let entrance = |listener: &Arc<Listener>| {
            let (proxy, pool) = (Arc::clone(&self.proxy), Arc::clone(&self.pool));
            Acceptor::new(Arc::clone(listener), proxy, pool, Arc::clone(&self.stop))
        };
        self.listeners.iter().map(entrance).collect()
    }

    /// Opens the entrances, and again those that lose their last worker for want of a thread.
    fn serve(&self, entrances: &[Arc<Acceptor>]) -> io::Result<()> {
        for entrance in entrances {
            entrance.open().inspect_err(|_| self.stop.stop())?;
        }
        self.notify.ready();
        while self.stop.until_help_is_wanted() {
            self.stop.wait(THREAD_RETRY);
            for entrance in entrances {
                if entrance.open().is_err() {
                    self.stop.ask_for_help();
                }
            }
        }
        Ok(())
    }

    /// Lets live sessions finish within the grace, then ends them.
    fn finish(&self, entrances: &[Arc<Acceptor>], status: Option<&StatusServer>) {
        self.notify.stopping();
        if let Some(status) = status {
            status.drain();
        }
        drain::drain(&self.proxy.sessions, entrances, self.grace);
        self.proxy.ends.summarize();
        info!("stopped");
    }
}

/// Logs who may do what, and what of it is hardly meant.
fn tell_policy(config: &Config, rules: &Policy, addresses: &[SocketAddr]) {
    let clients: Vec<String> = rules.clients().iter().map(ToString::to_string).collect();
    info!("serving clients from {} (--allow-from)", clients.join(", "));
    if !config.proxy_protocol.is_empty() {
        let balancers: Vec<String> =
            config.proxy_protocol.iter().map(ToString::to_string).collect();
        info!("taking PROXY headers from {} (--proxy-protocol)", balancers.join(", "));
    }
    if config.rules.count() > 0 {
        info!("following {} (--rules)", counted(config.rules.count(), "rule"));
    }
    if let Some(upstream) = &config.upstream {
        info!("what no rule decides goes through {upstream} (--upstream); BIND and UDP do not");
    }
    rules.exposure(addresses).iter().for_each(|told| warn!("{told}"));
    config.doubts().iter().for_each(|doubt| warn!("{doubt}"));
    if let Some(passwords) = &config.users {
        info!("serving nobody but {} (--users)", counted(passwords.count(), "user"));
    }
}

/// So many of `one`, in words.
fn counted(count: usize, one: &str) -> String {
    format!("{count} {one}{}", if count == 1 { "" } else { "s" })
}

/// As many connections as the machine has room for, `wanted` at the most.
fn fit(wanted: usize, descriptors: &Descriptors) -> usize {
    let Capacity { connections, limited_by } = Capacity::of_this_machine(descriptors);
    if wanted > connections {
        warn!("--max-connections is {connections}, not {wanted}: {limited_by}");
    }
    wanted.min(connections)
}
