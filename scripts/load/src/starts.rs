//! Starts and stops the proxy many times while it is busy. `scripts/suites/starts` builds and runs this.
//!
//! Each time some clients have short sessions, some move megabytes, and every second time some stay
//! for good: those alone are ended, and only once the grace is over.

use std::collections::BTreeMap;
use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use nix::sys::signal::Signal;

use crate::backend::Backend;
use crate::digest;
use crate::figure::Spread;
use crate::process::{self, Process, guarded};
use crate::sockets::{PATIENCE, dial, free_address};
use crate::socks::{self, CONNECT, Target};

/// Clients at once of each kind.
const SHORT: usize = 8;
const BULK: usize = 2;
const ENDLESS: usize = 2;

/// What is sent and comes back.
const MESSAGE: [u8; 64] = [0x5a; 64];

/// When the signal comes at the earliest, after the load has begun. It comes within a second of that.
const EARLIEST: Duration = Duration::from_millis(20);

/// What an end may take beyond the grace.
const LATE: Duration = Duration::from_secs(1);

/// What is waited for in all, so that there is something to tell of one that does not end.
const NO_END: Duration = Duration::from_secs(20);

/// A start and its end take no longer than this, unless something is wrong.
const MINUTE: Duration = Duration::from_secs(60);

#[derive(Args)]
pub(crate) struct Options {
    /// The proxy
    #[arg(long, value_name = "PROGRAM", default_value = "target/release/tabi")]
    tabi: PathBuf,
    /// How often
    #[arg(long, value_name = "N", default_value_t = 100)]
    times: usize,
    /// Seconds that live sessions have to finish
    #[arg(long, value_name = "S", default_value_t = 2)]
    grace: u64,
    /// Where the proxy's log goes
    #[arg(long, value_name = "DIR", default_value = "target/starts")]
    out: PathBuf,
}

/// What a client does.
#[derive(Clone, Copy)]
enum Kind {
    Short,
    Bulk,
    Endless,
}

/// A session that its client has begun: the connection was there.
struct Session {
    ended: Instant,
    failure: Option<io::Error>,
}

/// What came of one start.
struct Round {
    signalled_after: f64,
    sessions: usize,
    /// That were live when the signal came, or came through later, and finished.
    finished: usize,
    /// That the end of the grace has ended.
    ended: usize,
    /// That were cut before.
    cut: Vec<String>,
    took: Duration,
    status: Option<ExitStatus>,
    /// Somebody stayed for good.
    is_endless: bool,
}

/// Starts and stops the proxy, and prints the table. An error tells what was wrong.
pub(crate) fn run(options: &Options) -> io::Result<()> {
    process::limit(MINUTE * u32::try_from(options.times).unwrap_or(u32::MAX))?;
    fs::create_dir_all(&options.out)?;
    let backend = Backend::start()?;
    let (mut rounds, mut wrong) = (Vec::new(), BTreeMap::<String, usize>::new());
    for number in 0..options.times {
        let round = round(options, &backend, number % 2 == 1)?;
        for told in round.wrong(options) {
            eprintln!("starts: number {}: {told}", number + 1);
            *wrong.entry(told).or_default() += 1;
        }
        rounds.push(round);
    }
    print!("{}", table(&rounds, options));
    let wrong = wrong.iter().map(|(told, count)| format!("{count} x {told}"));
    let wrong: Vec<String> = wrong.collect();
    if wrong.is_empty() { Ok(()) } else { Err(io::Error::other(wrong.join("; "))) }
}

impl Round {
    fn wrong(&self, options: &Options) -> Vec<String> {
        let grace = Duration::from_secs(options.grace);
        let mut wrong = self.cut.clone();
        match self.status.map(|status| status.code()) {
            Some(Some(0)) => {}
            Some(status) => wrong.push(format!("the exit status is {status:?}")),
            None => wrong.push("it does not end".into()),
        }
        if self.took > grace + LATE {
            wrong.push("it ends more than a second after the grace".into());
        }
        if !self.is_endless && self.took > grace {
            wrong.push("all could finish, and it ends only after the grace".into());
        }
        let expected = if self.is_endless { ENDLESS } else { 0 };
        if self.ended != expected {
            wrong.push(format!("the grace has ended {} sessions, not {expected}", self.ended));
        }
        wrong
    }
}

