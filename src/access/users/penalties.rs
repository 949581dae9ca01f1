//! Who has failed to authenticate of late, and how long to turn them away for it. Nobody is made
//! to wait on a connection: that would hold a worker.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Failures that have no consequence: anyone mistypes a password.
const FREE_FAILURES: u32 = 4;

/// The time for which one more failure turns an address away; each further one doubles it.
const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(60);

/// An address that has not failed for this time starts anew.
const FORGET_AFTER: Duration = Duration::from_secs(10 * 60);

/// Addresses that are remembered; of more, the one whose last failure is oldest is forgotten.
const MOST_ADDRESSES: usize = 1024;

/// The addresses that have failed of late.
#[derive(Debug, Default)]
pub(super) struct Penalties {
    addresses: Mutex<HashMap<IpAddr, Failures>>,
}

#[derive(Debug)]
struct Failures {
    count: u32,
    last: Instant,
}

impl Failures {
    /// The time for which the address is still turned away.
    fn left(&self, now: Instant) -> Option<Duration> {
        let doublings = self.count.checked_sub(FREE_FAILURES + 1)?;
        let penalty = 2_u32
            .checked_pow(doublings)
            .map_or(LONGEST, |factor| SHORTEST.checked_mul(factor).unwrap_or(LONGEST).min(LONGEST));
        penalty.checked_sub(now.duration_since(self.last)).filter(|left| !left.is_zero())
    }
}

impl Penalties {
    /// For how long `client` is turned away yet, if it is.
    pub(super) fn left(&self, client: IpAddr, now: Instant) -> Option<Duration> {
        self.lock().get(&culprit(client))?.left(now)
    }

    /// Notes that `client` has failed to authenticate.
    pub(super) fn failed(&self, client: IpAddr, now: Instant) {
        let mut addresses = self.lock();
        let client = culprit(client);
        if addresses.len() >= MOST_ADDRESSES && !addresses.contains_key(&client) {
            let oldest = addresses.iter().min_by_key(|(_, failures)| failures.last);
            if let Some(oldest) = oldest.map(|(address, _)| *address) {
                addresses.remove(&oldest);
            }
        }
        let failures = addresses.entry(client).or_insert(Failures { count: 0, last: now });
        if now.duration_since(failures.last) >= FORGET_AFTER {
            failures.count = 0;
        }
        failures.count = failures.count.saturating_add(1);
        failures.last = now;
    }

    /// Notes that `client` has authenticated: what it did before is forgiven.
    pub(super) fn succeeded(&self, client: IpAddr) {
        self.lock().remove(&culprit(client));
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, Failures>> {
        self.addresses.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whom a failure is held against. Who has a global IPv6 address has all 2^64 of its /64, so they
/// count as one. A unique-local or link-local /64 is a whole office, where one old password is not
/// to shut everybody out: there an address counts alone, as in IPv4.
fn culprit(client: IpAddr) -> IpAddr {
    match client {
        IpAddr::V6(ip) if ip.segments()[0] & 0xe000 == 0x2000 => {
            IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() & !u128::from(u64::MAX)))
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(address: &str) -> IpAddr {
        address.parse().unwrap()
    }

    fn fail(penalties: &Penalties, client: &str, times: u32, now: Instant) {
        for _ in 0..times {
            penalties.failed(ip(client), now);
        }
    }

    #[test]
    fn the_time_doubles_from_the_fifth_failure_on() {
        let (penalties, now) = (Penalties::default(), Instant::now());
        fail(&penalties, "192.168.0.7", 4, now);
        assert_eq!(penalties.left(ip("192.168.0.7"), now), None);
        for seconds in [1, 2, 4, 8, 16, 32, 60, 60] {
            penalties.failed(ip("192.168.0.7"), now);
            let left = penalties.left(ip("192.168.0.7"), now);
            assert_eq!(left, Some(Duration::from_secs(seconds)));
        }
        fail(&penalties, "192.168.0.7", 100, now);
        assert_eq!(penalties.left(ip("192.168.0.7"), now), Some(LONGEST));
        assert_eq!(penalties.left(ip("192.168.0.8"), now), None, "a neighbour");
    }

    #[test]
    fn it_ends_and_is_forgotten() {
        let (penalties, now) = (Penalties::default(), Instant::now());
        fail(&penalties, "192.168.0.7", 5, now);
        let client = ip("192.168.0.7");
        let left = penalties.left(client, now + Duration::from_millis(999));
        assert_eq!(left, Some(Duration::from_millis(1)));
        assert_eq!(penalties.left(client, now + SHORTEST), None);
        penalties.failed(client, now + SHORTEST);
        assert!(penalties.left(client, now + SHORTEST).is_some(), "the next failure counts on");
        penalties.failed(client, now + SHORTEST + FORGET_AFTER);
        assert_eq!(penalties.left(client, now + SHORTEST + FORGET_AFTER), None);
    }

    #[test]
    fn a_success_clears_it() {
        let (penalties, now) = (Penalties::default(), Instant::now());
        fail(&penalties, "192.168.0.7", 9, now);
        penalties.succeeded(ip("192.168.0.7"));
        fail(&penalties, "192.168.0.7", 4, now);
        assert_eq!(penalties.left(ip("192.168.0.7"), now), None);
    }

    #[test]
    fn a_global_ipv6_network_counts_as_one_and_a_local_one_does_not() {
        let (penalties, now) = (Penalties::default(), Instant::now());
        for host in 0..5 {
            fail(&penalties, &format!("2001:db8::{host}"), 1, now);
            fail(&penalties, &format!("fd00::{host}"), 1, now);
            fail(&penalties, &format!("fe80::{host}"), 1, now);
        }
        assert!(penalties.left(ip("2001:db8::99"), now).is_some());
        assert_eq!(penalties.left(ip("2001:db8:0:1::99"), now), None);
        assert_eq!(penalties.left(ip("fd00::1"), now), None);
        assert_eq!(penalties.left(ip("fe80::1"), now), None);
    }

    #[test]
    fn memory_is_bounded_and_the_oldest_is_forgotten() {
        let (penalties, start) = (Penalties::default(), Instant::now());
        fail(&penalties, "192.0.2.1", 8, start);
        for attacker in 0..5000_u32 {
            let now = start + Duration::from_millis(attacker.into());
            penalties.failed(IpAddr::V4((0x0a00_0000 + attacker).into()), now);
            if attacker == 1000 {
                assert!(penalties.left(ip("192.0.2.1"), now).is_some());
            }
        }
        assert_eq!(penalties.lock().len(), MOST_ADDRESSES);
        assert!(!penalties.lock().contains_key(&ip("192.0.2.1")));
        assert!(penalties.lock().contains_key(&ip("10.0.19.135")), "the newest");
    }
}
