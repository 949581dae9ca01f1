//! A long time of everything at once, after which every byte is accounted for and nothing is left.
//! `scripts/suites/soak` builds and runs this.

mod books;
mod clients;
mod targets;

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use nix::sys::signal::Signal;
use nix::unistd::geteuid;

use books::{Books, KINDS, Kind, read_log};
use clients::{BALANCERS, Client};
use targets::{BEHIND_UPSTREAM, Targets};

use crate::machine::number;
use crate::process::{self, Process, guarded};
use crate::sockets::free_address;
use crate::socks::USER;

/// Clients of each kind.
const CLIENTS: u64 = 3;

/// What the resident memory may grow by after the first minute, in KiB.
const GROWTH: u64 = 1024;

/// The pool keeps four pairs of threads, and has made one of them at the start.
const KEPT_THREADS: u64 = 2 * (4 - 1);

/// The pool gives threads back once a minute.
const REST: Duration = Duration::from_secs(150);

const PROGRESS: Duration = Duration::from_secs(10);

#[derive(Args)]
pub(crate) struct Options {
    /// How long
    #[arg(default_value_t = 10)]
    minutes: u64,
    /// The proxy
    #[arg(long, value_name = "PROGRAM", default_value = "target/release/tabi")]
    tabi: PathBuf,
    /// Seconds between two reloads (SIGHUP); 0: none
    #[arg(long, value_name = "S", default_value_t = 5)]
    reload: u64,
    /// Where the proxy's files go
    #[arg(long, value_name = "DIR", default_value = "target/soak")]
    out: PathBuf,
}

/// What the proxy holds.
#[derive(Clone, Copy, Debug, Default)]
struct Held {
    kib: u64,
    threads: u64,
    descriptors: usize,
}

impl Held {
    fn is_back_at(self, before: Held) -> bool {
        self.threads <= before.threads + KEPT_THREADS && self.descriptors <= before.descriptors
    }
}

/// Soaks the proxy. An error tells what was wrong at the end.
pub(crate) fn run(options: &Options) -> io::Result<()> {
    let length = Duration::from_secs(60 * options.minutes);
    process::limit(length + REST)?;
    fs::create_dir_all(&options.out)?;
    let (proxy_at, upstream_at) = (free_address()?, free_address()?);
    let log = options.out.join("tabi.log");
    let _ = fs::remove_file(&log);
    let _upstream = start(&options.tabi, &["-q".into(), upstream_at.to_string()], upstream_at)?;
    let proxy = start(&options.tabi, &arguments(options, &log, proxy_at, upstream_at)?, proxy_at)?;
    let before = held(proxy.id())?;
    let books = Arc::new(Books::default());
    let targets = Arc::new(Targets::start(&books)?);
    let is_over = Arc::new(AtomicBool::new(false));
    let kinds = KINDS.iter().filter(|kind| **kind != Kind::Vanished || geteuid().is_root());
    let mut clients = Vec::new();
    for (&kind, number) in kinds.flat_map(|kind| (0..CLIENTS).map(move |number| (kind, number))) {
        let client = Client {
            kind,
            number,
            proxy: proxy_at,
            targets: Arc::clone(&targets),
            books: Arc::clone(&books),
            is_over: Arc::clone(&is_over),
        };
        clients.push(thread::Builder::new().spawn(move || client.work())?);
    }
    let grown = watch(options, &proxy, &books, length)?;
    is_over.store(true, Ordering::Relaxed);
    for client in clients {
        client.join().map_err(|_| io::Error::other("a client panicked"))?;
    }
    let after = rest(proxy.id(), before)?;
    let mut wrong = account(&books, &targets, &log)?;
    println!("before: {before:?}; after: {after:?}; resident growth after the start: {grown} KiB");
    if !after.is_back_at(before) {
        wrong.push("threads or descriptors are left".into());
    }
    if grown > GROWTH {
        wrong.push(format!("the resident memory grew by {grown} KiB"));
    }
    if books.faults() > 0 {
        wrong.push(format!("{} faults", books.faults()));
    }
    if wrong.is_empty() { Ok(()) } else { Err(io::Error::other(wrong.join("; "))) }
}

