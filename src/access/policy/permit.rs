//! The proof that a request may be carried out, and what stands in its place when it may not.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::access::rules::{Entry, RuleFile};
use crate::access::upstream::Upstream;
use crate::wire::request::{Command, Request};

/// A request that may be carried out, and the addresses that it may go to, or the server that it has
/// to go through. Only the policy makes one. What was checked is what is reached: nothing is looked up
/// again.
#[derive(Debug)]
pub struct Permit {
    pub(super) command: Command,
    pub(super) addresses: Vec<SocketAddr>,
    pub(super) route: Option<UpstreamRoute>,
}

impl Permit {
    /// One to go through `upstream`, for what goes there.
    pub(super) fn through(upstream: &Arc<Upstream>, mut request: Request) -> Result<Self, Denied> {
        let command = request.command;
        if command == Command::Http {
            request.command = Command::Connect;
        }
        match command {
            Command::Connect | Command::Http | Command::Resolve | Command::ResolvePtr => {
                let route = Some(UpstreamRoute { upstream: Arc::clone(upstream), request });
                Ok(Permit { command, addresses: Vec::new(), route })
            }
            Command::Bind | Command::UdpAssociate => Err(Denied::through(upstream, command)),
        }
    }

    /// What may be done.
    pub fn command(&self) -> Command {
        self.command
    }

    /// Where it may be done, in the resolver's order. Nowhere, if there is a route.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// How it may be done through another server, if it has to be.
    pub fn route(&self) -> Option<&UpstreamRoute> {
        self.route.as_ref()
    }
}

/// A request that goes through another server.
#[derive(Debug)]
pub struct UpstreamRoute {
    pub(super) upstream: Arc<Upstream>,
    pub(super) request: Request,
}

impl UpstreamRoute {
    /// Through which server.
    pub fn upstream(&self) -> &Arc<Upstream> {
        &self.upstream
    }

    /// What it is asked for: a name as the client has spelled it, or an address that was checked.
    pub fn request(&self) -> &Request {
        &self.request
    }
}

/// What denies a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Denied {
    /// A rule of the rules file.
    ByRule {
        /// The file.
        file: Arc<str>,
        /// The rule's line, from 1.
        line: u32,
        /// The address that the rule has judged; `None` if it needed none.
        address: Option<SocketAddr>,
    },
    /// A limit on connections has no place left.
    Full {
        /// The file.
        file: Arc<str>,
        /// The limit's line, from 1.
        line: u32,
    },
    /// No rule opens the address, and by default it is closed to clients on other machines.
    Closed {
        /// The address.
        address: SocketAddr,
        /// What it is.
        reason: &'static str,
    },
    /// Whoever asks has logged in as one who is no user any more.
    Revoked(&'static str),
    /// It would have to go through another server, which only CONNECT does.
    Through {
        /// The server.
        upstream: Arc<str>,
        /// What was asked for.
        command: Command,
    },
    /// A name goes to an upstream on this machine, and may be this machine there.
    OwnPort {
        /// The upstream.
        upstream: Arc<str>,
        /// One of the server's own ports.
        port: u16,
    },
    /// It would come back here: what is at fault is the upstream, not the request.
    UpstreamIsSelf {
        /// The upstream.
        upstream: Arc<str>,
    },
}

impl Denied {
    pub(super) fn by_rule(file: &RuleFile, entry: &Entry, address: Option<SocketAddr>) -> Self {
        Denied::ByRule { file: Arc::clone(&file.name), line: entry.line, address }
    }

    pub(super) fn through(upstream: &Upstream, command: Command) -> Self {
        Denied::Through { upstream: Arc::clone(upstream.shown()), command }
    }
}

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Denied::ByRule { file, line, address: Some(address) } => {
                write!(f, "{file}:{line}: this rule denies {address}")
            }
            Denied::ByRule { file, line, address: None } => {
                write!(f, "{file}:{line}: this rule denies it")
            }
            Denied::Full { file, line } => {
                write!(f, "{file}:{line}: all connections of this limit are in use")
            }
            Denied::Closed { address, reason } => {
                write!(f, "{address} is {reason}, which is closed to clients on other machines")
            }
            Denied::Revoked(why) => f.write_str(why),
            Denied::Through { upstream, command } => {
                write!(f, "{command} does not go through an upstream ({upstream})")
            }
            Denied::OwnPort { upstream, port } => {
                write!(
                    f,
                    "by {upstream} on this machine, port {port} is perhaps this server itself"
                )
            }
            Denied::UpstreamIsSelf { upstream } => {
                write!(f, "the upstream {upstream} is this server itself")
            }
        }
    }
}
