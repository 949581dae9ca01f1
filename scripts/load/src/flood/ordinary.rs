//! The ordinary client.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, SocketAddrV4, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use super::address;
use crate::figure::percentile;
use crate::sockets::dial;
use crate::socks::{CONNECT, Target, request};
use crate::tunnel::{self, Proxy};

/// A client gives up after this time.
const PATIENCE: Duration = Duration::from_secs(5);

/// Visits go on at this pace, whatever the earlier ones do, while fewer than [`AT_ONCE`] are under way.
const EVERY: Duration = Duration::from_millis(8);
const AT_ONCE: u32 = 8;

/// How the client comes to its target.
pub(super) struct Visit {
    pub(super) proxy: Option<Proxy>,
    pub(super) target: SocketAddrV4,
    /// It asks for its target by a name that the hosts file has.
    pub(super) by_name: bool,
    /// How long its request is on its way, once it has the proxy's first answer.
    pub(super) link: Duration,
}

/// How long visits took, in order, and how many failed.
#[derive(Default)]
pub(super) struct Figures {
    times: Vec<Duration>,
    pub(super) failures: usize,
    /// Of the first failure.
    pub(super) why: Option<String>,
}

impl Figures {
    /// Asks by the tunnels that were left alone meanwhile.
    pub(super) fn look_at(&mut self, idle: &mut [TcpStream]) {
        for stream in idle {
            if let Err(error) = ask(stream) {
                self.failures += 1;
                self.why.get_or_insert_with(|| format!("an idle tunnel: {error}"));
            }
        }
    }

    /// The time in which such a share of visits were done, in seconds.
    pub(super) fn percentile(&self, share: f64) -> f64 {
        percentile(&self.times, share)
    }

    pub(super) fn longest(&self) -> f64 {
        self.percentile(1.0)
    }

    pub(super) fn tried(&self) -> usize {
        self.times.len() + self.failures
    }
}

/// Makes visits for so long.
pub(super) fn visit(visit: &Visit, length: Duration) -> Figures {
    let begin = Instant::now();
    let mut figures = Figures::default();
    thread::scope(|scope| {
        let visitors: Vec<_> = (0..AT_ONCE)
            .map(|number| scope.spawn(move || visits(visit, begin, number, length)))
            .collect();
        for visitor in visitors {
            let of_one = visitor.join().unwrap_or_default();
            figures.times.extend(of_one.times);
            figures.failures += of_one.failures;
            figures.why = figures.why.take().or(of_one.why);
        }
    });
    figures.times.sort_unstable();
    figures
}

/// Every eighth visit.
fn visits(visit: &Visit, begin: Instant, number: u32, length: Duration) -> Figures {
    let mut figures = Figures::default();
    let mut due = begin + EVERY * number;
    while due < begin + length {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        let start = Instant::now();
        match once(visit) {
            Ok(()) => figures.times.push(start.elapsed()),
            Err(error) => {
                figures.failures += 1;
                let after = start.elapsed().as_secs_f32();
                figures.why.get_or_insert_with(|| format!("{error} after {after:.1} s"));
            }
        }
        due = (due + EVERY * AT_ONCE).max(Instant::now());
    }
    figures
}

/// From the connection to the first byte that comes back.
fn once(visit: &Visit) -> io::Result<()> {
    ask(&mut tunnel(visit)?)
}

fn ask(stream: &mut TcpStream) -> io::Result<()> {
    stream.write_all(b"?")?;
    stream.read_exact(&mut [0])
}

pub(super) fn tunnel(visit: &Visit) -> io::Result<TcpStream> {
    let target = match visit.proxy {
        Some(_) if visit.by_name => Target::Name("localhost", visit.target.port()),
        _ => visit.target.into(),
    };
    match visit.proxy {
        Some(proxy) if !visit.link.is_zero() => over_slow_link(proxy.address, visit),
        proxy => tunnel::open_from(address(9, 9), proxy, target, PATIENCE),
    }
}

/// A tunnel whose request comes late.
fn over_slow_link(proxy: SocketAddr, visit: &Visit) -> io::Result<TcpStream> {
    let mut stream = dial(address(9, 9), proxy, PATIENCE)?;
    stream.write_all(b"\x05\x01\x00")?;
    stream.read_exact(&mut [0; 2])?;
    thread::sleep(visit.link);
    stream.write_all(&request(CONNECT, visit.target.into())?)?;
    let mut reply = [0; 10];
    stream.read_exact(&mut reply)?;
    if reply[1] == 0x00 { Ok(stream) } else { Err(io::Error::other("it is refused")) }
}
