//! What a rule looks as if it opened, in words for whoever wrote it.

use std::net::IpAddr;

use ipnet::IpNet;

use super::closed::{CLOSED, opens, opens_port};
use crate::access::rules::Entry;
use crate::access::upstream::Upstream;
use crate::system::ip::is_private;

/// What is closed by default and stays so although a rule of the file `name` looks as if it opened it, on
/// a machine that has the addresses `own` and a server on it with `own_ports`.
pub(super) fn seems_to_open(
    entry: &Entry,
    name: &str,
    own: &[IpAddr],
    own_ports: &[u16],
) -> Option<String> {
    let is_meant = |closed: &IpNet| entry.network.is_some_and(|net| net.contains(closed));
    let networks = CLOSED.iter().map(|(net, _)| net);
    let networks = networks.filter(|closed| is_meant(closed) && !opens(entry, closed));
    let mut seeming: Vec<_> = networks.map(ToString::to_string).collect();
    if entry.is_of_this_machine {
        seeming.push("loopback".into());
    }
    if entry.is_of_this_machine || entry.network.is_some_and(|net| may_hold(&net, own)) {
        let ports = own_ports.iter().filter(|port| entry.rule.has_port(**port));
        let ports = ports.filter(|port| !opens_port(entry, **port));
        seeming.extend(ports.map(|port| format!("this server's own port {port}")));
    }
    (entry.rule.allows() && !seeming.is_empty()).then(|| {
        format!(
            "{name}:{}: this rule does not open {}: what is closed is opened by a rule for one address or \
             for a network within it, and an own port by one address with that port",
            entry.line,
            seeming.join(", "),
        )
    })
}

/// What a client reaches through `upstream`, which is on this machine, gets names and is written at `place`.
pub(super) fn is_here(upstream: &Upstream, place: &str, own_ports: &[u16]) -> String {
    let ports: Vec<_> = own_ports.iter().map(ToString::to_string).collect();
    format!(
        "{place}: the upstream {upstream} is on this machine and gets names as they are: whoever may use it \
         reaches by a name what listens for this machine alone, if it leads there, but not this server \
         (port {})",
        ports.join(", ")
    )
}

/// Whether a network may have an address of this machine in it. A private one may, as another may come.
fn may_hold(net: &IpNet, own: &[IpAddr]) -> bool {
    let is_wide = net.prefix_len() < net.max_prefix_len();
    (is_wide && is_private(net.network())) || own.iter().any(|ip| net.contains(ip))
}
