//! Everything that a server can be told.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use crate::access::rules::RuleFile;
use crate::access::upstream::Upstream;
use crate::access::users::Passwords;
use crate::commands::egress::Egress;

/// Doubts about a configuration that are told at once.
const MOST_DOUBTS: usize = 10;

/// Everything that a server can be told.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where to listen. The unspecified IPv6 address means every address, of IPv4 too.
    pub listen: Vec<SocketAddr>,
    /// Networks whose clients are served; none means [`crate::access::policy::DEFAULT_CLIENTS`].
    pub allow_from: Vec<IpNet>,
    /// Who may do what, and where. It comes before the default access.
    pub rules: Arc<RuleFile>,
    /// The file that they are from, which is read again at a reload.
    pub rules_file: Option<PathBuf>,
    /// The server that requests go through for which no rule says otherwise.
    pub upstream: Option<Arc<Upstream>>,
    /// Who has to authenticate, and how; `None` where nobody has to.
    pub users: Option<Arc<Passwords>>,
    /// The file that they are from, which is read again at a reload.
    pub users_file: Option<PathBuf>,
    /// Where outgoing sockets leave this machine.
    pub source: Egress,
    /// The address that clients are told to send datagrams to, if it is not that of their
    /// connection.
    pub udp_advertise: Option<IpAddr>,
    /// The ports on which clients send datagrams, if not any.
    pub udp_ports: Option<RangeInclusive<u16>>,
    /// Sessions at once.
    pub max_connections: usize,
    /// Sessions at once of one client: an IPv4 address, or an IPv6 /64.
    pub max_per_client: usize,
    /// From the connection to the last byte of the request.
    pub handshake_timeout: Duration,
    /// From the request to the connection with the target.
    pub connect_timeout: Duration,
    /// Without a byte in either direction.
    pub idle_timeout: Duration,
    /// How long the addresses of a name are remembered; zero for not at all.
    pub name_cache: Duration,
    /// For live sessions to finish once the server stops.
    pub grace: Duration,
    /// Load balancers whose PROXY header is believed and required.
    pub proxy_protocol: Vec<IpNet>,
    /// Where the status page is served, if it is.
    pub status: Option<SocketAddr>,
}

impl Config {
    /// What is allowed but hardly meant: rules about users that do not exist.
    pub fn doubts(&self) -> Vec<String> {
        doubts(&self.rules, self.users.as_deref())
    }
}

/// Rules about users that do not exist.
pub(super) fn doubts(rules: &RuleFile, users: Option<&Passwords>) -> Vec<String> {
    let is_known = |user| users.is_some_and(|users| users.has(user));
    let unknown = rules.users().filter(|(user, _)| !is_known(user));
    let told = unknown.map(|(user, place)| {
        format!("{place}: this rule matches nobody: there is no user {user} (--users)")
    });
    told.take(MOST_DOUBTS).collect()
}
