//! How much is taken of one client, and of all clients together, be it lines of the log or connections with
//! the status page: a burst, then some each second. The others are counted, and after a while a few lines of
//! the log say how many they were.

use std::cmp::Reverse;
use std::mem;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crate::system::ip::ClientPrefix;
use crate::system::lru::LruMap;
use crate::system::shares::LOG_LINES;
use crate::system::sync::Mutex;

/// Clients that are counted apart: 1,024 of about 200 bytes each are 200 KiB. Beyond that all further
/// clients are one, and beyond a quarter of it those of one IPv6 network.
const MAX_CLIENTS: usize = LOG_LINES.all;

/// Half of what all clients may have is for those of networks that had none for so long: 1,000 that each log
/// all the time, or one host with as many addresses, hide nobody who comes new.
const NEW_AFTER: Duration = Duration::from_secs(60);

/// Clients that a summary names, those of whom most was left out first. The others are one line.
const MAX_NAMED: usize = 10;

/// Stack of the thread that logs a summary, in bytes.
const STACK: usize = 128 * 1024;

/// How much is taken.
#[derive(Debug)]
pub(super) struct Rate {
    /// So many a second of one client.
    pub(super) each: u32,
    /// So many a second of all clients.
    pub(super) all: u32,
    /// Those of so many seconds may come at once.
    pub(super) burst: Duration,
    /// How long further ones are counted before a summary says how many they were.
    pub(super) summary_after: Duration,
    /// Logs how many of this client, or of all others together, were left out.
    pub(super) summary: fn(Option<ClientPrefix>, u64),
}

/// A limit on what comes from clients.
#[derive(Debug)]
pub(super) struct RateLimit {
    rate: Rate,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    clients: LruMap<ClientPrefix, Usage>,
    /// That of all clients for which `clients` has no place.
    others: Usage,
    all: Bucket,
    /// When one was last taken of each network, which an IPv4 address is by itself.
    taken: LruMap<ClientPrefix, Instant>,
    /// A thread waits to log a summary.
    awaits_summary: bool,
}

#[derive(Debug, Default)]
struct Usage {
    bucket: Bucket,
    /// Those since the last summary that were left out.
    suppressed: u64,
}

/// When the whole burst may come again. `None` before the first one.
#[derive(Debug, Default)]
struct Bucket(Option<Instant>);

impl RateLimit {
    pub(super) fn new(rate: Rate) -> Arc<Self> {
        let state = State {
            clients: LruMap::new(MAX_CLIENTS),
            others: Usage::default(),
            all: Bucket::default(),
            taken: LruMap::new(MAX_CLIENTS),
            awaits_summary: false,
        };
        Arc::new(RateLimit { rate, state: Mutex::new(state) })
    }

    /// Whether one more is taken of this client. If not, it is counted for the next summary.
    pub(super) fn admits(self: &Arc<Self>, client: ClientPrefix) -> bool {
        let is_taken = self.take(client, Instant::now());
        if !is_taken && !mem::replace(&mut self.state.lock().awaits_summary, true) {
            self.start_summary();
        }
        is_taken
    }

    /// A thread that sleeps until the summary is due costs nothing while all are taken.
    fn start_summary(self: &Arc<Self>) {
        let limit = Arc::clone(self);
        let summarize = move || {
            thread::sleep(limit.rate.summary_after);
            limit.summarize();
        };
        let thread = thread::Builder::new().name("tabi summary".into()).stack_size(STACK);
        if thread.spawn(summarize).is_err() {
            // The next one that is left out tries again.
            self.state.lock().awaits_summary = false;
        }
    }

    /// Logs how many were left out since the last summary.
    pub(super) fn summarize(&self) {
        for (client, count) in self.take_suppressed() {
            (self.rate.summary)(client, count);
        }
    }

