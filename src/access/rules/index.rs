//! Many rules, so arranged that the first one that matches is found without trying them all.
//!
//! Rules with the same destination, client's network, user and port are a chain. A request follows
//! only the chains that it has to do with, and of their rules it asks no more than the command, and
//! the port where that is a range. A chain is in the order of the file, and the smallest number
//! found in any of them is the first match.

use std::collections::HashMap;
use std::iter::once;
use std::net::IpAddr;
use std::ops::RangeInclusive;

use super::networks::Networks;
use super::rule::{Rule, To};
use crate::socks5::Command;

/// The place of a rule among the others, from 0; [`NONE`] is behind the last one.
type Number = u32;
const NONE: Number = Number::MAX;

/// The rules of one file.
#[derive(Debug, Default)]
pub(super) struct Index {
    entries: Vec<Entry>,
    users: Users,
    clients: Clients,
    destinations: Destinations,
    /// The first rule of each chain.
    chains: HashMap<(Option<Destination>, Key), Number>,
    /// Rules that allow a network, each the first of its kind, in order.
    allowed_networks: HashMap<Key, Vec<Listed>>,
    /// Rules that say whether any destination at all can be permitted; likewise.
    openings: HashMap<Key, Vec<Listed>>,
}

/// What is left of a rule in its chain.
#[derive(Debug)]
struct Entry {
    verdict: Verdict,
    conditions: Conditions,
    /// The next rule of the chain.
    next: Number,
}

/// What a rule says, once it is the first that matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) allow: bool,
    /// The rule names a destination.
    pub(super) has_destination: bool,
    /// Where the rule stands, from 1.
    pub(super) line: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Conditions {
    command: Option<Command>,
    /// The first and the last.
    ports: Option<(u16, u16)>,
}

/// What the rules of a chain have in common beside their destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    user: Option<User>,
    client: Option<Client>,
    /// The port, where it is one alone.
    port: Option<u16>,
}

/// A rule in a list, and when it counts there.
type Listed = (Number, Conditions);

/// The number of a user that rules name.
type User = u32;

/// For each user, also the first line that names it.
type Users = HashMap<Box<str>, (User, u32)>;

/// The number of a client's network.
type Client = u32;
type Clients = Networks;

/// The number of a name, of a name with subdomains, or of a network.
type Destination = u32;

#[derive(Debug, Default)]
struct Destinations {
    count: u32,
    names: HashMap<Box<str>, Destination>,
    parents: HashMap<Box<str>, Destination>,
    /// The most labels that a parent has.
    most_labels: usize,
    networks: Networks,
}

/// A request, without its destination's host.
#[derive(Debug)]
pub(super) struct Asked {
    command: Command,
    user: Option<User>,
    clients: Vec<Client>,
    port: u16,
}

impl Asked {
    /// The keys of all chains whose rules may match.
    fn keys(&self) -> impl Iterator<Item = Key> {
        let users = once(None).chain(self.user.map(Some));
        let clients = || once(None).chain(self.clients.iter().copied().map(Some));
        users.flat_map(move |user| clients().map(move |client| (user, client))).flat_map(
            |(user, client)| [None, Some(self.port)].map(|port| Key { user, client, port }),
        )
    }
}

impl Conditions {
    fn met_by(self, asked: &Asked) -> bool {
        self.command.is_none_or(|command| command == asked.command)
            && self.ports.is_none_or(|(first, last)| (first..=last).contains(&asked.port))
    }
}

impl Destinations {
    /// The number of this destination, a new one if it is new.
    fn number(&mut self, to: To) -> Destination {
        let fresh = self.count;
        let number = match to {
            To::Name(name) => *self.names.entry(name.into()).or_insert(fresh),
            To::Subdomains(parent) => {
                self.most_labels = self.most_labels.max(parent.split('.').count());
                *self.parents.entry(parent.into()).or_insert(fresh)
            }
            To::Network(net) => self.networks.number(net, fresh),
        };
        self.count = self.count.max(number + 1);
        number
    }

    /// The numbers of `name`, and of the parents that it is a subdomain of.
    fn named(&self, name: &str) -> impl Iterator<Item = Destination> {
        let dots = name.rmatch_indices('.').take(self.most_labels);
        let parents = dots.filter_map(|(dot, _)| self.parents.get(&name[dot + 1..]));
        self.names.get(name).into_iter().chain(parents).copied()
    }
}

