//! The IPv6 prefixes of the links of this machine: who has an address in one of them is a neighbour.

use std::net::Ipv6Addr;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use nix::ifaddrs::getifaddrs;

use super::sync::Mutex;

/// How long the prefixes are believed. A link gets another one a few times a year, and to read them takes
/// about 100 µs.
const LASTS: Duration = Duration::from_secs(10);

/// A shorter prefix is no link's.
const SHORTEST: u32 = 32;

/// An address of this machine, and the bits of it that all of its link have.
type Prefix = (u128, u128);

static LATEST: LazyLock<Mutex<(Instant, Vec<Prefix>)>> =
    LazyLock::new(|| Mutex::new((Instant::now(), read())));

/// Whether `ip` is inside a prefix of one of this machine's addresses.
pub(super) fn is_on_link(ip: Ipv6Addr) -> bool {
    let is_old = LATEST.lock().0.elapsed() >= LASTS;
    let fresh = is_old.then(read);
    let mut latest = LATEST.lock();
    if let Some(fresh) = fresh {
        *latest = (Instant::now(), fresh);
    }
    latest.1.iter().any(|(address, mask)| address & mask == ip.to_bits() & mask)
}

/// Asks the system. Where it does not tell, nobody is a neighbour.
fn read() -> Vec<Prefix> {
    let addresses = getifaddrs().into_iter().flatten().filter_map(|found| {
        let (address, mask) = (found.address?, found.netmask?);
        let mask = mask.as_sockaddr_in6()?.ip().to_bits();
        Some((address.as_sockaddr_in6()?.ip().to_bits(), mask))
    });
    addresses.filter(|(_, mask)| mask.leading_ones() >= SHORTEST).collect()
}
