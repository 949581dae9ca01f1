//! The rules file: a rule a line. Here stands what it says; `policy` decides by it.

use std::path::Path;
use std::sync::Arc;

mod index;
mod limit;
mod limits;
pub mod networks;
mod rule;

use super::lines;
use super::secret::SecretFile;
use super::upstream::Upstream;
pub(super) use index::Entry;
use index::Index;
pub(super) use limits::{LimitLine, Place};
pub(super) use rule::RuleQuery;
use rule::{Action, Rule};

/// The rules of a file; the first that matches decides. By default there are none.
#[derive(Debug, Default)]
pub struct RuleFile {
    /// How the file was named.
    pub(super) name: Arc<str>,
    pub(super) index: Index,
    pub(super) limits: Vec<LimitLine>,
    /// What is to be said of networks with bits behind their prefix.
    odd_networks: Vec<String>,
    doubt: Option<Box<str>>,
    /// Bytes in the file.
    pub(crate) length: usize,
}

impl RuleFile {
    /// Reads a rules file, which had so many bytes `earlier`: see `SecretFile::read`.
    ///
    /// # Errors
    ///
    /// When the file cannot be read, when there is a password in it and others than root and the user
    /// who runs tabi have access to it, and when a line is no rule: the error names up to ten of those.
    pub fn load(path: &Path, earlier: usize) -> Result<Self, String> {
        let name = path.display().to_string();
        let file = SecretFile::read(path, earlier).map_err(|error| format!("{name}: {error}"))?;
        let mut rules = RuleFile::parse(&file.bytes, &name)?;
        rules.doubt = file.doubt().map(Into::into);
        if rules.upstreams().any(|(upstream, _)| upstream.credentials().is_some()) {
            file.check_private()
                .map_err(|error| format!("{name}: there is a password in it, and {error}"))?;
        }
        Ok(rules)
    }

    /// Takes the content of a file that is named `name`.
    ///
    /// # Errors
    ///
    /// When a line is no rule, as [`RuleFile::load`] does. Behind the bad lines stand the odd
    /// networks of the others.
    pub fn parse(bytes: &[u8], name: &str) -> Result<Self, String> {
        let (mut rules, mut limits, mut odd_networks) = (Vec::new(), Vec::new(), Vec::new());
        let told = lines::each(bytes, name, |line, text| {
            let Some(rule) = Rule::parse(text)? else { return Ok(()) };
            odd_networks.extend(rule.odd_networks().map(|told| format!("{name}:{line}: {told}")));
            match rule.action {
                Action::Limit(limit) => limits.push(LimitLine::new(line, rule, limit)),
                _ => rules.push((line, rule)),
            }
            Ok(())
        });
        let (index, length) = (Index::new(rules), bytes.len());
        let file = RuleFile { name: name.into(), index, limits, odd_networks, doubt: None, length };
        let Err(bad) = told else { return Ok(file) };
        let all = bad.lines().map(ToString::to_string).chain(file.odd_networks);
        Err(all.take(lines::MOST_NAMED).collect::<Vec<_>>().join("\n"))
    }

    /// What is to be said of a file that others than its owner can change, and what lines say but hardly
    /// mean, by themselves: networks with bits behind the prefix, and rules that can never match.
    pub fn doubts(&self) -> Vec<String> {
        let doubt = self.doubt.iter().map(ToString::to_string);
        let mut doubts: Vec<_> = doubt.chain(self.odd_networks.iter().cloned()).collect();
        if let Some((last, behind)) = self.index.never_matching() {
            let last = last.line;
            doubts.extend(by_line(behind).map(|entries| {
                let place = format!("{}:{}", self.name, entries[0].line);
                format!(
                    "{place}: this rule can never match: that of line {last} is about everything"
                )
            }));
        }
        doubts
    }

    /// How the file was named.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How many rules there are, limits among them.
    pub fn count(&self) -> usize {
        by_line(self.index.entries()).count() + self.limits.len()
    }

    /// How many connections, and bytes a second each way, this user has at the most whatever it asks for.
    pub fn limits_of(&self, user: &str) -> (Option<usize>, Option<u64>) {
        let own = || self.limits.iter().filter_map(|it| it.of_user(user));
        (own().filter_map(|it| it.connections).min(), own().filter_map(|it| it.rate).min())
    }

    /// The servers that rules send requests through, and `FILE:LINE` of the rule.
    pub fn upstreams(&self) -> impl Iterator<Item = (&Upstream, String)> {
        self.index.entries().iter().filter_map(|Entry { rule, line, .. }| {
            Some((&**rule.upstream()?, format!("{}:{line}", self.name)))
        })
    }

