//! The values of options: each parser says what it expects.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::ops::RangeInclusive;
use std::time::Duration;

use ipnet::IpNet;

use crate::access::rules::networks;

pub(super) fn listen(given: &str) -> Result<SocketAddr, String> {
    if let Some(address) = with_named_zone(given) {
        return address;
    }
    at(Ipv6Addr::UNSPECIFIED, given).ok_or_else(|| {
        "expected PORT, ADDRESS:PORT or [IPV6]:PORT, as in 1080 or [::1]:1080".into()
    })
}

/// `[fe80::1%eth0]:1080`: std knows zones by number alone. `None` if it is nothing of that kind.
fn with_named_zone(given: &str) -> Option<Result<SocketAddr, String>> {
    let (address, port) = given.strip_prefix('[')?.rsplit_once("]:")?;
    let (ip, zone) = address.split_once('%')?;
    let (ip, port) = (ip.parse().ok()?, port.parse().ok()?);
    if zone.is_empty() || zone.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some(match nix::net::if_::if_nametoindex(zone) {
        Ok(index) => Ok(SocketAddrV6::new(ip, port, 0, index).into()),
        Err(_) => Err(format!("this machine has no interface {zone}")),
    })
}

/// What the page shows is nobody else's business, so it is on loopback unless an address is given.
pub(super) fn status(given: &str) -> Result<SocketAddr, String> {
    at(Ipv4Addr::LOCALHOST, given).ok_or_else(|| {
        "expected PORT, ADDRESS:PORT or [IPV6]:PORT, as in 9090 or 192.168.1.1:9090".into()
    })
}

/// A PORT alone is one of `ip`.
fn at(ip: impl Into<IpAddr>, given: &str) -> Option<SocketAddr> {
    let port_alone = || Some(SocketAddr::new(ip.into(), given.parse().ok()?));
    given.parse().ok().or_else(port_alone)
}

pub(super) fn network(given: &str) -> Result<IpNet, String> {
    networks::parse(given).ok_or_else(|| format!("expected {}", networks::EXPECTED))
}

pub(super) fn address(given: &str) -> Result<IpAddr, String> {
    match given.parse::<IpAddr>() {
        Ok(address) if !address.is_unspecified() && !address.is_multicast() => Ok(address),
        _ => Err("expected an address of this machine, as in 192.168.1.1".into()),
    }
}

pub(super) fn count(given: &str) -> Result<usize, String> {
    match given.parse() {
        Ok(count @ 1..) => Ok(count),
        _ => Err("expected a whole number above 0".into()),
    }
}

pub(super) fn ports(given: &str) -> Result<RangeInclusive<u16>, String> {
    let (first, last) = given.split_once('-').unwrap_or((given, given));
    let port = |digits: &str| {
        let is_plain = digits.bytes().all(|digit| digit.is_ascii_digit());
        is_plain.then(|| digits.parse().ok()).flatten().filter(|port| *port > 0)
    };
    match (port(first), port(last)) {
        (Some(first), Some(last)) if first <= last => Ok(first..=last),
        _ => Err("expected ports from 1 to 65535, as in 40000-40099".into()),
    }
}

pub(super) fn seconds(given: &str) -> Result<Duration, String> {
    match seconds_or_none(given) {
        Ok(duration) if !duration.is_zero() => Ok(duration),
        _ => Err("expected seconds, above 0 and at most a year, as in 10 or 0.5".into()),
    }
}

pub(super) fn seconds_or_none(given: &str) -> Result<Duration, String> {
    const A_YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);
    given
        .parse()
        .ok()
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .filter(|duration| *duration <= A_YEAR)
        .ok_or_else(|| "expected seconds, at most a year, as in 10 or 0.5".into())
}
