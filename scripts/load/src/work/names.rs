//! What people feel: from a client's connect to the first octet of a target that has a name.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::contender::{Contender, Running};
use crate::figure::{Better, Figure, Measure, of_client, percentile, real};
use crate::socks::Target;
use crate::tunnel;
use crate::world::World;
use crate::{room, work::Names};

const FIRST: Measure = of_client("first, ms", Better::Lower);
pub(crate) const MEDIAN: Measure = of_client("following, p50 ms", Better::Lower);
const TAIL: Measure = of_client("following, p99 ms", Better::Lower);
const REACHED: Measure = of_client("reached", Better::Higher);
const QUESTIONS: Measure = of_client("questions to the name server", Better::Lower);

/// Nobody waits longer than this for one message of a proxy or a target.
const PATIENCE: Duration = Duration::from_secs(3);

/// After so many that were not reached in a row, no more are tried.
const IN_A_ROW: usize = 3;

/// Nothing new is begun after this time: 100 hosts at 0.3 s each.
const LIMIT: Duration = Duration::from_secs(30);

/// Connections to one host, and how many a browser opens at a time.
const TO_ONE: (usize, usize) = (200, 6);

/// Different hosts, one after another.
const HOSTS: (usize, usize) = (100, 1);

/// Starts the contender in a room of its own.
pub(crate) fn run(contender: &Contender, names: Names) -> io::Result<Vec<Figure>> {
    room::inside(|| {
        let mut world = World::start()?;
        let proxy = contender.in_room().start()?;
        let (wanted, at_once) = match names {
            Names::Address | Names::One => TO_ONE,
            Names::Four | Names::Dead => HOSTS,
        };
        let port = world.port;
        let mut figures = figures(visit(wanted, at_once, |number| {
            reach(&proxy, names, number, port).map_err(in_words)
        }))?;
        if names != Names::Address {
            figures.push((QUESTIONS, f64::from(world.questions()?)));
        }
        Ok(figures)
    })
}

/// Whether a connection came about, and in what time.
type Visit = io::Result<Duration>;

/// Makes so many connections, some at a time, in the order of their numbers.
fn visit(
    wanted: usize,
    at_once: usize,
    reach: impl Fn(usize) -> io::Result<()> + Sync,
) -> Vec<Visit> {
    let (next, failures_in_a_row) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let begun = Instant::now();
    let one_after_another = || {
        let mut visits = Vec::new();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let is_hopeless = failures_in_a_row.load(Ordering::Relaxed) >= IN_A_ROW;
            if number >= wanted || is_hopeless || begun.elapsed() >= LIMIT {
                return visits;
            }
            let start = Instant::now();
            let visit = reach(number).map(|()| start.elapsed());
            match visit {
                Ok(_) => failures_in_a_row.store(0, Ordering::Relaxed),
                Err(_) => _ = failures_in_a_row.fetch_add(1, Ordering::Relaxed),
            }
            visits.push((number, visit));
        }
    };
    let mut visits: Vec<_> = thread::scope(|scope| {
        let clients: Vec<_> = (0..at_once).map(|_| scope.spawn(one_after_another)).collect();
        clients.into_iter().flat_map(|client| client.join().unwrap_or_default()).collect()
    });
    visits.sort_unstable_by_key(|(number, _)| *number);
    visits.into_iter().map(|(_, visit)| visit).collect()
}

/// A connection that failed counts as one that took all the patience there is.
fn figures(visits: Vec<Visit>) -> io::Result<Vec<Figure>> {
    let reached = visits.iter().filter(|visit| visit.is_ok()).count();
    let times = visits.iter().map(|visit| *visit.as_ref().unwrap_or(&PATIENCE));
    let mut times: Vec<Duration> = times.collect();
    if reached == 0 {
        let error = visits.into_iter().find_map(Result::err);
        let error = error.map_or("no time".to_owned(), |error| error.to_string());
        return Err(io::Error::other(format!("nothing was reached: {error}")));
    }
    let first = times.remove(0);
    times.sort_unstable();
    Ok(vec![
        (REACHED, real(reached)),
        (FIRST, first.as_secs_f64() * 1e3),
        (MEDIAN, percentile(&times, 0.5) * 1e3),
        (TAIL, percentile(&times, 0.99) * 1e3),
    ])
}

/// From connect to the first octet.
fn reach(proxy: &Running, names: Names, number: usize, port: u16) -> io::Result<()> {
    let name = match names {
        Names::Address => None,
        Names::One => Some("both1.test".to_owned()),
        Names::Four => Some(format!("four{}.test", number + 1)),
        Names::Dead => Some(format!("dead{}.test", number + 1)),
    };
    let address = SocketAddrV4::new(room::host(1), port);
    let target = name.as_ref().map_or(Target::Address(address), |name| Target::Name(name, port));
    let mut stream = tunnel::open_from(Ipv4Addr::LOCALHOST, proxy.address, target, PATIENCE)?;
    stream.write_all(b"?")?;
    let mut answer = [0];
    stream.read_exact(&mut answer)?;
    if answer == *b"?" { Ok(()) } else { Err(io::Error::other("another answer came back")) }
}

/// What the system says of a read timeout is no help.
fn in_words(error: io::Error) -> io::Error {
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => {
            io::Error::other(format!("no answer within {} s", PATIENCE.as_secs()))
        }
        ErrorKind::UnexpectedEof => io::Error::other("closed without an answer"),
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::time::Duration;

    use super::{FIRST, MEDIAN, REACHED, figures, visit};

    #[test]
    fn what_was_not_reached_counts_as_the_whole_patience() {
        let visits = vec![Ok(Duration::from_millis(20)), Err(io::Error::other("no"))];
        let figures = figures(visits).unwrap();
        let figure = |wanted| figures.iter().find(|(measure, _)| *measure == wanted).unwrap().1;
        assert!((figure(FIRST) - 20.0).abs() < 1e-9);
        assert!((figure(MEDIAN) - 3000.0).abs() < 1e-9);
        assert!((figure(REACHED) - 1.0).abs() < 1e-9);
    }

    #[test]
    fn a_proxy_that_reaches_nothing_is_asked_three_times_and_has_failed() {
        let visits = visit(100, 1, |_| Err(io::Error::other("timed out")));
        assert_eq!(visits.len(), 3);
        let error = figures(visits).unwrap_err().to_string();
        assert_eq!(error, "nothing was reached: timed out");
    }
}
