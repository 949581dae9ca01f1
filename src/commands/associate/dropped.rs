//! Why datagrams were dropped: one line for each reason in the debug log of an association.

use std::fmt::Display;
use std::net::SocketAddr;

use log::debug;

/// Why a datagram was not sent on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::Display)]
pub(super) enum Reason {
    #[strum(to_string = "not from the client's address and port")]
    NotTheClient,
    #[strum(to_string = "no SOCKS5 header")]
    Malformed,
    /// RFC 1928 section 7: then it must be dropped.
    #[strum(to_string = "a fragment")]
    Fragment,
    #[strum(to_string = "its destination is denied")]
    Denied,
    #[strum(to_string = "its name has no address")]
    Unresolved,
    #[strum(to_string = "no name server has answered")]
    NoAnswer,
    #[strum(to_string = "too many wait for names")]
    TooManyPending,
    #[strum(to_string = "the system refused to send it")]
    NotSent,
    #[strum(to_string = "nothing was sent to that address")]
    Unsolicited,
    /// It has become too long, for instance.
    #[strum(to_string = "the system refused to send it to the client")]
    NotReturned,
}

/// The reasons that were logged.
#[derive(Debug, Default)]
pub(super) struct DropLog(Vec<Reason>);

impl DropLog {
    /// Logs that a datagram of the association of `client` was dropped, the first time for each
    /// reason. `about` is where it came from or where it should have gone.
    pub(super) fn log(&mut self, reason: Reason, client: SocketAddr, about: &dyn Display) {
        if !self.0.contains(&reason) {
            self.0.push(reason);
            debug!("dropped a datagram client={client} about={about}: {reason}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_is_logged_once() {
        let mut dropped = DropLog::default();
        let client = ([127, 0, 0, 1], 1).into();
        for _ in 0..2 {
            for reason in [Reason::NotTheClient, Reason::Unsolicited, Reason::NotReturned] {
                dropped.log(reason, client, &"192.0.2.1:9");
            }
        }
        assert_eq!(dropped.0, [Reason::NotTheClient, Reason::Unsolicited, Reason::NotReturned]);
    }
}
