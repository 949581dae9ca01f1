//! How a session ended: one value, and one word for it in the log, in metrics and on the status page.

use std::fmt;

use log::Level;

use crate::sessions::Ending;
use crate::socks5::Rep;

/// How a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Both sides have closed.
    Closed,
    /// The client broke the connection.
    ClientReset,
    /// The target broke the connection.
    TargetReset,
    /// Nothing moved for too long.
    IdleTimeout,
    /// No complete request came in time.
    HandshakeTimeout,
    /// A rule or the default access closes the destination to this client.
    Denied,
    /// Wrong name or password.
    BadCredentials,
    /// The name has no address.
    Unresolved,
    /// The target refused the connection.
    Refused,
    /// The target, or the name server, did not answer in time.
    TimedOut,
    /// The host cannot be reached.
    HostUnreachable,
    /// The network cannot be reached.
    NetworkUnreachable,
    /// The target could not be reached for another reason, or a fault in tabi ended the session.
    Failed,
    /// The upstream cannot be reached, refuses the credentials, or does not speak SOCKS5.
    UpstreamFailed,
    /// The client does not speak SOCKS5, or asks for what there is not.
    BadRequest,
    /// The client went away before it was served.
    ClientLeft,
    /// The server was full, and others needed the place more.
    Evicted,
    /// The server stopped before the session had finished.
    Stopped,
}

impl Outcome {
    /// Every outcome, in the order in which the reference lists them.
    pub const ALL: [Outcome; Outcome::Stopped as usize + 1] = [
        Outcome::Closed,
        Outcome::ClientReset,
        Outcome::TargetReset,
        Outcome::IdleTimeout,
        Outcome::HandshakeTimeout,
        Outcome::Denied,
        Outcome::BadCredentials,
        Outcome::Unresolved,
        Outcome::Refused,
        Outcome::TimedOut,
        Outcome::HostUnreachable,
        Outcome::NetworkUnreachable,
        Outcome::Failed,
        Outcome::UpstreamFailed,
        Outcome::BadRequest,
        Outcome::ClientLeft,
        Outcome::Evicted,
        Outcome::Stopped,
    ];

    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Outcome::Closed => "closed",
            Outcome::ClientReset => "client-reset",
            Outcome::TargetReset => "target-reset",
            Outcome::IdleTimeout => "idle-timeout",
            Outcome::HandshakeTimeout => "handshake-timeout",
            Outcome::Denied => "denied",
            Outcome::BadCredentials => "bad-credentials",
            Outcome::Unresolved => "unresolved",
            Outcome::Refused => "refused",
            Outcome::TimedOut => "timed-out",
            Outcome::HostUnreachable => "host-unreachable",
            Outcome::NetworkUnreachable => "network-unreachable",
            Outcome::Failed => "failed",
            Outcome::UpstreamFailed => "upstream-failed",
            Outcome::BadRequest => "bad-request",
            Outcome::ClientLeft => "client-left",
            Outcome::Evicted => "evicted",
            Outcome::Stopped => "stopped",
        }
    }

    /// How much attention the session's line in the log deserves. Port scanners and health checks
    /// come and go without a request; a wrong password is logged with `-q`, too.
    pub fn level(self, has_request: bool) -> Level {
        match self {
            Outcome::ClientLeft if !has_request => Level::Debug,
            Outcome::BadCredentials => Level::Warn,
            Outcome::Closed
            | Outcome::ClientReset
            | Outcome::TargetReset
            | Outcome::IdleTimeout
            | Outcome::HandshakeTimeout
            | Outcome::Denied
            | Outcome::Unresolved
            | Outcome::Refused
            | Outcome::TimedOut
            | Outcome::HostUnreachable
            | Outcome::NetworkUnreachable
            | Outcome::Failed
            | Outcome::UpstreamFailed
            | Outcome::BadRequest
            | Outcome::ClientLeft
            | Outcome::Evicted
            | Outcome::Stopped => Level::Info,
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

impl From<Ending> for Outcome {
    fn from(ending: Ending) -> Self {
        match ending {
            Ending::ClientReset => Outcome::ClientReset,
            Ending::TargetReset => Outcome::TargetReset,
            Ending::HandshakeTimeout => Outcome::HandshakeTimeout,
            Ending::IdleTimeout => Outcome::IdleTimeout,
            Ending::Evicted => Outcome::Evicted,
            Ending::Stopped => Outcome::Stopped,
            Ending::Fault => Outcome::Failed,
        }
    }
}

/// The outcome of a target that could not be reached, from what the client is told of it.
impl From<Rep> for Outcome {
    fn from(rep: Rep) -> Self {
        match rep {
            Rep::ConnectionRefused => Outcome::Refused,
            Rep::NetworkUnreachable => Outcome::NetworkUnreachable,
            Rep::HostUnreachable => Outcome::HostUnreachable,
            Rep::TtlExpired => Outcome::TimedOut,
            Rep::NotAllowed => Outcome::Denied,
            Rep::Succeeded => Outcome::Closed,
            Rep::GeneralFailure | Rep::CommandNotSupported | Rep::AddressTypeNotSupported => {
                Outcome::Failed
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_outcome_is_in_the_list_once() {
        for (place, outcome) in Outcome::ALL.into_iter().enumerate() {
            assert_eq!(outcome as usize, place, "{outcome}");
        }
    }

    #[test]
    fn every_outcome_has_a_word_of_its_own() {
        let words: HashSet<_> = Outcome::ALL.iter().map(|outcome| outcome.word()).collect();
        assert_eq!(words.len(), Outcome::ALL.len());
        for word in words {
            assert!(word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-'), "{word}");
        }
    }

    #[test]
    fn who_comes_and_goes_without_a_request_is_not_worth_a_line() {
        assert_eq!(Outcome::ClientLeft.level(false), Level::Debug);
        assert_eq!(Outcome::ClientLeft.level(true), Level::Info);
        assert_eq!(Outcome::BadCredentials.level(false), Level::Warn);
        assert_eq!(Outcome::Closed.level(true), Level::Info);
    }
}
