//! Why a session came to no relay: what the client is told, and what the log says.

use std::io::{self, Write};

use crate::access::policy::{Denied, PermitError};
use crate::commands::{connect, resolver, upstream};
use crate::proxy_protocol;
use crate::report::Outcome;
use crate::socks5::{self, Method, Rep, Reply};

/// Why a session came to no relay.
pub(super) enum Failure {
    /// The client, for whom a load balancer comes, is not served; why.
    Rejected(String),
    /// The load balancer's header.
    Balancer(proxy_protocol::Error),
    /// The client's messages.
    Socks(socks5::Error),
    /// The rules, or the default access.
    Denied(Denied),
    /// The name.
    Lookup(resolver::Error),
    /// The target.
    Connect(connect::Error),
    /// The server on the way to the target.
    Upstream(upstream::Error),
}

impl Failure {
    /// What the client is told: the one place where a failing reply is made. Nothing where it is
    /// owed no answer.
    pub(super) fn last_words(&self) -> Vec<u8> {
        let mut words = Vec::new();
        let written = match self {
            Failure::Socks(socks5::Error::Socks4) => words.write_all(socks5::SOCKS4_REJECTION),
            Failure::Socks(socks5::Error::Http) => words.write_all(socks5::HTTP_REJECTION),
            Failure::Socks(socks5::Error::NoAcceptableMethod(_)) => {
                socks5::write_selection(None, &mut words)
            }
            Failure::Socks(
                socks5::Error::CredentialsVersion(_)
                | socks5::Error::BadCredentials(_)
                | socks5::Error::IgnoredCredentials(..),
            ) => socks5::write_status(false, &mut words),
            Failure::Upstream(upstream::Error::Refused(reply)) => reply.write_to(&mut words),
            _ => match self.rep() {
                Some(rep) => Reply::failed(rep).write_to(&mut words),
                None => Ok(()),
            },
        };
        written.expect("memory takes every message");
        words
    }

    /// The REP that the client is owed, if it is owed one.
    fn rep(&self) -> Option<Rep> {
        Some(match self {
            Failure::Denied(_) => Rep::NotAllowed,
            Failure::Upstream(upstream::Error::Failed(_)) => Rep::GeneralFailure,
            Failure::Lookup(resolver::Error::Unresolved(_)) => Rep::HostUnreachable,
            Failure::Lookup(resolver::Error::TimedOut)
            | Failure::Upstream(upstream::Error::TimedOut) => Rep::TtlExpired,
            Failure::Upstream(upstream::Error::Refused(reply)) => reply.rep().ok()?,
            Failure::Connect(connect::Error::Unreachable(error)) => Rep::from(error),
            Failure::Socks(error) => match error {
                socks5::Error::Command(_) => Rep::CommandNotSupported,
                socks5::Error::AddressType(_) => Rep::AddressTypeNotSupported,
                socks5::Error::Name(_) | socks5::Error::RequestVersion(_) => Rep::GeneralFailure,
                socks5::Error::Socks4
                | socks5::Error::Http
                | socks5::Error::NotSocks(_)
                | socks5::Error::NoAcceptableMethod(_)
                | socks5::Error::CredentialsVersion(_)
                | socks5::Error::BadCredentials(_)
                | socks5::Error::IgnoredCredentials(..)
                | socks5::Error::Io(_) => return None,
            },
            Failure::Rejected(_)
            | Failure::Balancer(_)
            | Failure::Lookup(resolver::Error::ClientLeft)
            | Failure::Connect(connect::Error::ClientLeft)
            | Failure::Upstream(upstream::Error::ClientLeft) => return None,
        })
    }

    /// The outcome, and the reason where the outcome alone does not say it.
    pub(super) fn outcome(&self) -> (Outcome, Option<String>) {
        match self {
            Failure::Socks(socks5::Error::Io(_))
            | Failure::Balancer(proxy_protocol::Error::Io(_))
            | Failure::Lookup(resolver::Error::ClientLeft)
            | Failure::Connect(connect::Error::ClientLeft)
            | Failure::Upstream(upstream::Error::ClientLeft) => (Outcome::ClientLeft, None),
            Failure::Socks(socks5::Error::BadCredentials(_)) => (Outcome::BadCredentials, None),
            Failure::Socks(error @ socks5::Error::IgnoredCredentials(..)) => {
                (Outcome::BadCredentials, Some(error.to_string()))
            }
            Failure::Rejected(reason) => (Outcome::Denied, Some(reason.clone())),
            Failure::Balancer(error) => (Outcome::BadRequest, Some(error.to_string())),
            Failure::Socks(error @ socks5::Error::NoAcceptableMethod(Method::UsernamePassword)) => {
                (Outcome::BadRequest, Some(format!("{error} (--users)")))
            }
            Failure::Socks(error) => (Outcome::BadRequest, Some(error.to_string())),
            Failure::Denied(denied) => (Outcome::Denied, Some(denied.to_string())),
            Failure::Lookup(resolver::Error::Unresolved(error)) => {
                (Outcome::Unresolved, Some(error.to_string()))
            }
            Failure::Lookup(resolver::Error::TimedOut)
            | Failure::Upstream(upstream::Error::TimedOut) => (Outcome::TimedOut, None),
            Failure::Upstream(upstream::Error::Failed(why)) => {
                (Outcome::UpstreamFailed, Some(why.clone()))
            }
            Failure::Upstream(upstream::Error::Refused(reply)) => {
                let (outcome, rep) = match reply.rep() {
                    Ok(rep) => (Outcome::from(rep), rep as u8),
                    Err(rep) => (Outcome::Failed, rep),
                };
                (outcome, Some(format!("the upstream answers REP {rep:#04x}")))
            }
            Failure::Connect(connect::Error::Unreachable(error)) => {
                let outcome = Outcome::from(Rep::from(error));
                (outcome, (outcome == Outcome::Failed).then(|| error.to_string()))
            }
        }
    }
}

impl From<proxy_protocol::Error> for Failure {
    fn from(error: proxy_protocol::Error) -> Self {
        Failure::Balancer(error)
    }
}

impl From<socks5::Error> for Failure {
    fn from(error: socks5::Error) -> Self {
        Failure::Socks(error)
    }
}

/// That of the client's connection: what is dialed has errors of its own.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Failure::Socks(error.into())
    }
}

impl From<PermitError<resolver::Error>> for Failure {
    fn from(refusal: PermitError<resolver::Error>) -> Self {
        match refusal {
            PermitError::Denied(denied) => Failure::Denied(denied),
            PermitError::Lookup(error) => Failure::Lookup(error),
        }
    }
}

impl From<Denied> for Failure {
    fn from(denied: Denied) -> Self {
        Failure::Denied(denied)
    }
}

impl From<resolver::Error> for Failure {
    fn from(error: resolver::Error) -> Self {
        Failure::Lookup(error)
    }
}

impl From<upstream::Error> for Failure {
    fn from(error: upstream::Error) -> Self {
        Failure::Upstream(error)
    }
}

impl From<connect::Error> for Failure {
    fn from(error: connect::Error) -> Self {
        Failure::Connect(error)
    }
}
