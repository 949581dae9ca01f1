//! Why a session came to no relay: what the client gets, and what the log says.

use std::io;

use crate::access::policy::{Denied, PermitError};
use crate::commands;
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
    /// What the client has asked for.
    Command(commands::Error),
}

/// The last message to the client, empty where it is owed none; the outcome; and the reason where the
/// outcome alone does not say it.
pub(super) type Report = (Vec<u8>, Outcome, Option<String>);

impl Failure {
    /// What the client gets and what the log says: the one place where a failing reply is made.
    pub(super) fn report(&self) -> Report {
        match self {
            Failure::Rejected(reason) => (Vec::new(), Outcome::Denied, Some(reason.clone())),
            Failure::Balancer(proxy_protocol::Error::Io(_)) => {
                (Vec::new(), Outcome::ClientLeft, None)
            }
            Failure::Balancer(error) => (Vec::new(), Outcome::BadRequest, Some(error.to_string())),
            Failure::Socks(error) => bad_message(error),
            Failure::Denied(denied) => {
                (failed(Rep::NotAllowed), Outcome::Denied, Some(denied.to_string()))
            }
            Failure::Command(error) => failed_command(error),
        }
    }
}

fn bad_message(error: &socks5::Error) -> Report {
    use socks5::Error;
    let why = error.to_string();
    let message = match error {
        Error::Io(_) => return (Vec::new(), Outcome::ClientLeft, None),
        Error::BadCredentials(_) => return (refused_credentials(), Outcome::BadCredentials, None),
        Error::IgnoredCredentials(..) => {
            return (refused_credentials(), Outcome::BadCredentials, Some(why));
        }
        Error::CredentialsVersion(_) => refused_credentials(),
        Error::NoAcceptableMethod(method) => {
            let option = if *method == Method::UsernamePassword { " (--users)" } else { "" };
            let message = written(|message| socks5::write_selection(None, message));
            return (message, Outcome::BadRequest, Some(why + option));
        }
        Error::Socks4 => socks5::SOCKS4_REJECTION.to_vec(),
        Error::Http => socks5::HTTP_REJECTION.to_vec(),
        Error::NotSocks(_) => Vec::new(),
        Error::Command(_) => failed(Rep::CommandNotSupported),
        Error::AddressType(_) => failed(Rep::AddressTypeNotSupported),
        Error::Name(_) | Error::RequestVersion(_) => failed(Rep::GeneralFailure),
    };
    (message, Outcome::BadRequest, Some(why))
}

fn failed_command(error: &commands::Error) -> Report {
    use commands::Error;
    match error {
        Error::Unresolved(error) => {
            (failed(Rep::HostUnreachable), Outcome::Unresolved, Some(error.to_string()))
        }
        Error::Unreachable(error) => {
            let rep = Rep::from(error);
            let outcome = Outcome::from(rep);
            (failed(rep), outcome, (outcome == Outcome::Failed).then(|| error.to_string()))
        }
        Error::UpstreamFailed(why) => {
            (failed(Rep::GeneralFailure), Outcome::UpstreamFailed, Some(why.clone()))
        }
        Error::UpstreamRefused(reply) => {
            let (outcome, rep) = match reply.rep() {
                Ok(rep) => (Outcome::from(rep), rep as u8),
                Err(rep) => (Outcome::Failed, rep),
            };
            let why = format!("the upstream answers REP {rep:#04x}");
            (written(|message| reply.write_to(message)), outcome, Some(why))
        }
        Error::ClientLeft => (Vec::new(), Outcome::ClientLeft, None),
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

/// That of the client's connection: commands have errors of their own.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Failure::Socks(error.into())
    }
}

impl From<Denied> for Failure {
    fn from(denied: Denied) -> Self {
        Failure::Denied(denied)
    }
}

impl From<commands::Error> for Failure {
    fn from(error: commands::Error) -> Self {
        Failure::Command(error)
    }
}

impl From<PermitError<commands::Error>> for Failure {
    fn from(refusal: PermitError<commands::Error>) -> Self {
        match refusal {
            PermitError::Denied(denied) => Failure::Denied(denied),
            PermitError::Lookup(error) => Failure::Command(error),
        }
    }
}
