//! Where one association may send, and who may reply to it.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use log::{Level, log};

use super::AssociateClient;
use super::budget::Budget;
use super::dropped::Reason;
use super::lookups::{Fate, Found, Lookups};
use super::recent::{Recent, Sizes};
use super::targets::Targets;
use crate::access::policy::{Permit, PermitError, Policy};
use crate::commands::resolver::Resolver;
use crate::socks5::{Address, Command, Host, Name, Request};
use crate::system::waker::Waker;

/// Addresses with ports of which the rules have said whether they are open. An entry is 20 bytes, and
/// twice that where the table is half full.
const BY_ADDRESS: Sizes = Sizes { least: 16, most: 2048, entry: 40 };

/// Resolver and their addresses: 80 bytes, the name (40) and four addresses (128), twice the first.
const BY_NAME: Sizes = Sizes { least: 8, most: 512, entry: 400 };

/// Addresses that may reply.
const ANSWERERS: Sizes = Sizes { least: 16, most: 2048, entry: 40 };

/// How long a name that led nowhere is not looked up again.
const FAILURE_LASTS: Duration = Duration::from_secs(5);

/// How long an association goes on with the addresses of a name at the least: it does not ask again
/// for each datagram, even where names are not remembered.
const NAME_LASTS: Duration = Duration::from_secs(1);

/// How long it goes on with them while the name is looked up again.
const RENEWAL: Duration = Duration::from_secs(10);

/// Where a datagram goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// There; until then, if there is an end to it, further ones for its destination do, too.
    To(SocketAddr, Option<Instant>),
    /// It waits until its name is looked up.
    Waits,
    /// Nowhere.
    Nowhere(Reason),
}

/// What is known of a name.
struct Named {
    targets: Targets,
    is_denied: bool,
    /// It is looked up again.
    renews: bool,
}

/// The destinations of one association.
pub(super) struct Destinations<'a> {
    client: &'a AssociateClient<'a>,
    rules: &'a Policy,
    /// The generation of the rules that have judged what is kept here.
    generation: usize,
    names: &'a Resolver,
    /// Whether the rules permit it.
    by_address: Recent<(IpAddr, u16), bool>,
    by_name: Recent<Address, Named>,
    /// Whether a name may be waiting for its first answer.
    are_unanswered: bool,
    answerers: Recent<IpAddr, ()>,
    has_denied: bool,
    lookups: Lookups<'a>,
}

impl<'a> Destinations<'a> {
    pub(super) fn new(
        client: &'a AssociateClient<'a>,
        rules: &'a Policy,
        names: &'a Resolver,
        budget: &'static Budget,
    ) -> Self {
        Destinations {
            client,
            rules,
            generation: rules.generation(),
            names,
            by_address: Recent::new(BY_ADDRESS, budget),
            by_name: Recent::new(BY_NAME, budget),
            are_unanswered: false,
            answerers: Recent::new(ANSWERERS, budget),
            has_denied: false,
            lookups: Lookups::new(names, client.account.peer().ip(), budget),
        }
    }

    /// Forgets what earlier rules have said, and says whether there was a change. Who may reply still
    /// may: what has begun goes on.
    pub(super) fn follow_new_rules(&mut self) -> bool {
        let generation = self.rules.generation();
        let is_new = generation != self.generation;
        if is_new {
            self.generation = generation;
            self.forget_verdicts();
        }
        is_new
    }

    fn forget_verdicts(&mut self) {
        self.by_address.clear();
        self.by_name.clear();
        self.are_unanswered = false;
    }

    /// Where `payload` goes. That for a name which is not known yet waits for it, if there is room.
    pub(super) fn judge(&mut self, to: &Address, payload: &[u8], now: Instant) -> Way {
        match &to.host {
            Host::Ip(ip) => self.judge_address(to, *ip),
            Host::Name(name) => self.judge_name(to, name, payload, now),
        }
    }

    fn judge_address(&mut self, to: &Address, ip: IpAddr) -> Way {
        let known = self.by_address.get(&(ip, to.port)).copied();
        let is_open = known.unwrap_or_else(|| {
            self.client.account.asked_for(to);
            let is_open = self.permit(to, None).is_ok();
            self.by_address.insert((ip, to.port), is_open);
            is_open
        });
        if is_open { Way::To((ip, to.port).into(), None) } else { Way::Nowhere(Reason::Denied) }
    }

    fn judge_name(&mut self, to: &Address, name: &Name, payload: &[u8], now: Instant) -> Way {
        match self.by_name.get(to) {
            Some(named) if now < named.targets.until => return named.route(now),
            Some(named) if !named.renews && !named.targets.is_empty() => {
                named.renews = true;
                named.targets.until = now + RENEWAL;
                match self.lookups.ask(to, name, None, now) {
                    Fate::Known(addresses) => self.enter(to, addresses, now),
                    Fate::Waits | Fate::NoRoom => {}
                }
            }
            Some(_) => {
                if let Some(way) = self.look_up(to, name, payload, now) {
                    return way;
                }
            }
            None => {
                self.client.account.asked_for(to);
                if let Some(way) = self.look_up(to, name, payload, now) {
                    return way;
                }
            }
        }
        self.by_name.get(to).map_or(Way::Waits, |named| named.route(now))
    }

