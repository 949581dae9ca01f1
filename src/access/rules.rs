//! The rules file: a rule a line. Here stands what it says; `policy` decides by it.

use std::path::Path;
use std::sync::Arc;

mod index;
pub mod networks;
mod rule;

use super::lines;
use super::secret::SecretFile;
use super::upstream::Upstream;
pub(super) use index::Entry;
use index::Index;
use rule::Rule;
pub(super) use rule::{Action, RuleQuery};

/// The rules of a file; the first that matches decides. By default there are none.
#[derive(Debug, Default)]
pub struct RuleFile {
    /// How the file was named.
    pub(super) name: Arc<str>,
    pub(super) index: Index,
    /// Bytes in the file.
    pub(crate) length: usize,
}

impl RuleFile {
    /// Reads a rules file, which had so many bytes `earlier`: see [`SecretFile::read`].
    ///
    /// # Errors
    ///
    /// When the file cannot be read, when there is a password in it and others than root and the user
    /// who runs tabi have access to it, and when a line is no rule: the error names up to ten of those.
    pub fn load(path: &Path, earlier: usize) -> Result<Self, String> {
        let name = path.display().to_string();
        let file = SecretFile::read(path, earlier).map_err(|error| format!("{name}: {error}"))?;
        let rules = RuleFile::parse(&file.bytes, &name)?;
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
    /// When a line is no rule, as [`RuleFile::load`] does.
    pub fn parse(bytes: &[u8], name: &str) -> Result<Self, String> {
        let mut rules = Vec::new();
        lines::each(bytes, name, |line, text| {
            rules.extend(Rule::parse(text)?.map(|rule| (line, rule)));
            Ok(())
        })?;
        Ok(RuleFile { name: name.into(), index: Index::new(rules), length: bytes.len() })
    }

    /// How the file was named.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How many rules there are.
    pub fn count(&self) -> usize {
        self.index.entries().len()
    }

    /// The servers that rules send requests through, and `FILE:LINE` of each rule.
    pub fn upstreams(&self) -> impl Iterator<Item = (&Upstream, String)> {
        self.index.entries().iter().filter_map(|Entry { rule, line, .. }| match &rule.action {
            Action::Via(upstream) => Some((&**upstream, format!("{}:{line}", self.name))),
            Action::Allow | Action::Deny => None,
        })
    }

    /// The users that rules name, and `FILE:LINE` of the first that names each.
    pub fn users(&self) -> impl Iterator<Item = (&str, String)> {
        self.index.users().map(|(user, line)| (user, format!("{}:{line}", self.name)))
    }
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
        assert_eq!(lines[0], "rules:3: 'permit': expected allow, deny or via");
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
