//! The values of options: each parser says what it expects.

use std::error::Error;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::ops::RangeInclusive;
use std::time::Duration;

use ipnet::IpNet;

use crate::access::policy::AllowFrom;
use crate::access::rules::networks;
#[cfg(target_os = "linux")]
use crate::commands::egress::Interface;
use crate::wire::address::parse_ports;
use crate::wire::protocol::Protocol;

pub(super) fn listen(given: &str) -> Result<SocketAddr, Box<dyn Error + Send + Sync>> {
    if let Some(address) = with_named_zone(given) {
        return address;
    }
    at(Ipv6Addr::UNSPECIFIED, given).ok_or_else(|| {
        "expected PORT, ADDRESS:PORT or [IPV6]:PORT, as in 1080 or [::1]:1080".into()
    })
}

/// `[fe80::1%eth0]:1080`: std knows zones by number alone. `None` if it is nothing of that kind.
fn with_named_zone(given: &str) -> Option<Result<SocketAddr, Box<dyn Error + Send + Sync>>> {
    let (address, port) = given.strip_prefix('[')?.rsplit_once("]:")?;
    let (ip, zone) = address.split_once('%')?;
    let (ip, port) = (ip.parse().ok()?, port.parse().ok()?);
    // The name of an interface has no space in it.
    let is_name = !zone.is_empty() && !zone.contains(char::is_whitespace);
    if !is_name || zone.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let index = nix::net::if_::if_nametoindex(zone);
    let address = index.map(|index| SocketAddrV6::new(ip, port, 0, index).into());
    Some(address.map_err(|_| {
        let message = format!("this machine has no interface {}", zone.escape_debug());
        // No interface will ever have a name with a carriage return.
        let may_come = zone.bytes().all(|byte| byte.is_ascii_graphic());
        if may_come { io::Error::other(message).into() } else { message.into() }
    }))
}

pub(super) fn protocol(given: &str) -> Result<Protocol, String> {
    given.parse().map_err(|_| "expected socks5, socks4 or http".into())
}

/// What the page shows is nobody else's business, so it is on loopback unless an address is given.
pub(super) fn status(given: &str) -> Result<SocketAddr, String> {
    at(Ipv4Addr::LOCALHOST, given).ok_or_else(|| {
        "expected PORT, ADDRESS:PORT or [IPV6]:PORT, as in 9090 or 192.168.1.1:9090".into()
    })
}

/// A name as it is in a URL: a port behind it says nothing.
pub(super) fn host(given: &str) -> Result<String, String> {
    let (name, port) = given.split_once(':').unwrap_or((given, "0"));
    let name = name.strip_suffix('.').unwrap_or(name);
    let is_of_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    if name.is_empty() || !name.bytes().all(is_of_name) || port.parse::<u16>().is_err() {
        return Err("expected the name of a host, as in nas.lan".into());
    }
    Ok(name.into())
}

/// A PORT alone is one of `ip`.
fn at(ip: impl Into<IpAddr>, given: &str) -> Option<SocketAddr> {
    let port_alone = || Some(SocketAddr::new(ip.into(), given.parse().ok()?));
    given.parse().ok().or_else(port_alone)
}

pub(super) fn network(given: &str) -> Result<IpNet, String> {
    networks::parse(given).ok_or_else(|| format!("expected {}", networks::EXPECTED))
}

pub(super) fn clients(given: &str) -> Result<AllowFrom, String> {
    match networks::parse(given) {
        _ if given == "default" => Ok(AllowFrom::Default),
        Some(net) => Ok(AllowFrom::Network(net)),
        None => Err(format!("expected {}, or the word default", networks::EXPECTED)),
    }
}

pub(super) fn address(given: &str) -> Result<IpAddr, String> {
    match given.parse::<IpAddr>() {
        Ok(address) if !address.is_unspecified() && !address.is_multicast() => {
            Ok(address.to_canonical())
        }
        _ => Err("expected an address of this machine, as in 192.168.1.1".into()),
    }
}

/// A local address as `--source` takes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    Same,
    Address(IpAddr),
}

pub(super) fn source(given: &str) -> Result<Source, String> {
    if given == "same" {
        return Ok(Source::Same);
    }
    match address(given) {
        Ok(address) => Ok(Source::Address(address)),
        Err(expected) => Err(format!("{expected}, or the word same")),
    }
}

