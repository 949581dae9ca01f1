//! The rules of the file as they are now: the file may be read again while the server runs.

use std::mem;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use super::{RuleFile, Rules};

/// The rules of one file, which are exchanged as a whole. Whoever judges takes them once and goes
/// on with those, so nothing is judged by some of the old rules and some of the new.
#[derive(Debug, Default)]
pub(super) struct Current {
    file: RwLock<Arc<RuleFile>>,
    /// How often they were exchanged.
    generation: AtomicUsize,
}

impl Current {
    pub(super) fn new(file: Arc<RuleFile>) -> Self {
        Current { file: RwLock::new(file), generation: AtomicUsize::new(0) }
    }

    /// The rules as they are now.
    pub(super) fn get(&self) -> Arc<RuleFile> {
        Arc::clone(&self.file.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Rules {
    /// Judges by the rules of `file` from now on. What is being judged at this moment is judged by
    /// the earlier ones.
    pub fn replace_file(&self, file: Arc<RuleFile>) {
        let Current { file: current, generation } = &self.current;
        let earlier =
            mem::replace(&mut *current.write().unwrap_or_else(PoisonError::into_inner), file);
        // Who sees the new number gets the new rules.
        generation.fetch_add(1, Ordering::Release);
        // A long list takes a while to free: not under the lock.
        drop(earlier);
    }

    /// Another number than before once the rules have changed: a verdict that was kept is worth
    /// nothing then. Whoever keeps one asks for the number first.
    pub fn generation(&self) -> usize {
        self.current.generation.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{LAN, anyone, following};
    use super::*;
    use crate::access::rules::PermitError;
    use crate::socks5::{Address, Command, Host, Name, Request};
    use std::net::SocketAddr;

    fn file(rules: &str) -> Arc<RuleFile> {
        Arc::new(RuleFile::parse(rules.as_bytes(), "rules").unwrap())
    }

    fn request(host: &str) -> Request {
        let host = Host::from(Name::new(host.into()).unwrap());
        Request { command: Command::Connect, destination: Address { host, port: 80 } }
    }

    #[test]
    fn the_next_request_is_judged_by_the_new_rules() {
        let rules = following("deny to 192.0.2.1");
        let is_open = |ip| {
            let found = |_: &_, _| Err::<_, ()>(());
            rules.permit(&anyone(), LAN.parse().unwrap(), &request(ip), found).is_ok()
        };
        let generation = rules.generation();
        assert_eq!([is_open("192.0.2.1"), is_open("192.0.2.2")], [false, true]);
        rules.replace_file(file("deny to 192.0.2.2"));
        assert_eq!([is_open("192.0.2.1"), is_open("192.0.2.2")], [true, false]);
        assert_ne!(rules.generation(), generation);
    }

    #[test]
    fn rules_that_change_during_a_lookup_do_not_mix() {
        let rules = following("allow to 192.0.2.0/24\ndeny");
        // By the old rules the first address is open, by the new ones the second.
        let lookup = |_: &Name, _| {
            rules.replace_file(file("allow to 198.51.100.0/24\ndeny"));
            let found: [SocketAddr; 2] =
                ["192.0.2.1:80", "198.51.100.1:80"].map(|it| it.parse().unwrap());
            Ok::<_, ()>(found.to_vec())
        };
        let judged = rules.permit(&anyone(), LAN.parse().unwrap(), &request("a.example"), lookup);
        assert_eq!(judged.unwrap().addresses(), ["192.0.2.1:80".parse().unwrap()]);
        let found = |_: &Name, _| Ok::<_, ()>(vec!["192.0.2.1:80".parse().unwrap()]);
        let judged = rules.permit(&anyone(), LAN.parse().unwrap(), &request("a.example"), found);
        assert!(matches!(judged, Err(PermitError::Denied(_))));
    }
}
