//! The rules of a file decide as a plain list of them does.

use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use arbitrary::{Arbitrary, Unstructured};
use tabi::access::in_force::{AccessFiles, InForce};
use tabi::access::policy::{Denied, Policy};
use tabi::access::rules::RuleFile;
use tabi::access::users::{Identity, Passwords, Users};
use tabi::wire::address::{Address, Host, Name};
use tabi::wire::credentials::{Credentials, Password};
use tabi::wire::request::{Command, Request};

const MOST_RULES: usize = 12;

// Few enough of each that rules overlap in every way, and nothing that is closed by default.
const USERS: [&str; 2] = ["alice", "bob"];
const FROM: [&str; 4] = ["10.0.0.0/8", "10.1.0.0/16", "10.1.2.3/32", "fd00::/8"];
const CLIENTS: [&str; 4] = ["10.1.2.3", "10.1.9.9", "192.168.0.1", "fd00::1"];
const NETS: [&str; 6] =
    ["0.0.0.0/0", "192.0.2.0/24", "192.0.2.1/32", "::/0", "2001:db8::/32", "2001:db8::1/128"];
const HOSTS: [&str; 4] = ["192.0.2.1", "192.0.2.9", "198.51.100.1", "2001:db8::1"];
const NAMES: [&str; 5] = ["example", "a.example", "b.a.example", "a.example.org", "xa.example"];
const PORTS: [(u16, u16); 4] = [(80, 80), (0, 1023), (81, 65535), (443, 443)];
const ASKED_PORTS: [u16; 4] = [22, 80, 443, 8080];
const COMMANDS: [(&str, Command); 3] =
    [("connect", Command::Connect), ("bind", Command::Bind), ("udp", Command::UdpAssociate)];

/// What a rule does with what it matches.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Does {
    Allow,
    Deny,
    /// Through an upstream that gets addresses.
    Via,
    /// Through one that gets names as they are.
    ViaName,
}

