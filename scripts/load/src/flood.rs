//! Floods, and what an ordinary client notices of each. `scripts/suites/flood` builds and runs this.
//!
//! Each flood has a proxy of its own. The ordinary client connects through it every few milliseconds,
//! first without the flood and then during it, and straight to its target as well: that column is what
//! the machine itself makes of the flood. Some tunnels of the client are idle meanwhile, and live on. The attacker is a process of its own that gives way to the
//! others, as one on another machine would.

mod attack;
mod kind;
mod ordinary;

use std::fmt::Write as _;
use std::fs;
use std::io::{self, Read};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use nix::unistd::geteuid;

pub(crate) use attack::run as attack;
use kind::{FLOODS, Flood};
use ordinary::{Figures, Visit};

use crate::backend::Backend;
use crate::process::{self, Process, guarded, nameless};
use crate::room;
use crate::sockets::free_address;
use crate::socks::USER;
use crate::tunnel::{By, Proxy};

/// Nothing new begins after this time, and everything has ended a minute later.
const LONGEST: Duration = Duration::from_secs(10 * 60);

/// The limit on the proxy's descriptors, as the systemd unit has it.
const DESCRIPTORS: usize = 12_288;

/// The ordinary client has so many tunnels that are idle all the time.
const IDLE: usize = 3;

/// How often a flood is made that has missed its goal.
const TRIES: usize = 2;

#[derive(Args)]
pub(crate) struct Options {
    /// The proxy
    #[arg(long, value_name = "PROGRAM", default_value = "target/release/tabi")]
    tabi: PathBuf,
    /// Floods to make, by how their names begin; all if not given
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    only: Vec<String>,
    /// Seconds of each flood; it is measured for half as long without it
    #[arg(long, value_name = "S", default_value_t = 8)]
    seconds: u64,
    /// Where the logs of the proxies go
    #[arg(long, value_name = "DIR", default_value = "target/flood")]
    out: PathBuf,
}

impl Options {
    fn wants(&self, flood: &Flood) -> bool {
        self.only.is_empty() || self.only.iter().any(|word| flood.name.starts_with(word.as_str()))
    }
}

/// What an attacker is told on its command line.
#[derive(Args)]
pub(crate) struct Attack {
    name: String,
    proxy: SocketAddr,
    seconds: u64,
}

/// What came of a flood.
struct Row {
    flood: &'static Flood,
    before: Figures,
    during: Figures,
    direct: Figures,
    attacker: String,
}

/// Makes the floods and prints the table. An error tells that tabi fell short.
pub(crate) fn run(options: &Options) -> io::Result<()> {
    process::limit(LONGEST)?;
    fs::create_dir_all(&options.out)?;
    if !geteuid().is_root() {
        eprintln!("flood: not root, so no name server can be made silent: names are left out");
        return make(options, false);
    }
    room::inside(|| {
        // It is asked, and it never answers.
        let _silent = UdpSocket::bind((room::NAME_SERVER, 53))?;
        make(options, true)
    })
}

fn make(options: &Options, has_names: bool) -> io::Result<()> {
    let begin = Instant::now();
    let backend = Backend::start()?;
    let (mut rows, mut missed) = (Vec::new(), 0);
    let wanted = FLOODS.iter().filter(|flood| options.wants(flood));
    for flood in wanted.filter(|flood| has_names || !flood.needs_names()) {
        if begin.elapsed() > LONGEST {
            eprintln!("flood: ten minutes are over: {} is left out", flood.name);
            continue;
        }
        eprintln!("flood: {}: {}", flood.name, flood.what);
        // A busy machine spoils one try in ten. Both are shown.
        let met = (0..TRIES).any(|_| {
            rows.push(measure(options, flood, backend.echo(0)));
            rows.last().is_some_and(|row| row.as_ref().is_ok_and(Row::is_met))
        });
        missed += usize::from(!met);
    }
    let rows = rows.into_iter().collect::<io::Result<Vec<_>>>()?;
    print!("{}", table(&rows));
    if missed == 0 { Ok(()) } else { Err(io::Error::other(format!("{missed} floods missed"))) }
}

