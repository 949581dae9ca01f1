//! Requests that go through another server.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use super::index::Verdict;
use super::{Denied, Permit, RuleFile, Rules};
use crate::access::upstream::Upstream;
use crate::socks5::{Command, Host, Name, Request};

/// A request that goes through another server.
#[derive(Debug)]
pub struct UpstreamRoute {
    upstream: Arc<Upstream>,
    request: Request,
}

impl UpstreamRoute {
    /// Through which server.
    pub fn upstream(&self) -> &Arc<Upstream> {
        &self.upstream
    }

    /// What it is asked for: a name as the client has spelled it, or an address that was checked.
    pub fn request(&self) -> &Request {
        &self.request
    }
}

impl Rules {
    /// The same, where what no rule decides goes through `upstream`, if there is one.
    pub fn with_upstream(self, upstream: Option<Arc<Upstream>>) -> Self {
        Rules { upstream, ..self }
    }

    /// Says which upstream, of `file` or that for the rest, is this very server, which listens at
    /// `listeners`, if one is: requests would go round in a circle. A name is looked at without a
    /// lookup.
    pub fn upstream_is_self(&self, file: &RuleFile, listeners: &[SocketAddr]) -> Option<String> {
        let option = self.upstream.iter().map(|upstream| (&**upstream, "--upstream".into()));
        let mut upstreams = option.chain(file.upstreams());
        let is_ours = |ip| self.interfaces.is_ours(ip) == Some(true);
        let is_here = |upstream: &Upstream| {
            listeners.iter().any(|listener| upstream.is_at(*listener, is_ours))
        };
        let (upstream, place) = upstreams.find(|(upstream, _)| is_here(upstream))?;
        Some(format!("{place}: the upstream {upstream} is this server itself"))
    }

    /// Through which server goes what `verdict` of `file`, or none, allows; `None` for a connection of
    /// our own.
    pub(super) fn route<'a>(
        &'a self,
        file: &'a RuleFile,
        verdict: Option<Verdict>,
    ) -> Option<&'a Arc<Upstream>> {
        match verdict {
            Some(verdict) => file.index.upstream(verdict),
            None => self.upstream.as_ref(),
        }
    }

    /// Judges a name that goes up. Its addresses are not known here, but those of this machine are.
    pub(super) fn judge_name(&self, client: IpAddr, name: &Name, port: u16) -> Result<(), Denied> {
        let ip = if name.is_localhost() {
            Some(Ipv4Addr::LOCALHOST.into())
        } else {
            nearly_spelled(name)
        };
        ip.map_or(Ok(()), |ip| self.judge_by_default(client, SocketAddr::new(ip, port)))
    }
}

/// The address that a name spells but for a zone or dots at its end, which another server may take for
/// that address.
fn nearly_spelled(name: &Name) -> Option<IpAddr> {
    let text = name.as_str().trim_start_matches('[').trim_end_matches(['.', ']']);
    let text = text.split('%').next()?;
    match Host::from(Name::new(text.into()).ok()?) {
        Host::Ip(ip) => Some(ip),
        Host::Name(_) => None,
    }
}

