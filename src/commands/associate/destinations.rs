//! Where one association may send, and who may reply to it.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::budget::ALL;
use super::client::AssociateClient;
use super::dropped::Reason;
use super::inner_port::InnerPort;
use super::lookups::{Finished, Lookups, Resolution};
use super::table::{Sizes, Table};
use super::targets::{Route, Targets};
use crate::access::policy::{Denied, Policy};
use crate::commands::resolver::Resolver;
use crate::system::waker::Waker;
use crate::wire::address::{Address, Host, Name};
use crate::wire::request::{Command, Request};

/// Addresses with ports of which the rules have said whether they are open. An entry is 40 bytes and 28
/// in the order of use, and about twice that where tables and nodes are half full.
const BY_ADDRESS: Sizes = Sizes { min: 16, max: 2048, entry: 136 };

/// Names and their addresses: 160 bytes and 40 in the order of use, twice each where half full, twice
/// the name (40), and four addresses (128).
const BY_NAME: Sizes = Sizes { min: 8, max: 512, entry: 608 };

/// Addresses that may reply: as for those with ports.
const REPLIERS: Sizes = Sizes { min: 16, max: 2048, entry: 136 };

/// How long a name that led nowhere is not looked up again.
const FAILURE_TTL: Duration = Duration::from_secs(5);

/// How long an association goes on with the addresses of a name at the least: it does not ask again
/// for each datagram, even where names are not remembered.
const MIN_NAME_TTL: Duration = Duration::from_secs(1);

/// How long it goes on with them while the name is looked up again.
const RENEWAL: Duration = Duration::from_secs(10);

/// Why a destination has no permitted addresses.
enum NotPermitted {
    Denied(Denied),
    /// They are not known: this name has to be looked up.
    ToLookUp(Name),
}

impl From<Denied> for NotPermitted {
    fn from(denied: Denied) -> Self {
        NotPermitted::Denied(denied)
    }
}

/// The destinations of one association.
pub(super) struct Destinations<'a> {
    client: &'a AssociateClient<'a>,
    policy: &'a Policy,
    /// The generation of the policy that has judged what is kept here.
    generation: usize,
    resolver: &'a Resolver,
    /// Whether the rules permit it.
    by_address: Table<(IpAddr, u16), bool>,
    by_name: Table<Address, Targets>,
    /// The latest destination that was the port of an association.
    inner_port: Option<SocketAddr>,
    /// Whether a name may be waiting for its first answer.
    are_unanswered: bool,
    repliers: Table<IpAddr, ()>,
    lookups: Lookups<'a>,
}

impl<'a> Destinations<'a> {
    pub(super) fn new(
        client: &'a AssociateClient<'a>,
        policy: &'a Policy,
        resolver: &'a Arc<Resolver>,
    ) -> Self {
        Destinations {
            client,
            policy,
            generation: policy.generation(),
            resolver,
            by_address: Table::new(BY_ADDRESS, &ALL),
            by_name: Table::new(BY_NAME, &ALL),
            inner_port: None,
            are_unanswered: false,
            repliers: Table::new(REPLIERS, &ALL),
            lookups: Lookups::new(resolver, client.session.peer().ip(), &ALL),
        }
    }

    /// Forgets what earlier rules have said, or the same ones about earlier addresses of this machine, and
    /// says whether that is so: nothing that was sent after they have changed goes where they let it. Who
    /// may reply still may: what has begun goes on.
    pub(super) fn follow_changes(&mut self) -> bool {
        let generation = self.policy.generation();
        let is_new = generation != self.generation;
        if is_new {
            self.generation = generation;
            self.forget_verdicts();
        }
        is_new
    }

    /// Gives memory back. Who may reply still may.
    pub(super) fn forget_verdicts(&mut self) {
        self.by_address.clear();
        self.by_name.clear();
        self.are_unanswered = false;
    }

    /// Where `payload` goes; from there replies are let in. That for a name which is not known yet
    /// waits for it, if there is memory for it.
    pub(super) fn route(&mut self, to: &Address, payload: &[u8], now: Instant) -> Route {
        let route = match &to.host {
            Host::Ip(ip) => self.route_to_address(to, *ip),
            Host::Name(_) => self.route_to_name(to, payload, now),
        };
        if let Route::To(target) = route {
            if self.is_of_association(target) {
                return Route::Dropped(Reason::Denied);
            }
            self.let_reply(target.ip());
        }
        route
    }

