//! Why a session came to no relay: what the client is told, and what the log says.

use std::io;

use crate::access::policy::Denied;
use crate::access::users::LoginError;
use crate::commands;
use crate::report::Outcome;
use crate::wire;
use crate::wire::protocol::UnknownProtocol;
use crate::wire::proxy_protocol;
use crate::wire::refusal::Refusal;
use crate::wire::socks5::{self, Method};

/// Why a session came to no relay. Each error becomes one here, the only place where it is decided what the
/// client is told; how that is said is its protocol's.
pub(super) struct Failure {
    /// What the client is told. `None` where it is owed nothing.
    pub refusal: Option<Refusal>,
    /// How the session has ended.
    pub outcome: Outcome,
    /// The reason, where the outcome alone does not say it.
    pub why: Option<String>,
}

impl Failure {
    pub(super) fn new(refusal: Refusal, why: impl Into<Option<String>>) -> Self {
        let outcome = Outcome::from(&refusal);
        Failure { refusal: Some(refusal), outcome, why: why.into() }
    }

    /// The client is owed nothing.
    pub(super) fn silent(outcome: Outcome, why: impl Into<Option<String>>) -> Self {
        Failure { refusal: None, outcome, why: why.into() }
    }

    /// The client, for whom a load balancer comes, is not served.
    pub(super) fn rejected(why: String) -> Self {
        Failure::silent(Outcome::Denied, why)
    }

    pub(super) fn client_left() -> Self {
        Failure::silent(Outcome::ClientLeft, None)
    }

    fn upstream_failed(why: String) -> Self {
        Failure { outcome: Outcome::UpstreamFailed, ..Failure::new(Refusal::Failed, why) }
    }
}

/// The connection with the client: commands have errors of their own.
impl From<io::Error> for Failure {
    fn from(_: io::Error) -> Self {
        Failure::client_left()
    }
}

/// The load balancer's header.
impl From<proxy_protocol::Error> for Failure {
    fn from(error: proxy_protocol::Error) -> Self {
        match error {
            proxy_protocol::Error::Io(_) => Failure::client_left(),
            error => Failure::silent(Outcome::BadRequest, error.to_string()),
        }
    }
}

/// The client's first octet.
impl From<UnknownProtocol> for Failure {
    fn from(error: UnknownProtocol) -> Self {
        Failure::silent(Outcome::BadRequest, error.to_string())
    }
}

/// The client's messages in SOCKS5.
impl From<socks5::Error> for Failure {
    fn from(error: socks5::Error) -> Self {
        use socks5::Error;
        let why = error.to_string();
        let refusal = match error {
            Error::Io(_) => return Failure::client_left(),
            Error::NoAcceptableMethod(Method::UsernamePassword) => {
                return LoginError::Missing.into();
            }
            Error::NoAcceptableMethod(_) => Refusal::NoLogin,
            Error::CredentialsVersion(_) => Refusal::WrongLogin,
            Error::Command(_) => Refusal::Command,
            Error::AddressType(_) => Refusal::AddressFamily,
            Error::Name(_) | Error::Version(_) => Refusal::Malformed,
        };
        Failure { outcome: Outcome::BadRequest, ..Failure::new(refusal, why) }
    }
}

/// The client's request in SOCKS4 or HTTP.
impl From<wire::error::Error> for Failure {
    fn from(error: wire::error::Error) -> Self {
        use wire::error::Error;
        let refusal = match error {
            Error::Io(_) => return Failure::client_left(),
            Error::TooLarge => Refusal::TooLarge,
            Error::Malformed(_) => Refusal::Malformed,
        };
        Failure::new(refusal, error.to_string())
    }
}

/// The client's login.
impl From<LoginError> for Failure {
    fn from(error: LoginError) -> Self {
        let why = error.to_string();
        match error {
            LoginError::Missing => Failure::new(Refusal::NoLogin, why),
            LoginError::Wrong(_) => Failure::new(Refusal::WrongLogin, None),
            LoginError::Ignored(..) | LoginError::NotVerified(..) => {
                Failure::new(Refusal::WrongLogin, why)
            }
            LoginError::ClientLeft => Failure::client_left(),
        }
    }
}

/// The rules, or the default access.
impl From<Denied> for Failure {
    fn from(denied: Denied) -> Self {
        let why = denied.to_string();
        match denied {
            Denied::UpstreamIsSelf { .. } => Failure::upstream_failed(why),
            Denied::Full { .. } => Failure::new(Refusal::TooMany, why),
            _ => Failure::new(Refusal::Denied, why),
        }
    }
}

/// What the client has asked for.
impl From<commands::Error> for Failure {
    fn from(error: commands::Error) -> Self {
        use commands::Error;
        match error {
            Error::Unresolved(error) => Failure {
                outcome: Outcome::Unresolved,
                ..Failure::new(Refusal::HostUnreachable, error.to_string())
            },
            Error::Unreachable(error) => {
                let failure = Failure::new(Refusal::from(&error), None);
                let why = match (failure.outcome, error.get_ref()) {
                    (Outcome::Failed, _) | (Outcome::TimedOut, Some(_)) => Some(error.to_string()),
                    (Outcome::TimedOut, None) => Some("the target has not answered".into()),
                    _ => None,
                };
                Failure { why, ..failure }
            }
            Error::UpstreamFailed(why) => Failure::upstream_failed(why),
            Error::UpstreamRefused(reply) => {
                let why = format!("the upstream answers REP {:#04x}", reply.rep());
                Failure::new(Refusal::Upstream(Box::new(reply)), why)
            }
            Error::ClientLeft => Failure::client_left(),
        }
    }
}
