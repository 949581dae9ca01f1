//! How a session ended: one value, and one word for it in the log, in metrics and on the status page.

use log::Level;
use strum::{Display, IntoStaticStr, VariantArray};

use crate::sessions::Ending;
use crate::wire::refusal::Refusal;

/// How a session ended, in the order in which the reference lists it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Display, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "kebab-case")]
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
    /// A rule or the default access closes the destination to this client, or its user is gone.
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
    /// The target could not be reached for another reason, or an internal error ended the session.
    Failed,
    /// The upstream cannot be reached, refuses the credentials, or does not speak SOCKS5.
    UpstreamFailed,
    /// The client speaks nothing that is served, or asks for what there is not.
    BadRequest,
    /// The client went away before it was served.
    ClientLeft,
    /// The server was full, and others needed the place more.
    Evicted,
    /// The server stopped before the session had finished.
    Stopped,
}

impl Outcome {
    /// How much attention the session's line in the log deserves. Port scanners and health checks
    /// come and go without a request; a wrong password is logged with `-q`, too.
    pub fn level(self, has_request: bool) -> Level {
        match self {
            Outcome::ClientLeft if !has_request => Level::Debug,
            Outcome::BadCredentials => Level::Warn,
            _ => Level::Info,
        }
    }
}

impl From<Ending> for Outcome {
    fn from(ending: Ending) -> Self {
        match ending {
            Ending::ClientReset => Outcome::ClientReset,
            Ending::TargetReset => Outcome::TargetReset,
            Ending::HandshakeTimeout => Outcome::HandshakeTimeout,
            Ending::IdleTimeout => Outcome::IdleTimeout,
            Ending::Evicted(_) => Outcome::Evicted,
            Ending::Stopped => Outcome::Stopped,
            Ending::Revoked(_) => Outcome::Denied,
            Ending::BadRequest(_) => Outcome::BadRequest,
            Ending::Fault => Outcome::Failed,
        }
    }
}

/// The outcome that goes with what the client is told.
impl From<&Refusal> for Outcome {
    fn from(refusal: &Refusal) -> Self {
        match refusal {
            Refusal::NotServed | Refusal::Malformed | Refusal::TooLarge | Refusal::NoLogin => {
                Outcome::BadRequest
            }
            Refusal::WrongLogin => Outcome::BadCredentials,
            Refusal::Denied | Refusal::TooMany => Outcome::Denied,
            Refusal::NetworkUnreachable => Outcome::NetworkUnreachable,
            Refusal::HostUnreachable => Outcome::HostUnreachable,
            Refusal::ConnectionRefused => Outcome::Refused,
            Refusal::TimedOut => Outcome::TimedOut,
            Refusal::Command | Refusal::AddressFamily | Refusal::BadResponse | Refusal::Failed => {
                Outcome::Failed
            }
            Refusal::Upstream(reply) => reply.refusal().map_or(Outcome::Failed, |it| (&it).into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outcome_is_one_word() {
        assert_eq!(Outcome::BadCredentials.to_string(), "bad-credentials");
        assert_eq!(<&str>::from(Outcome::TimedOut), "timed-out");
    }

    #[test]
    fn who_comes_and_goes_without_a_request_is_not_worth_a_line() {
        assert_eq!(Outcome::ClientLeft.level(false), Level::Debug);
        assert_eq!(Outcome::ClientLeft.level(true), Level::Info);
        assert_eq!(Outcome::BadCredentials.level(false), Level::Warn);
        assert_eq!(Outcome::Closed.level(true), Level::Info);
    }
}
