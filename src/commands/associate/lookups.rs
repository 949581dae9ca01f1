//! Datagrams that wait until the name they are for has been looked up.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::budget::{Budget, Share};
use crate::commands::resolver::{Answer, Lookup, LookupState, Resolver};
use crate::system::waker::Waker;
use crate::wire::address::{Address, Name};

/// Datagrams of one association that wait, and names that are waited for.
const MAX_PENDING: usize = 64;

/// Bytes in datagrams and lookups of one association: two of the largest datagrams, or a flight of
/// smaller ones.
const MAX_BYTES: usize = 128 * 1024 + MAX_PENDING * LOOKUP;

/// Bytes that any association may have, however many there are: a lookup and two datagrams of QUIC.
const OWN_BYTES: usize = 4 * 1024;

/// Bytes that a lookup under way takes, here and where lookups wait for a thread.
const LOOKUP: usize = 704;

/// How long a datagram waits. Who has sent it has sent another one by then, or given up.
const MAX_WAIT: Duration = Duration::from_secs(10);

/// The lookups of one association.
pub(super) struct Lookups<'a> {
    resolver: &'a Arc<Resolver>,
    client: IpAddr,
    /// Woken at the end of a lookup. It is made for the first.
    waker: Option<Arc<Waker>>,
    under_way: Vec<UnderWay>,
    /// Datagrams that wait.
    pending: usize,
    share: Share,
}

struct UnderWay {
    destination: Address,
    name: Name,
    lookup: Lookup,
    until: Instant,
    payloads: Vec<Vec<u8>>,
}

/// A lookup that is over.
pub(super) struct Finished {
    /// What it was for.
    pub(super) destination: Address,
    /// What was looked up.
    pub(super) name: Name,
    /// What was found: nothing if the lookup failed, `None` if it has taken too long.
    pub(super) addresses: Option<Vec<SocketAddr>>,
    /// What is to be sent there, the oldest first.
    pub(super) payloads: Vec<Vec<u8>>,
}

/// What becomes of a datagram for a name.
pub(super) enum Resolution {
    /// Its addresses are known.
    Known(Vec<SocketAddr>),
    /// It waits for them.
    Pending,
    /// Too many wait already, or the system refuses what is needed to wait.
    TooMany,
}

impl<'a> Lookups<'a> {
    pub(super) fn new(
        resolver: &'a Arc<Resolver>,
        client: IpAddr,
        budget: &'static Budget,
    ) -> Self {
        let share = Share::new(budget, OWN_BYTES, MAX_BYTES);
        Lookups { resolver, client, waker: None, under_way: Vec::new(), pending: 0, share }
    }

    /// Looks up `name` for `destination`, and keeps `payload` until then if there is memory for it.
    pub(super) fn resolve(
        &mut self,
        destination: &Address,
        name: &Name,
        payload: Option<&[u8]>,
        now: Instant,
    ) -> Resolution {
        let is_same = |under_way: &UnderWay| under_way.destination == *destination;
        let index = match self.under_way.iter().position(is_same) {
            Some(index) => index,
            None => match self.begin(destination, name, now) {
                Resolution::Pending => self.under_way.len() - 1,
                known => return known,
            },
        };
        let Some(payload) = payload else { return Resolution::Pending };
        if self.pending >= MAX_PENDING || !self.share.take(payload.len()) {
            return Resolution::TooMany;
        }
        self.pending += 1;
        self.under_way[index].payloads.push(payload.to_vec());
        Resolution::Pending
    }

    fn begin(&mut self, destination: &Address, name: &Name, now: Instant) -> Resolution {
        if self.under_way.len() >= MAX_PENDING {
            return Resolution::TooMany;
        }
        let waker = || {
            if self.waker.is_none() {
                self.waker = Some(Arc::new(Waker::new()?));
            }
            let waker = self.waker.clone().filter(|_| self.share.take(LOOKUP));
            waker.ok_or_else(|| ErrorKind::OutOfMemory.into())
        };
        match self.resolver.ask(name, self.client, waker) {
            Ok(LookupState::Known(answer)) => {
                Resolution::Known(addresses(&answer, destination.port))
            }
            Ok(LookupState::UnderWay(lookup)) => {
                self.under_way.push(UnderWay {
                    destination: destination.clone(),
                    name: name.clone(),
                    lookup,
                    until: now + MAX_WAIT,
                    payloads: Vec::new(),
                });
                Resolution::Pending
            }
            Err(_) => Resolution::TooMany,
        }
    }

    /// What to poll for the end of a lookup, if one has ever begun.
    pub(super) fn waker(&self) -> Option<&Waker> {
        self.waker.as_deref()
    }

    /// How long the first of the lookups may still take.
    pub(super) fn time_left(&self, now: Instant) -> Option<Duration> {
        let first = self.under_way.iter().map(|under_way| under_way.until).min()?;
        Some(first.saturating_duration_since(now))
    }

    /// A lookup that is over, or has taken too long, if there is one.
    pub(super) fn take_finished(&mut self, now: Instant) -> Option<Finished> {
        let is_over =
            |under_way: &UnderWay| under_way.lookup.answer().is_some() || now >= under_way.until;
        let index = self.under_way.iter().position(is_over)?;
        let UnderWay { destination, name, lookup, payloads, .. } =
            self.under_way.swap_remove(index);
        let answer = lookup.answer();
        let addresses = answer.map(|answer| addresses(answer, destination.port));
        self.pending -= payloads.len();
        self.share.give_back(LOOKUP + payloads.iter().map(Vec::len).sum::<usize>());
        Some(Finished { destination, name, addresses, payloads })
    }
}