#[cfg(target_os = "linux")]
pub(super) fn interface(given: &str) -> Result<Interface, String> {
    Interface::new(given).ok_or_else(|| "expected the name of an interface, as in wg0".into())
}

#[cfg(target_os = "linux")]
pub(super) fn mark(given: &str) -> Result<u32, String> {
    let mark = match given.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16),
        None => given.parse(),
    };
    match mark {
        Ok(mark @ 1..) => Ok(mark),
        _ => Err("expected a whole number of 32 bits above 0, as in 42 or 0x2a".into()),
    }
}

pub(super) fn count(given: &str) -> Result<usize, String> {
    match given.parse() {
        Ok(count @ 1..) => Ok(count),
        _ => Err("expected a whole number above 0".into()),
    }
}

pub(super) fn lines(given: &str) -> Result<u32, String> {
    match given.parse() {
        Ok(lines @ 1..=1_000_000) => Ok(lines),
        _ => Err("expected a whole number from 1 to 1000000".into()),
    }
}

pub(super) fn ports(given: &str) -> Result<RangeInclusive<u16>, String> {
    let ports = parse_ports(given).filter(|ports| *ports.start() > 0);
    ports.ok_or_else(|| "expected ports from 1 to 65535, as in 40000-40099".into())
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::tests::{parsed, refusal};

    #[test]
    fn sources_are_one_a_family() {
        let egress = parsed(&["--source", "192.0.2.1", "--source", "2001:db8::1"]).config.egress;
        assert_eq!(egress.ipv4, "192.0.2.1".parse().ok());
        assert_eq!(egress.ipv6, "2001:db8::1".parse().ok());
        let message = refusal(&["--source", "192.0.2.1", "--source", "192.0.2.2"]);
        assert!(message.contains("--source 192.0.2.2"), "{message}");
        assert!(parsed(&["--source", "same"]).config.egress.same);
        let message = refusal(&["--source", "same", "--source", "192.0.2.1"]);
        assert!(message.contains("--source same"), "{message}");
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn an_interface_and_a_mark() {
        let egress = parsed(&["--interface", "wg0", "--mark", "0x2a"]).config.egress;
        assert_eq!(egress.interface, Interface::new("wg0"));
        assert_eq!(egress.mark, Some(42));
        assert_eq!(parsed(&["--mark", "42"]).config.egress.mark, Some(42));
    }

    #[test]
    fn hosts_are_names_with_or_without_a_port() {
        let given = ["--status-host", "tabi:9090", "--status-host", "nas.lan."];
        assert_eq!(parsed(&given).config.status_host, ["tabi", "nas.lan"]);
    }

    #[test]
    fn bad_values_are_named() {
        const BITS: &str = "expected a whole number of 32 bits above 0";
        const PORTS: &str = "expected ports from 1 to 65535";
        for (option, bad, expected) in [
            ("--source", "0.0.0.0", "expected an address of this machine"),
            ("--source", "Same", "or the word same"),
            ("--status-host", "http://nas.lan", "expected the name of a host"),
            ("--status-host", "*.lan", "expected the name of a host"),
            ("--status-host", ":9090", "expected the name of a host"),
            ("--interface", "a/b", "expected the name of an interface"),
            ("--mark", "0", BITS),
            ("--mark", "0x100000000", BITS),
            ("--udp-ports", "0-9", PORTS),
            ("--udp-ports", "9-8", PORTS),
            ("--udp-ports", "80-", PORTS),
            ("--udp-ports", "+80-90", PORTS),
        ] {
            let message = refusal(&[&format!("{option}={bad}")]);
            assert!(
                message.contains(option) && message.contains(bad) && message.contains(expected),
                "{message}"
            );
        }
    }

    #[test]
    fn ports_and_an_upstream() {
        assert_eq!(parsed(&["--udp-ports", "40000-40099"]).config.udp_ports, Some(40000..=40099));
        assert_eq!(parsed(&["--udp-ports", "40000"]).config.udp_ports, Some(40000..=40000));
        let upstream = parsed(&["--upstream", "socks5://192.0.2.1:1080"]).config.upstream.unwrap();
        assert_eq!(upstream.to_string(), "192.0.2.1:1080");
    }
}
