//! The addresses of one name, and which of them gets the next datagram.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

/// How long the first address has to answer before the next datagrams go to the next one: as long as
/// CONNECT waits. Each further one has twice as long, up to 8 s, so that those who never get an
/// answer to what they send (a log, a stream) do not have it spread over all addresses.
const FIRST_PATIENCE: Duration = Duration::from_millis(250);
const LONGEST_PATIENCE: Duration = Duration::from_secs(8);

/// The permitted addresses of a name; none if it leads nowhere.
#[derive(Debug)]
pub(super) struct Targets {
    addresses: Vec<SocketAddr>,
    /// The one that gets the datagrams.
    current: usize,
    /// When the first datagram went there; `None` before.
    since: Option<Instant>,
    patience: Duration,
    /// It has answered.
    answered: bool,
    /// When the name is to be looked up again.
    pub(super) until: Instant,
}

impl Targets {
    pub(super) fn new(addresses: Vec<SocketAddr>, until: Instant) -> Self {
        let patience = FIRST_PATIENCE;
        Targets { addresses, current: 0, since: None, patience, answered: false, until }
    }

    /// Goes on with the address that has answered under `earlier`, if it is still one of these.
    pub(super) fn succeed(mut self, earlier: &Targets) -> Self {
        if let Some(address) = earlier.addresses.get(earlier.current).filter(|_| earlier.answered) {
            self.heard(address.ip());
        }
        self
    }

    /// Where a datagram goes now, and until when the next ones go there without asking again.
    pub(super) fn next(&mut self, now: Instant) -> Option<(SocketAddr, Instant)> {
        let target = *self.addresses.get(self.current)?;
        if self.answered || self.addresses.len() == 1 {
            return Some((target, self.until));
        }
        let since = *self.since.get_or_insert(now);
        let enough = since + self.patience;
        if now < enough {
            return Some((target, enough.min(self.until)));
        }
        self.patience = (2 * self.patience).min(LONGEST_PATIENCE);
        self.move_on();
        self.since = Some(now);
        Some((self.addresses[self.current], (now + self.patience).min(self.until)))
    }

    /// The datagrams after this one go to the next address.
    pub(super) fn move_on(&mut self) {
        self.current = (self.current + 1) % self.addresses.len().max(1);
        self.since = None;
        self.answered = false;
    }

    /// Whether there is nowhere to send to.
    pub(super) fn is_empty(&self) -> bool {
        self.addresses.is_empty()
    }

    /// How many addresses there are.
    pub(super) fn count(&self) -> usize {
        self.addresses.len()
    }

    /// Whether none of the addresses has answered yet.
    pub(super) fn is_unanswered(&self) -> bool {
        !self.answered && !self.addresses.is_empty()
    }

    /// Something has come from `from`. If it is the first answer of these addresses, the datagrams
    /// go there from now on, and this is true.
    pub(super) fn heard(&mut self, from: IpAddr) -> bool {
        let is_from = |address: &SocketAddr| address.ip().to_canonical() == from.to_canonical();
        match self.addresses.iter().position(is_from) {
            Some(place) if !self.answered => {
                self.current = place;
                self.answered = true;
                true
            }
            Some(_) | None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LASTS: Duration = Duration::from_secs(30);

    fn addresses() -> Vec<SocketAddr> {
        ["[2001:db8::1]:9", "192.0.2.1:9", "192.0.2.2:9"].map(|it| it.parse().unwrap()).to_vec()
    }

    #[test]
    fn dead_ipv6_gives_way_to_the_next_address() {
        let now = Instant::now();
        let mut targets = Targets::new(addresses(), now + LASTS);
        assert_eq!(targets.next(now), Some((addresses()[0], now + FIRST_PATIENCE)));
        assert_eq!(targets.next(now + FIRST_PATIENCE / 2).unwrap().0, addresses()[0]);
        let second = now + FIRST_PATIENCE;
        assert_eq!(targets.next(second).unwrap().0, addresses()[1]);
        assert!(targets.heard("::ffff:192.0.2.1".parse().unwrap()));
        assert_eq!(targets.next(second + LASTS), Some((addresses()[1], now + LASTS)));
        assert!(!targets.heard("192.0.2.2".parse().unwrap()), "it was not asked");
        assert_eq!(targets.next(second + LASTS).unwrap().0, addresses()[1]);
        let mut renewed = Targets::new(addresses(), now + 2 * LASTS).succeed(&targets);
        assert_eq!(renewed.next(now + LASTS), Some((addresses()[1], now + 2 * LASTS)));
    }

    #[test]
    fn a_late_answer_of_the_first_address_brings_the_datagrams_back() {
        let now = Instant::now();
        let mut targets = Targets::new(addresses(), now + LASTS);
        targets.next(now);
        targets.next(now + FIRST_PATIENCE);
        assert!(targets.heard(addresses()[0].ip()));
        assert_eq!(targets.next(now + FIRST_PATIENCE).unwrap().0, addresses()[0]);
    }

    #[test]
    fn what_is_never_answered_changes_its_address_ever_more_rarely() {
        let begin = Instant::now();
        let mut targets = Targets::new(addresses(), begin + 1000 * LASTS);
        let (mut last, mut changes) = (addresses()[0], 0);
        for tick in 0..6000 {
            let (target, _) = targets.next(begin + tick * Duration::from_millis(10)).unwrap();
            changes += u32::from(target != last);
            last = target;
        }
        assert!((5..=12).contains(&changes), "{changes} in a minute");
    }

    #[test]
    fn a_single_address_is_kept_and_none_is_none() {
        let now = Instant::now();
        let mut one = Targets::new(addresses()[..1].to_vec(), now + LASTS);
        for _ in 0..3 {
            assert_eq!(one.next(now), Some((addresses()[0], now + LASTS)));
        }
        assert_eq!(Targets::new(Vec::new(), now).next(now), None);
    }
}
