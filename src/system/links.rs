//! The addresses that this machine has on its links, as they are now, and who has one of the same link.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, LazyLock};

use log::warn;
use nix::ifaddrs::getifaddrs;

use super::routing::Changes;
use super::sync::Mutex;

/// A shorter prefix is no link's.
const SHORTEST: u32 = 32;

/// Those of this machine, for [`is_on_link`].
static THIS_MACHINE: LazyLock<Links> = LazyLock::new(Links::default);

/// The addresses of the interfaces of this machine. To read them takes about 100 µs, more with more of
/// them, so they are read again only once something has changed.
#[derive(Debug)]
pub(super) struct Links {
    read: fn() -> Option<Vec<InterfaceAddress>>,
    changes: Changes,
    /// What was known after so many changes; no addresses where the system did not tell.
    latest: Mutex<(usize, Option<Addresses>)>,
}

type Addresses = Arc<[InterfaceAddress]>;

/// An address of an interface.
#[derive(Clone, Debug)]
pub struct InterfaceAddress {
    /// The interface's name.
    pub interface: String,
    /// The address.
    pub ip: IpAddr,
    /// The bits of an IPv6 address that all of its link have; of others none.
    pub mask: u128,
    /// The number of the interface, where the address is link-local IPv6; else 0.
    pub scope: u32,
}

impl Default for Links {
    fn default() -> Self {
        Links::told_by(read)
    }
}

impl Links {
    /// The addresses that `read` finds; `None` means that it cannot tell.
    pub(super) fn told_by(read: fn() -> Option<Vec<InterfaceAddress>>) -> Self {
        let changes = Changes::default();
        let latest = Mutex::new((changes.count(), read().map(Into::into)));
        Links { read, changes, latest }
    }

    /// What is known now. Whoever finds that something has changed reads it again, and waits for nobody.
    pub(super) fn addresses(&self) -> Option<Addresses> {
        let changes = self.changes.count();
        let (known, addresses) = self.latest.lock().clone();
        if known == changes {
            return addresses;
        }
        let fresh: Option<Addresses> = (self.read)().map(Into::into);
        *self.latest.lock() = (changes, fresh.clone());
        fresh
    }

    /// Another number than before once the addresses may have changed.
    pub(super) fn generation(&self) -> usize {
        self.changes.count()
    }

    /// Whether `ip` is inside a prefix of one of the addresses. Where the system does not tell, it is not.
    fn have(&self, ip: Ipv6Addr) -> bool {
        let is_around = |known: &InterfaceAddress| match known.ip {
            IpAddr::V6(known_ip) if known.mask.leading_ones() >= SHORTEST => {
                known_ip.to_bits() & known.mask == ip.to_bits() & known.mask
            }
            IpAddr::V6(_) | IpAddr::V4(_) => false,
        };
        self.addresses().unwrap_or_default().iter().any(is_around)
    }
}

/// Whether `ip` is a neighbour's: inside a prefix of one of this machine's addresses.
pub(super) fn is_on_link(ip: Ipv6Addr) -> bool {
    THIS_MACHINE.have(ip)
}

/// Asks the system.
fn read() -> Option<Vec<InterfaceAddress>> {
    let found = getifaddrs()
        .inspect_err(|error| warn!("cannot read the addresses of this machine: {error}"))
        .ok()?;
    let addresses = found.filter_map(|found| {
        let address = found.address?;
        let mask = found.netmask.as_ref().and_then(|mask| mask.as_sockaddr_in6());
        let (ip, scope) = match (address.as_sockaddr_in(), address.as_sockaddr_in6()) {
            (Some(address), _) => (address.ip().into(), 0),
            (None, Some(address)) => (address.ip().into(), address.scope_id()),
            (None, None) => return None,
        };
        let mask = mask.map_or(0, |mask| mask.ip().to_bits());
        Some(InterfaceAddress { interface: found.interface_name, ip, mask, scope })
    });
    Some(addresses.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    fn address(ip: &str, prefix: u32) -> InterfaceAddress {
        let mask = u128::MAX.checked_shl(128 - prefix).unwrap_or(0);
        InterfaceAddress { interface: "lan".into(), ip: ip.parse().unwrap(), mask, scope: 0 }
    }

    #[test]
    fn who_has_an_address_inside_the_prefix_of_a_link_is_on_it() {
        let links = Links::told_by(|| {
            let of_ipv4 = InterfaceAddress { mask: u128::MAX, ..address("192.0.2.1", 0) };
            let ipv6 = [("2001:db8:0:1::1", 64), ("2001:db8:2::1", 56), ("2001:db8:9::1", 128)];
            Some(
                ipv6.map(|(ip, prefix)| address(ip, prefix)).into_iter().chain([of_ipv4]).collect(),
            )
        });
        for ip in ["2001:db8:0:1::9", "2001:db8:2:ff::9", "2001:db8:9::1"] {
            assert!(links.have(ip.parse().unwrap()), "{ip}");
        }
        for ip in ["2001:db8:0:2::9", "2001:db8:2:100::9", "2001:db8:9::2", "::192.0.2.1"] {
            assert!(!links.have(ip.parse().unwrap()), "{ip}");
        }
        let wide =
            Links::told_by(|| Some(vec![address("2001:db8::1", 0), address("2001:db8::1", 31)]));
        assert!(!wide.have("2001:db8::9".parse().unwrap()), "that is no link's");
        assert!(!Links::told_by(|| None).have("2001:db8::9".parse().unwrap()));
    }

    #[test]
    fn addresses_are_read_when_something_has_changed_and_not_for_each_request() {
        thread_local!(static READS: Cell<usize> = const { Cell::new(0) });
        let links = Links::told_by(|| {
            READS.set(READS.get() + 1);
            Some(Vec::new())
        });
        let before = links.generation();
        for _ in 0..10_000 {
            links.addresses();
        }
        // Tests beside this one may add addresses to namespaces of their own, and not here.
        assert!(READS.get() <= 1 + links.generation() - before, "{}", READS.get());
        links.latest.lock().0 = usize::MAX;
        let reads = READS.get();
        links.addresses();
        assert_eq!(READS.get(), reads + 1);
    }
}