    /// The users that rules name, with `FILE:LINE` of the first that names each, and those that limits name.
    pub fn users(&self) -> impl Iterator<Item = (&str, String)> {
        let limits = self.limits.iter();
        let of_limits = limits.filter_map(|it| Some((it.rule.user.as_deref()?, it.line)));
        let users = self.index.users().chain(of_limits);
        users.map(|(user, line)| (user, format!("{}:{line}", self.name)))
    }
}

fn by_line(entries: &[Entry]) -> impl Iterator<Item = &[Entry]> {
    entries.chunk_by(|one, next| one.line == next.line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bad_line_is_named_up_to_ten() {
        let error =
            RuleFile::parse(b"allow\n# x\npermit\r\ndeny\ndeny port x", "rules").unwrap_err();
        let lines: Vec<_> = error.lines().collect();
        assert_eq!(lines.len(), 2, "{error}");
        assert_eq!(lines[0], "rules:3: 'permit': expected allow, deny, via or limit");
        assert!(lines[1].starts_with("rules:5: 'x': expected a port"), "{error}");
        let error = RuleFile::parse(&b"permit\n".repeat(1000), "rules").unwrap_err();
        assert_eq!(error.lines().count(), 10);
    }

    #[test]
    fn a_comment_behind_a_byte_order_mark_is_no_rule() {
        let file = RuleFile::parse(b"\xef\xbb\xbf# the household\r\ndeny\r\n", "rules").unwrap();
        assert_eq!(file.count(), 1);
        assert_eq!(RuleFile::parse(b"\xef\xbb\xbfdeny", "rules").unwrap().count(), 1);
    }

    #[test]
    fn lines_without_a_rule_are_not_counted() {
        let file = RuleFile::parse(b"# nothing\n\nallow\n\n deny # all\n", "rules").unwrap();
        assert_eq!(file.count(), 2);
        assert_eq!(RuleFile::parse(b"", "rules").unwrap().count(), 0);
        let list = RuleFile::parse(b"deny to 10.0.0.1, 10.0.0.2\nallow\n", "rules").unwrap();
        assert_eq!(list.count(), 2, "a line is one rule");
    }

    #[test]
    fn lines_that_can_never_match_are_named() {
        let doubts = |rules: &str| RuleFile::parse(rules.as_bytes(), "rules").unwrap().doubts();
        let never = |line| {
            format!("rules:{line}: this rule can never match: that of line 2 is about everything")
        };
        for bare in ["allow", "deny", "via socks5h://192.0.2.1:1080"] {
            let rules = format!("deny port 25\n{bare}\n\nallow to 10.0.0.1, 10.0.0.2\ndeny\n");
            assert_eq!(doubts(&rules), [never(4), never(5)], "{bare}");
        }
        for rules in
            ["", "deny", "deny port 25\nallow", "deny port 0-65535\nallow", "allow to self"]
        {
            assert_eq!(doubts(rules), [] as [String; 0], "{rules}");
        }
    }

    #[test]
    fn bits_behind_a_prefix_are_remarked_on_beside_bad_lines_too() {
        let rules = "deny from 10.1.2.3/8 to 10.0.0.0/8, 10.1.1.1/16\ndeny from 10.1.2.3";
        let remarks = [
            "rules:1: 10.1.2.3/8 is taken for 10.0.0.0/8, as its prefix says",
            "rules:1: 10.1.1.1/16 is taken for 10.1.0.0/16, as its prefix says",
        ];
        assert_eq!(RuleFile::parse(rules.as_bytes(), "rules").unwrap().doubts(), remarks);
        let error =
            RuleFile::parse(format!("{rules}\nallow to all").as_bytes(), "rules").unwrap_err();
        let lines: Vec<_> = error.lines().collect();
        assert!(lines[0].starts_with("rules:3: 'all': "), "{error}");
        assert_eq!(lines[1..], remarks);
    }

    #[test]
    fn users_are_named_with_their_first_line() {
        let rules = b"allow\ndeny user bob\nallow user alice\nallow user bob\n";
        let file = RuleFile::parse(rules, "rules").unwrap();
        let mut users: Vec<_> = file.users().collect();
        users.sort();
        assert_eq!(users, [("alice", "rules:3".into()), ("bob", "rules:2".into())]);
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = RuleFile::load(Path::new("/nonexistent/rules"), 0).unwrap_err();
        assert!(error.starts_with("/nonexistent/rules: "), "{error}");
    }
}