impl Index {
    /// Arranges rules, each with its line, that are in the order of their lines.
    pub(super) fn new(mut rules: Vec<(u32, Rule)>) -> Self {
        let mut index = Index::default();
        let mut summary = Summary::default();
        index.entries.reserve_exact(rules.len());
        // From the last rule to the first, each is put before the chain that is there already.
        let mut number = Number::try_from(rules.len()).expect("lines have numbers of 32 bits");
        while let Some((line, rule)) = rules.pop() {
            number -= 1;
            index.put(number, line, rule, &mut summary);
        }
        index.entries.reverse();
        index.allowed_networks = in_lists(summary.allowed_networks);
        index.openings = in_lists(summary.openings);
        index
    }

    fn put(&mut self, number: Number, line: u32, rule: Rule, summary: &mut Summary) {
        let key = Key {
            user: rule.user.map(|user| user_number(&mut self.users, user, line)),
            client: rule.from.map(|net| self.clients.number(net, number)),
            port: rule.ports.as_ref().filter(|it| it.start() == it.end()).map(|it| *it.start()),
        };
        let ports = rule.ports.map(RangeInclusive::into_inner);
        let conditions = Conditions { command: rule.command, ports };
        summary.take(number, rule.allow, rule.to.as_ref(), key, conditions);
        let verdict = Verdict { allow: rule.allow, has_destination: rule.to.is_some(), line };
        let destination = rule.to.map(|to| self.destinations.number(to));
        let next = self.chains.insert((destination, key), number).unwrap_or(NONE);
        self.entries.push(Entry { verdict, conditions, next });
    }

    /// How many rules there are.
    pub(super) fn count(&self) -> usize {
        self.entries.len()
    }

    /// The users that rules name, and the first line that names each.
    pub(super) fn users(&self) -> impl Iterator<Item = (&str, u32)> {
        self.users.iter().map(|(user, (_, line))| (&**user, *line))
    }

    /// Puts a request into the index's own terms.
    pub(super) fn ask(
        &self,
        command: Command,
        user: Option<&str>,
        client: IpAddr,
        port: u16,
    ) -> Asked {
        let user = user.and_then(|user| self.users.get(user)).map(|(number, _)| *number);
        Asked { command, user, clients: self.clients.around(client).collect(), port }
    }

    /// The first rule that matches whatever the destination's address is. Letter case and dots at
    /// the end of `name` make no difference.
    pub(super) fn match_name(&self, asked: &Asked, name: Option<&str>) -> Option<Number> {
        let mut first = NONE;
        if let Some(name) = name {
            let name = name.trim_end_matches('.').to_ascii_lowercase();
            let destinations = self.destinations.named(&name);
            self.follow(destinations.map(Some), asked, &mut first);
        }
        self.follow([None], asked, &mut first);
        (first != NONE).then_some(first)
    }

    /// The first rule that matches a destination of this address, where `named` is what
    /// [`Index::match_name`] has found.
    pub(super) fn match_address(
        &self,
        asked: &Asked,
        named: Option<Number>,
        ip: IpAddr,
    ) -> Option<Verdict> {
        let mut first = named.unwrap_or(NONE);
        self.follow(self.destinations.networks.around(ip).map(Some), asked, &mut first);
        (first != NONE).then(|| self.entry(first).verdict)
    }

    /// The verdict of `named`, if it denies and no earlier rule allows any network: every address
    /// that the name may have is denied then.
    pub(super) fn denial_of_every_address(
        &self,
        asked: &Asked,
        named: Option<Number>,
    ) -> Option<Verdict> {
        let named = named?;
        let verdict = self.entry(named).verdict;
        let is_certain = !verdict.allow
            && first_of(&self.allowed_networks, asked).is_none_or(|number| number > named);
        is_certain.then_some(verdict)
    }

    /// The verdict of the rule that denies every destination to this client, if there is one and no
    /// rule before it allows anything.
    pub(super) fn denial_of_everything(&self, asked: &Asked) -> Option<Verdict> {
        let verdict = first_of(&self.openings, asked).map(|number| self.entry(number).verdict);
        verdict.filter(|verdict| !verdict.allow)
    }

    /// Follows the chains of destinations as far as they are before `first`, and makes that the
    /// first rule that matches.
    fn follow(
        &self,
        destinations: impl IntoIterator<Item = Option<Destination>>,
        asked: &Asked,
        first: &mut Number,
    ) {
        for destination in destinations {
            for key in asked.keys() {
                let mut number = self.chains.get(&(destination, key)).copied().unwrap_or(NONE);
                while number < *first {
                    let entry = self.entry(number);
                    if entry.conditions.met_by(asked) {
                        *first = number;
                    } else {
                        number = entry.next;
                    }
                }
            }
        }
    }

    fn entry(&self, number: Number) -> &Entry {
        &self.entries[number as usize]
    }
}

