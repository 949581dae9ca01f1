//! The server: it listens, serves until it is stopped, and drains.
//!
//! [`Config`] is what it can be told, an entrance is where clients come in, and a [`Stopper`] ends it.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use log::{info, warn};

use crate::access::rules::Rules;
use crate::access::users::Users;
use crate::commands::lookup::{Counts, Names};
use crate::proxy::Proxy;
use crate::report::status::{Shown, Status};
use crate::report::{Ends, Lookups, Rarely, Refusals};
use crate::sessions::{Ending, Limits, Sessions};
use crate::system::capacity::{Capacity, SPARE_THREADS};
use crate::system::descriptors::Descriptors;
use crate::system::pool::Pool;

mod backlog;
mod config;
mod entrance;
mod listen;
mod stop;

pub use config::Config;
pub use stop::Stopper;

use backlog::LAST_HANDSHAKES;
use entrance::{Entrance, MOST_WAITING};
use stop::Stop;

/// How long sessions may take to notice that they were ended.
const LAST_MOMENT: Duration = Duration::from_secs(3);

/// How long to wait before asking the system again for a thread that it has refused.
const THREAD_RETRY: Duration = Duration::from_millis(250);

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
    /// When an address cannot be listened on, and those of [`Source::check`]; the error says which.
    pub fn bind(config: &Config) -> io::Result<Self> {
        let listeners = config.listen.iter().map(|&address| listen::listen(address).map(Arc::new));
        let listeners = listeners.collect::<io::Result<Vec<_>>>()?;
        let mut addresses = Vec::new();
        for listener in &listeners {
            let address = listener.local_addr()?;
            info!("listening on {address}{}", listen::scope(address.ip()));
            addresses.push(address);
        }
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
        let names = Arc::new(Names::new(config.name_cache, &descriptors));
        let rules = Rules::new(&config.allow_from, ports)
            .with_file(Arc::clone(&config.rules))
            .with_upstream(config.upstream.clone());
        if let Some(told) = rules.circle(&addresses) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, told));
        }
        tell_policy(config, &rules);
        let sessions = Sessions::new(limits, descriptors);
        let pool = Pool::new(limits.sessions + MOST_WAITING * listeners.len());
        let stop = Stop::new(listeners.clone());
        let proxy = Proxy {
            users: Users::new(config.users.clone()),
            rules,
            names,
            sessions,
            source: config.source,
            udp_advertise: config.udp_advertise,
            udp_ports: config.udp_ports.clone(),
            udp_ports_used_up: Rarely::default(),
            connect_timeout: config.connect_timeout,
            refusals: Refusals::default(),
            ends: Ends::default(),
            fullness: Rarely::default(),
            made_room: Rarely::default(),
            balancers: config.proxy_protocol.clone(),
            metrics: Arc::default(),
        };
        let (proxy, grace) = (Arc::new(proxy), config.grace);
        Ok(Server { listeners, proxy, pool, stop, status, grace })
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
    /// The error of `getsockname(2)`.
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
    /// When the system refuses the threads to begin with.
    pub fn run(mut self) -> io::Result<()> {
        let status = self.status.take().map(|status| status.start(self.shown())).transpose()?;
        thread::scope(|scope| {
            let Proxy { sessions, ends, refusals, .. } = &*self.proxy;
            let each_round = |now| {
                let again = [self.pool.trim(now), ends.tell_hidden(now), refusals.tell_hidden(now)];
                again.into_iter().flatten().min()
            };
            thread::Builder::new()
                .name("tabi watch".into())
                .spawn_scoped(scope, move || sessions.watch(each_round))?;
            let entrances = self.entrances();
            let result = self.serve(&entrances);
            if result.is_ok() {
                if let Some(status) = &status {
                    status.drain();
                }
                drain(sessions, &entrances, self.grace);
                ends.tell_rest();
                info!("stopped");
            } else {
                drain(sessions, &entrances, Duration::ZERO);
            }
            sessions.stop_watch();
            result
        })
    }

    fn shown(&self) -> Shown {
        let names = Arc::clone(&self.proxy.names);
        Shown {
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

    fn entrances(&self) -> Vec<Arc<Entrance>> {
        let entrance = |listener: &Arc<TcpListener>| {
            let (proxy, pool) = (Arc::clone(&self.proxy), Arc::clone(&self.pool));
            Entrance::new(Arc::clone(listener), proxy, pool, Arc::clone(&self.stop))
        };
        self.listeners.iter().map(entrance).collect()
    }

    /// Opens the entrances, and again those that lose their last worker for want of a thread.
    fn serve(&self, entrances: &[Arc<Entrance>]) -> io::Result<()> {
        for entrance in entrances {
            entrance.open().inspect_err(|_| self.stop.stop())?;
        }
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
}

/// Lets live sessions finish within `grace`, and those who have connected before the end have theirs;
/// then ends them.
fn drain(sessions: &Sessions, entrances: &[Arc<Entrance>], grace: Duration) {
    let end = Instant::now() + grace;
    thread::sleep(LAST_HANDSHAKES.min(grace));
    let waiting =
        |until| -> usize { entrances.iter().map(|entrance| entrance.let_in_the_last(until)).sum() };
    // Where there are places, they have them at once.
    let mut left = waiting(end.min(Instant::now() + LAST_HANDSHAKES)) + sessions.count();
    if left > 0 {
        info!("stopping; {left} sessions have {} s to finish", grace.as_secs_f32());
    }
    while left > 0 && Instant::now() < end {
        let round = end.min(Instant::now() + Duration::from_secs(1));
        let waiting = waiting(round);
        left = waiting + sessions.wait_until_empty(round.saturating_duration_since(Instant::now()));
        info!("{left} sessions left");
    }
    let without: usize = entrances.iter().map(|entrance| entrance.turn_away_the_last()).sum();
    sessions.close();
    if without > 0 {
        warn!("closed {without} clients that had no place within the grace (--max-connections)");
    }
    left = sessions.count();
    if left > 0 {
        warn!("ending {left} sessions that have not finished");
        sessions.end_all(Ending::Stopped);
        sessions.wait_until_empty(LAST_MOMENT);
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
    if let Some(upstream) = &config.upstream {
        info!("what no rule decides goes through {upstream} (--upstream); BIND and UDP do not");
    }
    rules.exposure(&config.listen).iter().for_each(|told| warn!("{told}"));
    config.doubts().iter().for_each(|doubt| warn!("{doubt}"));
    if let Some(passwords) = &config.users {
        info!("serving only who is among {} users (--users)", passwords.count());
    }
}

/// As many connections as the machine has room for, `wanted` at the most.
fn fit(wanted: usize, descriptors: &Descriptors) -> usize {
    let Capacity { connections, limited_by } = Capacity::of_this_machine(descriptors);
    if wanted > connections {
        warn!("--max-connections is {connections}, not {wanted}: {limited_by}");
    }
    wanted.min(connections)
}