#[derive(Clone, Copy, Debug)]
enum To {
    Net(&'static str),
    Name(&'static str),
    Subdomains(&'static str),
}

#[derive(Debug)]
struct Rule {
    does: Does,
    command: Option<(&'static str, Command)>,
    user: Option<&'static str>,
    from: Option<&'static str>,
    to: Option<To>,
    ports: Option<(u16, u16)>,
}

/// What is asked for: the name, if it is asked for by name, and the addresses that it has.
#[derive(Debug)]
struct Question {
    command: Command,
    user: Option<&'static str>,
    client: IpAddr,
    name: Option<&'static str>,
    ip: IpAddr,
    port: u16,
}

/// What comes of it: the line of the rule that denies; allowed; through the upstream.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Answer {
    Denied(u32),
    Allowed,
    Through,
}

fn one<T: Copy>(input: &mut Unstructured<'_>, of: &[T]) -> arbitrary::Result<T> {
    input.choose(of).copied()
}

fn maybe<T: Copy>(input: &mut Unstructured<'_>, of: &[T]) -> arbitrary::Result<Option<T>> {
    Ok(if input.ratio(1, 3)? { Some(one(input, of)?) } else { None })
}

impl Rule {
    fn any(input: &mut Unstructured<'_>) -> arbitrary::Result<Self> {
        let to = match u8::arbitrary(input)? % 4 {
            0 => None,
            1 => Some(To::Net(one(input, &NETS)?)),
            2 => Some(To::Name(one(input, &NAMES)?)),
            _ => Some(To::Subdomains(one(input, &NAMES)?)),
        };
        Ok(Rule {
            does: one(input, &[Does::Allow, Does::Deny, Does::Deny, Does::Via, Does::ViaName])?,
            command: maybe(input, &COMMANDS)?,
            user: maybe(input, &USERS)?,
            from: maybe(input, &FROM)?,
            to,
            ports: maybe(input, &PORTS)?,
        })
    }

    fn line(&self) -> String {
        let mut line = String::from(match self.does {
            Does::Allow => "allow",
            Does::Deny => "deny",
            Does::Via => "via socks5://203.0.113.1:1080",
            Does::ViaName => "via socks5h://203.0.113.1:1080",
        });
        let mut field = |name: &str, value: Option<String>| {
            if let Some(value) = value {
                write!(line, " {name} {value}").unwrap();
            }
        };
        field("command", self.command.map(|(word, _)| word.into()));
        field("user", self.user.map(Into::into));
        field("from", self.from.map(Into::into));
        field("port", self.ports.map(|(first, last)| format!("{first}-{last}")));
        field(
            "to",
            self.to.map(|to| match to {
                To::Net(net) => net.into(),
                To::Name(name) => name.into(),
                To::Subdomains(parent) => format!("*.{parent}"),
            }),
        );
        line
    }

    /// Whether every field but `to` matches.
    fn concerns(&self, asked: &Question) -> bool {
        self.command.is_none_or(|(_, command)| command == asked.command)
            && self.user.is_none_or(|user| asked.user == Some(user))
            && self.from.is_none_or(|net| contains(net, asked.client))
            && self.ports.is_none_or(|(first, last)| (first..=last).contains(&asked.port))
    }

    fn is_about_name(&self, name: Option<&str>) -> bool {
        match self.to {
            None => true,
            Some(To::Net(_)) => false,
            Some(To::Name(of_rule)) => name == Some(of_rule),
            Some(To::Subdomains(parent)) => {
                name.is_some_and(|name| name.ends_with(&format!(".{parent}")))
            }
        }
    }

    fn matches(&self, asked: &Question) -> bool {
        let is_about_address = matches!(self.to, Some(To::Net(net)) if contains(net, asked.ip));
        self.concerns(asked) && (is_about_address || self.is_about_name(asked.name))
    }
}

/// Whether a network, written as ADDRESS/LENGTH, has an address in it: bit by bit.
fn contains(net: &str, ip: IpAddr) -> bool {
    let (start, length) = net.split_once('/').unwrap();
    let bits = |ip: IpAddr| -> Vec<u8> {
        match ip {
            IpAddr::V4(ip) => ip.octets().to_vec(),
            IpAddr::V6(ip) => ip.octets().to_vec(),
        }
    };
    let (start, ip) = (bits(start.parse().unwrap()), bits(ip));
    let bit = |octets: &[u8], place: usize| (octets[place / 8] >> (7 - place % 8)) & 1;
    start.len() == ip.len()
        && (0..length.parse().unwrap()).all(|place| bit(&start, place) == bit(&ip, place))
}

/// The first rule that matches decides. A name that the first rule about names sends through the
/// upstream as it is is not looked up, and no rule about addresses is asked about it.
fn expected(rules: &[Rule], asked: &Question) -> Answer {
    if asked.name.is_some() {
        let named = rules.iter().find(|it| it.concerns(asked) && it.is_about_name(asked.name));
        if named.is_some_and(|rule| rule.does == Does::ViaName) {
            return Answer::Through;
        }
    }
    let first = (1..).zip(rules).find(|(_, rule)| rule.matches(asked));
    match first.map(|(line, rule)| (line, rule.does)) {
        None | Some((_, Does::Allow)) => Answer::Allowed,
        Some((line, Does::Deny)) => Answer::Denied(line),
        Some((_, Does::Via | Does::ViaName)) => Answer::Through,
    }
}

impl Question {
    fn any(input: &mut Unstructured<'_>) -> arbitrary::Result<Self> {
        Ok(Question {
            command: one(input, &COMMANDS)?.1,
            user: maybe(input, &USERS)?,
            client: one(input, &CLIENTS)?.parse().unwrap(),
            name: if bool::arbitrary(input)? { Some(one(input, &NAMES)?) } else { None },
            ip: one(input, &HOSTS)?.parse().unwrap(),
            port: one(input, &ASKED_PORTS)?,
        })
    }

    fn ask(&self, policy: &Policy) -> Answer {
        let host = match self.name {
            Some(name) => Host::from(Name::new(name.into()).unwrap()),
            None => Host::Ip(self.ip),
        };
        let destination = Address { host, port: self.port };
        let request = Request { command: self.command, destination };
        let lookup = |_: &Name, port| Ok::<_, Denied>(vec![SocketAddr::new(self.ip, port)]);
        let client = SocketAddr::new(self.client, 50000);
        match policy.permit(&identity(self.user), client, &request, lookup) {
            Ok(permit) if permit.route().is_some() => Answer::Through,
            Ok(permit) => {
                assert_eq!(permit.addresses(), [SocketAddr::new(self.ip, self.port)]);
                Answer::Allowed
            }
            Err(Denied::ByRule { line, .. }) => Answer::Denied(line),
            // Only CONNECT goes through an upstream.
            Err(Denied::Through { command, .. }) => {
                assert_ne!(command, Command::Connect);
                Answer::Through
            }
            Err(other) => panic!("{other:?}"),
        }
    }
}

fn identity(user: Option<&str>) -> Identity {
    let from = Ipv4Addr::LOCALHOST.into();
    let Some(user) = user else {
        return Users::default().authenticate(None, from, |_| false).unwrap();
    };
    let passwords = Passwords::parse(format!("{user}:x").as_bytes(), "users").unwrap();
    let credentials = Credentials { name: user.into(), password: Password::new(b"x").unwrap() };
    let files = AccessFiles { users: Some(passwords), ..AccessFiles::default() };
    Users::new(Arc::new(InForce::new(Arc::new(files))))
        .authenticate(Some(&credentials), from, |_| false)
        .unwrap()
}

/// Rules and questions are made of the octets.
pub(crate) fn rules(octets: &[u8]) {
    // Too few octets make fewer questions.
    let _ = agree(&mut Unstructured::new(octets));
}

fn agree(input: &mut Unstructured<'_>) -> arbitrary::Result<()> {
    let count = input.int_in_range(0..=MOST_RULES)?;
    let list = (0..count).map(|_| Rule::any(input)).collect::<Result<Vec<_>, _>>()?;
    let text = list.iter().map(Rule::line).collect::<Vec<_>>().join("\n");
    let file = RuleFile::parse(text.as_bytes(), "rules").unwrap();
    let files = AccessFiles { rules: file, ..AccessFiles::default() };
    let policy = Policy::new(&[], vec!["[::]:1080".parse().unwrap()]).with_files(Arc::new(files));
    while !input.is_empty() {
        let asked = Question::any(input)?;
        match (asked.ask(&policy), expected(&list, &asked)) {
            // Of two rules that deny a name, the one is told that spares a lookup.
            (Answer::Denied(_), Answer::Denied(_)) if asked.name.is_some() => {}
            // Nor is a name looked up that leads through the upstream what does not go there.
            (Answer::Through, Answer::Denied(_))
                if asked.name.is_some() && asked.command != Command::Connect => {}
            (answer, expected) => assert_eq!(answer, expected, "{text}\n{asked:?}"),
        }
    }
    Ok(())
}
