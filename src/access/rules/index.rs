//! The rules of a file, arranged so that the first match is found without trying them all.
//!
//! Rules with the same `to` form a chain in the order of the file. A request follows the chain of its
//! name, of each parent of the name, of each network around its address, and the chain of the rules
//! without `to`. The smallest number among the matches is the first match.
//!
//! That pays from about a hundred rules on. Measured on an AMD EPYC at 2.6 GHz, a name that no rule matches:
//!
//! | `deny to NAME` rules | plain list | this index |
//! |---:|---:|---:|
//! | 10 | 0.2 µs | 0.4 µs |
//! | 100 | 0.5 µs | 0.4 µs |
//! | 1,000 | 10 µs | 0.4 µs |
//! | 10,000 | 70 µs | 0.4 µs |
//! | 100,000 | 1,100 µs | 0.4 µs |
//!
//! A connection costs about 140 µs in all, so that a block list of 100,000 names would cost eight
//! times as much as the rest. Rules that differ in `user`, `from` or `port` alone stay a plain list:
//! nobody has thousands of those.

use std::collections::{HashMap, HashSet};
use std::mem;
use std::net::IpAddr;
use std::sync::Arc;

use super::networks::Networks;
use super::rule::{Rule, RuleQuery, To};
use crate::access::upstream::Upstream;

/// The place of a rule in the file, from 0. [`NONE`] comes after every rule.
type Number = u32;
const NONE: Number = Number::MAX;

/// The rules of one file.
#[derive(Debug)]
pub(super) struct Index {
    entries: Vec<Entry>,
    /// The first rule without `to`.
    anywhere: Number,
    /// The first rule of each name; `*.example.org` stands here as `.example.org`.
    names: HashMap<Box<str>, Number>,
    /// The most labels that the name in a `*.name` has.
    most_labels: usize,
    /// The first rule of each network.
    networks: Networks,
    /// The first rule about this machine's own addresses.
    own: Number,
    /// The rules that allow an address for what it is, in order.
    allowed_addresses: Vec<Number>,
    /// The rules that tell whether a client can be permitted anything at all, in order.
    openings: Vec<Number>,
}

/// A rule in its chain.
#[derive(Debug)]
struct Entry {
    /// Without its `to`, which is that of the chain.
    rule: Rule,
    verdict: Verdict,
    /// The next rule of the chain.
    next: Number,
}

/// What a rule says once it is the first match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) allow: bool,
    /// The rule allows an address or a network, and so opens what is closed by default.
    pub(super) opens: bool,
    /// The place of the rule, if what it allows goes through another server.
    via: Option<Number>,
    /// Where the rule stands, from 1.
    pub(super) line: u32,
}

impl Default for Index {
    fn default() -> Self {
        Index::new(Vec::new())
    }
}

impl Index {
    /// Arranges rules, each with its line, that are in the order of their lines.
    pub(super) fn new(rules: Vec<(u32, Rule)>) -> Self {
        let mut index = Index {
            entries: Vec::with_capacity(rules.len()),
            anywhere: NONE,
            names: HashMap::new(),
            most_labels: 0,
            networks: Networks::default(),
            own: NONE,
            allowed_addresses: Vec::new(),
            openings: Vec::new(),
        };
        let last = Number::try_from(rules.len()).expect("lines have numbers of 32 bits");
        // From the last rule to the first: each goes before what its chain has already.
        for (number, (line, rule)) in (0..last).zip(rules).rev() {
            index.put(number, line, rule);
        }
        index.entries.reverse();
        index.allowed_addresses.reverse();
        index.openings.reverse();
        index
    }

