//! Sessions at a steady rate from many clients, none of which may fail. `scripts/suites/scale-out` runs this.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;

use crate::backend::Backend;
use crate::figure::{percentile, real};
use crate::socks::{self, PATIENCE, Proxy};

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
    /// The first of 200 client addresses
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.1.1")]
    client: Ipv4Addr,
    /// Where the address of each client is left, one a line
    #[arg(long, value_name = "FILE")]
    clients: Option<PathBuf>,
}

const CLIENTS: usize = 200;

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
        let threads: Vec<_> = (0..options.at_once).map(|_| scope.spawn(work)).collect();
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
        let offset = u32::try_from(number % CLIENTS).unwrap_or(0);
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
    let proxy = Proxy { address: proxy, users: false };
    let mut stream = socks::tunnel_from(client, Some(proxy), target.into(), PATIENCE)?;
    let mut message = [0x5a; 64];
    stream.write_all(&message)?;
    stream.read_exact(&mut message)?;
    stream.local_addr()
}