/// A permit to go through `upstream`, for what goes there.
pub(super) fn through(upstream: &Arc<Upstream>, request: Request) -> Result<Permit, Denied> {
    let command = request.command;
    match command {
        Command::Connect | Command::Resolve | Command::ResolvePtr => {
            let route = Some(UpstreamRoute { upstream: Arc::clone(upstream), request });
            Ok(Permit { command, addresses: Vec::new(), route })
        }
        Command::Bind | Command::UdpAssociate => {
            Err(Denied::Through { upstream: Arc::clone(upstream.shown()), command })
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::super::PermitError;
    use super::super::tests::{LAN, LOCAL, anyone, following};
    use super::*;
    use crate::socks5::Address;

    /// What becomes of a request for `destination` where there are rules and perhaps an upstream for
    /// the rest. Names must not be looked up.
    fn way_of(
        rules: &str,
        rest: Option<&str>,
        client: &str,
        command: Command,
        destination: (&str, u16),
    ) -> String {
        let rest = rest.map(|url| Arc::new(Upstream::parse(url).unwrap()));
        let host = Host::from(Name::new(destination.0.into()).unwrap());
        let request = Request { command, destination: Address { host, port: destination.1 } };
        let lookup = |name: &Name, _| Err::<Vec<SocketAddr>, _>(name.as_str().to_owned());
        let rules = following(rules).with_upstream(rest);
        match rules.permit(&anyone(), client.parse().unwrap(), &request, lookup) {
            Ok(permit) => match permit.route() {
                Some(route) => {
                    assert!(permit.addresses().is_empty());
                    format!("{} via {}", route.request().destination, route.upstream())
                }
                None => "direct".into(),
            },
            Err(PermitError::Lookup(name)) => format!("{name} is looked up"),
            Err(PermitError::Denied(_)) => "denied".into(),
        }
    }

    const REST: Option<&str> = Some("socks5://192.0.2.9:1080");

    #[test]
    fn what_goes_up_is_not_looked_up() {
        let rules = "deny to *.tracker.example\n\
            deny to 10.0.0.0/8\n\
            via socks5://192.0.2.8:9050 to *.onion\n\
            via socks5://192.0.2.7:1080 from 192.168.1.20\n\
            allow to *.home.example\n\
            allow to 192.168.0.0/16\n\
            via socks5://192.0.2.6:1080 to 198.51.100.0/24\n";
        for (rest, client, name, way) in [
            (None, LAN, "a.onion", "a.onion:80 via 192.0.2.8:9050"),
            (None, LAN, "A.Onion.", "A.Onion.:80 via 192.0.2.8:9050"),
            (None, LAN, "example.org", "example.org is looked up"),
            (REST, LAN, "example.org", "example.org:80 via 192.0.2.9:1080"),
            (REST, "192.168.1.20:5", "example.org", "example.org:80 via 192.0.2.7:1080"),
            (REST, "192.168.1.20:5", "a.onion", "a.onion:80 via 192.0.2.8:9050"),
            (REST, LAN, "a.tracker.example", "denied"),
            (REST, LAN, "nas.home.example", "nas.home.example is looked up"),
            (REST, LAN, "10.1.2.3", "denied"),
            (REST, LAN, "192.168.3.4", "direct"),
            (REST, LAN, "198.51.100.1", "198.51.100.1:80 via 192.0.2.6:1080"),
            (None, LAN, "198.51.100.1", "198.51.100.1:80 via 192.0.2.6:1080"),
            (REST, LAN, "203.0.113.1", "203.0.113.1:80 via 192.0.2.9:1080"),
            (None, LAN, "203.0.113.1", "direct"),
        ] {
            let judged = way_of(rules, rest, client, Command::Connect, (name, 80));
            assert_eq!(judged, way, "{rest:?} {client} {name}");
        }
    }

    #[test]
    fn what_is_closed_stays_closed_to_what_goes_up() {
        let closed = [
            "127.0.0.1",
            "127.1",
            "0x7f.1",
            "2130706433",
            "::1",
            "[::1]",
            "::ffff:127.0.0.1",
            "0.0.0.0",
            "169.254.169.254",
            "localhost",
            "LOCALHOST.",
            "::1%1",
            "[::1%lo]",
            "127.0.0.1.",
            "fe80::1%eth0",
            "a.localhost",
        ];
        for name in closed {
            assert_eq!(way_of("", REST, LAN, Command::Connect, (name, 80)), "denied", "{name}");
            let rules = "via socks5://192.0.2.9:1080 to 0.0.0.0/0\nvia socks5://192.0.2.9:1080";
            assert_eq!(way_of(rules, None, LAN, Command::Connect, (name, 80)), "denied", "{name}");
            let own = way_of("", REST, LOCAL, Command::Connect, (name, 80));
            assert!(own.ends_with(" via 192.0.2.9:1080"), "{name} {own}");
        }
    }

    #[test]
    fn only_connect_goes_through_an_upstream() {
        for command in [Command::Bind, Command::UdpAssociate] {
            for (rest, name) in [(REST, "example.org"), (REST, "192.0.2.1"), (None, "a.onion")] {
                let rules = "via socks5://192.0.2.8:9050 to *.onion";
                assert_eq!(way_of(rules, rest, LAN, command, (name, 80)), "denied", "{name}");
            }
            let open = |rules: &str, rest: Option<&str>| {
                let rest = rest.map(|url| Arc::new(Upstream::parse(url).unwrap()));
                let rules = following(rules).with_upstream(rest);
                rules.permit_open(&anyone(), LAN.parse().unwrap(), command).is_ok()
            };
            assert!(open("via socks5://192.0.2.8:9050 to *.onion", None));
            assert!(open("allow to 192.0.2.0/24", REST));
            assert!(!open("", REST));
            assert!(!open("via socks5://192.0.2.8:9050", None));
            assert!(!open("via socks5://192.0.2.8:9050 to *.onion\ndeny", None));
        }
    }

    #[test]
    fn a_name_with_addresses_of_both_kinds_is_reached_directly_if_it_can_be() {
        let rules = following("via socks5://192.0.2.8:9050 to 198.51.100.0/24\nallow");
        let name = Name::new(b"both.example".to_vec()).unwrap();
        let destination = Address { host: Host::Name(name), port: 80 };
        let request = Request { command: Command::Connect, destination };
        let permit = |found: &[&str]| {
            let found = found.iter().map(|address| address.parse().unwrap()).collect();
            let lookup = |_: &Name, _| Ok::<_, Infallible>(found);
            rules.permit(&anyone(), LAN.parse().unwrap(), &request, lookup).unwrap()
        };
        let both = permit(&["198.51.100.1:80", "203.0.113.1:80"]);
        assert!(both.route().is_none());
        assert_eq!(both.addresses(), ["203.0.113.1:80".parse().unwrap()]);
        let one = permit(&["198.51.100.1:80", "198.51.100.2:80"]);
        let destination = &one.route().unwrap().request().destination;
        assert_eq!(destination.to_string(), "198.51.100.1:80", "what was checked");
    }
}
