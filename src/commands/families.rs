//! Which address family is tried first. A family that has been silent in its last races starts
//! second for a minute, so that a dead IPv6 does not cost a quarter of a second at every connection.

use std::io::{Error, ErrorKind};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rustix::io::Errno;

use crate::system::sync::Mutex;

/// So many races in a row lost without an answer put a family second.
const MAX_LOSSES: u8 = 3;

/// How long a family starts second. Then it is tried first once more.
const SECOND_FOR: Duration = Duration::from_secs(60);

/// An attempt that had less time than this does not count as unanswered: the start of the next
/// attempt (250 ms) less what timers are late.
const FAIR_TIME: Duration = Duration::from_millis(200);

/// How the two families have done in the latest races.
#[derive(Debug, Default)]
pub(crate) struct Families {
    /// IPv4, IPv6.
    standings: Mutex<[Standing; 2]>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Standing {
    losses: u8,
    second_until: Option<Instant>,
}

/// An attempt of a race that is over.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attempted {
    /// Where to.
    pub address: SocketAddr,
    /// When it began.
    pub begun: Instant,
    /// Whether the host has answered: it has accepted or refused.
    pub answered: bool,
}

/// Whether a socket could not be made or bound because this machine lacks its family.
pub(crate) fn is_lacking(error: &Error) -> bool {
    Errno::from_io_error(error) == Some(Errno::AFNOSUPPORT)
        || error.kind() == ErrorKind::AddrNotAvailable
}

impl Families {
    /// Puts the addresses of a family that starts second behind those of the other, and keeps the
    /// order within each.
    pub(crate) fn order(&self, addresses: &mut [SocketAddr], now: Instant) {
        let is_second = |standing: Standing| standing.second_until.is_some_and(|until| now < until);
        let [ipv4, ipv6] = self.standings.lock().map(is_second);
        if ipv4 != ipv6 {
            addresses.sort_by_key(|address| address.is_ipv4() == ipv4);
        }
    }

    /// Notes how a race went that one of `attempts` has won.
    pub(crate) fn outcome(&self, attempts: &[Attempted], now: Instant) {
        let mut standings = self.standings.lock();
        for (standing, ipv4) in standings.iter_mut().zip([true, false]) {
            let mut of_family = attempts.iter().filter(|attempt| attempt.address.is_ipv4() == ipv4);
            if of_family.clone().any(|attempt| attempt.answered) {
                *standing = Standing::default();
            } else if of_family.any(|attempt| now.duration_since(attempt.begun) >= FAIR_TIME) {
                standing.losses = (standing.losses + 1).min(MAX_LOSSES);
                if standing.losses == MAX_LOSSES {
                    standing.second_until = Some(now + SECOND_FOR);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses() -> [SocketAddr; 3] {
        ["[2001:db8::1]:80", "[2001:db8::2]:80", "192.0.2.1:80"].map(|it| it.parse().unwrap())
    }

    /// The address that goes first.
    fn first(families: &Families, now: Instant) -> SocketAddr {
        let mut order = addresses();
        families.order(&mut order, now);
        order[0]
    }

    fn race(families: &Families, ipv6_answers: bool, begun: Instant) {
        let [ipv6, _, ipv4] = addresses();
        let attempts = [
            Attempted { address: ipv6, begun, answered: ipv6_answers },
            Attempted { address: ipv4, begun, answered: true },
        ];
        families.outcome(&attempts, begun + FAIR_TIME);
    }

    #[test]
    fn dead_ipv6_starts_second_after_three_races() {
        let (families, now) = (Families::default(), Instant::now());
        let [ipv6, _, ipv4] = addresses();
        for _ in 0..3 {
            assert_eq!(first(&families, now), ipv6);
            race(&families, false, now);
        }
        assert_eq!(first(&families, now), ipv4);
        let mut order = addresses();
        families.order(&mut order, now);
        assert_eq!(order[1..], addresses()[..2], "the order within a family stays");
        let later = now + FAIR_TIME + SECOND_FOR;
        assert_eq!(first(&families, later), ipv6, "after a minute it is tried once more");
        race(&families, false, later);
        assert_eq!(first(&families, later), ipv4, "and one more silence is enough");
    }

    #[test]
    fn any_answer_puts_a_family_first_again() {
        let (families, now) = (Families::default(), Instant::now());
        for _ in 0..3 {
            race(&families, false, now);
        }
        race(&families, true, now);
        assert_eq!(first(&families, now), addresses()[0]);
        for _ in 0..2 {
            race(&families, false, now);
        }
        assert_eq!(first(&families, now), addresses()[0], "two are not three");
    }

    #[test]
    fn an_attempt_that_had_no_time_is_not_lost() {
        let (families, now) = (Families::default(), Instant::now());
        let [ipv6, _, ipv4] = addresses();
        for _ in 0..3 {
            let attempts = [
                Attempted { address: ipv4, begun: now, answered: true },
                Attempted { address: ipv6, begun: now + FAIR_TIME, answered: false },
            ];
            families.outcome(&attempts, now + FAIR_TIME);
        }
        assert_eq!(first(&families, now), ipv6);
    }
}