/// Shows progress, reloads, and says by how many KiB the resident memory has grown since the first
/// minute, or since a quarter of the time where that is shorter.
fn watch(options: &Options, proxy: &Process, books: &Books, length: Duration) -> io::Result<u64> {
    let begin = Instant::now();
    let settled = Duration::from_secs(60).min(length / 4);
    let (mut first, mut last) = (None, 0);
    let (mut told, mut reloaded) = (begin, begin);
    while begin.elapsed() < length {
        thread::sleep(Duration::from_millis(500));
        if options.reload > 0 && reloaded.elapsed().as_secs() >= options.reload {
            reloaded = Instant::now();
            proxy.signal(Signal::SIGHUP)?;
        }
        let now = held(proxy.id())?;
        last = now.kib;
        if begin.elapsed() >= settled {
            // Of the peaks, so that a quiet moment at the start does not count as growth.
            let highest: &mut u64 = first.get_or_insert(now.kib);
            if begin.elapsed() < 2 * settled {
                *highest = now.kib.max(*highest);
            }
        }
        if told.elapsed() >= PROGRESS {
            told = Instant::now();
            let (sessions, faults) = (books.sessions(), books.faults());
            let seconds = begin.elapsed().as_secs();
            eprintln!("soak: {seconds} s, {sessions} sessions, {faults} faults, {now:?}");
        }
    }
    Ok(last.saturating_sub(first.unwrap_or(last)))
}

/// Waits until the proxy holds no more than before.
fn rest(pid: u32, before: Held) -> io::Result<Held> {
    let begin = Instant::now();
    eprintln!("soak: over; waiting until the proxy has come to rest");
    loop {
        let now = held(pid)?;
        if now.is_back_at(before) || begin.elapsed() > REST {
            return Ok(now);
        }
        thread::sleep(Duration::from_millis(500));
    }
}

/// Prints the books, and says where they do not agree.
fn account(books: &Books, targets: &Targets, log: &Path) -> io::Result<Vec<String>> {
    let ports = read_log(log)?;
    let mut table = String::from(
        "| kind | sessions | up | down | targets | log | |\n|---|---:|---:|---:|---|---|---|\n",
    );
    let mut wrong = Vec::new();
    for kind in KINDS {
        let [client, target] = books.sums(kind);
        let logged = ports.get(&targets.of(kind).port()).copied().unwrap_or_default();
        let verdict = match (kind.is_exact(), client == target && client == logged) {
            (false, _) => "",
            (true, true) => "agree",
            (true, false) => {
                wrong.push(format!(
                    "{kind:?}: client {client:?}, target {target:?}, log {logged:?}"
                ));
                "DIFFER"
            }
        };
        let _ = writeln!(
            table,
            "| {kind:?} | {} | {} | {} | {} | {} | {verdict} |",
            client.sessions, client.up, client.down, target.sessions, logged.sessions
        );
    }
    print!("{table}");
    Ok(wrong)
}

/// What the proxy is told, and its files.
fn arguments(
    options: &Options,
    log: &Path,
    proxy: SocketAddr,
    upstream: SocketAddr,
) -> io::Result<Vec<String>> {
    let (users, rules) = (options.out.join("users"), options.out.join("rules"));
    for (path, text) in [
        (&users, format!("{USER}:{USER}\n")),
        (&rules, format!("via socks5://{upstream} to {BEHIND_UPSTREAM}\n")),
    ] {
        let _ = fs::remove_file(path);
        let mut file = File::options().write(true).create_new(true).mode(0o600).open(path)?;
        file.write_all(text.as_bytes())?;
    }
    let mut arguments = Vec::new();
    for (option, value) in [("--log-file", log), ("--users", &users), ("--rules", &rules)] {
        arguments.extend([option.to_owned(), value.display().to_string()]);
    }
    arguments.extend(["--proxy-protocol".into(), BALANCERS.into(), proxy.to_string()]);
    Ok(arguments)
}

/// Starts a proxy and waits until it listens.
fn start(program: &Path, arguments: &[String], address: SocketAddr) -> io::Result<Process> {
    let mut command = guarded(program)?;
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null());
    let mut process = Process::start(&mut command, true)?;
    process.await_accept(address)?;
    // That connection is over for the proxy, too.
    thread::sleep(Duration::from_millis(500));
    Ok(process)
}

fn held(pid: u32) -> io::Result<Held> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    Ok(Held {
        kib: number(&status, "VmRSS")?,
        threads: number(&status, "Threads")?,
        descriptors: fs::read_dir(format!("/proc/{pid}/fd"))?.count(),
    })
}
