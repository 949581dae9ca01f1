//! What people feel: from a client's connect to the first octet of a target that has a name.

use std::io::{self, ErrorKind, Read, Write};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::contender::{Contender, Running};
use crate::figure::{Better, Figure, Measure, of_client, percentile};
use crate::socks::{self, Target};
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
        let clients = Clients::new(names);
        clients.run(&proxy, names, world.port)?;
        let mut figures = clients.figures()?;
        if names != Names::Address {
            figures.push((QUESTIONS, f64::from(world.questions()?)));
        }
        Ok(figures)
    })
}

/// Clients that take the next connection in turn.
struct Clients {
    wanted: usize,
    at_once: usize,
    next: AtomicUsize,
    begun: Instant,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The number of each connection, and its time where the target answered.
    done: Vec<(usize, Option<Duration>)>,
    failures_in_a_row: usize,
    error: Option<io::Error>,
}

impl Clients {
    fn new(names: Names) -> Clients {
        let (wanted, at_once) = match names {
            Names::Address | Names::One => TO_ONE,
            Names::Four | Names::Dead => HOSTS,
        };
        let (next, begun, state) = (AtomicUsize::new(0), Instant::now(), Mutex::default());
        Clients { wanted, at_once, next, begun, state }
    }

    fn run(&self, proxy: &Running, names: Names, port: u16) -> io::Result<()> {
        thread::scope(|scope| {
            for _ in 0..self.at_once {
                thread::Builder::new().spawn_scoped(scope, || {
                    while let Some(number) = self.take() {
                        let begun = Instant::now();
                        let outcome = reach(proxy, names, number, port).map_err(in_words);
                        self.record(number, outcome.map(|()| begun.elapsed()));
                    }
                })?;
            }
            Ok(())
        })
    }

    /// The number of the next connection, if there is to be one.
    fn take(&self) -> Option<usize> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let hopeless = self.state().failures_in_a_row >= IN_A_ROW;
        (number < self.wanted && !hopeless && self.begun.elapsed() < LIMIT).then_some(number)
    }

    fn record(&self, number: usize, outcome: io::Result<Duration>) {
        let mut state = self.state();
        state.failures_in_a_row = if outcome.is_ok() { 0 } else { state.failures_in_a_row + 1 };
        match outcome {
            Ok(time) => state.done.push((number, Some(time))),
            Err(error) => {
                state.done.push((number, None));
                state.error.get_or_insert(error);
            }
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// A connection that failed counts as one that took all the patience there is.
    #[expect(clippy::cast_precision_loss, reason = "far fewer connections than 2^53")]
    fn figures(self) -> io::Result<Vec<Figure>> {
        let mut state = self.state.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        state.done.sort_unstable_by_key(|(number, _)| *number);
        let reached = state.done.iter().filter(|(_, time)| time.is_some()).count();
        if reached == 0 {
            let error = state.error.map_or("no time".to_owned(), |error| error.to_string());
            return Err(io::Error::other(format!("nothing was reached: {error}")));
        }
        let mut times: Vec<u32> = state
            .done
            .into_iter()
            .map(|(_, time)| time.unwrap_or(PATIENCE).as_nanos())
            .map(|nanoseconds| u32::try_from(nanoseconds).unwrap_or(u32::MAX))
            .collect();
        let first = times.remove(0);
        times.sort_unstable();
        Ok(vec![
            (REACHED, reached as f64),
            (FIRST, percentile(&[first], 0.5) / 1000.0),
            (MEDIAN, percentile(&times, 0.5) / 1000.0),
            (TAIL, percentile(&times, 0.99) / 1000.0),
        ])
    }
}

/// From connect to the first octet.
fn reach(proxy: &Running, names: Names, number: usize, port: u16) -> io::Result<()> {
    let name = match names {
        Names::Address => None,
        Names::One => Some("both1.test".to_owned()),
        Names::Four => Some(format!("four{}.test", number + 1)),
        Names::Dead => Some(format!("dead{}.test", number + 1)),
    };
    let address = std::net::SocketAddrV4::new(room::host(1), port);
    let target = name.as_ref().map_or(Target::Address(address), |name| Target::Name(name, port));
    let mut stream = socks::tunnel_to(proxy.address, target, PATIENCE)?;
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

    use super::{Clients, FIRST, MEDIAN, REACHED};
    use crate::work::Names;

    #[test]
    fn what_was_not_reached_counts_as_the_whole_patience() {
        let clients = Clients::new(Names::Four);
        clients.record(1, Err(io::Error::other("no")));
        clients.record(0, Ok(Duration::from_millis(20)));
        let figures = clients.figures().unwrap();
        let figure = |wanted| figures.iter().find(|(measure, _)| *measure == wanted).unwrap().1;
        assert!((figure(FIRST) - 20.0).abs() < 1e-9);
        assert!((figure(MEDIAN) - 3000.0).abs() < 1e-9);
        assert!((figure(REACHED) - 1.0).abs() < 1e-9);
    }

    #[test]
    fn a_proxy_that_reaches_nothing_is_asked_three_times_and_has_failed() {
        let clients = Clients::new(Names::Dead);
        for number in 0..3 {
            assert_eq!(clients.take(), Some(number));
            clients.record(number, Err(io::Error::other("timed out")));
        }
        assert_eq!(clients.take(), None);
        let error = clients.figures().unwrap_err().to_string();
        assert_eq!(error, "nothing was reached: timed out");
    }
}