    fn take(&self, client: ClientPrefix, now: Instant) -> bool {
        let State { clients, others, all, taken, .. } = &mut *self.state.lock();
        let (rate, network) = (&self.rate, client.network());
        let is_full = clients.len() == MAX_CLIENTS
            && clients.oldest().is_some_and(|(_, usage)| usage.is_in_use(now));
        if !is_full && clients.peek(&client).is_none() {
            let is_neighbour = |(other, _): &(&ClientPrefix, _)| other.network() == network;
            let neighbours = clients.iter_mut().filter(is_neighbour).count();
            if neighbours < MAX_CLIENTS / 4 {
                clients.insert(client, Usage::default(), 1);
            }
        }
        let is_known = taken.peek(&network).is_some_and(|at| now.duration_since(*at) < NEW_AFTER);
        let burst = if is_known { rate.burst / 2 } else { rate.burst };
        let of_all = all.with_one_more(rate.all, burst, now);
        let is_taken = clients.get(&client).unwrap_or(others).take(rate, of_all.is_some(), now);
        if is_taken {
            *all = Bucket(of_all);
            taken.insert(network, now, 1);
        }
        is_taken
    }

    /// The numbers for a summary, `None` standing for all clients that are not named.
    fn take_suppressed(&self) -> Vec<(Option<ClientPrefix>, u64)> {
        let mut state = self.state.lock();
        state.awaits_summary = false;
        let mut unnamed = mem::take(&mut state.others.suppressed);
        let suppressed =
            |(client, usage): (&_, &mut Usage)| (Some(*client), mem::take(&mut usage.suppressed));
        let mut counts: Vec<_> = state.clients.iter_mut().map(suppressed).collect();
        drop(state);
        counts.sort_unstable_by_key(|(_, count)| Reverse(*count));
        unnamed += counts.drain(MAX_NAMED.min(counts.len())..).map(|(_, count)| count).sum::<u64>();
        counts.push((None, unnamed));
        counts.retain(|(_, count)| *count > 0);
        counts
    }
}

impl Usage {
    /// Takes one more, if all together may have one.
    fn take(&mut self, rate: &Rate, is_admitted: bool, now: Instant) -> bool {
        let next = self.bucket.with_one_more(rate.each, rate.burst, now).filter(|_| is_admitted);
        if next.is_some() {
            self.bucket = Bucket(next);
        } else {
            self.suppressed += 1;
        }
        next.is_some()
    }

    fn is_in_use(&self, now: Instant) -> bool {
        self.suppressed > 0 || self.bucket.0.is_some_and(|at| at > now)
    }
}