    /// Finds out about a name. `None` when it is known now.
    fn look_up(&mut self, to: &Address, name: &Name, payload: &[u8], now: Instant) -> Option<Way> {
        if let Err(PermitError::Denied(_)) = self.permit(to, None) {
            self.enter_denied(to, now);
            return None;
        }
        match self.lookups.ask(to, name, Some(payload), now) {
            Fate::Known(addresses) => self.enter(to, addresses, now),
            Fate::Waits => return Some(Way::Waits),
            Fate::NoRoom => return Some(Way::Nowhere(Reason::NoRoom)),
        }
        None
    }

    /// Asks the rules. A name of which nothing is `found` yet is judged as far as that goes, and
    /// then is a failed lookup.
    fn permit(
        &mut self,
        to: &Address,
        found: Option<Vec<SocketAddr>>,
    ) -> Result<Permit, PermitError<()>> {
        let AssociateClient { account, identity, .. } = self.client;
        let request = Request { command: Command::UdpAssociate, destination: to.clone() };
        let permit = self.rules.permit(identity, account.peer(), &request, |_, _| found.ok_or(()));
        if let Err(PermitError::Denied(denied)) = &permit {
            // A client that scans is not to fill the log.
            let level = if self.has_denied { Level::Debug } else { Level::Info };
            log!(
                level,
                "denied client={} command=UDP dest={to} why={:?}",
                account.peer(),
                denied.to_string()
            );
            self.has_denied = true;
        }
        permit
    }

    /// Keeps which addresses of a name are permitted.
    fn enter(&mut self, to: &Address, addresses: Vec<SocketAddr>, now: Instant) {
        let mut addresses = match self.permit(to, Some(addresses)) {
            Ok(permit) => permit.addresses().to_vec(),
            Err(PermitError::Denied(_)) => return self.enter_denied(to, now),
            Err(PermitError::Lookup(())) => Vec::new(),
        };
        self.names.families().order(&mut addresses, now);
        let lasts = if addresses.is_empty() { FAILURE_LASTS } else { self.lasts() };
        let mut targets = Targets::new(addresses, now + lasts);
        if let Some(earlier) = self.by_name.get(to) {
            targets = targets.succeed(&earlier.targets);
        }
        self.are_unanswered |= targets.is_unanswered();
        self.by_name.insert(to.clone(), Named { targets, is_denied: false, renews: false });
    }

    fn enter_denied(&mut self, to: &Address, now: Instant) {
        let targets = Targets::new(Vec::new(), now + self.lasts());
        self.by_name.insert(to.clone(), Named { targets, is_denied: true, renews: false });
    }

    fn lasts(&self) -> Duration {
        self.names.lasts().max(NAME_LASTS)
    }

    /// The lookup that is over, if one is: its name is known then. Gives back the datagrams that have
    /// waited for it.
    pub(super) fn take_found(&mut self, now: Instant) -> Option<(Address, Vec<Vec<u8>>)> {
        let Found { destination, addresses, payloads } = self.lookups.take(now)?;
        self.enter(&destination, addresses, now);
        Some((destination, payloads))
    }

    /// What to poll for the end of a lookup, if one has ever begun.
    pub(super) fn waker(&self) -> Option<&Waker> {
        self.lookups.waker()
    }

    /// How long lookups may still take.
    pub(super) fn pause(&self, now: Instant) -> Option<Duration> {
        self.lookups.pause(now)
    }

    /// The address that [`Destinations::judge`] has said cannot be reached; `tried` of its name could
    /// not. True if there is another one.
    pub(super) fn try_next(&mut self, to: &Address, tried: usize) -> bool {
        match self.by_name.get(to) {
            Some(named) if tried < named.targets.count() => {
                named.targets.move_on();
                self.are_unanswered = true;
                true
            }
            Some(_) | None => false,
        }
    }

    /// Lets `target` reply, from any of its ports. True if it could not before; it may have taken
    /// another's place then.
    pub(super) fn admit(&mut self, target: IpAddr) -> bool {
        let answerer = target.to_canonical();
        let is_new = self.answerers.get(&answerer).is_none();
        if is_new {
            self.answerers.insert(answerer, ());
        }
        is_new
    }

    /// Whether what comes from `from` is a reply.
    pub(super) fn admits(&self, from: IpAddr) -> bool {
        self.answerers.peek(&from.to_canonical()).is_some()
    }

    /// Whether [`Destinations::heard`] has to be told of replies.
    pub(super) fn are_unanswered(&self) -> bool {
        self.are_unanswered
    }

