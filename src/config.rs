//! The configuration of a server: each of its options, with its help and its default.

use std::ffi::OsString;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use ipnet::IpNet;

use crate::access::in_force::AccessFiles;
use crate::access::policy::{AllowFrom, Clients, Policy};
use crate::access::rules::networks;
use crate::access::upstream::Upstream;
use crate::commands::egress::Egress;
#[cfg(target_os = "linux")]
use crate::commands::egress::Interface;

use crate::wire::protocol::Protocol;

mod value;

use value::Source;

/// Rules about unknown users that are warned of, and other rules.
const MOST_DOUBTS: usize = 10;

/// How long an association may be idle by default (RFC 4787 REQ-5).
const UDP_IDLE_TIMEOUT: Duration = Duration::from_secs(5 * 60);

// Headings of --help.
const ACCESS: &str = "Access";
const OUTBOUND: &str = "Outbound";
const LIMITS: &str = "Limits";
pub(crate) const MONITORING: &str = "Monitoring";

/// The configuration of a server. The comments on options are their help.
#[derive(Args, Clone, Debug)]
#[allow(
    rustdoc::broken_intra_doc_links,
    rustdoc::bare_urls,
    reason = "the brackets are those of --help"
)]
pub struct Config {
    /// Where to listen: PORT, ADDRESS:PORT or [IPV6]:PORT; a PORT alone means every address
    #[arg(value_name = "LISTEN", default_value = "1080", value_parser = value::listen)]
    #[arg(env = "TABI_LISTEN", value_delimiter = ',')]
    pub listen: Vec<SocketAddr>,

    /// Clients that are served; repeatable, replaces the default: loopback and private networks, which
    /// the word `default` stands for
    #[arg(long, value_name = "CIDR|default", value_parser = value::clients, help_heading = ACCESS)]
    #[arg(env = "TABI_ALLOW_FROM", value_delimiter = ',')]
    pub allow_from: Vec<AllowFrom>,

    /// Who may do what, and where: a file with a rule a line, the first that matches decides
    #[arg(id = "rules", long, value_name = "FILE", env = "TABI_RULES", help_heading = ACCESS)]
    pub rules_file: Option<PathBuf>,

    /// Require username and password: a file with `name:password` or `name:hash` a line, that only its owner can read
    #[arg(id = "users", long, value_name = "FILE", env = "TABI_USERS", help_heading = ACCESS)]
    pub users_file: Option<PathBuf>,

    /// Clients that need no username and password; repeatable. Those who send one all the same have to send
    /// a right one
    #[arg(long, value_name = "CIDR", value_parser = value::network, help_heading = ACCESS)]
    #[arg(env = "TABI_NO_PASSWORD_FROM", value_delimiter = ',', requires = "users")]
    pub no_password_from: Vec<IpNet>,

    /// What is served: socks5, socks4, http
    #[arg(long, value_name = "NAME", value_parser = value::protocol, help_heading = ACCESS)]
    #[arg(env = "TABI_PROTOCOLS", value_delimiter = ',', default_value = "socks5,socks4,http")]
    pub protocols: Vec<Protocol>,

    /// What those two files say.
    #[arg(skip)]
    pub(crate) files: Arc<AccessFiles>,

    /// Load balancers whose PROXY header (v1 or v2) is believed, and required; repeatable
    #[arg(long, value_name = "CIDR", value_parser = value::network, help_heading = ACCESS)]
    #[arg(env = "TABI_PROXY_PROTOCOL", value_delimiter = ',')]
    pub proxy_protocol: Vec<IpNet>,

    /// The SOCKS5 server that CONNECT goes through where no rule says otherwise: socks5h://HOST:PORT gets
    /// names as they are, socks5://HOST:PORT the addresses that they have here and that the rules permit;
    /// USER:PASSWORD@ before HOST in the environment or a rules file alone
    #[arg(id = "upstream", long, value_name = "URL", help_heading = OUTBOUND)]
    #[arg(env = "TABI_UPSTREAM", hide_env_values = true)]
    pub(crate) upstream_url: Option<OsString>,

    /// What that URL says, which is not kept: there may be a password in it.
    #[arg(skip)]
    pub upstream: Option<Arc<Upstream>>,

    /// Local address of outgoing connections, repeatable: one a family; `same` is the address at which
    /// the client has reached this server
    #[arg(long, value_name = "ADDRESS|same", value_parser = value::source)]
    #[arg(env = "TABI_SOURCE", value_delimiter = ',', help_heading = OUTBOUND)]
    source: Vec<Source>,

