//! The options about which server to go through, and where outgoing sockets leave this machine.

use std::ffi::OsStr;
use std::net::IpAddr;
use std::sync::Arc;

use clap::builder::TypedValueParser;
use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{Arg, Args, Command};

use super::value;
use crate::access::upstream::{EXPECTED, Upstream};
use crate::commands::egress::Egress;
#[cfg(target_os = "linux")]
use crate::commands::egress::Interface;

/// The heading in --help.
pub(super) const OUTBOUND: &str = "Outbound";

/// Parses the URL of an upstream. What is wrong with one is said without showing it: there may be a
/// password in it.
#[derive(Clone)]
pub(super) struct UpstreamUrl;

impl TypedValueParser for UpstreamUrl {
    type Value = Arc<Upstream>;

    fn parse_ref(
        &self,
        command: &Command,
        option: Option<&Arg>,
        url: &OsStr,
    ) -> Result<Self::Value, clap::Error> {
        self.parse_ref_(command, option, url, ValueSource::CommandLine)
    }

    fn parse_ref_(
        &self,
        command: &Command,
        _: Option<&Arg>,
        url: &OsStr,
        source: ValueSource,
    ) -> Result<Self::Value, clap::Error> {
        let is_typed = source == ValueSource::CommandLine;
        let error = |message| command.clone().error(ErrorKind::ValueValidation, message);
        let upstream = url.to_str().and_then(Upstream::parse).ok_or_else(|| {
            let name = if is_typed { "--upstream" } else { "TABI_UPSTREAM" };
            error(format!("{name}: expected {EXPECTED}"))
        })?;
        if is_typed && upstream.credentials().is_some() {
            return Err(error(
                "--upstream: every user of this machine can read a password on the command line; put \
                 the URL into the environment as TABI_UPSTREAM, or into a file for --rules, as in\n  \
                 via socks5://USER:PASSWORD@HOST:PORT"
                    .into(),
            ));
        }
        Ok(Arc::new(upstream))
    }
}

/// The options that an [`Egress`] is made of.
#[derive(Args, Clone, Debug)]
pub(crate) struct EgressOptions {
    /// Local address of outgoing connections, repeatable: one a family; `same` is the address at which
    /// the client has reached this server
    #[arg(long, value_name = "ADDRESS|same", value_parser = source)]
    #[arg(env = "TABI_SOURCE", value_delimiter = ',', help_heading = OUTBOUND)]
    source: Vec<Source>,

    /// Interface by which outgoing connections and datagrams leave, whatever the routes say
    #[cfg(target_os = "linux")]
    #[arg(long, value_name = "NAME", value_parser = interface)]
    #[arg(env = "TABI_INTERFACE", help_heading = OUTBOUND)]
    interface: Option<Interface>,

    /// Mark of outgoing connections and datagrams, for rules of routing (`ip rule add fwmark N`)
    #[cfg(target_os = "linux")]
    #[arg(long, value_name = "N", value_parser = mark)]
    #[arg(env = "TABI_MARK", help_heading = OUTBOUND)]
    mark: Option<u32>,
}

impl EgressOptions {
    /// Where outgoing sockets leave this machine.
    ///
    /// # Errors
    ///
    /// When there are several sources where one can be.
    pub(crate) fn egress(&self) -> Result<Egress, String> {
        let mut egress = Egress::default();
        #[cfg(target_os = "linux")]
        {
            egress.interface = self.interface;
            egress.mark = self.mark;
        }
        for &source in &self.source {
            let Source::Address(address) = source else {
                egress.same = true;
                continue;
            };
            let family = if address.is_ipv4() { &mut egress.ipv4 } else { &mut egress.ipv6 };
            if let Some(earlier) = family.replace(address) {
                return Err(format!(
                    "--source {earlier} and --source {address} are of one family; \
                     expected one address a family"
                ));
            }
        }
        if egress.same && self.source.len() > 1 {
            return Err("--source same: expected no further --source beside it".into());
        }
        Ok(egress)
    }
}

/// A local address as `--source` takes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    Same,
    Address(IpAddr),
}

fn source(given: &str) -> Result<Source, String> {
    if given == "same" {
        return Ok(Source::Same);
    }
    let address = value::address(given).map(Source::Address);
    address.map_err(|expected| format!("{expected}, or the word same"))
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
