//! Who reaches this server at which addresses, in words for whoever starts it.

use ipnet::IpNet;

use crate::system::interfaces::Public;
use crate::system::ip::is_link_local;

/// Which clients that come in at `public` are served, where those of `clients` are.
pub(super) fn served_on(public: &Public, clients: &[IpNet], is_default: bool) -> String {
    let closed_to_link_local = is_default && !public.is_private;
    let served = clients.iter().filter(|net| {
        let ip = net.addr();
        // Nobody comes in from elsewhere with a loopback address.
        !(ip.is_loopback() || (closed_to_link_local && is_link_local(ip)))
    });
    let served: Vec<_> = served.map(ToString::to_string).collect();
    let addresses: Vec<_> = public.addresses.iter().map(ToString::to_string).collect();
    format!(
        "{} has {} {}: clients that come in there are served from {}; all others are turned \
         away{} (--allow-from)",
        public.interface,
        if addresses.len() == 1 { "the public address" } else { "the public addresses" },
        addresses.join(", "),
        if served.is_empty() { "nowhere".into() } else { served.join(", ") },
        if closed_to_link_local { ", link-local ones too" } else { "" },
    )
}
