//! One rule, and how it is written:
//!
//! ```text
//! allow|deny|via URL [command connect|bind|udp] [user NAME] [from CIDR]
//!     [to CIDR|name|*.name|self] [port N|N-M]
//! limit [each user|client] [connections N] [rate N(kB|MB|GB|kbit|Mbit|Gbit)], and the fields of a rule
//! ```
//!
//! The fields `command`, `from`, `to` and `port` take a list with commas.

use std::iter::Peekable;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;

use ipnet::IpNet;

use super::limit::{self, Limit};
use super::networks;
use crate::access::upstream::{EXPECTED, Upstream};
use crate::access::users::spelling;
use crate::wire::address::{is_onion as is_onion_name, parse_ports};
use crate::wire::request::Command;

/// A rule. A field that is not given, and so has nothing in its list, matches everything.
#[derive(Clone, Debug)]
pub(in crate::access) struct Rule {
    pub(super) action: Action,
    pub(super) commands: Vec<Command>,
    /// As [`spelling::spell`] writes it.
    pub(super) user: Option<String>,
    /// The client's networks.
    pub(super) from: Vec<IpNet>,
    pub(super) to: Vec<To>,
    pub(in crate::access) ports: Vec<RangeInclusive<u16>>,
}

/// What a rule does with what it matches.
#[derive(Clone, Debug)]
pub(super) enum Action {
    Allow,
    Deny,
    /// Allow it through this server.
    Via(Arc<Upstream>),
    /// Nothing of access: what others allow is limited.
    Limit(Limit),
}

/// The destinations of a rule. Names are in lower case and without a dot at their end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum To {
    Network(IpNet),
    /// Every address of this machine.
    Own,
    Name(String),
    /// Every subdomain of this name, and not the name itself.
    Subdomains(String),
}

/// A request without its host: what a rule's other fields are compared with.
#[derive(Clone, Copy, Debug)]
pub(in crate::access) struct RuleQuery<'a> {
    pub(in crate::access) command: Command,
    /// As [`spelling::spell`] writes it.
    pub(in crate::access) user: Option<&'a str>,
    /// The client's address, never an IPv4-mapped one.
    pub(in crate::access) client: IpAddr,
    pub(in crate::access) port: u16,
}

const COMMANDS: [(&[u8], Command); 3] =
    [(b"connect", Command::Connect), (b"bind", Command::Bind), (b"udp", Command::UdpAssociate)];

/// What is expected behind a field.
const USER: &str = r"a name, with \xNN for bytes that are not visible ASCII and \\ for a backslash";
const TO: &str = "a network as in 10.0.0.0/8, an address, self, a name in ASCII, or *.name";
const PORT: &str = "a port from 0 to 65535, or a range as in 8000-8999";

impl Rule {
    /// Parses one line; `None` if it is blank or a comment. The fields may come in any order. An error
    /// says what is wrong, and what is expected instead.
    pub(super) fn parse(line: &[u8]) -> Result<Option<Self>, String> {
        let mut words = line
            .split(u8::is_ascii_whitespace)
            .filter(|word| !word.is_empty())
            .take_while(|word| !word.starts_with(b"#"))
            .peekable();
        let action = match words.next() {
            None => return Ok(None),
            Some(b"allow") => Action::Allow,
            Some(b"deny") => Action::Deny,
            Some(b"via") => Action::Via(Arc::new(upstream(words.next())?)),
            Some(b"limit") => Action::Limit(Limit::default()),
            Some(other) => return Err(error(other, "allow, deny, via or limit")),
        };
        let (commands, from, to, ports) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let mut rule = Rule { action, commands, user: None, from, to, ports };
        while let Some(field) = words.next() {
            rule.take(field, &mut words)?;
        }
        if matches!(rule.action, Action::Limit(Limit { connections: None, rate: None, .. })) {
            return Err(error(b"limit", "connections, rate or both behind it"));
        }
        if rule.upstream().is_some_and(|it| !it.takes_names()) && rule.to.iter().any(is_onion) {
            return Err(error(
                b"socks5://",
                "socks5h:// for .onion, which cannot be resolved here",
            ));
        }
        Ok(Some(rule))
    }