    fn put(&mut self, number: Number, line: u32, mut rule: Rule) {
        let to = rule.to.take();
        let allow = rule.allow;
        let via = rule.via.is_some().then_some(number);
        let opens = allow && via.is_none() && matches!(to, Some(To::Network(_)));
        let verdict = Verdict { allow, opens, via, line };
        if (allow && via.is_none()) || (to.is_none() && rule.ports.is_none()) {
            self.openings.push(number);
        }
        if allow && matches!(to, Some(To::Network(_) | To::Own)) {
            self.allowed_addresses.push(number);
        }
        let next = match to {
            None => Some(mem::replace(&mut self.anywhere, number)),
            Some(To::Name(name)) => self.names.insert(name.into(), number),
            Some(To::Subdomains(parent)) => {
                self.most_labels = self.most_labels.max(parent.split('.').count());
                self.names.insert(format!(".{parent}").into(), number)
            }
            Some(To::Own) => Some(mem::replace(&mut self.own, number)),
            Some(To::Network(net)) => self.networks.insert(net, number),
        };
        self.entries.push(Entry { rule, verdict, next: next.unwrap_or(NONE) });
    }

    /// How many rules there are.
    pub(super) fn count(&self) -> usize {
        self.entries.len()
    }

    /// The users that rules name, and the first line that names each.
    pub(super) fn users(&self) -> impl Iterator<Item = (&str, u32)> {
        let mut seen = HashSet::new();
        let named = self
            .entries
            .iter()
            .filter_map(|entry| entry.rule.user.as_deref().map(|user| (user, entry.verdict.line)));
        named.filter(move |(user, _)| seen.insert(*user))
    }

    /// The first rule that matches whatever address the destination has. Letter case and dots at the
    /// end of `name` make no difference.
    pub(super) fn match_name(&self, asked: &RuleQuery<'_>, name: Option<&str>) -> Option<Number> {
        let mut first = self.first_in(self.anywhere, asked, NONE);
        if let Some(name) = name {
            let name = name.trim_end_matches('.').to_ascii_lowercase();
            let parents =
                name.rmatch_indices('.').take(self.most_labels).map(|(dot, _)| &name[dot..]);
            for name in parents.chain([name.as_str()]) {
                let chain = self.names.get(name).copied().unwrap_or(NONE);
                first = self.first_in(chain, asked, first);
            }
        }
        (first != NONE).then_some(first)
    }

    /// The verdict of a rule that was found.
    pub(super) fn verdict(&self, number: Number) -> Verdict {
        self.entry(number).verdict
    }

    /// Through which server goes what `verdict` allows, if it goes through any.
    pub(super) fn upstream(&self, verdict: Verdict) -> Option<&Arc<Upstream>> {
        self.entry(verdict.via?).rule.via.as_ref()
    }

    /// The servers that rules name, each with the line.
    pub(super) fn upstreams(&self) -> impl Iterator<Item = (&Arc<Upstream>, u32)> {
        self.entries.iter().filter_map(|entry| Some((entry.rule.via.as_ref()?, entry.verdict.line)))
    }

    /// The first rule that matches a destination with this address, where `named` is the result of
    /// [`Index::match_name`]. `is_ours` tells whether the address is this machine's; if it cannot, rules
    /// that deny match and rules that allow do not. It is asked only if it makes a difference.
    pub(super) fn match_address(
        &self,
        asked: &RuleQuery<'_>,
        named: Option<Number>,
        ip: IpAddr,
        is_ours: impl FnOnce() -> Option<bool>,
    ) -> Option<Verdict> {
        let mut first = named.unwrap_or(NONE);
        for chain in self.networks.around(ip) {
            first = self.first_in(chain, asked, first);
        }
        if self.own < first {
            first = match is_ours() {
                Some(true) => self.first_in(self.own, asked, first),
                Some(false) => first,
                None => self.first_where(self.own, first, |it| !it.allow && it.matches(asked)),
            };
        }
        (first != NONE).then(|| self.entry(first).verdict)
    }

    /// The verdict of `named`, if it denies and no earlier rule allows an address for what it is:
    /// then every address that the name may have is denied.
    pub(super) fn denial_of_every_address(
        &self,
        asked: &RuleQuery<'_>,
        named: Option<Number>,
    ) -> Option<Verdict> {
        let named = named?;
        let verdict = self.entry(named).verdict;
        let mut earlier = self.allowed_addresses.iter().take_while(|number| **number < named);
        let is_certain =
            !verdict.allow && !earlier.any(|number| self.entry(*number).rule.matches(asked));
        is_certain.then_some(verdict)
    }