impl Bucket {
    /// When the whole burst may come again after one more line, if there may be one.
    fn with_one_more(&self, rate: u32, burst: Duration, now: Instant) -> Option<Instant> {
        let next = self.0.map_or(now, |at| at.max(now)) + Duration::from_secs(1) / rate;
        Some(next).filter(|next| *next <= now + burst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use portable_atomic::{AtomicU64, Ordering};
    use std::net::IpAddr;

    const SECOND: Duration = Duration::from_secs(1);
    const RATE: Rate = Rate {
        each: 2,
        all: 20,
        burst: Duration::from_secs(10),
        summary_after: SECOND,
        summary: |_, _| (),
    };

    fn client(number: u32) -> ClientPrefix {
        IpAddr::from((0x0a00_0000 + number).to_be_bytes()).into()
    }

    /// How many of so many lines are logged.
    fn logged(limit: &RateLimit, number: u32, lines: u32, now: Instant) -> usize {
        (0..lines).filter(|_| limit.take(client(number), now)).count()
    }

    #[test]
    fn a_burst_is_logged_then_some_a_second_and_the_rest_is_counted() {
        let (limit, now) = (RateLimit::new(RATE), Instant::now());
        assert_eq!(logged(&limit, 7, 100, now), 20);
        assert_eq!(logged(&limit, 7, 100, now + SECOND), 2);
        assert_eq!(limit.take_suppressed(), [(Some(client(7)), 80 + 98)]);
        assert!(limit.take_suppressed().is_empty());
        assert_eq!(logged(&limit, 7, 100, now + 20 * SECOND), 20);
    }

    #[test]
    fn all_clients_together_have_a_limit_and_hide_nobody_who_comes_new() {
        let (limit, now) = (RateLimit::new(RATE), Instant::now());
        let all: usize = (0..50).map(|number| logged(&limit, number, 1000, now)).sum();
        // Half of the burst, and a first line of each client that came behind it.
        assert_eq!(all, 100 + 45);
        for second in 1..30 {
            let now = now + second * SECOND;
            let all: usize = (0..50).map(|number| logged(&limit, number, 1000, now)).sum();
            assert!(all <= 20, "{all}");
            assert_eq!(logged(&limit, 1000 + second, 3, now), 1, "a client that comes new");
        }
    }

    #[test]
    fn a_host_with_a_thousand_addresses_hides_nobody_who_comes_new() {
        let (limit, now) = (RateLimit::new(RATE), Instant::now());
        let address = |host: u16| IpAddr::from([0xfd77, 0, 0, 0, 0, 0, 0, host]).into();
        let all = |first: u16, now| {
            (first..first + 2000).filter(|host| limit.take(address(*host), now)).count()
        };
        assert_eq!(all(0, now), 100, "half of the burst");
        for second in 1..30_u16 {
            let now = now + u32::from(second) * SECOND;
            assert!(all(second * 2000, now) <= 20);
            assert!(logged(&limit, second.into(), 3, now) > 0, "a client that comes new");
        }
    }

    #[test]
    fn a_summary_names_those_with_most_lines() {
        let (limit, now) = (RateLimit::new(RATE), Instant::now());
        for number in 0..30 {
            logged(&limit, number, 100 + number, now);
        }
        let told = limit.take_suppressed();
        let named: Vec<_> = told.iter().map(|(client, _)| *client).collect();
        let most = (20..30).rev().map(|number| Some(client(number)));
        assert_eq!(named, most.chain([None]).collect::<Vec<_>>());
        let lines: u64 = told.iter().map(|(_, count)| count).sum();
        assert_eq!(lines, (100..130).sum::<u64>() - 100 - 25);
    }

    #[test]
    fn the_table_is_bounded_and_what_is_quiet_makes_room_in_it() {
        let limit = RateLimit::new(Rate { all: 1_000_000, ..RATE });
        let now = Instant::now();
        let clients = u32::try_from(MAX_CLIENTS).unwrap();
        assert!((0..clients).all(|number| logged(&limit, number, 1, now) == 1));
        let more: usize = (clients..2 * clients).map(|number| logged(&limit, number, 1, now)).sum();
        assert_eq!(more, 20, "they are one");
        assert_eq!(limit.state.lock().clients.len(), MAX_CLIENTS);
        assert_eq!(limit.take_suppressed(), [(None, u64::from(clients) - 20)]);
        let later = now + SECOND;
        assert!((clients..2 * clients).all(|number| logged(&limit, number, 1, later) == 1));
        assert_eq!(limit.state.lock().clients.len(), MAX_CLIENTS);
    }

    #[test]
    fn a_summary_comes_without_a_further_line() {
        static SUPPRESSED: AtomicU64 = AtomicU64::new(0);
        let limit = RateLimit::new(Rate {
            each: 1,
            burst: SECOND,
            summary_after: SECOND / 10,
            summary: |told, count| {
                assert_eq!(told, Some(client(1)));
                SUPPRESSED.fetch_add(count, Ordering::SeqCst);
            },
            ..RATE
        });
        // Whoever logs without end has a summary again and again.
        for _ in 0..2 {
            let (begin, before) = (Instant::now(), SUPPRESSED.load(Ordering::SeqCst));
            (0..10).for_each(|_| _ = limit.admits(client(1)));
            while SUPPRESSED.load(Ordering::SeqCst) < before + 8 {
                assert!(begin.elapsed() < 20 * SECOND, "no summary");
                thread::yield_now();
            }
        }
    }
}
