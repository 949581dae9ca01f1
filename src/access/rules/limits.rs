//! A limit of a file, and who shares it.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Weak};
use std::time::Instant;

use super::limit::{Each, Limit};
use super::rule::{Rule, RuleQuery, To};
use crate::system::ip::ClientPrefix;
use crate::system::rate::Rate;
use crate::system::sync::Mutex;

/// A limit, and where it stands. All that match a session apply to it.
#[derive(Debug)]
pub(in crate::access) struct LimitLine {
    pub(in crate::access) line: u32,
    pub(super) rule: Rule,
    pub(super) limit: Limit,
    /// What those have in common who share it: each session holds its rate once, and nobody else does.
    shared: Mutex<HashMap<Who, Weak<Rate>>>,
}

/// The user or the client who has a limit alone.
type Who = (Option<Box<str>>, Option<ClientPrefix>);

/// A request's destination, as far as it is known.
pub(in crate::access) struct Place<'a> {
    /// In lower case and without a dot at its end.
    pub(in crate::access) name: Option<&'a str>,
    pub(in crate::access) addresses: &'a [IpAddr],
    /// Whether an address is this machine's.
    pub(in crate::access) is_ours: &'a dyn Fn(IpAddr) -> bool,
}

impl LimitLine {
    pub(super) fn new(line: u32, rule: Rule, limit: Limit) -> Self {
        LimitLine { line, rule, limit, shared: Mutex::default() }
    }

    /// Whether it is about this session. A client without a user shares nothing that each user has alone.
    pub(in crate::access) fn matches(&self, query: &RuleQuery<'_>, place: &Place<'_>) -> bool {
        let Rule { to, .. } = &self.rule;
        (self.limit.each != Some(Each::User) || query.user.is_some())
            && self.rule.matches(query)
            && (to.is_empty() || to.iter().any(|to| place.is_at(to)))
    }

    /// What it lets `user` have, if it is about that user alone and about whatever that asks for.
    pub(super) fn of_user(&self, user: &str) -> Option<Limit> {
        let Rule { action: _, commands, user: named, from, to, ports } = &self.rule;
        let is_own = match self.limit.each {
            None => named.as_deref() == Some(user),
            Some(Each::User) => named.as_deref().is_none_or(|named| named == user),
            Some(Each::Client) => false,
        };
        let is_all = commands.is_empty() && from.is_empty() && to.is_empty() && ports.is_empty();
        (is_own && is_all).then_some(self.limit)
    }

    /// What a session shares with the others that this limit is about. `None` for one that `is_new` if it
    /// would be one too many.
    pub(in crate::access) fn share(
        &self,
        query: &RuleQuery<'_>,
        is_new: bool,
    ) -> Option<Arc<Rate>> {
        let who = match self.limit.each {
            None => (None, None),
            Some(Each::User) => (query.user.map(Into::into), None),
            Some(Each::Client) => (None, Some(query.client.into())),
        };
        let mut shared = self.shared.lock();
        if shared.len() == shared.capacity() {
            shared.retain(|_, rate| rate.strong_count() > 0);
        }
        let weak = shared.entry(who).or_default();
        if is_new && self.limit.connections.is_some_and(|most| weak.strong_count() >= most) {
            return None;
        }
        Some(weak.upgrade().unwrap_or_else(|| {
            let rate = Arc::new(Rate::new(self.limit.rate, Instant::now()));
            *weak = Arc::downgrade(&rate);
            rate
        }))
    }
}