    pub(in crate::access) fn allows(&self) -> bool {
        matches!(self.action, Action::Allow)
    }

    pub(in crate::access) fn denies(&self) -> bool {
        matches!(self.action, Action::Deny)
    }

    /// The server through which it allows, if it does so.
    pub(in crate::access) fn upstream(&self) -> Option<&Arc<Upstream>> {
        match &self.action {
            Action::Via(upstream) => Some(upstream),
            Action::Allow | Action::Deny | Action::Limit(_) => None,
        }
    }

    /// Whether the rule is about this command, user and client.
    pub(super) fn concerns(&self, query: &RuleQuery<'_>) -> bool {
        let Rule { commands, user, from, .. } = self;
        (commands.is_empty() || commands.contains(&query.command))
            && user.as_deref().is_none_or(|user| query.user == Some(user))
            && (from.is_empty() || from.iter().any(|net| net.contains(&query.client)))
    }

    /// Whether every field but `to` matches.
    pub(super) fn matches(&self, query: &RuleQuery<'_>) -> bool {
        self.concerns(query) && self.has_port(query.port)
    }

    /// Whether the rule is about this port.
    pub(in crate::access) fn has_port(&self, port: u16) -> bool {
        self.ports.is_empty() || self.ports.iter().any(|ports| ports.contains(&port))
    }

    /// What is to be said of its networks that have bits behind their prefix.
    pub(super) fn odd_networks(&self) -> impl Iterator<Item = String> {
        let to = self.to.iter().filter_map(|to| match to {
            To::Network(net) => Some(net),
            _ => None,
        });
        self.from.iter().chain(to).filter_map(networks::doubt)
    }

    /// Whether it has no field but perhaps `to`.
    pub(super) fn is_bare(&self) -> bool {
        let Rule { action: _, commands, user, from, to: _, ports } = self;
        commands.is_empty() && user.is_none() && from.is_empty() && ports.is_empty()
    }

    /// Takes `field` and its value, which begins with the next word.
    fn take<'a>(
        &mut self,
        field: &[u8],
        words: &mut Peekable<impl Iterator<Item = &'a [u8]>>,
    ) -> Result<(), String> {
        let Rule { action, commands, user: name, from, to, ports: list } = self;
        match (field, action) {
            (b"command", _) => fill(commands, field, words, "connect, bind or udp", command),
            (b"user", _) => set(name, field, words, USER, user),
            (b"from", _) => fill(from, field, words, networks::EXPECTED, network),
            (b"to", _) => fill(to, field, words, TO, destination),
            (b"port", _) => fill(list, field, words, PORT, ports),
            (b"each", Action::Limit(it)) => {
                set(&mut it.each, field, words, limit::EACH, limit::each)
            }
            (b"connections", Action::Limit(it)) => {
                set(&mut it.connections, field, words, limit::CONNECTIONS, limit::connections)
            }
            (b"rate", Action::Limit(it)) => {
                set(&mut it.rate, field, words, limit::RATE, limit::rate)
            }
            (other, Action::Limit(_)) => {
                Err(error(other, "each, user, from, command, to, port, connections or rate"))
            }
            (other, _) => Err(error(other, "command, user, from, to or port")),
        }
    }
}

/// Sets what `field` is about, unless it was there before, to what `parse` takes of its value.
fn set<'a, T>(
    place: &mut Option<T>,
    field: &[u8],
    words: &mut impl Iterator<Item = &'a [u8]>,
    expected: &str,
    parse: impl Fn(&[u8]) -> Option<T>,
) -> Result<(), String> {
    if place.is_some() {
        return Err(error(field, "every field once"));
    }
    let word = words.next().ok_or_else(|| no_value(field, expected))?;
    *place = Some(parse(word).ok_or_else(|| error(word, expected))?);
    Ok(())
}

