//! Why datagrams were dropped: they are counted by reason, and an association has one line for each in
//! the debug log.

use std::fmt::{Arguments, Display};
use std::sync::atomic::Ordering;

use portable_atomic::AtomicU64;
use strum::{EnumMessage, IntoStaticStr, VariantArray};

/// Why a datagram was not sent on: in a word for the metrics, and in words for the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumMessage, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "kebab-case")]
pub(super) enum Reason {
    #[strum(message = "not from the client's address and port")]
    NotTheClient,
    #[strum(message = "no SOCKS5 header")]
    Malformed,
    /// RFC 1928 section 7: then it must be dropped.
    #[strum(message = "a fragment")]
    Fragment,
    #[strum(message = "its destination is denied")]
    Denied,
    #[strum(message = "above the rate of a limit")]
    OverRate,
    #[strum(message = "its name has no address")]
    Unresolved,
    #[strum(message = "no name server has answered")]
    NoAnswer,
    #[strum(message = "too many wait for names")]
    TooManyPending,
    #[strum(message = "the system refused to send it")]
    NotSent,
    #[strum(message = "nothing was sent to that address")]
    Unsolicited,
    /// It has become too long, for instance.
    #[strum(message = "the system refused to send it to the client")]
    NotReturned,
}

/// How many datagrams of all associations were dropped for each reason.
#[derive(Debug, Default)]
pub(crate) struct DropCounts([AtomicU64; Reason::VARIANTS.len()]);

impl DropCounts {
    /// Each number with the word of its reason.
    pub(crate) fn each(&self) -> Vec<(&'static str, u64)> {
        let counts = self.0.iter().map(|count| count.load(Ordering::Relaxed));
        Reason::VARIANTS.iter().map(Into::into).zip(counts).collect()
    }
}

/// Counts the datagrams of one association that are dropped, and logs why.
#[derive(Debug)]
pub(super) struct DropLog<'a> {
    counts: &'a DropCounts,
    /// The reasons that were logged.
    logged: Vec<Reason>,
}

impl<'a> DropLog<'a> {
    pub(super) fn new(counts: &'a DropCounts) -> Self {
        DropLog { counts, logged: Vec::new() }
    }

    /// Counts a datagram that was dropped, and logs it with `log`, the first time for each reason.
    /// `about` is where it came from or where it should have gone.
    pub(super) fn log(&mut self, reason: Reason, log: &dyn Fn(Arguments<'_>), about: &dyn Display) {
        self.counts.0[reason as usize].fetch_add(1, Ordering::Relaxed);
        if !self.logged.contains(&reason) {
            self.logged.push(reason);
            let why = reason.get_message().unwrap_or_default();
            log(format_args!("dropped a datagram, {about}: {why}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;

    #[test]
    fn each_reason_is_logged_once_and_each_datagram_counted() {
        let (counts, logged) = (DropCounts::default(), RefCell::new(Vec::new()));
        let mut dropped = DropLog::new(&counts);
        let log = |line: Arguments<'_>| logged.borrow_mut().push(line.to_string());
        for _ in 0..2 {
            for reason in [Reason::Fragment, Reason::Unsolicited] {
                dropped.log(reason, &log, &"192.0.2.1:9");
            }
        }
        let expected = ["a fragment", "nothing was sent to that address"];
        let expected = expected.map(|why| format!("dropped a datagram, 192.0.2.1:9: {why}"));
        assert_eq!(logged.into_inner(), expected);
        let expected = [("fragment", 2), ("unsolicited", 2)];
        assert!(expected.iter().all(|count| counts.each().contains(count)), "{counts:?}");
    }
}
