//! Who reaches this server at which addresses, in words for whoever starts it.

use ipnet::IpNet;

use super::clients::Clients;
use crate::system::interfaces::Public;
use crate::system::ip::is_link_local;

/// Which clients that come in at `public` are served, where `clients` are.
pub(super) fn served_on(public: &Public, clients: &Clients) -> String {
    let is_open = |net: &&IpNet| public.is_private || !is_link_local(net.addr());
    let (open, closed): (Vec<_>, Vec<_>) = clients.default.iter().partition(is_open);
    // Nobody comes in from elsewhere with a loopback address.
    let served = open.into_iter().chain(&clients.named).filter(|net| !net.addr().is_loopback());
    let served: Vec<_> = served.map(ToString::to_string).collect();
    let addresses: Vec<_> = public.addresses.iter().map(ToString::to_string).collect();
    format!(
        "{} has {} {}: clients that come in there are served from {}; all others are turned \
         away{} (--allow-from)",
        public.interface,
        if addresses.len() == 1 { "the public address" } else { "the public addresses" },
        addresses.join(", "),
        if served.is_empty() { "nowhere".into() } else { served.join(", ") },
        if closed.is_empty() { "" } else { ", link-local ones too" },
    )
}