/// Fills `list`, which is empty unless `field` was there before, with the value of `field`: what `parse`
/// takes, or several of those with commas between them, and white space around these.
fn fill<'a, T>(
    list: &mut Vec<T>,
    field: &[u8],
    words: &mut Peekable<impl Iterator<Item = &'a [u8]>>,
    expected: &str,
    parse: impl Fn(&[u8]) -> Option<T>,
) -> Result<(), String> {
    if !list.is_empty() {
        return Err(error(field, "every field once"));
    }
    let mut value = words.next().ok_or_else(|| no_value(field, expected))?.to_vec();
    while let Some(more) = words.next_if(|next| value.ends_with(b",") || next.starts_with(b",")) {
        value.extend_from_slice(more);
    }
    for item in value.split(|byte| *byte == b',') {
        list.push(parse(item).ok_or_else(|| match item {
            b"" => error(&value, &format!("{expected}, between commas")),
            _ if is_everything(item) => {
                let field = String::from_utf8_lossy(field);
                error(item, &format!("{expected}; a rule about all of them has no `{field}`"))
            }
            _ => error(item, expected),
        })?);
    }
    Ok(())
}

/// Whether other programs' rules say with this word what is said here without the field.
fn is_everything(word: &[u8]) -> bool {
    let word = word.strip_suffix(b".").unwrap_or(word);
    [&b"any"[..], b"all", b"*"].iter().any(|known| word.eq_ignore_ascii_case(known))
}

fn no_value(field: &[u8], expected: &str) -> String {
    error(field, &format!("a value behind it: {expected}"))
}

fn error(token: &[u8], expected: &str) -> String {
    format!("'{}': expected {expected}", String::from_utf8_lossy(token).escape_debug())
}

/// An error about a URL does not show it: there may be a password in it.
fn upstream(url: Option<&[u8]>) -> Result<Upstream, String> {
    let url = url.and_then(|url| std::str::from_utf8(url).ok());
    let upstream = url.and_then(Upstream::parse);
    upstream.ok_or_else(|| format!("'via': expected a URL behind it: {EXPECTED}"))
}

fn command(word: &[u8]) -> Option<Command> {
    COMMANDS.iter().find(|(name, _)| *name == word).map(|(_, command)| *command)
}

fn user(word: &[u8]) -> Option<String> {
    spelling::read(word).map(|name| spelling::spell(&name))
}

fn ports(word: &[u8]) -> Option<RangeInclusive<u16>> {
    parse_ports(std::str::from_utf8(word).ok()?)
}

fn network(word: &[u8]) -> Option<IpNet> {
    networks::parse(std::str::from_utf8(word).ok()?)
}

fn destination(word: &[u8]) -> Option<To> {
    let word = std::str::from_utf8(word).ok()?;
    if let Some(net) = networks::parse(word) {
        return Some(To::Network(net));
    }
    match word.strip_prefix("*.") {
        None if is_everything(word.as_bytes()) => None,
        Some(parent) => host_name(parent).map(To::Subdomains),
        None if word == "self" => Some(To::Own),
        None => host_name(word).map(To::Name),
    }
}

fn is_onion(to: &To) -> bool {
    match to {
        To::Name(name) => is_onion_name(name),
        To::Subdomains(parent) => is_onion_name(&format!("*.{parent}")),
        To::Network(_) | To::Own => false,
    }
}