impl Place<'_> {
    fn is_at(&self, to: &To) -> bool {
        match to {
            To::Network(net) => self.addresses.iter().any(|ip| net.contains(ip)),
            To::Own => self.addresses.iter().any(|ip| (self.is_ours)(*ip)),
            To::Name(name) => self.name == Some(name),
            To::Subdomains(parent) => self
                .name
                .and_then(|name| name.strip_suffix(parent.as_str()))
                .is_some_and(|rest| rest.ends_with('.')),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::access::in_force::AccessFiles;
    use crate::access::policy::{Denied, Policy};
    use crate::access::rules::RuleFile;
    use crate::system::rate::Rate;
    use crate::wire::address::{Address, Host, Name};
    use crate::wire::request::Command;
    use std::net::SocketAddr;
    use std::sync::Arc;

    /// One who asks for something.
    #[derive(Clone, Copy)]
    struct Asks(Option<&'static str>, &'static str, Command, &'static str, u16);

    const ALICE: Asks = Asks(Some("alice"), "192.0.2.1", Command::Connect, "10.1.2.3", 443);

    fn policy(rules: &str) -> Policy {
        let rules = RuleFile::parse(rules.as_bytes(), "rules").unwrap();
        Policy::new(&[], vec![])
            .with_files(Arc::new(AccessFiles { rules, ..AccessFiles::default() }))
    }

    fn ask(policy: &Policy, asks: Asks, is_new: bool) -> Result<Vec<Arc<Rate>>, Denied> {
        let Asks(user, client, command, host, port) = asks;
        let host = match host.parse() {
            Ok(ip) => Host::Ip(ip),
            Err(_) => Name::new(host.into()).unwrap().into(),
        };
        let addresses: &[SocketAddr] = match &host {
            Host::Ip(_) => &[],
            Host::Name(_) => &["10.9.9.9:443".parse().unwrap()],
        };
        let user: Option<Arc<str>> = user.map(Into::into);
        let client = SocketAddr::new(client.parse().unwrap(), 5000);
        policy.limits(
            (user.as_ref(), client),
            &(command, Address { host, port }),
            addresses,
            is_new,
        )
    }

    fn count(rules: &str, asks: Asks) -> usize {
        ask(&policy(rules), asks, true).unwrap().len()
    }

    #[test]
    fn every_limit_that_matches_applies_and_no_other() {
        assert_eq!(count("deny\nlimit rate 1MB\nlimit user alice connections 2\n", ALICE), 2);
        for matching in [
            "user alice",
            "from 192.0.2.0/24",
            "command connect,bind",
            "to 10.0.0.0/8",
            "port 443",
            "each user",
            "each client",
            "each user user alice to 10.1.2.3 from 192.0.2.1 port 400-500",
        ] {
            assert_eq!(count(&format!("limit {matching} rate 1MB"), ALICE), 1, "{matching}");
        }
        for other in [
            "user bob",
            "from 192.0.3.0/24",
            "command udp",
            "to 11.0.0.0/8",
            "port 80",
            "to self",
            "to example.org",
        ] {
            assert_eq!(count(&format!("limit {other} rate 1MB"), ALICE), 0, "{other}");
        }
    }

    #[test]
    fn a_name_matches_as_it_was_asked_for_and_by_its_addresses() {
        let by_name = Asks(None, "192.0.2.1", Command::Http, "A.Example.org.", 80);
        for (to, matching) in [
            ("a.example.org", 1),
            ("*.example.org", 1),
            ("*.org", 1),
            ("example.org", 0),
            ("*.a.example.org", 0),
            ("*.ample.org", 0),
            ("10.9.9.9", 1),
            ("10.9.9.8", 0),
        ] {
            assert_eq!(count(&format!("limit to {to} rate 1MB"), by_name), matching, "{to}");
        }
        assert_eq!(count("limit each user rate 1MB", by_name), 0, "it is no user");
    }

    #[test]
    fn an_association_has_no_destination() {
        let udp = Asks(None, "192.0.2.1", Command::UdpAssociate, "192.0.2.1", 5000);
        assert_eq!(count("limit to 192.0.2.1 rate 1MB\nlimit rate 1MB", udp), 1);
    }

    #[test]
    fn each_user_and_each_client_has_a_rate_and_others_share_one() {
        let bob = Asks(Some("bob"), "192.0.2.2", Command::Connect, "10.1.2.3", 443);
        for (each, is_shared) in [("each user", false), ("each client", false), ("", true)] {
            let policy = policy(&format!("limit {each} rate 1MB"));
            let [first, again, other] =
                [ALICE, ALICE, bob].map(|asks| ask(&policy, asks, true).unwrap().remove(0));
            assert!(Arc::ptr_eq(&first, &again), "{each}");
            assert_eq!(Arc::ptr_eq(&first, &other), is_shared, "{each}");
        }
    }

    #[test]
    fn one_connection_too_many_is_denied_and_takes_no_place() {
        let policy =
            policy("limit from 192.0.2.0/24 connections 3\n\nlimit each user connections 2");
        let full = Err(Denied::Full { file: "rules".into(), line: 3 });
        let join = |asks: Asks| ask(&policy, asks, true).map(|rates| rates.len());
        let held = [(); 2].map(|()| ask(&policy, ALICE, true).unwrap());
        for _ in 0..3 {
            assert_eq!(join(ALICE), full);
        }
        let bob = Asks(Some("bob"), "192.0.2.2", Command::Connect, "10.1.2.3", 443);
        assert_eq!(join(bob), Ok(2));
        assert_eq!(ask(&policy, ALICE, false).unwrap().len(), 2, "it has its places");
        drop(held);
        assert_eq!(join(ALICE), Ok(2));
    }

    #[test]
    fn who_is_gone_is_forgotten() {
        let file = policy("limit each client rate 1MB");
        let clients = |rounds: u8| {
            for round in 0..rounds {
                for host in 0..=255 {
                    let client = format!("10.{round}.0.{host}").leak();
                    ask(&file, Asks(None, client, Command::Connect, "10.1.2.3", 1), true).unwrap();
                }
            }
            file.in_force().get().rules.limits[0].shared.lock().len()
        };
        assert!(clients(20) < 10);
    }
}