fn measure(options: &Options, flood: &'static Flood, target: SocketAddrV4) -> io::Result<Row> {
    let address = free_address()?;
    let _proxy = start(options, flood, address)?;
    let visit = |proxy| Visit { proxy, target, by_name: flood.by_name, link: flood.link };
    let (through, straight) =
        (visit(Some(Proxy { address, by: By::Socks5, users: flood.users })), visit(None));
    let seconds = Duration::from_secs(options.seconds);
    // The threads that it needs are there, the log is open.
    ordinary::visit(&through, Duration::from_millis(500));
    let before = ordinary::visit(&through, seconds / 2);
    let idle = (0..IDLE).map(|_| ordinary::tunnel(&through));
    let mut idle = idle.collect::<io::Result<Vec<_>>>()?;
    let mut attacker = attacker(flood, address, options.seconds)?;
    let (mut during, direct) = thread::scope(|scope| {
        let direct = scope.spawn(|| ordinary::visit(&straight, seconds));
        (ordinary::visit(&through, seconds), direct.join().unwrap_or_default())
    });
    during.look_at(&mut idle);
    let mut said = String::new();
    if let Some(output) = attacker.child().stdout.as_mut() {
        output.read_to_string(&mut said)?;
    }
    Ok(Row { flood, before, during, direct, attacker: said.trim().to_owned() })
}

/// The attacker, which leaves the processor to the others when they want it.
fn attacker(flood: &Flood, proxy: SocketAddr, seconds: u64) -> io::Result<Process> {
    let mut command = Command::new("nice");
    command.args(["-n", "5"]).arg(std::env::current_exe()?).args(["attack", flood.name]);
    command.args([proxy.to_string(), seconds.to_string()]).stdout(Stdio::piped());
    Process::start(&mut command, false)
}

/// Starts the proxy and waits until it listens.
fn start(options: &Options, flood: &Flood, address: SocketAddr) -> io::Result<Process> {
    let log = options.out.join(format!("{}.log", flood.name));
    let _ = fs::remove_file(&log);
    let mut command = guarded(Path::new("prlimit"))?;
    command
        .arg(format!("--nofile={DESCRIPTORS}"))
        .arg(&options.tabi)
        .arg("--log-file")
        .arg(&log)
        .args(flood.options)
        .arg(address.to_string());
    command.stdin(Stdio::null()).stdout(Stdio::null());
    if flood.users {
        command.args(["--users", "/dev/stdin"]).stdin(nameless(&format!("{USER}:{USER}\n"))?);
    }
    let mut process = Process::start(&mut command, true)?;
    process.await_accept(address)?;
    Ok(process)
}

/// Whom the attacker and the ordinary client stand for; the last octet may be anything.
fn address(network: u8, number: u8) -> Ipv4Addr {
    Ipv4Addr::new(127, network, 0, number)
}

impl Row {
    fn is_met(&self) -> bool {
        self.during.failures == 0 && self.during.percentile(0.99) < self.flood.goal.as_secs_f64()
    }
}

const HEAD: &str = "\
| flood | attacker | without: p50 | p99 | during: p50 | p99 | longest | failures | p99 ratio | direct, during: p99 | |
|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---|
";

fn table(rows: &[Row]) -> String {
    let mut table = String::from(HEAD);
    for row in rows {
        let ms = |seconds: f64| format!("{:.1} ms", seconds * 1e3);
        let ratio = row.during.percentile(0.99) / row.before.percentile(0.99);
        let verdict = if row.is_met() { "met" } else { "MISSED" };
        let _ = writeln!(
            table,
            "| {} | {} | {} | {} | {} | {} | {} | {} of {}{} | {ratio:.1} | {} | {verdict} |",
            row.flood.what,
            row.attacker,
            ms(row.before.percentile(0.5)),
            ms(row.before.percentile(0.99)),
            ms(row.during.percentile(0.5)),
            ms(row.during.percentile(0.99)),
            ms(row.during.longest()),
            row.during.failures,
            row.during.tried(),
            row.during.why.as_ref().map(|why| format!(" ({why})")).unwrap_or_default(),
            ms(row.direct.percentile(0.99)),
        );
    }
    table
}