    /// Whether an association of this server takes its client's datagrams at `target`. No verdict that
    /// was kept says so: associations come and go.
    fn is_of_association(&mut self, target: SocketAddr) -> bool {
        let is_so = InnerPort::is_live(target.port()) && self.policy.is_this_machine(target.ip());
        if is_so && self.inner_port.replace(target) != Some(target) {
            self.client.session.denied(&format!("{target} is the port of an association"));
        }
        is_so
    }

    fn route_to_address(&mut self, to: &Address, ip: IpAddr) -> Route {
        let known = self.by_address.get(&(ip, to.port)).copied();
        let is_open = known.unwrap_or_else(|| {
            self.client.session.asked_for(to);
            let is_open = self.permitted(to, None).is_ok();
            self.by_address.insert((ip, to.port), is_open);
            is_open
        });
        if is_open { Route::To((ip, to.port).into()) } else { Route::Dropped(Reason::Denied) }
    }

    fn route_to_name(&mut self, to: &Address, payload: &[u8], now: Instant) -> Route {
        let known = self.by_name.get(to);
        let payload = match known {
            Some(known) if now < known.until => return known.next(now),
            Some(known) if !known.is_renewed && known.count() > 0 => {
                known.is_renewed = true;
                known.until = now + RENEWAL;
                None
            }
            Some(_) => Some(payload),
            None => {
                self.client.session.asked_for(to);
                Some(payload)
            }
        };
        if let Err(NotPermitted::ToLookUp(name)) = self.permitted(to, None) {
            match (self.lookups.resolve(to, &name, payload, now), payload) {
                (Resolution::Known(addresses), _) => self.enter_found(to, (name, addresses), now),
                // The datagrams go on to the addresses that were found before.
                (Resolution::Pending | Resolution::TooMany, None) => {}
                (Resolution::Pending, Some(_)) => return Route::Pending,
                (Resolution::TooMany, Some(_)) => return Route::Dropped(Reason::TooManyPending),
            }
        } else {
            self.enter(to, Err(Reason::Denied), now);
        }
        self.by_name.get(to).map_or(Route::Pending, |known| known.next(now))
    }

    /// The addresses that the rules permit. `found` are those of a name, under which it was looked up; the
    /// rules that are in force by now may want it looked up under another one.
    fn permitted(
        &mut self,
        to: &Address,
        found: Option<(Name, Vec<SocketAddr>)>,
    ) -> Result<Vec<SocketAddr>, NotPermitted> {
        let AssociateClient { session, identity, log, .. } = self.client;
        let request = Request { command: Command::UdpAssociate, destination: to.clone() };
        let lookup = |name: &Name, _| match found {
            Some((looked_up, addresses)) if looked_up == *name => Ok(addresses),
            _ => Err(NotPermitted::ToLookUp(name.clone())),
        };
        let permit = self.policy.permit(identity, session.peer(), &request, lookup);
        if let Err(NotPermitted::Denied(denied)) = &permit {
            session.denied(&denied.to_string());
            log(format_args!("denied UDP to {to}: {denied}"));
        }
        permit.map(|permit| permit.addresses().to_vec())
    }

    /// Keeps which of the addresses that were found for a name are permitted.
    fn enter_found(&mut self, to: &Address, found: (Name, Vec<SocketAddr>), now: Instant) {
        match self.permitted(to, Some(found)) {
            Ok(addresses) => self.enter(to, Ok(addresses), now),
            Err(NotPermitted::Denied(_)) => self.enter(to, Err(Reason::Denied), now),
            // The next datagram has it looked up.
            Err(NotPermitted::ToLookUp(_)) => {}
        }
    }

    /// Keeps where a name leads, or why nowhere.
    fn enter(&mut self, to: &Address, permitted: Result<Vec<SocketAddr>, Reason>, now: Instant) {
        let reason = *permitted.as_ref().err().unwrap_or(&Reason::Unresolved);
        let mut addresses = permitted.unwrap_or_default();
        let ttl = if addresses.is_empty() && reason != Reason::Denied {
            FAILURE_TTL
        } else {
            self.resolver.ttl().max(MIN_NAME_TTL)
        };
        self.resolver.families().order(&mut addresses, now);
        let mut targets = Targets::new(addresses, reason, now + ttl);
        if let Some(earlier) = self.by_name.peek(to) {
            targets = targets.succeed(earlier);
        }
        self.are_unanswered |= targets.is_unanswered();
        self.by_name.insert(to.clone(), targets);
    }