    /// Interface by which outgoing connections and datagrams leave, whatever the routes say, except those
    /// for this machine itself
    #[cfg(target_os = "linux")]
    #[arg(long, value_name = "NAME", value_parser = value::interface)]
    #[arg(env = "TABI_INTERFACE", help_heading = OUTBOUND)]
    interface: Option<Interface>,

    /// Mark of outgoing connections and datagrams, for rules of routing (`ip rule add fwmark N`)
    #[cfg(target_os = "linux")]
    #[arg(long, value_name = "N", value_parser = value::mark)]
    #[arg(env = "TABI_MARK", help_heading = OUTBOUND)]
    mark: Option<u32>,

    /// Where outgoing sockets leave this machine: what those options come to.
    #[arg(skip)]
    pub egress: Egress,

    /// Ports on which clients send UDP datagrams, as in 40000-40099, one of them for each association;
    /// for a firewall or a container that lets only some ports through
    #[arg(long, value_name = "FIRST-LAST", value_parser = value::ports)]
    #[arg(env = "TABI_UDP_PORTS", help_heading = OUTBOUND)]
    pub udp_ports: Option<RangeInclusive<u16>>,

    /// Address that clients are told to send UDP datagrams to, where it is another one than they connect
    /// to; repeatable, one a family
    #[arg(long, value_name = "ADDRESS", value_parser = value::address)]
    #[arg(env = "TABI_UDP_ADVERTISE", value_delimiter = ',', help_heading = OUTBOUND)]
    udp_advertise: Vec<IpAddr>,

    /// What those come to: the address for clients with IPv4, and for those with IPv6.
    #[arg(skip)]
    pub advertised: [Option<IpAddr>; 2],

    /// Connections that are served at once; in a full server the client with most gives way, or new ones wait
    #[arg(long, value_name = "N", default_value = "4096", value_parser = value::count)]
    #[arg(env = "TABI_MAX_CONNECTIONS", help_heading = LIMITS)]
    pub max_connections: usize,

    /// Connections of one client at once (an IPv4 address, a neighbour's IPv6 address, another IPv6 /64);
    /// further ones are closed
    #[arg(long, value_name = "N", default_value = "1024", value_parser = value::count)]
    #[arg(env = "TABI_MAX_PER_CLIENT", help_heading = LIMITS)]
    pub max_per_client: usize,

    /// Seconds from a client's connection to its complete request
    #[arg(long, value_name = "S", default_value = "10", value_parser = value::seconds)]
    #[arg(env = "TABI_HANDSHAKE_TIMEOUT", help_heading = LIMITS)]
    pub handshake_timeout: Duration,

    /// Seconds from a request to the connection with its target, the name's lookup included
    #[arg(long, value_name = "S", default_value = "10", value_parser = value::seconds)]
    #[arg(env = "TABI_CONNECT_TIMEOUT", help_heading = LIMITS)]
    pub connect_timeout: Duration,

    /// Seconds without a byte in either direction after which a session ends; UDP associations end after
    /// 300 where this is not given
    #[arg(long, value_name = "S", default_value = "7440", value_parser = value::seconds)]
    #[arg(env = "TABI_IDLE_TIMEOUT", help_heading = LIMITS)]
    pub idle_timeout: Duration,

    /// Without a datagram either way, for associations: as long, if that option is given.
    #[arg(skip = UDP_IDLE_TIMEOUT)]
    pub udp_idle_timeout: Duration,

    /// Seconds that live sessions have to finish after SIGINT or SIGTERM
    #[arg(long, value_name = "S", default_value = "10", value_parser = value::seconds_or_none)]
    #[arg(env = "TABI_GRACE", help_heading = LIMITS)]
    pub grace: Duration,

    /// Seconds for which the addresses of a name are remembered, failures for 5 at the most; 0: every
    /// name is looked up every time
    #[arg(long, value_name = "S", default_value = "30", value_parser = value::seconds_or_none)]
    #[arg(env = "TABI_NAME_CACHE", help_heading = LIMITS)]
    pub name_cache: Duration,

    /// Lines a second in the log for one client; 100 times as many at once, 10 times as many for all
    /// clients together. The others are counted
    #[arg(long, value_name = "N", default_value = "10", value_parser = value::lines)]
    #[arg(env = "TABI_LOG_RATE_LIMIT", help_heading = MONITORING)]
    pub log_rate_limit: u32,

    /// Status page, metrics and health over HTTP; a PORT alone is on loopback
    #[arg(long, value_name = "PORT|ADDRESS:PORT", value_parser = value::status)]
    #[arg(env = "TABI_STATUS", help_heading = MONITORING)]
    pub status: Option<SocketAddr>,

