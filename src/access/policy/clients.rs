//! Which clients are served: one definition, for the proxy and for the status page.

use std::fmt;
use std::net::SocketAddr;

use ipnet::IpNet;

use crate::system::interfaces::Interfaces;
use crate::system::ip::is_link_local;

/// The clients that are served when no option says otherwise: this machine and its neighbours. The
/// link-local ones among these are served only on interfaces that have a private or unique-local
/// address, too: on a router, the neighbour on the provider's link is link-local as well.
const DEFAULT_CLIENTS: [&str; 8] = [
    "127.0.0.0/8",
    "::1/128",
    "10.0.0.0/8",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "169.254.0.0/16",
    "fe80::/10",
    "fc00::/7",
];

/// What an option says about the clients that are served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AllowFrom {
    /// Those that are served when no option says otherwise.
    Default,
    /// Those of this network.
    Network(IpNet),
}

impl fmt::Display for AllowFrom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AllowFrom::Default => f.write_str("default"),
            AllowFrom::Network(net) => net.fmt(f),
        }
    }
}

/// The networks whose clients are served.
#[derive(Debug)]
pub struct Clients {
    /// [`DEFAULT_CLIENTS`], or none.
    pub(super) default: Vec<IpNet>,
    /// Those that an option names.
    pub(super) named: Vec<IpNet>,
}

impl Clients {
    /// Those that `options` name, or the default where there are none.
    pub fn new(options: &[AllowFrom]) -> Self {
        let is_default = options.is_empty() || options.contains(&AllowFrom::Default);
        let default = DEFAULT_CLIENTS.iter().filter(|_| is_default);
        let named = options.iter().filter_map(|option| match option {
            AllowFrom::Default => None,
            AllowFrom::Network(net) => Some(net.trunc()),
        });
        Clients {
            default: default.map(|net| net.parse().expect("it is a network")).collect(),
            named: named.collect(),
        }
    }

    /// Whether all clients of `network` are in one that is served.
    pub fn include(&self, network: &IpNet) -> bool {
        self.named.iter().chain(&self.default).any(|net| net.contains(network))
    }

    /// Why the client at `client` is not served, if it is not.
    pub(super) fn rejection(
        &self,
        client: SocketAddr,
        interfaces: &Interfaces,
    ) -> Option<&'static str> {
        let ip = client.ip();
        let is_in = |networks: &[IpNet]| networks.iter().any(|net| net.contains(&ip));
        if is_in(&self.named) {
            None
        } else if !is_in(&self.default) {
            Some("it is in no network that is served")
        } else if is_link_local(ip) && !interfaces.is_on_private_link(client) {
            Some("it is link-local, and its interface has no private address")
        } else {
            None
        }
    }
}