    /// Something has come from `from`. True if datagrams for a name may go another way now.
    pub(super) fn heard(&mut self, from: IpAddr) -> bool {
        let (mut is_news, mut are_unanswered) = (false, false);
        for (to, named) in self.by_name.iter_mut() {
            if named.targets.heard(from) {
                is_news = true;
                if let Host::Name(name) = &to.host {
                    self.names.won(name, from.to_canonical());
                }
            }
            are_unanswered |= named.targets.is_unanswered();
        }
        self.are_unanswered = are_unanswered;
        is_news
    }

    /// Gives memory back. Who may reply still may.
    pub(super) fn rest(&mut self) {
        self.forget_verdicts();
        self.answerers.shrink();
    }
}

impl Named {
    fn route(&mut self, now: Instant) -> Way {
        match self.targets.next(now) {
            Some((target, until)) => Way::To(target, Some(until)),
            None if self.is_denied => Way::Nowhere(Reason::Denied),
            None => Way::Nowhere(Reason::Unresolved),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::associate::budget::ALL;
    use crate::commands::associate::tests::{session, with_association};
    use crate::system::descriptors::Descriptors;
    use std::sync::Mutex;

    const LASTS: Duration = Duration::from_secs(30);

    fn to(destination: &str) -> Address {
        let host = match destination.parse() {
            Ok(ip) => Host::Ip(ip),
            Err(_) => Host::Name(Name::new(destination.into()).unwrap()),
        };
        Address { host, port: 9 }
    }

    /// Waits until the name is known.
    fn look_up(destinations: &mut Destinations<'_>, name: &Address, now: Instant) -> Way {
        assert_eq!(destinations.judge(name, b"x", now), Way::Waits);
        let begin = Instant::now();
        while destinations.take_found(now).is_none() {
            assert!(begin.elapsed() < LASTS, "the lookup does not end");
            std::thread::yield_now();
        }
        destinations.judge(name, b"x", now)
    }

    #[test]
    fn a_client_elsewhere_sends_nothing_to_this_machine() {
        let (session, _control) = session("192.168.1.7:1");
        let names = Resolver::with_resolver(LASTS, &Descriptors::new(1024), |_| {
            Ok(vec!["127.0.0.1:0".parse().unwrap(), "[::1]:0".parse().unwrap()])
        });
        with_association(session, names, |_, client, rules, names| {
            let mut destinations = Destinations::new(client, rules, names, &ALL);
            let now = Instant::now();
            for closed in ["127.0.0.1", "::1", "0.0.0.0", "169.254.1.1", "255.255.255.255"] {
                let way = destinations.judge(&to(closed), b"x", now);
                assert_eq!(way, Way::Nowhere(Reason::Denied), "{closed}");
            }
            let way = destinations.judge(&to("192.0.2.1"), b"x", now);
            assert_eq!(way, Way::To("192.0.2.1:9".parse().unwrap(), None));
            let way = look_up(&mut destinations, &to("rebinding.example"), now);
            assert_eq!(way, Way::Nowhere(Reason::Denied));
            let (first, count) = client.account.destinations().unwrap();
            assert_eq!((first, count), (&to("127.0.0.1"), 7));
        })();
    }

    #[test]
    fn datagrams_go_on_while_their_name_is_looked_up_again() {
        let (session, _control) = session("192.168.1.7:1");
        let (release, held) = std::sync::mpsc::channel::<()>();
        let held = Mutex::new(held);
        let names = Resolver::with_resolver(Duration::ZERO, &Descriptors::new(1024), move |_| {
            let _ = held.lock().unwrap().recv();
            Ok(vec!["192.0.2.1:0".parse().unwrap()])
        });
        with_association(session, names, move |_, client, rules, names| {
            let mut destinations = Destinations::new(client, rules, names, &ALL);
            let (now, name) = (Instant::now(), to("name.example"));
            release.send(()).unwrap();
            let Way::To(target, Some(until)) = look_up(&mut destinations, &name, now) else {
                panic!("it has an address");
            };
            assert!(until <= now + NAME_LASTS, "names are not remembered");
            for later in [until, until + RENEWAL / 2] {
                let way = destinations.judge(&name, b"x", later);
                assert!(matches!(way, Way::To(to, _) if to == target), "{way:?}");
            }
            let too_late = until + 2 * RENEWAL;
            assert_eq!(destinations.take_found(too_late).unwrap().0, name);
            let way = destinations.judge(&name, b"x", too_late);
            assert_eq!(way, Way::Nowhere(Reason::Unresolved));
        })();
    }

    #[test]
    fn replies_may_come_until_the_end_though_memory_was_given_back() {
        let (session, _control) = session("192.168.1.7:1");
        let names = Resolver::new(LASTS, &Descriptors::new(1024));
        with_association(session, names, |_, client, rules, names| {
            let mut destinations = Destinations::new(client, rules, names, &ALL);
            assert!(destinations.admit("192.0.2.1".parse().unwrap()));
            destinations.rest();
            assert!(destinations.admits("::ffff:192.0.2.1".parse().unwrap()));
            assert!(!destinations.admits("192.0.2.2".parse().unwrap()));
        })();
    }
}
