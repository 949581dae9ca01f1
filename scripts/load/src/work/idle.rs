//! Tunnels that are open and silent: what one costs, how many there can be, whether they still live.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use crate::backend::Backend;
use crate::contender::Running;
use crate::figure::{Better, Figure, Measure, of_client, of_proxy, real};
use crate::machine;
use crate::sockets::PATIENCE;
use crate::tunnel;

pub(crate) const PER_TUNNEL: Measure = of_proxy("resident KiB/tunnel");
const PER_USED_TUNNEL: Measure = of_proxy("resident KiB/tunnel once used");
const RESIDENT: Measure = of_proxy("resident MiB");
const TUNNELS: Measure = of_client("tunnels, all answering", Better::Higher);
const TIME: Measure = of_client("time to open, s", Better::Lower);
const CPU: Measure = of_proxy("proxy CPU µs/tunnel");

/// Threads that open tunnels at once.
const OPENERS: usize = 8;

/// Opening takes no longer than this in all.
const LIMIT: Duration = Duration::from_secs(60);

/// The share of the machine's memory that is never used.
const MEMORY_LEFT: f64 = 0.1;

/// Of so many tunnels in a full server one may end for another.
const PASSED_ON: usize = 100;

/// Each opener looks at the memory once in so many tunnels.
const LOOK_EVERY: usize = 100;

/// Opens tunnels, as many as wanted or, with `all` false, as many as there can be.
pub(crate) fn run(
    proxy: &Running,
    backend: &Backend,
    wanted: usize,
    all: bool,
) -> io::Result<Vec<Figure>> {
    let (resident, cpu) = (proxy.resident()?, proxy.cpu()?);
    let begun = Instant::now();
    let Opened { tunnels, last, .. } = open(proxy, backend, wanted, all)?;
    // Whatever the proxy does for new tunnels is over by then.
    thread::sleep(Duration::from_millis(500));
    let (resident_then, cpu_then) = (proxy.resident()?, proxy.cpu()?);
    let answers = answering(&tunnels);
    // A full server may pass a few places on, to clients that have fewer.
    let passed_on = if all { 0 } else { tunnels.len() / PASSED_ON };
    if answers + passed_on < tunnels.len() {
        let end = if proxy.has_ended() { ": the proxy has ended" } else { "" };
        let text = format!("only {answers} of {} tunnels still answer{end}", tunnels.len());
        return Err(io::Error::other(text));
    }
    let resident_used = proxy.resident()?;
    let count = real(answers);
    Ok(vec![
        (TUNNELS, count),
        (TIME, (last - begun).as_secs_f64()),
        (CPU, cpu_then.saturating_sub(cpu).as_secs_f64() * 1e6 / count),
        (RESIDENT, resident_then / 1024.0 / 1024.0),
        (PER_TUNNEL, (resident_then - resident) / 1024.0 / count),
        (PER_USED_TUNNEL, (resident_used - resident) / 1024.0 / count),
    ])
}

/// What has been opened.
pub(super) struct Opened {
    pub(super) tunnels: Vec<TcpStream>,
    /// When the last one was open.
    last: Instant,
    /// What stopped it.
    error: Option<io::Error>,
}

/// Has every opener open its share. With `all`, what is missing is an error.
pub(super) fn open(
    proxy: &Running,
    backend: &Backend,
    wanted: usize,
    all: bool,
) -> io::Result<Opened> {
    let mut opened = Opened { tunnels: Vec::new(), last: Instant::now(), error: None };
    thread::scope(|scope| {
        let share = |opener| move || open_some(proxy, backend, (opener..wanted).step_by(OPENERS));
        let openers: Vec<_> = (0..OPENERS).map(|opener| scope.spawn(share(opener))).collect();
        for some in openers.into_iter().filter_map(|opener| opener.join().ok()) {
            opened.tunnels.extend(some.tunnels);
            opened.last = opened.last.max(some.last);
            opened.error = opened.error.take().or(some.error);
        }
    });
    if let Some(error) = &opened.error {
        let tunnels = opened.tunnels.len();
        let reason = format!("{tunnels} of {wanted} tunnels, then: {error}");
        if all || tunnels == 0 {
            return Err(io::Error::other(reason));
        }
        eprint!("  {reason};");
    }
    Ok(opened)
}

/// One of many addresses: a server need not give all its places to one client.
fn client(number: usize) -> Ipv4Addr {
    const CLIENTS: usize = 200;
    let host = u8::try_from(1 + number % CLIENTS).expect("there are fewer than 256");
    Ipv4Addr::new(127, 0, 4, host)
}

fn open_some(proxy: &Running, backend: &Backend, numbers: impl Iterator<Item = usize>) -> Opened {
    let begun = Instant::now();
    let mut opened = Opened { tunnels: Vec::new(), last: begun, error: None };
    for number in numbers {
        let tunnel = may_go_on(begun, opened.tunnels.len()).and_then(|()| {
            let target = backend.echo(number).into();
            tunnel::open_from(client(number), proxy.address, target, PATIENCE)
        });
        match tunnel {
            Ok(tunnel) => opened.tunnels.push(tunnel),
            Err(error) => {
                opened.error = Some(error);
                break;
            }
        }
        opened.last = Instant::now();
    }
    opened
}

/// A proxy that takes too long is stopped, and so is one that takes all the memory there is.
fn may_go_on(begun: Instant, opened: usize) -> io::Result<()> {
    if begun.elapsed() > LIMIT {
        return Err(io::Error::other("time was up"));
    }
    // A look at the memory takes as long as a tunnel, so there are few.
    if opened % LOOK_EVERY != 0 {
        return Ok(());
    }
    let memory = machine::memory()?;
    if memory.available < memory.total * MEMORY_LEFT {
        return Err(io::Error::other("the machine's memory was used up"));
    }
    Ok(())
}

/// How many tunnels send an octet back. All are asked before the first answer is waited for.
fn answering(tunnels: &[TcpStream]) -> usize {
    let deadline = Instant::now() + PATIENCE;
    let asked: Vec<_> =
        tunnels.iter().filter(|tunnel| (&**tunnel).write_all(b"?").is_ok()).collect();
    let answers = asked.into_iter().filter(|tunnel| {
        let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        let mut answer = [0];
        tunnel.set_read_timeout(Some(left)).is_ok()
            && (&**tunnel).read_exact(&mut answer).is_ok()
            && answer == *b"?"
    });
    answers.count()
}
