//! Why a session came to no relay: what the client gets, and what the log says.

use std::io;

use crate::access::policy::Denied;
use crate::commands;
use crate::proxy_protocol;
use crate::report::Outcome;
use crate::socks5::{self, Method, Rep, Reply};

/// Why a session came to no relay. Each error becomes one here, the only place where a failing reply is
/// made.
pub(super) struct Failure {
    /// The last message to the client, empty where it is owed none.
    pub message: Vec<u8>,
    /// How the session has ended.
    pub outcome: Outcome,
    /// The reason, where the outcome alone does not say it.
    pub why: Option<String>,
}

impl Failure {
    fn new(message: Vec<u8>, outcome: Outcome, why: impl Into<Option<String>>) -> Self {
        Failure { message, outcome, why: why.into() }
    }

    /// The client, for whom a load balancer comes, is not served.
    pub(super) fn rejected(why: String) -> Self {
        Failure::new(Vec::new(), Outcome::Denied, why)
    }

    fn client_left() -> Self {
        Failure::new(Vec::new(), Outcome::ClientLeft, None)
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
            error => Failure::new(Vec::new(), Outcome::BadRequest, error.to_string()),
        }
    }
}

/// The client's messages.
impl From<socks5::Error> for Failure {
    fn from(error: socks5::Error) -> Self {
        use socks5::Error;
        let mut why = error.to_string();
        let message = match error {
            Error::Io(_) => return Failure::client_left(),
            Error::BadCredentials(_) => {
                return Failure::new(refused_credentials(), Outcome::BadCredentials, None);
            }
            Error::IgnoredCredentials(..) => {
                return Failure::new(refused_credentials(), Outcome::BadCredentials, why);
            }
            Error::CredentialsVersion(_) => refused_credentials(),
            Error::NoAcceptableMethod(method) => {
                why += if method == Method::UsernamePassword { " (--users)" } else { "" };
                written(|message| socks5::write_selection(None, message))
            }
            Error::Socks4 => socks5::SOCKS4_REJECTION.to_vec(),
            Error::Http => socks5::HTTP_REJECTION.to_vec(),
            Error::NotSocks(_) => Vec::new(),
            Error::Command(_) => failed(Rep::CommandNotSupported),
            Error::AddressType(_) => failed(Rep::AddressTypeNotSupported),
            Error::Name(_) | Error::RequestVersion(_) => failed(Rep::GeneralFailure),
        };
        Failure::new(message, Outcome::BadRequest, why)
    }
}

/// The rules, or the default access.
impl From<Denied> for Failure {
    fn from(denied: Denied) -> Self {
        let (rep, outcome) = match denied {
            Denied::UpstreamIsSelf { .. } => (Rep::GeneralFailure, Outcome::UpstreamFailed),
            _ => (Rep::NotAllowed, Outcome::Denied),
        };
        Failure::new(failed(rep), outcome, denied.to_string())
    }
}

/// What the client has asked for.
impl From<commands::Error> for Failure {
    fn from(error: commands::Error) -> Self {
        use commands::Error;
        match error {
            Error::Unresolved(error) => {
                Failure::new(failed(Rep::HostUnreachable), Outcome::Unresolved, error.to_string())
            }
            Error::Unreachable(error) => {
                let rep = Rep::from(&error);
                let outcome = Outcome::from(rep);
                let why = match (outcome, error.get_ref()) {
                    (Outcome::Failed, _) | (Outcome::TimedOut, Some(_)) => Some(error.to_string()),
                    (Outcome::TimedOut, None) => Some("the target has not answered".into()),
                    _ => None,
                };
                Failure::new(failed(rep), outcome, why)
            }
            Error::UpstreamFailed(why) => {
                Failure::new(failed(Rep::GeneralFailure), Outcome::UpstreamFailed, why)
            }
            Error::UpstreamRefused(reply) => {
                let (outcome, rep) = match reply.rep() {
                    Ok(rep) => (Outcome::from(rep), rep as u8),
                    Err(rep) => (Outcome::Failed, rep),
                };
                let why = format!("the upstream answers REP {rep:#04x}");
                Failure::new(written(|message| reply.write_to(message)), outcome, why)
            }
            Error::ClientLeft => Failure::client_left(),
        }
    }
}

fn failed(rep: Rep) -> Vec<u8> {
    written(|message| Reply::failed(rep).write_to(message))
}

fn refused_credentials() -> Vec<u8> {
    written(|message| socks5::write_status(false, message))
}

fn written(write: impl FnOnce(&mut Vec<u8>) -> io::Result<()>) -> Vec<u8> {
    let mut message = Vec::new();
    write(&mut message).expect("memory takes every message");
    message
}
