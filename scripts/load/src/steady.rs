//! Sessions at a steady rate from many clients, none of which may fail. `scripts/suites/scale-out` runs this.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;

use crate::backend::Backend;
use crate::digest;
use crate::figure::{percentile, real};
use crate::sockets::PATIENCE;
use crate::tunnel::{self, By, Proxy};

#[derive(Args)]
pub(crate) struct Options {
    /// Where the proxy is
    proxy: SocketAddr,
    /// Sessions a second, as far as the machine allows; 0 for as many as go
    #[arg(long, value_name = "N", default_value_t = 0)]
    rate: u32,
    /// For so long
    #[arg(long, value_name = "S", default_value_t = 10)]
    seconds: u64,
    /// Sessions at once, at the most
    #[arg(long, value_name = "N", default_value_t = 64)]
    at_once: usize,
    /// The first of the clients' addresses
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.1.1")]
    client: Ipv4Addr,
    /// How many addresses the clients have
    #[arg(long, value_name = "N", default_value_t = 200)]
    addresses: usize,
    /// One more session lasts all the time, and fails when a message takes a second
    #[arg(long)]
    tunnel: bool,
    /// Where the address of each client is left, one a line
    #[arg(long, value_name = "FILE")]
    clients: Option<PathBuf>,
}

/// What is sent and comes back.
const MESSAGE: [u8; 64] = [0x5a; 64];

/// How often something passes through the session that lasts, and how long that may take.
const PACE: Duration = Duration::from_millis(20);
const LATE: Duration = Duration::from_secs(1);

/// What a thread has seen.
#[derive(Default)]
struct Seen {
    clients: Vec<SocketAddr>,
    times: Vec<Duration>,
    failures: Vec<io::Error>,
}

pub(crate) fn run(options: &Options) -> io::Result<()> {
    let backend = Backend::start()?;
    let (next, begun) = (AtomicUsize::new(0), Instant::now());
    let all = thread::scope(|scope| {
        let work = || one_after_another(options, &backend, &next, begun);
        let mut threads: Vec<_> = (0..options.at_once).map(|_| scope.spawn(work)).collect();
        threads.extend(options.tunnel.then(|| scope.spawn(|| tunnel(options, &backend, begun))));
        threads.into_iter().map(thread::ScopedJoinHandle::join).collect::<Result<Vec<_>, _>>()
    });
    let elapsed = begun.elapsed().as_secs_f64();
    let all = all.map_err(|_| io::Error::other("a thread panicked"))?;
    if let Some(path) = &options.clients {
        let mut file = BufWriter::new(File::create(path)?);
        for client in all.iter().flat_map(|seen| &seen.clients) {
            writeln!(file, "{client}")?;
        }
        file.flush()?;
    }
    let mut failures = BTreeMap::<String, usize>::new();
    for failure in all.iter().flat_map(|seen| &seen.failures) {
        *failures.entry(failure.to_string()).or_default() += 1;
    }
    for (failure, count) in failures {
        eprintln!("load: {count} sessions failed: {failure}");
    }
    let failed: usize = all.iter().map(|seen| seen.failures.len()).sum();
    let mut times: Vec<_> = all.into_iter().flat_map(|seen| seen.times).collect();
    times.sort_unstable();
    println!(
        "sessions={} failed={failed} rate={:.0} p50={:.1}ms p99={:.1}ms longest={:.0}ms",
        times.len(),
        real(times.len()) / elapsed,
        percentile(&times, 0.5) * 1e3,
        percentile(&times, 0.99) * 1e3,
        times.last().copied().unwrap_or_default().as_secs_f64() * 1e3,
    );
    Ok(())
}

fn one_after_another(
    options: &Options,
    backend: &Backend,
    next: &AtomicUsize,
    begun: Instant,
) -> Seen {
    let mut seen = Seen::default();
    let end = begun + Duration::from_secs(options.seconds);
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        let due = match options.rate {
            0 => Instant::now(),
            rate => begun + Duration::from_secs(1) * u32::try_from(number).unwrap_or(0) / rate,
        };
        if due.max(Instant::now()) >= end {
            return seen;
        }
        thread::sleep(due.saturating_duration_since(Instant::now()));
        let offset = u32::try_from(number % options.addresses.max(1)).unwrap_or(0);
        let client = Ipv4Addr::from(u32::from(options.client) + offset);
        let start = Instant::now();
        match session(client, options.proxy, backend.echo(number)) {
            Ok(address) => {
                seen.clients.push(address);
                seen.times.push(start.elapsed());
            }
            Err(error) => seen.failures.push(error),
        }
    }
}

/// A message and its echo. Gives back the client's address with its port.
fn session(client: Ipv4Addr, proxy: SocketAddr, target: SocketAddrV4) -> io::Result<SocketAddr> {
    let mut stream = connect(client, proxy, target, PATIENCE)?;
    digest::echo(&mut stream, &MESSAGE)?;
    stream.local_addr()
}

/// A session that lasts until the end.
fn tunnel(options: &Options, backend: &Backend, begun: Instant) -> Seen {
    let end = begun + Duration::from_secs(options.seconds);
    let last = || {
        let mut stream = connect(options.client, options.proxy, backend.echo(0), LATE)?;
        while Instant::now() < end {
            digest::echo(&mut stream, &MESSAGE)?;
            thread::sleep(PACE);
        }
        stream.local_addr()
    };
    match last() {
        Ok(address) => Seen { clients: vec![address], ..Seen::default() },
        Err(error) => {
            let error = io::Error::other(format!("the one that lasts: {error}"));
            Seen { failures: vec![error], ..Seen::default() }
        }
    }
}

fn connect(
    client: Ipv4Addr,
    proxy: SocketAddr,
    target: SocketAddrV4,
    patience: Duration,
) -> io::Result<TcpStream> {
    let proxy = Proxy { address: proxy, by: By::Socks5, users: false };
    tunnel::open_from(client, Some(proxy), target.into(), patience)
}
