//! Datagrams that wait until the name they are for has been looked up.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::commands::lookup;
use crate::socks5::{Address, Host};
use crate::system::pool::{self, Partner, Pending};

/// Datagrams, and octets in them, that wait at the most; a further one is dropped.
const MOST_DATAGRAMS: usize = 64;
const MOST_OCTETS: usize = 128 * 1024;

/// Bounds of the pause between two looks at a lookup.
const SHORTEST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(20);

/// The lookups of one association, one at a time.
pub(super) struct Lookups<'a> {
    partner: &'a Partner,
    under_way: Option<Lookup<'a>>,
    waiting: VecDeque<Waiting>,
    octets: usize,
}

struct Lookup<'a> {
    destination: Address,
    begun: Instant,
    answer: Pending<'a, io::Result<Vec<SocketAddr>>>,
}

struct Waiting {
    destination: Address,
    payload: Vec<u8>,
}

/// A lookup that is over.
pub(super) struct Answer {
    /// What was looked up.
    pub(super) destination: Address,
    /// What was found: nothing if the lookup failed.
    pub(super) addresses: Vec<SocketAddr>,
    /// What is to be sent there, the oldest first.
    pub(super) payloads: Vec<Vec<u8>>,
}

impl<'a> Lookups<'a> {
    pub(super) fn new(partner: &'a Partner) -> Self {
        Lookups { partner, under_way: None, waiting: VecDeque::new(), octets: 0 }
    }

    /// Looks up the name in `destination`, and keeps `payload` until then if there is room.
    pub(super) fn add(&mut self, destination: Address, payload: &[u8]) {
        let octets = self.octets + payload.len();
        if self.waiting.len() < MOST_DATAGRAMS && octets <= MOST_OCTETS {
            self.octets = octets;
            self.waiting.push_back(Waiting { destination, payload: payload.to_vec() });
            self.start_next();
        }
    }

    /// How long to wait before looking again, if a lookup is under way. There is no descriptor that
    /// would tell of its end; the pauses grow with the time that it has taken.
    pub(super) fn pause(&self, now: Instant) -> Option<Duration> {
        let taken = now.duration_since(self.under_way.as_ref()?.begun);
        Some((taken / 8).clamp(SHORTEST_PAUSE, LONGEST_PAUSE))
    }

    /// The lookup that is over, if one is; the next one begins.
    pub(super) fn take(&mut self) -> Option<Answer> {
        let addresses = match self.under_way.as_mut()?.answer.wait_for(Duration::ZERO) {
            Err(pool::UnderWay) => return None,
            Ok(answer) => answer.and_then(Result::ok).unwrap_or_default(),
        };
        let destination = self.under_way.take()?.destination;
        let (ours, theirs) = self
            .waiting
            .drain(..)
            .partition::<Vec<_>, _>(|waiting| waiting.destination == destination);
        self.waiting = theirs.into();
        let payloads: Vec<_> = ours.into_iter().map(|waiting| waiting.payload).collect();
        self.octets -= payloads.iter().map(Vec::len).sum::<usize>();
        self.start_next();
        Some(Answer { destination, addresses, payloads })
    }

    fn start_next(&mut self) {
        if self.under_way.is_some() {
            return;
        }
        let Some(Waiting { destination, .. }) = self.waiting.front() else { return };
        if let Host::Name(name) = &destination.host {
            self.under_way = Some(Lookup {
                destination: destination.clone(),
                begun: Instant::now(),
                answer: lookup::start(name, destination.port, self.partner),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::socks5::Name;
    use crate::system::pool::Pool;
    use std::sync::mpsc::channel;
    use std::thread;

    const LONG: Duration = Duration::from_secs(20);

    fn to(name: &str) -> Address {
        Address { host: Host::Name(Name::new(name.into()).unwrap()), port: 9 }
    }

    fn next(lookups: &mut Lookups<'_>) -> Answer {
        let begin = Instant::now();
        loop {
            if let Some(answer) = lookups.take() {
                return answer;
            }
            assert!(begin.elapsed() < LONG, "the lookup does not end");
            thread::sleep(lookups.pause(Instant::now()).expect("a lookup is under way"));
        }
    }

    #[test]
    fn what_waits_is_bounded_and_goes_in_order() {
        let (sender, receiver) = channel();
        let pool = Pool::new(1);
        let started = pool.start(move |partner| {
            let mut lookups = Lookups::new(partner);
            lookups.add(to("127.2"), b"the other");
            for number in 0..=u8::MAX {
                lookups.add(to("127.1"), &[number]);
            }
            let other = next(&mut lookups);
            assert_eq!(other.destination, to("127.2"));
            assert_eq!(other.payloads, [b"the other"]);
            let answer = next(&mut lookups);
            assert_eq!(answer.addresses, ["127.0.0.1:9".parse().unwrap()]);
            let first: Vec<Vec<u8>> = (0..63).map(|number| vec![number]).collect();
            assert_eq!(answer.payloads, first);
            assert!(lookups.pause(Instant::now()).is_none());
            for _ in 0..3 {
                lookups.add(to("tabi.invalid"), &vec![0; 60_000]);
            }
            let answer = next(&mut lookups);
            assert_eq!((answer.addresses.len(), answer.payloads.len()), (0, 2));
            assert_eq!(lookups.octets, 0);
            sender.send(()).unwrap();
        });
        started.unwrap();
        receiver.recv_timeout(LONG).unwrap();
    }
}
