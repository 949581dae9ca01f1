//! Why datagrams were dropped: one line for each reason in the debug log of an association.

use std::fmt::{self, Display};
use std::net::SocketAddr;

use log::debug;

/// Why a datagram was not sent on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Reason {
    /// It came to the client's socket from somebody else.
    NotTheClient,
    /// Its header is none.
    Malformed,
    /// It is a fragment of one (RFC 1928 section 7: then it must be dropped).
    Fragment,
    /// A rule or the default access closes its destination.
    Denied,
    /// Its name has no address.
    Unresolved,
    /// Too many wait for names already.
    NoRoom,
    /// The system refused to send it to its destination.
    NotSent,
    /// It came from where the client has sent nothing.
    Unasked,
    /// The system refused to send it to the client: it has become too long, for instance.
    NotReturned,
}

impl Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Reason::NotTheClient => "not from the client's address and port",
            Reason::Malformed => "no SOCKS5 header",
            Reason::Fragment => "a fragment",
            Reason::Denied => "its destination is denied",
            Reason::Unresolved => "its name has no address",
            Reason::NoRoom => "too many wait for names",
            Reason::NotSent => "the system refused to send it",
            Reason::Unasked => "nothing was sent to that address",
            Reason::NotReturned => "the system refused to send it to the client",
        })
    }
}

/// The reasons that were told.
#[derive(Debug, Default)]
pub(super) struct Dropped(u16);

impl Dropped {
    /// Logs that a datagram of the association of `client` was dropped, the first time for each
    /// reason. `about` is where it came from or where it should have gone.
    pub(super) fn tell(&mut self, reason: Reason, client: SocketAddr, about: &dyn Display) {
        if self.is_news(reason) {
            debug!("dropped a datagram client={client} about={about}: {reason}");
        }
    }

    fn is_news(&mut self, reason: Reason) -> bool {
        let bit = 1 << reason as u8;
        let is_news = self.0 & bit == 0;
        self.0 |= bit;
        is_news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_is_told_once() {
        let mut dropped = Dropped::default();
        for _ in 0..2 {
            let first = dropped.0 == 0;
            for reason in [Reason::NotTheClient, Reason::Unasked, Reason::NotReturned] {
                assert_eq!(dropped.is_news(reason), first, "{reason}");
            }
        }
    }
}