/// A name that a host can have, in lower case. One whose last label is a number is a mistyped
/// address.
fn host_name(word: &str) -> Option<String> {
    let name = word.strip_suffix('.').unwrap_or(word).to_ascii_lowercase();
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    let last = name.rsplit('.').next()?;
    let is_number = last.bytes().all(|byte| byte.is_ascii_digit())
        || last
            .strip_prefix("0x")
            .is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
    (name.len() <= 253 && name.split('.').all(is_label) && !is_number).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(line: &str) -> Rule {
        Rule::parse(line.as_bytes()).unwrap().unwrap()
    }

    fn to(word: &str) -> To {
        rule(&format!("deny to {word}")).to.pop().unwrap()
    }

    #[test]
    fn a_rule_with_every_field_in_any_order() {
        for line in [
            "allow command udp user alice from 192.168.1.0/24 to *.example.org port 53-54",
            "\tallow  port 53-54 to *.Example.ORG.\tfrom 192.168.1.9/24 user alice command udp # x",
            "allow command udp user al\\x69ce from 192.168.1.0/24 to *.example.org port 53-54\r",
        ] {
            let rule = rule(line);
            assert!(matches!(rule.action, Action::Allow), "{line}");
            assert_eq!(rule.commands, [Command::UdpAssociate], "{line}");
            assert_eq!(rule.user.as_deref(), Some("alice"), "{line}");
            assert_eq!(rule.from.len(), 1, "{line}");
            assert_eq!(rule.from[0].trunc().to_string(), "192.168.1.0/24", "{line}");
            assert_eq!(rule.to, [To::Subdomains("example.org".into())], "{line}");
            assert_eq!(rule.ports, [53..=54], "{line}");
        }
    }

    #[test]
    fn a_rule_may_have_no_field() {
        for line in ["deny", "deny #all"] {
            let Rule { action, commands, user, from, to, ports } = rule(line);
            assert!(matches!(action, Action::Deny), "{line}");
            assert!(commands.is_empty() && user.is_none() && from.is_empty(), "{line}");
            assert!(to.is_empty() && ports.is_empty(), "{line}");
        }
        assert_eq!(rule("allow command connect").commands, [Command::Connect]);
        assert_eq!(rule("allow command bind").commands, [Command::Bind]);
        assert_eq!(rule("allow port 0-65535").ports, [0..=65535]);
        assert_eq!(rule("allow port 22").ports, [22..=22]);
    }

    #[test]
    fn lists_have_commas_and_perhaps_white_space() {
        for line in [
            "allow to 10.0.0.0/8,*.lan,self port 80,443,8000-8999 from fd00::/8,10.1.2.3 command udp,bind",
            "allow to 10.0.0.0/8, *.lan ,self port 80 , 443 ,8000-8999 from fd00::/8\t,10.1.2.3 \
             command udp, bind # web, and more",
        ] {
            let rule = rule(line);
            let net = To::Network("10.0.0.0/8".parse().unwrap());
            assert_eq!(rule.to, [net, To::Subdomains("lan".into()), To::Own], "{line}");
            assert_eq!(rule.ports, [80..=80, 443..=443, 8000..=8999], "{line}");
            assert_eq!(rule.from.len(), 2, "{line}");
            assert_eq!(rule.commands, [Command::UdpAssociate, Command::Bind], "{line}");
        }
        // A comma may be part of a user's name.
        assert_eq!(rule("deny user al,ice").user.unwrap(), "al,ice");
    }

    #[test]
    fn words_for_everything_are_refused_with_a_hint() {
        for (line, word, field) in [
            ("deny to any", "any", "to"),
            ("allow to all", "all", "to"),
            ("deny to ALL.", "ALL.", "to"),
            ("deny to *", "*", "to"),
            ("deny from any to 10.0.0.1", "any", "from"),
            ("deny to 10.0.0.1, any", "any", "to"),
            ("deny port all", "all", "port"),
            ("deny command any", "any", "command"),
        ] {
            let error = Rule::parse(line.as_bytes()).unwrap_err();
            assert!(error.starts_with(&format!("'{word}': expected ")), "{line}: {error}");
            assert!(error.ends_with(&format!("all of them has no `{field}`")), "{line}: {error}");
        }
        assert_eq!(to("any.example"), To::Name("any.example".into()));
        assert_eq!(to("*.all"), To::Subdomains("all".into()));
    }

    #[test]
    fn via_names_a_server_and_its_password_is_not_shown() {
        let via = rule("via socks5h://alice:sesame@proxy.example:1080 to *.onion port 80");
        let Action::Via(upstream) = &via.action else { panic!("{via:?}") };
        assert_eq!(upstream.to_string(), "proxy.example:1080");
        assert_eq!(via.to, [To::Subdomains("onion".into())]);
        assert!(!format!("{via:?}").contains("sesame"));
        for line in ["via", "via to *.onion", "via socks5://alice:sesame@proxy.example"] {
            let error = Rule::parse(line.as_bytes()).unwrap_err();
            assert!(error.starts_with("'via': expected a URL behind it: socks5://"), "{error}");
            assert!(!error.contains("sesame"), "{error}");
        }
    }

    #[test]
    fn names_of_tor_go_up_as_names_or_not_at_all() {
        for to in ["*.onion", "a.onion", "*.a.ONION", "10.0.0.0/8, *.onion."] {
            let error = Rule::parse(format!("via socks5://a:1 to {to}").as_bytes()).unwrap_err();
            assert!(error.starts_with("'socks5://': expected socks5h:// for .onion"), "{error}");
            rule(&format!("via socks5h://a:1 to {to}"));
            rule(&format!("deny to {to}"));
        }
        rule("via socks5://a:1 to *.onion.example, onion");
    }

    #[test]
    fn comments_and_blank_lines_are_no_rules() {
        for line in [b"".as_slice(), b"  \t", b"# deny", b"  # deny", b"\r", b"#", b"#deny \xff"] {
            assert!(matches!(Rule::parse(line), Ok(None)), "{}", line.escape_ascii());
        }
    }

    #[test]
    fn every_kind_of_destination() {
        let net = |net: &str| To::Network(net.parse().unwrap());
        assert_eq!(to("10.1.2.3/8"), net("10.1.2.3/8"));
        assert_eq!(to("10.1.2.3"), net("10.1.2.3/32"));
        assert_eq!(to("::1"), net("::1/128"));
        assert_eq!(to("::ffff:127.0.0.0/104"), net("127.0.0.0/8"));
        assert_eq!(to("Example.ORG."), To::Name("example.org".into()));
        assert_eq!(to("localhost"), To::Name("localhost".into()));
        assert_eq!(to("xn--bcher-kva.example"), To::Name("xn--bcher-kva.example".into()));
        assert_eq!(to("_dmarc.4you"), To::Name("_dmarc.4you".into()));
        assert_eq!(to("self"), To::Own);
        assert_eq!(to("self.example"), To::Name("self.example".into()));
        assert_eq!(to("*.example"), To::Subdomains("example".into()));
    }

    #[test]
    fn a_limit_has_its_numbers() {
        let limit = |line: &str| match rule(line).action {
            Action::Limit(Limit { connections, rate, .. }) => (connections, rate),
            other => panic!("{other:?}"),
        };
        for (rate, bytes) in [
            ("1kbit", 125),
            ("20MB", 20_000_000),
            ("100Mbit", 12_500_000),
            ("3kB", 3000),
            ("2GB", 2_000_000_000),
            ("1Gbit", 125_000_000),
            ("1000GB", 1_000_000_000_000),
        ] {
            assert_eq!(limit(&format!("limit rate {rate} port 80")), (None, Some(bytes)), "{rate}");
        }
        assert_eq!(limit("limit each user connections 5"), (Some(5), None));
        assert_eq!(limit("limit connections 1 user bob rate 8kbit"), (Some(1), Some(1000)));
    }

    #[test]
    fn users_are_named_as_the_log_names_them() {
        assert_eq!(rule(r"deny user HOME\\al\x20ice").user.unwrap(), r"HOME\\al\x20ice");
        assert_eq!(rule("deny user ren\u{e9}e").user.unwrap(), r"ren\xc3\xa9e");
    }

    /// The error about a line.
    fn expect_error(line: &str, token: &str, expected: &str) {
        let error = Rule::parse(line.as_bytes()).unwrap_err();
        assert!(error.starts_with(&format!("'{token}': expected ")), "{line}: {error}");
        assert!(error.contains(expected), "{line}: {error}");
    }

    #[test]
    fn an_error_about_a_limit_says_what_is_expected() {
        for (line, token, expected) in [
            ("limit", "limit", "connections, rate or both behind it"),
            ("limit each user from 10.0.0.0/8", "limit", "connections, rate or both"),
            ("limit rate", "rate", "a value behind it: a rate from 1kbit to 1000GB"),
            ("limit connections", "connections", "a value behind it: a number from 1"),
            ("limit each", "each", "a value behind it: user or client"),
            ("limit each network rate 1MB", "network", "user or client"),
            ("limit rate 1MB rate 2MB", "rate", "every field once"),
            ("limit connections 1 connections 1", "connections", "every field once"),
            ("limit each user each client rate 1MB", "each", "every field once"),
            ("limit connections 0", "0", "a number from 1 to 1000000"),
            ("limit connections -1", "-1", "a number from 1 to 1000000"),
            ("limit connections +1", "+1", "a number from 1 to 1000000"),
            ("limit connections 1000001", "1000001", "a number from 1 to 1000000"),
            ("limit connections 99999999999999999999", "99999999999999999999", "a number from 1"),
            ("limit connections many", "many", "a number from 1 to 1000000"),
            ("limit rate 0MB", "0MB", "a rate from 1kbit to 1000GB"),
            ("limit rate -1MB", "-1MB", "a rate from 1kbit"),
            ("limit rate +1MB", "+1MB", "a rate from 1kbit"),
            ("limit rate 1001GB", "1001GB", "to 1000GB"),
            ("limit rate 18446744073709551615GB", "18446744073709551615GB", "to 1000GB"),
            ("limit rate 1.5MB", "1.5MB", "a whole number and kB, MB, GB, kbit, Mbit or Gbit"),
            ("limit rate 20", "20", "and kB, MB, GB"),
            ("limit rate MB", "MB", "a whole number"),
            ("limit rate 20MiB", "20MiB", "and kB, MB, GB"),
            ("limit rate 20mb", "20mb", "and kB, MB, GB"),
            ("limit rate 20 MB", "20", "and kB, MB, GB"),
            ("limit rate 1MB dest 10.0.0.1", "dest", "each, user, from, command, to, port, conn"),
            ("deny rate 1MB", "rate", "command, user, from, to or port"),
        ] {
            expect_error(line, token, expected);
        }
    }

    #[test]
    fn an_error_says_what_is_wrong_and_what_is_expected() {
        for (line, token, expected) in [
            ("permit", "permit", "allow, deny, via or limit"),
            ("Allow", "Allow", "allow, deny, via or limit"),
            ("allow dest 10.0.0.1", "dest", "command, user, from, to or port"),
            ("allow 10.0.0.1", "10.0.0.1", "command, user, from, to or port"),
            ("deny command associate", "associate", "connect, bind or udp"),
            ("deny command", "command", "a value behind it: connect, bind or udp"),
            (r"deny user HOME\alice", r"HOME\\alice", "a name,"),
            ("deny user #alice", "user", "a name,"),
            ("deny from example.org", "example.org", "a network as in"),
            ("deny from 10.0.0.0/33", "10.0.0.0/33", "a network as in"),
            ("deny to 10.0.0.0/33", "10.0.0.0/33", "a network as in"),
            ("deny to 127.1", "127.1", "a network as in"),
            ("deny to 0x7f", "0x7f", "a network as in"),
            ("deny to *", "*", "or *.name"),
            ("deny to *example.org", "*example.org", "or *.name"),
            ("deny to a.*.example", "a.*.example", "or *.name"),
            ("deny to example.org:80", "example.org:80", "or *.name"),
            ("deny to a..example", "a..example", "or *.name"),
            ("deny to example..", "example..", "or *.name"),
            ("deny to .", ".", "or *.name"),
            ("deny to b\u{fc}cher.example", "b\u{fc}cher.example", "a name in ASCII"),
            ("deny port 65536", "65536", "a port from 0 to 65535"),
            ("deny port +80", "+80", "a port from 0 to 65535"),
            ("deny port 90-80", "90-80", "a range as in"),
            ("deny port 80-", "80-", "a range as in"),
            ("deny port -80", "-80", "a range as in"),
            ("deny port", "port", "a range as in"),
            ("deny port 80 port 81", "port", "every field once"),
            ("deny user bob user bob", "user", "every field once"),
            ("deny port 80,", "80,", "between commas"),
            ("deny port 80,,81", "80,,81", "between commas"),
            ("deny port ,80", ",80", "between commas"),
            ("deny to 10.0.0.1, 127.1", "127.1", "a network as in"),
            ("deny to 10.0.0.1 to 10.0.0.2", "to", "every field once"),
            ("deny\x1b[31m", r"deny\u{1b}[31m", "allow, deny, via or limit"),
        ] {
            expect_error(line, token, expected);
        }
    }
}
