//! Where one association may send, and who may reply to it.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use log::{Level, log};

use super::Client;
use super::lookups::{Answer, Lookups};
use super::recent::Recent;
use crate::access::rules::{Permit, Refusal, Rules};
use crate::socks5::{Address, Command, Datagram, Host, Request};
use crate::system::pool::Partner;

/// Destinations that the rules have judged for one association, by address or by name, and
/// addresses that may reply to it.
const MOST_DESTINATIONS: usize = 2048;

/// How long the addresses of a name are good for: the system's resolver does not say.
const NAME_LASTS: Duration = Duration::from_secs(60);

/// How long a name that led nowhere is not looked up again.
const FAILURE_LASTS: Duration = Duration::from_secs(5);

/// What the rules said of a destination as the client spells it.
#[derive(Clone, Copy)]
pub(super) struct Judgement {
    /// Where its datagrams go; nowhere if it is closed or its name leads nowhere.
    pub(super) target: Option<SocketAddr>,
    /// When it is to be judged anew, if ever.
    pub(super) until: Option<Instant>,
}

/// Datagrams that have waited for a lookup, and the permitted addresses that it has found.
pub(super) struct Found {
    pub(super) destination: Address,
    pub(super) targets: Vec<SocketAddr>,
    pub(super) payloads: Vec<Vec<u8>>,
}

/// The destinations of one association.
pub(super) struct Destinations<'a> {
    client: &'a Client<'a>,
    rules: &'a Rules,
    judged: Recent<Address, Judgement>,
    answerers: Recent<SocketAddr, ()>,
    denied: bool,
    lookups: Lookups<'a>,
}

impl<'a> Destinations<'a> {
    pub(super) fn new(client: &'a Client<'a>, rules: &'a Rules, partner: &'a Partner) -> Self {
        Destinations {
            client,
            rules,
            judged: Recent::new(MOST_DESTINATIONS),
            answerers: Recent::new(MOST_DESTINATIONS),
            denied: false,
            lookups: Lookups::new(partner),
        }
    }

    /// What is known of a datagram's destination; a name that is not known is looked up, and the
    /// datagram waits.
    pub(super) fn judge(&mut self, datagram: &Datagram<'_>, now: Instant) -> Option<Judgement> {
        let destination = &datagram.destination;
        if let Some(judgement) = self.judged.get(destination) {
            if judgement.until.is_none_or(|until| now < until) {
                return Some(*judgement);
            }
        }
        let lasts = matches!(destination.host, Host::Name(_)).then(|| now + NAME_LASTS);
        let judgement = match self.permit(destination, None) {
            Ok(permit) => Judgement { target: permit.addresses().first().copied(), until: lasts },
            Err(Refusal::Denied(_)) => Judgement { target: None, until: lasts },
            Err(Refusal::Lookup(())) => {
                self.lookups.add(destination.clone(), datagram.payload);
                return None;
            }
        };
        self.judged.insert(destination.clone(), judgement);
        Some(judgement)
    }

    /// Asks the rules. A name of which nothing is `found` yet is judged as far as that goes, and
    /// then is a failed lookup.
    fn permit(
        &mut self,
        destination: &Address,
        found: Option<Vec<SocketAddr>>,
    ) -> Result<Permit, Refusal<()>> {
        let Client { account, identity, .. } = self.client;
        let request = Request { command: Command::UdpAssociate, destination: destination.clone() };
        let permit = self.rules.permit(identity, account.peer(), &request, |_, _| found.ok_or(()));
        if let Err(Refusal::Denied(denied)) = &permit {
            // A client that scans is not to fill the log.
            let level = if self.denied { Level::Debug } else { Level::Info };
            log!(
                level,
                "denied client={} command=UDP dest={destination} why={:?}",
                account.peer(),
                denied.to_string()
            );
            self.denied = true;
        }
        permit
    }

    /// How long to wait before looking again whether a lookup is over, if one is under way.
    pub(super) fn pause(&self, now: Instant) -> Option<Duration> {
        self.lookups.pause(now)
    }

    /// The lookup that is over, if one is.
    pub(super) fn take_found(&mut self) -> Option<Found> {
        self.lookups.take().map(|answer| self.judge_answer(answer))
    }

    fn judge_answer(&mut self, answer: Answer) -> Found {
        let Answer { destination, addresses, payloads } = answer;
        let permit = self.permit(&destination, Some(addresses));
        let targets = permit.map_or(Vec::new(), |permit| permit.addresses().to_vec());
        Found { destination, targets, payloads }
    }

    /// Keeps which address of a name takes datagrams, if one does.
    pub(super) fn keep(&mut self, name: Address, target: Option<SocketAddr>, now: Instant) {
        let lasts = if target.is_some() { NAME_LASTS } else { FAILURE_LASTS };
        self.judged.insert(name, Judgement { target, until: Some(now + lasts) });
    }

    /// Lets `target` reply. True if it could not before; it may have taken another's place then.
    pub(super) fn admit(&mut self, target: SocketAddr) -> bool {
        let answerer = canonical(target);
        let is_new = self.answerers.get(&answerer).is_none();
        if is_new {
            self.answerers.insert(answerer, ());
        }
        is_new
    }

    /// Whether what comes from `from` is a reply.
    pub(super) fn admits(&self, from: SocketAddr) -> bool {
        self.answerers.peek(&canonical(from)).is_some()
    }
}

/// The address as a client spells it: not IPv4-mapped, without scope.
pub(super) fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::associate::tests::{session, with_association};
    use crate::socks5::Name;

    fn to(destination: &str, port: u16) -> Datagram<'static> {
        let host = match destination.parse() {
            Ok(ip) => Host::Ip(ip),
            Err(_) => Host::Name(Name::new(destination.into()).unwrap()),
        };
        Datagram { frag: 0, destination: Address { host, port }, header: b"", payload: b"x" }
    }

    #[test]
    fn a_client_elsewhere_sends_nothing_to_this_machine() {
        let (session, _control) = session("192.168.1.7:1");
        with_association(session, |_, client, rules, partner| {
            let mut destinations = Destinations::new(client, rules, partner);
            let now = Instant::now();
            for closed in ["127.0.0.1", "::1", "0.0.0.0", "169.254.1.1", "255.255.255.255"] {
                let judgement = destinations.judge(&to(closed, 9), now).unwrap();
                assert!(judgement.target.is_none(), "{closed}");
            }
            let open = destinations.judge(&to("192.0.2.1", 9), now).unwrap();
            assert_eq!(open.target, Some("192.0.2.1:9".parse().unwrap()));
            let name = to("rebinding.example", 9);
            let found = destinations.judge_answer(Answer {
                destination: name.destination.clone(),
                addresses: vec!["127.0.0.1:9".parse().unwrap(), "[::1]:9".parse().unwrap()],
                payloads: vec![b"x".to_vec()],
            });
            assert!(found.targets.is_empty());
            destinations.keep(found.destination, None, now);
            assert!(destinations.judge(&name, now).unwrap().target.is_none());
        })();
    }
}