    /// The lookup that is over, if one is: its name is known then. Gives back the datagrams that have
    /// waited for it.
    pub(super) fn take_resolved(&mut self, now: Instant) -> Option<(Address, Vec<Vec<u8>>)> {
        let Finished { destination, name, addresses, payloads } =
            self.lookups.take_finished(now)?;
        match addresses {
            Some(addresses) => self.enter_found(&destination, (name, addresses), now),
            None => self.enter(&destination, Err(Reason::NoAnswer), now),
        }
        Some((destination, payloads))
    }

    /// What to poll for the end of a lookup, if one has ever begun.
    pub(super) fn waker(&self) -> Option<&Waker> {
        self.lookups.waker()
    }

    /// How long lookups may still take.
    pub(super) fn time_left(&self, now: Instant) -> Option<Duration> {
        self.lookups.time_left(now)
    }

    /// The address that [`Destinations::route`] has said cannot be reached; `tried` of its name could
    /// not. True if there is another one.
    pub(super) fn try_next(&mut self, to: &Address, tried: usize) -> bool {
        let targets = self.by_name.get(to).filter(|targets| tried < targets.count());
        if let Some(targets) = targets {
            targets.move_on();
            self.are_unanswered = true;
            return true;
        }
        false
    }

    /// Lets `target` reply, from any of its ports (RFC 4787 REQ-8).
    fn let_reply(&mut self, target: IpAddr) {
        let replier = target.to_canonical();
        if self.repliers.get(&replier).is_none() {
            self.repliers.insert(replier, ());
        }
    }

