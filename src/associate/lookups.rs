//! Datagrams that wait until the name they are for has been looked up.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::lookup;
use crate::pool::{self, Partner, Pending};
use crate::socks5::{Address, Host};

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
        if self.under_way.is_none()
            && let Some(Waiting { destination, .. }) = self.waiting.front()
            && let Host::Name(name) = &destination.host
        {
            self.under_way = Some(Lookup {
                destination: destination.clone(),
                begun: Instant::now(),
                answer: lookup::start(name, destination.port, self.partner),
            });
        }
    }
}
