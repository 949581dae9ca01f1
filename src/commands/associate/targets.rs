//! Where the datagrams for one name go: its permitted addresses, and which of them gets the next one.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use super::dropped::Reason;

/// How long the first address has to answer before the next datagrams go to the next one: as long as
/// CONNECT waits. Each further one has twice as long, up to 8 s, so that those who never get an
/// answer to what they send (a log, a stream) do not have it spread over all addresses.
const FIRST_TIMEOUT: Duration = Duration::from_millis(250);
const MAX_TIMEOUT: Duration = Duration::from_secs(8);

/// Where a datagram goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Route {
    /// There.
    To(SocketAddr),
    /// It waits until its name is looked up.
    Pending,
    /// Nowhere.
    Dropped(Reason),
}

/// The permitted addresses of a name; none if it leads nowhere.
#[derive(Debug)]
pub(super) struct Targets {
    addresses: Vec<SocketAddr>,
    /// Why there are none.
    reason: Reason,
    /// When the name is to be looked up again.
    pub(super) until: Instant,
    /// It is looked up again.
    pub(super) is_renewed: bool,
    /// The one that gets the datagrams.
    current: usize,
    /// When the first datagram went there; `None` before.
    since: Option<Instant>,
    timeout: Duration,
    /// It has answered.
    answered: bool,
}

impl Targets {
    /// These addresses; if there are none, datagrams are dropped for this reason.
    pub(super) fn new(addresses: Vec<SocketAddr>, reason: Reason, until: Instant) -> Self {
        Targets {
            addresses,
            reason,
            until,
            is_renewed: false,
            current: 0,
            since: None,
            timeout: FIRST_TIMEOUT,
            answered: false,
        }
    }

    /// Goes on with the address that has answered under `earlier`, if it is still one of these.
    pub(super) fn succeed(mut self, earlier: &Targets) -> Self {
        if let Some(address) = earlier.addresses.get(earlier.current).filter(|_| earlier.answered) {
            self.note_reply(address.ip());
        }
        self
    }

    /// Where a datagram goes now.
    pub(super) fn next(&mut self, now: Instant) -> Route {
        if !self.answered && self.addresses.len() > 1 {
            let since = *self.since.get_or_insert(now);
            if now >= since + self.timeout {
                self.timeout = (2 * self.timeout).min(MAX_TIMEOUT);
                self.move_on();
                self.since = Some(now);
            }
        }
        let target = self.addresses.get(self.current);
        target.map_or(Route::Dropped(self.reason), |target| Route::To(*target))
    }

    /// The datagrams after this one go to the next address.
    pub(super) fn move_on(&mut self) {
        self.current = (self.current + 1) % self.addresses.len().max(1);
        self.since = None;
        self.answered = false;
    }

    /// How many addresses there are.
    pub(super) fn count(&self) -> usize {
        self.addresses.len()
    }

    /// Whether none of the addresses has answered yet.
    pub(super) fn is_unanswered(&self) -> bool {
        !self.answered && !self.addresses.is_empty()
    }

    /// Something has come from `from`. If it is the first reply of these addresses, the datagrams
    /// go there from now on, and this is true.
    pub(super) fn note_reply(&mut self, from: IpAddr) -> bool {
        let is_from = |address: &SocketAddr| address.ip().to_canonical() == from.to_canonical();
        let place = self.addresses.iter().position(is_from).filter(|_| !self.answered);
        if let Some(place) = place {
            self.current = place;
            self.answered = true;
        }
        place.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(30);

    fn addresses() -> Vec<SocketAddr> {
        ["[2001:db8::1]:9", "192.0.2.1:9", "192.0.2.2:9"].map(|it| it.parse().unwrap()).to_vec()
    }

    fn new_targets(addresses: &[SocketAddr]) -> Targets {
        Targets::new(addresses.to_vec(), Reason::Unresolved, Instant::now() + TTL)
    }

    #[test]
    fn dead_ipv6_gives_way_to_the_next_address() {
        let now = Instant::now();
        let to = |index: usize| Route::To(addresses()[index]);
        let mut targets = new_targets(&addresses());
        assert_eq!(targets.next(now), to(0));
        assert_eq!(targets.next(now + FIRST_TIMEOUT / 2), to(0));
        let second = now + FIRST_TIMEOUT;
        assert_eq!(targets.next(second), to(1));
        assert!(targets.note_reply("::ffff:192.0.2.1".parse().unwrap()));
        assert_eq!(targets.next(second + TTL), to(1));
        assert!(!targets.note_reply("192.0.2.2".parse().unwrap()), "it was not asked");
        assert_eq!(targets.next(second + TTL), to(1));
        let mut renewed = new_targets(&addresses()).succeed(&targets);
        assert_eq!(renewed.next(now + TTL), to(1));
    }

    #[test]
    fn a_late_answer_of_the_first_address_brings_the_datagrams_back() {
        let now = Instant::now();
        let mut targets = new_targets(&addresses());
        targets.next(now);
        targets.next(now + FIRST_TIMEOUT);
        assert!(targets.note_reply(addresses()[0].ip()));
        assert_eq!(targets.next(now + FIRST_TIMEOUT), Route::To(addresses()[0]));
    }

    #[test]
    fn what_is_never_answered_changes_its_address_ever_more_rarely() {
        let begin = Instant::now();
        let mut targets = new_targets(&addresses());
        let (mut last, mut changes) = (Route::To(addresses()[0]), 0);
        for tick in 0..6000 {
            let target = targets.next(begin + tick * Duration::from_millis(10));
            changes += u32::from(target != last);
            last = target;
        }
        assert!((5..=12).contains(&changes), "{changes} in a minute");
    }

    #[test]
    fn a_single_address_is_kept_and_none_is_none() {
        let now = Instant::now();
        let mut one = new_targets(&addresses()[..1]);
        for second in 0..3 {
            assert_eq!(one.next(now + second * MAX_TIMEOUT), Route::To(addresses()[0]));
        }
        assert_eq!(new_targets(&[]).next(now), Route::Dropped(Reason::Unresolved));
    }
}