/// The number of `user`, a new one if it is new, and notes `line` as the first that names it.
fn user_number(users: &mut Users, user: String, line: u32) -> User {
    let fresh = User::try_from(users.len()).expect("there are no more users than lines");
    let (number, first_line) = users.entry(user.into()).or_insert((fresh, line));
    *first_line = line;
    *number
}

/// The first rule of these lists whose conditions are met.
fn first_of(lists: &HashMap<Key, Vec<Listed>>, asked: &Asked) -> Option<Number> {
    asked
        .keys()
        .filter_map(|key| lists.get(&key))
        .filter_map(|list| list.iter().find(|(_, conditions)| conditions.met_by(asked)))
        .map(|(number, _)| *number)
        .min()
}

/// What [`Index::new`] finds out on its way: the first rule that allows, or denies, under the same
/// conditions.
#[derive(Default)]
struct Summary {
    allowed_networks: HashMap<(Key, Conditions, bool), Number>,
    openings: HashMap<(Key, Conditions, bool), Number>,
}

impl Summary {
    /// Takes a rule that is before all others that it was given.
    fn take(
        &mut self,
        number: Number,
        allow: bool,
        to: Option<&To>,
        key: Key,
        conditions: Conditions,
    ) {
        if allow && matches!(to, Some(To::Network(_))) {
            self.allowed_networks.insert((key, conditions, allow), number);
        }
        if allow || (to.is_none() && conditions.ports.is_none()) {
            let (key, conditions) =
                (Key { port: None, ..key }, Conditions { ports: None, ..conditions });
            self.openings.insert((key, conditions, allow), number);
        }
    }
}

fn in_lists(firsts: HashMap<(Key, Conditions, bool), Number>) -> HashMap<Key, Vec<Listed>> {
    let mut lists: HashMap<_, Vec<Listed>> = HashMap::new();
    for ((key, conditions, _), number) in firsts {
        lists.entry(key).or_default().push((number, conditions));
    }
    for list in lists.values_mut() {
        list.sort_unstable_by_key(|(number, _)| *number);
    }
    lists
}

#[cfg(test)]
mod tests {
    use super::*;
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
    const TO: [&str; 14] = [
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
        command: Command,
        user: Option<&'static str>,
        client: IpAddr,
        name: Option<&'static str>,
        port: u16,
    }

    fn request(dice: &mut Dice) -> Request {
        Request {
            command: [Command::Connect, Command::Bind, Command::UdpAssociate][dice.below(3)],
            user: [None, Some("alice"), Some(r"car\x20ol"), Some("dave")][dice.below(4)],
            client: dice.one(&FROM).parse().unwrap(),
            name: (dice.below(2) == 0).then(|| dice.one(&NAMES)),
            port: [0, 22, 80, 443, 8080][dice.below(5)],
        }
    }

    /// Each rule is asked in turn, and this is how it answers.
    fn concerns_client(rule: &Rule, asked: &Request) -> bool {
        rule.command.is_none_or(|command| command == asked.command)
            && rule.user.as_deref().is_none_or(|user| asked.user == Some(user))
            && rule.from.is_none_or(|net| net.contains(&asked.client.to_canonical()))
    }

    fn concerns(rule: &Rule, asked: &Request, ip: IpAddr) -> bool {
        let name = asked.name.map(|name| name.trim_end_matches('.').to_lowercase());
        concerns_client(rule, asked)
            && rule.ports.as_ref().is_none_or(|ports| ports.contains(&asked.port))
            && match &rule.to {
                None => true,
                Some(To::Network(net)) => net.contains(&ip.to_canonical()),
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
                let asked = index.ask(request.command, request.user, request.client, request.port);
                let named = index.match_name(&asked, request.name);
                let certain = index.denial_of_every_address(&asked, named);
                never_looked_up += usize::from(certain.is_some());
                for ip in ADDRESSES.map(|ip| ip.parse().unwrap()) {
                    let first = rules.iter().find(|(_, rule)| concerns(rule, &request, ip));
                    let verdict = index.match_address(&asked, named, ip);
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
                let request = request(&mut dice);
                let asked = index.ask(request.command, request.user, request.client, 0);
                let first = rules.iter().find(|(_, rule)| {
                    let is_last_word = rule.to.is_none() && rule.ports.is_none();
                    concerns_client(rule, &request) && (rule.allow || is_last_word)
                });
                let expected = first.filter(|(_, rule)| !rule.allow).map(|(line, _)| *line);
                assert_eq!(index.denial_of_everything(&asked).map(|it| it.line), expected);
                denied += usize::from(expected.is_some());
            }
        }
        assert!(denied > 500, "{denied}");
    }
}