    /// Further names by which browsers and programs may ask for the status page, as in nas.lan;
    /// repeatable
    #[arg(long, value_name = "NAME", value_parser = value::host, help_heading = MONITORING)]
    #[arg(env = "TABI_STATUS_HOST", value_delimiter = ',')]
    pub status_host: Vec<String>,
}

impl Config {
    /// What the options about outgoing sockets come to.
    pub(crate) fn egress_of_options(&self) -> Result<Egress, String> {
        let mut egress = Egress::default();
        #[cfg(target_os = "linux")]
        {
            egress.interface = self.interface;
            egress.mark = self.mark;
        }
        egress.same = self.source.contains(&Source::Same);
        let addresses = self.source.iter().filter_map(|source| match source {
            Source::Address(address) => Some(*address),
            Source::Same => None,
        });
        [egress.ipv4, egress.ipv6] = one_a_family("--source", addresses)?;
        if egress.same && self.source.len() > 1 {
            return Err("--source same: expected no further --source beside it".into());
        }
        Ok(egress)
    }

    /// The policy of a server that listens at `own`, for its status page, too.
    pub(crate) fn policy(&self, own: Vec<SocketAddr>) -> Policy {
        Policy::new(&self.allow_from, own)
            .with_files(Arc::clone(&self.files))
            .with_upstream(self.upstream.clone())
    }

    /// A network whose clients need no password and are not served.
    pub(crate) fn unserved_without_password(&self) -> Option<&IpNet> {
        let clients = Clients::new(&self.allow_from);
        self.no_password_from.iter().find(|net| !clients.include(net))
    }

    /// Says who needs no password, if anybody needs none.
    pub fn without_password(&self) -> Option<String> {
        let networks: Vec<_> = self.no_password_from.iter().map(ToString::to_string).collect();
        let networks = networks.join(", ");
        let line =
            format!("serving clients from {networks} without a password, too (--no-password-from)");
        (!networks.is_empty()).then_some(line)
    }

    /// What `--udp-advertise` comes to.
    pub(crate) fn advertised_of_options(&self) -> Result<[Option<IpAddr>; 2], String> {
        one_a_family("--udp-advertise", self.udp_advertise.iter().copied())
    }

    /// What is allowed but hardly meant, of a server that is not started.
    ///
    /// # Errors
    ///
    /// Which upstream would be this server itself.
    pub fn doubts(&self) -> Result<Vec<String>, String> {
        let own = self.listen.iter().chain(&self.status).copied().collect();
        let policy = self.policy(own);
        match policy.upstream_is_self(&self.files.rules) {
            Some(error) => Err(error),
            None => Ok(self.doubts_of(&policy)),
        }
    }

    /// The same, of one that is to judge by `policy`.
    pub(crate) fn doubts_of(&self, policy: &Policy) -> Vec<String> {
        let clients = self.allow_from.iter().filter_map(|it| match it {
            AllowFrom::Network(net) => Some(("--allow-from", net)),
            AllowFrom::Default => None,
        });
        let balancers = self.proxy_protocol.iter().map(|net| ("--proxy-protocol", net));
        let without = self.no_password_from.iter().map(|net| ("--no-password-from", net));
        let odd = clients.chain(balancers).chain(without).filter_map(|(option, net)| {
            networks::doubt(net).map(|doubt| format!("{option}: {doubt}"))
        });
        odd.chain(doubts(policy, &self.files)).collect()
    }
}

/// The addresses that an option gives for IPv4 and for IPv6.
fn one_a_family(
    option: &str,
    addresses: impl Iterator<Item = IpAddr>,
) -> Result<[Option<IpAddr>; 2], String> {
    let mut families = [None; 2];
    for address in addresses {
        if let Some(earlier) = families[usize::from(address.is_ipv6())].replace(address) {
            return Err(format!(
                "{option} {earlier} and {option} {address} are of one family; \
                 expected one address a family"
            ));
        }
    }
    Ok(families)
}

/// What rules say but hardly mean; rules about users that do not exist, too.
pub(crate) fn doubts(policy: &Policy, files: &AccessFiles) -> Vec<String> {
    let AccessFiles { users, rules } = files;
    let is_known = |user| users.as_ref().is_some_and(|users| users.has(user));
    let unknown = rules.users().filter(|(user, _)| !is_known(user));
    let lines = unknown.map(|(user, place)| {
        format!("{place}: this rule matches nobody: there is no user {user} (--users)")
    });
    let others = policy.doubts(rules).into_iter();
    lines.take(MOST_DOUBTS).chain(others.take(MOST_DOUBTS)).collect()
}