    /// The verdict that tells whether this client can be permitted anything without a server to go
    /// through: the first that allows something, or that leaves no destination to later rules.
    pub(super) fn opening(&self, asked: &RuleQuery<'_>) -> Option<Verdict> {
        let mut openings = self.openings.iter().map(|number| self.entry(*number));
        openings.find(|entry| entry.rule.concerns(asked)).map(|entry| entry.verdict)
    }

    /// The first rule of a chain that matches, if it comes before `first`; else `first`.
    fn first_in(&self, chain: Number, asked: &RuleQuery<'_>, first: Number) -> Number {
        self.first_where(chain, first, |rule| rule.matches(asked))
    }

    fn first_where(&self, chain: Number, first: Number, matches: impl Fn(&Rule) -> bool) -> Number {
        let mut number = chain;
        while number < first {
            let entry = self.entry(number);
            if matches(&entry.rule) {
                return number;
            }
            number = entry.next;
        }
        first
    }

    fn entry(&self, number: Number) -> &Entry {
        &self.entries[number as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::socks5::Command;
    use std::fmt::Write;

    /// Pseudo-random choices, the same ones each time.
    struct Dice(u64);

    impl Dice {
        fn below(&mut self, sides: usize) -> usize {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            usize::try_from(self.0 >> 33).unwrap() % sides
        }

        fn one<'a>(&mut self, of: &[&'a str]) -> &'a str {
            of[self.below(of.len())]
        }
    }

    // Few enough of each that rules overlap in every way.
    const COMMANDS: [&str; 3] = ["connect", "bind", "udp"];
    const USERS: [&str; 3] = ["alice", "bob", r"car\x20ol"];
    const CLIENTS: [&str; 4] = ["10.0.0.0/8", "10.1.0.0/16", "10.1.2.3", "fd00::/8"];
    const TO: [&str; 15] = [
        "self",
        "0.0.0.0/0",
        "192.0.0.0/8",
        "192.0.2.0/24",
        "192.0.2.128/25",
        "192.0.2.1",
        "::/0",
        "2001:db8::/32",
        "2001:db8::1",
        "example",
        "a.example",
        "b.a.example",
        "*.example",
        "*.a.example",
        "*.b.a.example",
    ];
    const PORTS: [&str; 4] = ["80", "443", "0-1023", "81-65535"];
    const NAMES: [&str; 9] = [
        "example",
        "EXAMPLE.",
        "a.example",
        "A.eXample.",
        "b.a.example",
        "c.b.a.example",
        "x.example",
        "notexample",
        "a.example.org",
    ];
    const ADDRESSES: [&str; 7] = [
        "192.0.2.1",
        "192.0.2.2",
        "192.0.2.200",
        "::ffff:192.0.2.1",
        "198.51.100.1",
        "2001:db8::1",
        "2001:db8::2",
    ];
    const FROM: [&str; 6] =
        ["10.1.2.3", "10.1.2.4", "10.2.0.1", "::ffff:10.1.2.3", "fd00::1", "192.168.0.1"];

    fn rules(dice: &mut Dice, count: usize) -> Vec<(u32, Rule)> {
        let rule = |dice: &mut Dice| {
            let mut line = String::from(dice.one(&["allow", "deny"]));
            for (field, values) in [
                ("command", &COMMANDS[..]),
                ("user", &USERS),
                ("from", &CLIENTS),
                ("to", &TO),
                ("port", &PORTS),
            ] {
                let chance = if field == "to" { 2 } else { 3 };
                if dice.below(chance) == 0 {
                    write!(line, " {field} {}", dice.one(values)).unwrap();
                }
            }
            Rule::parse(line.as_bytes()).unwrap().unwrap()
        };
        (1..).zip((0..count).map(|_| rule(dice))).collect()
    }

    struct Request {
        asked: RuleQuery<'static>,
        name: Option<&'static str>,
        is_ours: Option<bool>,
    }

    fn request(dice: &mut Dice) -> Request {
        let client: IpAddr = dice.one(&FROM).parse().unwrap();
        let asked = RuleQuery {
            command: [Command::Connect, Command::Bind, Command::UdpAssociate][dice.below(3)],
            user: [None, Some("alice"), Some(r"car\x20ol"), Some("dave")][dice.below(4)],
            client: client.to_canonical(),
            port: [0, 22, 80, 443, 8080][dice.below(5)],
        };
        Request {
            asked,
            name: (dice.below(2) == 0).then(|| dice.one(&NAMES)),
            is_ours: [None, Some(true), Some(false)][dice.below(3)],
        }
    }

    /// Each rule is asked in turn, and this is how it answers. It does not use what the index uses.
    fn concerns_client(rule: &Rule, asked: &RuleQuery<'_>) -> bool {
        (rule.command.is_none() || rule.command == Some(asked.command))
            && (rule.user.is_none() || rule.user.as_deref() == asked.user)
            && rule.from.is_none_or(|net| net.contains(&asked.client))
    }

    fn concerns(rule: &Rule, request: &Request, ip: IpAddr) -> bool {
        let name = request.name.map(|name| name.trim_end_matches('.').to_lowercase());
        concerns_client(rule, &request.asked)
            && rule.ports.as_ref().is_none_or(|ports| {
                *ports.start() <= request.asked.port && request.asked.port <= *ports.end()
            })
            && match &rule.to {
                None => true,
                Some(To::Network(net)) => net.contains(&ip.to_canonical()),
                Some(To::Own) => request.is_ours.unwrap_or(!rule.allow),
                Some(To::Name(name_of_rule)) => name.as_ref() == Some(name_of_rule),
                Some(To::Subdomains(parent)) => {
                    name.is_some_and(|name| name.ends_with(&format!(".{parent}")))
                }
            }
    }

    #[test]
    fn the_index_finds_what_trying_every_rule_finds() {
        let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
        let (mut found, mut never_looked_up) = (0, 0);
        for round in 0..300 {
            let rules = rules(&mut dice, round % 40);
            let index = Index::new(rules.clone());
            for _ in 0..40 {
                let request = request(&mut dice);
                let asked = request.asked;
                let named = index.match_name(&asked, request.name);
                let certain = index.denial_of_every_address(&asked, named);
                never_looked_up += usize::from(certain.is_some());
                for ip in ADDRESSES.map(|ip| ip.parse().unwrap()) {
                    let first = rules.iter().find(|(_, rule)| concerns(rule, &request, ip));
                    let verdict = index.match_address(&asked, named, ip, || request.is_ours);
                    assert_eq!(verdict.map(|it| it.line), first.map(|(line, _)| *line));
                    assert_eq!(verdict.map(|it| it.allow), first.map(|(_, rule)| rule.allow));
                    assert!(certain.is_none() || !first.unwrap().1.allow);
                    found += usize::from(first.is_some());
                }
            }
        }
        assert!(found > 10_000 && never_looked_up > 500, "{found} {never_looked_up}");
    }

    #[test]
    fn a_client_is_denied_everything_when_no_rule_could_allow_it_anything() {
        let mut dice = Dice(0x2545_f491_4f6c_dd1d);
        let mut denied = 0;
        for round in 0..500 {
            let rules = rules(&mut dice, round % 20);
            let index = Index::new(rules.clone());
            for _ in 0..20 {
                let Request { asked, .. } = request(&mut dice);
                let first = rules.iter().find(|(_, rule)| {
                    let is_last_word = rule.to.is_none() && rule.ports.is_none();
                    concerns_client(rule, &asked) && (rule.allow || is_last_word)
                });
                let expected = first.filter(|(_, rule)| !rule.allow).map(|(line, _)| *line);
                assert_eq!(
                    index.opening(&asked).filter(|it| !it.allow).map(|it| it.line),
                    expected
                );
                denied += usize::from(expected.is_some());
            }
        }
        assert!(denied > 500, "{denied}");
    }
}
