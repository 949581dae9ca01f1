//! The values of options: each parser says what it expects.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::time::Duration;

use ipnet::IpNet;

use crate::access::rules::networks;

pub(super) fn listen(given: &str) -> Result<SocketAddr, String> {
    if let Some(address) = with_named_zone(given) {
        return address;
    }
    let every = || given.parse().ok().map(|port| (Ipv6Addr::UNSPECIFIED, port).into());
    given.parse().ok().or_else(every).ok_or_else(|| {
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
    let on_loopback = || given.parse().ok().map(|port| (Ipv4Addr::LOCALHOST, port).into());
    given.parse().ok().or_else(on_loopback).ok_or_else(|| {
        "expected PORT, ADDRESS:PORT or [IPV6]:PORT, as in 9090 or 192.168.1.1:9090".into()
    })
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

/// How often a flag is given: a number, or true or false in the environment.
pub(super) fn times(given: &str) -> Result<u8, String> {
    match given {
        "true" => Ok(1),
        "false" => Ok(0),
        _ => given.parse().map_err(|_| "expected true, false or a whole number up to 255".into()),
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
