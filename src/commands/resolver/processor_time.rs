//! How much processor time the lookups of one client, and of one network, take. Where the hosts file has 5 MB, each takes 7 ms.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

use crate::system::ip::ClientPrefix;
use crate::system::lru::LruMap;

/// A client's lookups may take an eighth of a core, and those of one IPv6 network half of one: a host there
/// can have very many addresses.
const PART: u32 = 8;
const PART_OF_NETWORK: u32 = 2;

/// What they have not taken in this time they may take at once: a second, and four.
const BURST: Duration = Duration::from_secs(8);

/// The longest that a lookup keeps its place for that. With few descriptors there are few places, and
/// others want them: a client that has 16 of them gets 16 lookups a second then, whatever they take.
const MAX_PAUSE: Duration = Duration::from_secs(1);

/// Clients whose time is known. At about 200 bytes each, that is 200 KiB.
const MAX_CLIENTS: usize = 1024;

/// When each client, and each network, will have paid back for what its lookups have taken.
pub(super) struct ProcessorTime(LruMap<ClientPrefix, Instant>);

impl Default for ProcessorTime {
    fn default() -> Self {
        ProcessorTime(LruMap::new(MAX_CLIENTS))
    }
}

impl ProcessorTime {
    /// Notes what a lookup has taken. Says for how long it has to keep its place, so that another one
    /// of that client does not begin there.
    pub(super) fn charge(
        &mut self,
        client: ClientPrefix,
        taken: Duration,
        now: Instant,
    ) -> Duration {
        let pause = self.owe(client, PART * taken, now);
        match client.network() {
            network if network != client => {
                pause.max(self.owe(network, PART_OF_NETWORK * taken, now))
            }
            _ => pause,
        }
    }

    fn owe(&mut self, who: ClientPrefix, more: Duration, now: Instant) -> Duration {
        let paid_back = self.0.peek(&who).map_or(now, |paid_back| now.max(*paid_back)) + more;
        self.0.insert(who, paid_back, 1);
        paid_back.saturating_duration_since(now + BURST).min(MAX_PAUSE)
    }
}

/// What this thread has taken so far.
pub(super) fn of_this_thread() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::IpAddr;

    #[test]
    fn a_client_has_a_second_at_once_and_then_an_eighth_of_a_core() {
        let (mut times, begin) = (ProcessorTime::default(), Instant::now());
        let [client, other] = [1, 2].map(|host| IpAddr::from([192, 0, 2, host]).into());
        let taken = Duration::from_millis(10);
        let mut now = begin;
        for lookup in 0..1000 {
            let pause = times.charge(client, taken, now);
            assert_eq!(pause.is_zero(), lookup < 100, "{lookup}");
            now += pause;
        }
        assert_eq!(now - begin, 900 * 8 * taken);
        assert_eq!(times.charge(other, taken, now), Duration::ZERO);
        assert_eq!(times.charge(client, taken, now + BURST), Duration::ZERO);
    }

    #[test]
    fn a_host_with_a_thousand_addresses_takes_half_a_core() {
        let (mut times, begin) = (ProcessorTime::default(), Instant::now());
        let client = |host: u16| IpAddr::from([0xfd77, 0, 0, 0, 0, 0, 0, host]).into();
        let taken = Duration::from_millis(10);
        let mut now = begin;
        for lookup in 0..1000 {
            now += times.charge(client(lookup), taken, now);
        }
        assert_eq!(now - begin, 600 * 2 * taken);
        assert_eq!(times.charge(IpAddr::from([192, 0, 2, 1]).into(), taken, now), Duration::ZERO);
    }

    #[test]
    fn the_time_of_a_thread_is_what_it_has_worked() {
        let (before, begin) = (of_this_thread(), Instant::now());
        while of_this_thread() < before + Duration::from_millis(10) {
            assert!(begin.elapsed() < Duration::from_secs(20));
        }
        assert!(begin.elapsed() >= Duration::from_millis(9));
    }
}