fn round(options: &Options, backend: &Backend, is_endless: bool) -> io::Result<Round> {
    let address = free_address()?;
    let mut proxy = start(options, address)?;
    let stopping = AtomicBool::new(false);
    let kinds = [(Kind::Short, SHORT), (Kind::Bulk, BULK)];
    let kinds = kinds.into_iter().chain(is_endless.then_some((Kind::Endless, ENDLESS)));
    let kinds: Vec<Kind> = kinds.flat_map(|(kind, count)| vec![kind; count]).collect();
    let signalled_after = random_moment();
    thread::scope(|scope| {
        let stopping = &stopping;
        let client =
            |(number, kind)| scope.spawn(move || work(kind, number, address, backend, stopping));
        let clients: Vec<_> = kinds.into_iter().enumerate().map(client).collect();
        thread::sleep(signalled_after);
        stopping.store(true, Ordering::Relaxed);
        let signalled = Instant::now();
        proxy.signal(Signal::SIGTERM)?;
        let status = await_end(&mut proxy, signalled)?;
        let took = signalled.elapsed();
        // Whoever is not ended by now is ended with this.
        drop(proxy);
        let mut sessions = Vec::new();
        for client in clients {
            sessions.extend(client.join().map_err(|_| io::Error::other("a client panicked"))?);
        }
        let mut round = Round {
            signalled_after: signalled_after.as_secs_f64(),
            sessions: sessions.len(),
            finished: 0,
            ended: 0,
            cut: Vec::new(),
            took,
            status,
            is_endless,
        };
        let grace = Duration::from_secs(options.grace);
        for Session { ended, failure } in sessions {
            match failure {
                None => round.finished += usize::from(ended >= signalled),
                Some(_) if ended >= signalled + grace => round.ended += 1,
                Some(error) => round.cut.push(format!("a session was cut off: {error}")),
            }
        }
        Ok(round)
    })
}

/// Starts the proxy, and waits until it has served somebody.
fn start(options: &Options, address: SocketAddr) -> io::Result<Process> {
    let mut command = guarded(&options.tabi)?;
    command.args(["--grace", &options.grace.to_string(), "--log-file"]);
    command.arg(options.out.join("tabi.log")).arg(address.to_string());
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let mut process = Process::start(&mut command, false)?;
    process.await_accept(address)?;
    greet(address)?;
    Ok(process)
}

fn greet(address: SocketAddr) -> io::Result<()> {
    let mut stream = dial(Ipv4Addr::LOCALHOST, address, PATIENCE)?;
    stream.write_all(&[0x05, 0x01, 0x00])?;
    stream.read_exact(&mut [0; 2])
}

fn random_moment() -> Duration {
    let random = RandomState::new().hash_one(Instant::now());
    EARLIEST + Duration::from_micros(random % 1_000_000)
}

fn await_end(proxy: &mut Process, since: Instant) -> io::Result<Option<ExitStatus>> {
    while since.elapsed() < NO_END {
        if let Some(status) = proxy.child().try_wait()? {
            return Ok(Some(status));
        }
        thread::sleep(Duration::from_millis(2));
    }
    Ok(None)
}

/// Has one session after the other until the proxy takes no more, or one fails.
fn work(
    kind: Kind,
    number: usize,
    proxy: SocketAddr,
    backend: &Backend,
    stopping: &AtomicBool,
) -> Vec<Session> {
    let mut sessions = Vec::new();
    for turn in 0.. {
        let connected = dial(Ipv4Addr::LOCALHOST, proxy, PATIENCE);
        // Nobody new has to get in after the signal. Whoever does has a session like all others.
        if connected.is_err() && stopping.load(Ordering::Relaxed) {
            break;
        }
        let outcome = connected.and_then(|stream| session(kind, stream, number + turn, backend));
        let failed = outcome.is_err();
        sessions.push(Session { ended: Instant::now(), failure: outcome.err() });
        if failed || stopping.load(Ordering::Relaxed) {
            break;
        }
    }
    sessions
}

fn session(kind: Kind, mut stream: TcpStream, number: usize, backend: &Backend) -> io::Result<()> {
    let target = match kind {
        Kind::Short | Kind::Endless => backend.echo(number),
        Kind::Bulk => backend.digest(),
    };
    socks::negotiate(&mut stream, false, CONNECT, Target::Address(target))?;
    match kind {
        Kind::Short => digest::echo(&mut stream, &MESSAGE)?,
        Kind::Bulk => digest::exchange(&mut stream)?,
        Kind::Endless => loop {
            digest::echo(&mut stream, &MESSAGE)?;
            thread::sleep(Duration::from_millis(10));
        },
    }
    stream.shutdown(Shutdown::Write)?;
    match stream.read(&mut [0])? {
        0 => Ok(()),
        _ => Err(io::Error::other("bytes that nobody has sent")),
    }
}

fn table(rounds: &[Round], options: &Options) -> String {
    let sum = |of: fn(&Round) -> usize| rounds.iter().map(of).sum::<usize>();
    let spread = |figures: Vec<f64>| {
        Spread::of(&figures).map_or_else(
            || "-".into(),
            |it| format!("{:.2} ({:.2} to {:.2})", it.median, it.least, it.greatest),
        )
    };
    let took = |is_endless| {
        let some = rounds.iter().filter(|round| round.is_endless == is_endless);
        spread(some.map(|round| round.took.as_secs_f64()).collect())
    };
    format!(
        "| starts | SIGTERM after, s | sessions | finished after it | ended by the grace of {} s \
         | cut before | until the end, s: all could finish | some stayed | status 0 |\n\
         |---:|---|---:|---:|---:|---:|---|---|---:|\n\
         | {} | {} | {} | {} | {} | {} | {} | {} | {} |\n",
        options.grace,
        rounds.len(),
        spread(rounds.iter().map(|round| round.signalled_after).collect()),
        sum(|round| round.sessions),
        sum(|round| round.finished),
        sum(|round| round.ended),
        sum(|round| round.cut.len()),
        took(false),
        took(true),
        sum(|round| usize::from(round.status.is_some_and(|status| status.success()))),
    )
}