    /// Whether what comes from `from` is a reply. The first one for a name says which of its addresses
    /// gets the datagrams from then on.
    pub(super) fn is_reply(&mut self, from: IpAddr) -> bool {
        let from = from.to_canonical();
        if self.repliers.peek(&from).is_none() {
            return false;
        }
        if self.are_unanswered {
            self.are_unanswered = false;
            for (to, targets) in self.by_name.iter_mut() {
                if targets.note_reply(from) {
                    self.resolver.won(&to.host, from);
                }
                self.are_unanswered |= targets.is_unanswered();
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::in_force::AccessFiles;
    use crate::access::rules::RuleFile;
    use crate::commands::associate::tests::{session, with_association};
    use crate::system::descriptors::Descriptors;
    use std::sync::Mutex;

    const TTL: Duration = Duration::from_secs(30);

    fn to(destination: &str) -> Address {
        let host = match destination.parse() {
            Ok(ip) => Host::Ip(ip),
            Err(_) => Host::Name(Name::new(destination.into()).unwrap()),
        };
        Address { host, port: 9 }
    }

    /// Waits until the name is known.
    fn look_up(destinations: &mut Destinations<'_>, name: &Address, now: Instant) -> Route {
        assert_eq!(destinations.route(name, b"x", now), Route::Pending);
        let begin = Instant::now();
        while destinations.take_resolved(now).is_none() {
            assert!(begin.elapsed() < TTL, "the lookup does not end");
            std::thread::yield_now();
        }
        destinations.route(name, b"x", now)
    }

    #[test]
    fn a_client_elsewhere_sends_nothing_to_this_machine() {
        let (session, _control) = session("192.168.1.7:1");
        let names = Resolver::with_resolver(TTL, &Descriptors::new(1024), |_| {
            Ok(vec!["127.0.0.1:0".parse().unwrap(), "[::1]:0".parse().unwrap()])
        });
        with_association(session, names, |_, client, policy, names| {
            let mut destinations = Destinations::new(client, policy, names);
            let now = Instant::now();
            for closed in ["127.0.0.1", "::1", "0.0.0.0", "169.254.1.1", "255.255.255.255"] {
                let route = destinations.route(&to(closed), b"x", now);
                assert_eq!(route, Route::Dropped(Reason::Denied), "{closed}");
            }
            let route = destinations.route(&to("192.0.2.1"), b"x", now);
            assert_eq!(route, Route::To("192.0.2.1:9".parse().unwrap()));
            let route = look_up(&mut destinations, &to("rebinding.example"), now);
            assert_eq!(route, Route::Dropped(Reason::Denied));
            let (first, count) = client.session.destinations().unwrap();
            assert_eq!((first, count), (&to("127.0.0.1"), 7));
        })();
    }

    #[test]
    fn the_port_of_an_association_is_closed_for_as_long_as_that_lives() {
        let (session, _control) = session("127.0.0.1:1");
        let names = Resolver::new(TTL, &Descriptors::new(1024));
        with_association(session, names, |_, client, policy, names| {
            let mut destinations = Destinations::new(client, policy, names);
            let to = Address { port: 19, ..to("127.0.0.1") };
            let mut route = || destinations.route(&to, b"x", Instant::now());
            let open = Route::To("127.0.0.1:19".parse().unwrap());
            assert_eq!(route(), open);
            let other = InnerPort::new(19);
            for _ in 0..3 {
                assert_eq!(route(), Route::Dropped(Reason::Denied));
            }
            drop(other);
            assert_eq!(route(), open);
            let why = "127.0.0.1:19 is the port of an association";
            assert_eq!(client.session.denials(), Some((why, 1)));
        })();
    }

    #[test]
    fn what_was_completed_does_not_count_once_a_rule_is_about_a_name() {
        let (session, _control) = session("192.168.1.7:1");
        let names = Resolver::with_resolver(TTL, &Descriptors::new(1024), |name| {
            Ok(vec![
                if name.ends_with('.') { "192.0.2.2:0" } else { "192.0.2.1:0" }.parse().unwrap(),
            ])
        });
        with_association(session, names, |_, client, policy, names| {
            let mut destinations = Destinations::new(client, policy, names);
            let (now, name) = (Instant::now(), to("db.prod"));
            assert_eq!(destinations.route(&name, b"x", now), Route::Pending);
            let rules = RuleFile::parse(b"deny to a.example", "rules").unwrap();
            policy.in_force().replace(AccessFiles { users: None, rules });
            while destinations.take_resolved(now).is_none() {
                std::thread::yield_now();
            }
            let route = look_up(&mut destinations, &name, now);
            assert_eq!(route, Route::To("192.0.2.2:9".parse().unwrap()));
        })();
    }

    #[test]
    fn datagrams_go_on_while_their_name_is_looked_up_again() {
        let (session, _control) = session("192.168.1.7:1");
        let (release, released) = std::sync::mpsc::channel::<()>();
        let released = Mutex::new(released);
        let names = Resolver::with_resolver(Duration::ZERO, &Descriptors::new(1024), move |_| {
            let _ = released.lock().unwrap().recv();
            Ok(vec!["192.0.2.1:0".parse().unwrap()])
        });
        with_association(session, names, move |_, client, policy, names| {
            let mut destinations = Destinations::new(client, policy, names);
            let (now, name) = (Instant::now(), to("name.example"));
            release.send(()).unwrap();
            let target = Route::To("192.0.2.1:9".parse().unwrap());
            assert_eq!(look_up(&mut destinations, &name, now), target);
            // Names are not remembered.
            let until = now + MIN_NAME_TTL;
            for later in [until, until + RENEWAL / 2] {
                assert_eq!(destinations.route(&name, b"x", later), target);
            }
            let too_late = until + 2 * RENEWAL;
            assert_eq!(destinations.take_resolved(too_late).unwrap().0, name);
            let route = destinations.route(&name, b"x", too_late);
            assert_eq!(route, Route::Dropped(Reason::NoAnswer));
        })();
    }

    #[test]
    fn replies_may_come_until_the_end_though_memory_was_given_back() {
        let (session, _control) = session("192.168.1.7:1");
        let names = Resolver::new(TTL, &Descriptors::new(1024));
        with_association(session, names, |_, client, policy, names| {
            let mut destinations = Destinations::new(client, policy, names);
            destinations.let_reply("192.0.2.1".parse().unwrap());
            destinations.forget_verdicts();
            assert!(destinations.is_reply("::ffff:192.0.2.1".parse().unwrap()));
            assert!(!destinations.is_reply("192.0.2.2".parse().unwrap()));
        })();
    }
}