fn addresses(answer: &Answer, port: u16) -> Vec<SocketAddr> {
    answer.as_ref().map_or(Vec::new(), |found| found.with_port(port))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system::descriptors::Descriptors;
    use crate::wire::address::Host;
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    use std::sync::Mutex;
    use std::sync::mpsc::channel;

    const LONG: Duration = Duration::from_secs(20);
    static PLENTY: Budget = Budget::new(16 << 20);

    fn to(name: &Name) -> Address {
        Address { host: Host::Name(name.clone()), port: 9 }
    }

    fn name(name: &str) -> Name {
        Name::new(name.into()).unwrap()
    }

    fn ask(lookups: &mut Lookups<'_>, name: &Name, payload: &[u8]) -> Resolution {
        lookups.resolve(&to(name), name, Some(payload), Instant::now())
    }

    /// Waits for the waker, without polling.
    fn next(lookups: &mut Lookups<'_>) -> Finished {
        loop {
            lookups.waker().unwrap().clear();
            if let Some(found) = lookups.take_finished(Instant::now()) {
                return found;
            }
            let mut polled = [PollFd::new(lookups.waker().unwrap(), PollFlags::IN)];
            let limit = Timespec::try_from(LONG).unwrap();
            assert_eq!(poll(&mut polled, Some(&limit)), Ok(1), "the lookup does not end");
        }
    }

    /// A resolver whose lookups wait until something is sent; those that end with `.invalid` fail.
    fn names() -> (Arc<Resolver>, std::sync::mpsc::Sender<()>) {
        let (release, released) = channel();
        let released = Mutex::new(released);
        let names = Resolver::with_resolver(Duration::ZERO, &Descriptors::new(1024), move |name| {
            let _ = released.lock().unwrap().recv();
            if name.ends_with(".invalid") {
                return Err(std::io::ErrorKind::NotFound.into());
            }
            Ok(vec!["127.0.0.1:0".parse().unwrap()])
        });
        (names, release)
    }

    #[test]
    fn what_waits_is_bounded_and_goes_in_order() {
        let (names, release) = names();
        let mut lookups = Lookups::new(&names, [127, 0, 0, 1].into(), &PLENTY);
        let (first, second, unknown) = (name("a"), name("b"), name("c.invalid"));
        for number in 0..=u8::MAX {
            let resolution = ask(&mut lookups, &first, &[number]);
            assert_eq!(matches!(resolution, Resolution::Pending), number < 64, "{number}");
        }
        assert!(matches!(ask(&mut lookups, &second, b"too many"), Resolution::TooMany));
        release.send(()).unwrap();
        release.send(()).unwrap();
        let mut found = [next(&mut lookups), next(&mut lookups)];
        found.sort_by_key(|found| found.payloads.len());
        assert_eq!(found[1].addresses, Some(vec!["127.0.0.1:9".parse().unwrap()]));
        let sent: Vec<Vec<u8>> = (0..64).map(|number| vec![number]).collect();
        assert_eq!((found[0].payloads.len(), &found[1].payloads), (0, &sent));
        let resolutions = [(); 3].map(|()| ask(&mut lookups, &unknown, &vec![0; 60_000]));
        assert!(matches!(
            resolutions,
            [Resolution::Pending, Resolution::Pending, Resolution::TooMany]
        ));
        release.send(()).unwrap();
        let found = next(&mut lookups);
        assert_eq!((found.addresses, found.payloads.len()), (Some(Vec::new()), 2));
        assert_eq!((lookups.pending, lookups.share.taken), (0, 0));
        assert!(lookups.time_left(Instant::now()).is_none());
    }

    #[test]
    fn a_name_that_hangs_does_not_hold_up_another_for_ever() {
        let (names, _release) = names();
        let mut lookups = Lookups::new(&names, [127, 0, 0, 1].into(), &PLENTY);
        let now = Instant::now();
        for number in 0..100 {
            let name = name(&format!("n{number}"));
            let resolution = lookups.resolve(&to(&name), &name, Some(b"x"), now);
            assert_eq!(matches!(resolution, Resolution::Pending), number < 64, "{number}");
        }
        assert_eq!(lookups.time_left(now), Some(MAX_WAIT));
        assert!(lookups.take_finished(now).is_none());
        let over: Vec<Finished> =
            std::iter::from_fn(|| lookups.take_finished(now + MAX_WAIT)).collect();
        assert_eq!(over.len(), 64);
        assert!(over.iter().all(|over| over.addresses.is_none()));
        assert!(matches!(ask(&mut lookups, &name("other"), b"x"), Resolution::Pending));
    }

    #[test]
    fn lookups_of_many_associations_do_not_take_all_memory() {
        static SHORT: Budget = Budget::new(100 * LOOKUP);
        let (names, _release) = names();
        let mut all: Vec<Lookups<'_>> =
            (0..20).map(|_| Lookups::new(&names, [127, 0, 0, 1].into(), &SHORT)).collect();
        let mut waiting = 0;
        for (number, lookups) in all.iter_mut().enumerate() {
            for other in 0..64 {
                let name = name(&format!("n{number}-{other}"));
                waiting += usize::from(matches!(ask(lookups, &name, b"x"), Resolution::Pending));
            }
        }
        assert!(waiting >= 20 * (OWN_BYTES / LOOKUP), "{waiting}");
        assert!(waiting * LOOKUP <= 20 * OWN_BYTES + 100 * LOOKUP, "{waiting}");
    }
}
