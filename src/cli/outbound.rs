//! The options about ways out: which server to go through, from where, by which interface, and on which
//! ports datagrams come in.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{Args, CommandFactory};

use super::Options;
use super::value::address;
use crate::access::upstream::{EXPECTED, Upstream};
use crate::commands::egress::Egress;
#[cfg(target_os = "linux")]
use crate::commands::egress::Interface;
use crate::socks5::parse_ports;

/// The heading in --help.
const WAYS_OUT: &str = "Outbound out";

#[derive(Args)]
pub(super) struct Outbound {
    /// The SOCKS5 server that CONNECT goes through where no rule says otherwise, names as they are:
    /// socks5://[USER:PASSWORD@]HOST:PORT; with a password in the environment or a rules file alone
    #[arg(long, value_name = "URL", help_heading = WAYS_OUT)]
    #[arg(env = "TABI_UPSTREAM", hide_env_values = true)]
    upstream: Option<String>,

    /// Local address of outgoing connections, repeatable: one a family; `same` is the address at which
    /// the client has reached this server
    #[arg(long, value_name = "ADDRESS|same", value_parser = local)]
    #[arg(env = "TABI_SOURCE", value_delimiter = ',', help_heading = WAYS_OUT)]
    source: Vec<Local>,

    /// Interface by which outgoing connections and datagrams leave, whatever the routes say
    #[cfg(target_os = "linux")]
    #[arg(long, value_name = "NAME", value_parser = interface)]
    #[arg(env = "TABI_INTERFACE", help_heading = WAYS_OUT)]
    interface: Option<Interface>,

    /// Mark of outgoing connections and datagrams, for rules of routing (`ip rule add fwmark N`)
    #[cfg(target_os = "linux")]
    #[arg(long, value_name = "N", value_parser = mark)]
    #[arg(env = "TABI_MARK", help_heading = WAYS_OUT)]
    mark: Option<u32>,

    /// Ports on which clients send UDP datagrams, as in 40000-40099, one of them for each association;
    /// for a firewall or a container that lets only some ports through
    #[arg(long, value_name = "FIRST-LAST", value_parser = ports)]
    #[arg(env = "TABI_UDP_PORTS", help_heading = WAYS_OUT)]
    pub(super) udp_ports: Option<RangeInclusive<u16>>,

    /// Address that clients are told to send UDP datagrams to, if this machine has another one for
    /// them than it knows of
    #[arg(long, value_name = "ADDRESS", value_parser = address)]
    #[arg(env = "TABI_UDP_ADVERTISE", help_heading = WAYS_OUT)]
    pub(super) udp_advertise: Option<IpAddr>,
}

impl Outbound {
    /// Where outgoing sockets leave this machine.
    pub(super) fn source(&self) -> Result<Egress, clap::Error> {
        let mut source = Egress::default();
        for &local in &self.source {
            let Local::Address(address) = local else {
                source.same = true;
                continue;
            };
            let family = if address.is_ipv4() { &mut source.ipv4 } else { &mut source.ipv6 };
            if let Some(earlier) = family.replace(address) {
                return Err(conflict(&format!(
                    "--source {earlier} and --source {address} are of one family; \
                     expected one address a family"
                )));
            }
        }
        if source.same && self.source.len() > 1 {
            return Err(conflict("--source same: expected no further --source beside it"));
        }
        #[cfg(target_os = "linux")]
        {
            source.interface = self.interface;
            source.mark = self.mark;
        }
        Ok(source)
    }

    /// The server to go through, which comes from `given`. What is wrong with its URL is told without
    /// showing it: there may be a password in it.
    pub(super) fn upstream(
        &self,
        given: Option<ValueSource>,
    ) -> Result<Option<Upstream>, clap::Error> {
        let Some(url) = &self.upstream else { return Ok(None) };
        let upstream = Upstream::parse(url).ok_or_else(|| {
            let is_variable = given == Some(ValueSource::EnvVariable);
            let name = if is_variable { "TABI_UPSTREAM" } else { "--upstream" };
            conflict(&format!("{name}: expected {EXPECTED}"))
        })?;
        if upstream.credentials().is_some() && given == Some(ValueSource::CommandLine) {
            return Err(conflict(
                "--upstream: every user of this machine can read a password on the command line; put \
             the URL into the environment as TABI_UPSTREAM, or into a file for --rules, as in\n  \
             via socks5://USER:PASSWORD@HOST:PORT",
            ));
        }
        Ok(Some(upstream))
    }
}

/// A local address as `--source` takes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Local {
    Same,
    Address(IpAddr),
}

fn local(given: &str) -> Result<Local, String> {
    if given == "same" {
        return Ok(Local::Same);
    }
    address(given).map(Local::Address).map_err(|expected| format!("{expected}, or the word same"))
}

fn conflict(told: &str) -> clap::Error {
    Options::command().error(ErrorKind::ValueValidation, told)
}

fn ports(given: &str) -> Result<RangeInclusive<u16>, String> {
    let ports = parse_ports(given).filter(|ports| *ports.start() > 0);
    ports.ok_or_else(|| "expected ports from 1 to 65535, as in 40000-40099".into())
}

#[cfg(target_os = "linux")]
fn interface(given: &str) -> Result<Interface, String> {
    Interface::new(given).ok_or_else(|| "expected the name of an interface, as in wg0".into())
}

#[cfg(target_os = "linux")]
fn mark(given: &str) -> Result<u32, String> {
    let mark = match given.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16),
        None => given.parse(),
    };
    match mark {
        Ok(mark @ 1..) => Ok(mark),
        _ => Err("expected a whole number of 32 bits above 0, as in 42 or 0x2a".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{parsed, refusal};
    use super::*;

    #[test]
    fn sources_are_one_a_family() {
        let source = parsed(&["--source", "192.0.2.1", "--source", "2001:db8::1"]).config.source;
        assert_eq!(source.ipv4, "192.0.2.1".parse().ok());
        assert_eq!(source.ipv6, "2001:db8::1".parse().ok());
        let told = refusal(&["--source", "192.0.2.1", "--source", "192.0.2.2"]);
        assert!(told.contains("--source 192.0.2.2"), "{told}");
        assert!(parsed(&["--source", "same"]).config.source.same);
        let told = refusal(&["--source", "same", "--source", "192.0.2.1"]);
        assert!(told.contains("--source same"), "{told}");
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn an_interface_and_a_mark() {
        let source = parsed(&["--interface", "wg0", "--mark", "0x2a"]).config.source;
        assert_eq!(source.interface, Interface::new("wg0"));
        assert_eq!(source.mark, Some(42));
        assert_eq!(parsed(&["--mark", "42"]).config.source.mark, Some(42));
    }

    #[test]
    fn bad_values_are_named() {
        const BITS: &str = "expected a whole number of 32 bits above 0";
        const PORTS: &str = "expected ports from 1 to 65535";
        for (option, bad, expected) in [
            ("--source", "0.0.0.0", "expected an address of this machine"),
            ("--source", "Same", "or the word same"),
            ("--interface", "a/b", "expected the name of an interface"),
            ("--mark", "0", BITS),
            ("--mark", "0x100000000", BITS),
            ("--udp-ports", "0-9", PORTS),
            ("--udp-ports", "9-8", PORTS),
            ("--udp-ports", "80-", PORTS),
            ("--udp-ports", "+80-90", PORTS),
        ] {
            let told = refusal(&[&format!("{option}={bad}")]);
            assert!(
                told.contains(option) && told.contains(bad) && told.contains(expected),
                "{told}"
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
