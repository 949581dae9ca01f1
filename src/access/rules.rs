//! What a client may do: the rules file, and the default access where no rule matches.

use std::iter::once;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;

mod clients;
mod closed;
mod current;
mod file;
mod index;
pub mod networks;
mod permit;
mod rule;
mod upstream_route;

use clients::Clients;
pub use clients::DEFAULT_CLIENTS;
use closed::closed;
use current::Current;
pub use file::RuleFile;
use index::Verdict;
pub use permit::{Denied, Permit, PermitError};
use rule::RuleQuery;
pub use upstream_route::UpstreamRoute;

use crate::access::upstream::Upstream;
use crate::access::users::Identity;
use crate::socks5::{Command, Host, Name, Request};
use crate::system::interfaces::Interfaces;
use crate::system::ip;

/// Who is served, and what each may do.
#[derive(Debug)]
pub struct Rules {
    clients: Clients,
    own_ports: Vec<u16>,
    interfaces: Arc<Interfaces>,
    current: Current,
    /// For what no rule decides.
    upstream: Option<Arc<Upstream>>,
}

impl Rules {
    /// Serves `clients`, or [`DEFAULT_CLIENTS`] if there are none. `own_ports` are the ports that the
    /// server itself listens on.
    pub fn new(clients: &[IpNet], own_ports: Vec<u16>) -> Self {
        Rules {
            clients: Clients::new(clients),
            own_ports,
            interfaces: Arc::default(),
            current: Current::default(),
            upstream: None,
        }
    }

    /// The same, with the rules of a file before the default access.
    pub fn with_file(self, file: Arc<RuleFile>) -> Self {
        Rules { current: Current::new(file), ..self }
    }

    /// The networks whose clients are served.
    pub fn clients(&self) -> &[IpNet] {
        self.clients.networks()
    }

    /// Why the client at `client` is not served at all, if it is not. The scope of a link-local address
    /// matters.
    pub fn turned_away(&self, client: SocketAddr) -> Option<&'static str> {
        self.clients.turned_away(client, &self.interfaces)
    }

    /// What should be known about a server that listens on `listen`: for each interface on which it can
    /// be reached at a public address, which clients are served there and which are not.
    pub fn exposure(&self, listen: &[SocketAddr]) -> Vec<String> {
        self.clients.exposure(listen, &self.interfaces)
    }

    /// Where clients on the home or office network reach a server that listens on `listen`: this machine's
    /// private addresses, and what it listens on by name.
    pub fn reached_at(&self, listen: &[SocketAddr]) -> Vec<SocketAddr> {
        let private = self.interfaces.private();
        let every = |listen: &SocketAddr| {
            let (ip, port) = (listen.ip(), listen.port());
            let heard = private.iter().filter(move |private| ip.is_ipv6() || private.is_ipv4());
            heard.map(|private| SocketAddr::new(*private, port)).collect()
        };
        let of_one = |listen: &SocketAddr| match listen.ip() {
            ip if ip.is_unspecified() => every(listen),
            ip if ip.is_loopback() => Vec::new(),
            _ => vec![*listen],
        };
        listen.iter().flat_map(of_one).collect()
    }

    /// Judges a request. A name is looked up with `lookup`, unless the rules deny it whatever its
    /// addresses are or it goes through an upstream; the permit has those of its addresses that are
    /// permitted. An IPv4 address inside an IPv6 one has to be permitted, too.
    ///
    /// # Errors
    ///
    /// [`PermitError::Denied`] when no address is permitted, [`PermitError::Lookup`] when `lookup` fails.
    pub fn permit<E>(
        &self,
        identity: &Identity,
        client: SocketAddr,
        request: &Request,
        lookup: impl FnOnce(&Name, u16) -> Result<Vec<SocketAddr>, E>,
    ) -> Result<Permit, PermitError<E>> {
        let Request { command, destination } = request;
        let port = destination.port;
        let asked = asked(identity, client, *command, port);
        let file = self.current.get();
        let index = &file.index;
        let (named, mut addresses) = match &destination.host {
            Host::Ip(ip) => (index.match_name(&asked, None), vec![SocketAddr::new(*ip, port)]),
            Host::Name(name) => {
                let named = index.match_name(&asked, Some(name.as_str()));
                if let Some(upstream) = self.route(&file, named.map(|number| index.verdict(number)))
                {
                    self.judge_name(client.ip(), name, port).map_err(PermitError::Denied)?;
                    return upstream_route::through(upstream, request.clone())
                        .map_err(PermitError::Denied);
                }
                if let Some(verdict) = index.denial_of_every_address(&asked, named) {
                    return Err(PermitError::Denied(denied_by(&file, verdict, None)));
                }
                (named, lookup(name, port).map_err(PermitError::Lookup)?)
            }
        };
        let (mut denied, mut way) = (None, None);
        addresses.retain(|&address| {
            let inside = ip::embedded_ipv4(address.ip()).map(|ip| (ip, address.port()).into());
            let mut up = None;
            for address in once(address).chain(inside) {
                let is_ours = || self.interfaces.is_ours(address.ip());
                let verdict = index.match_address(&asked, named, address.ip(), is_ours);
                if let Err(reason) = self.judge(&file, verdict, client.ip(), address) {
                    denied.get_or_insert(reason);
                    return false;
                }
                up = up.or(self.route(&file, verdict));
            }
            if let Some(upstream) = up {
                way.get_or_insert((address, upstream));
            }
            up.is_none()
        });
        match (denied, way) {
            (_, Some((address, upstream))) if addresses.is_empty() => {
                let request = Request { command: *command, destination: address.into() };
                upstream_route::through(upstream, request).map_err(PermitError::Denied)
            }
            (Some(denied), _) if addresses.is_empty() => Err(PermitError::Denied(denied)),
            _ => Ok(Permit { command: *command, addresses, route: None }),
        }
    }

    /// Judges a request whose destination is not known yet. It is denied only when the rules leave
    /// this client no destination at all; [`Rules::permit`] judges each destination once it is known.
    /// The permit has no address.
    ///
    /// # Errors
    ///
    /// [`Denied`] by a rule with neither `to` nor `port`, before which no rule allows anything, or
    /// because everything goes through an upstream.
    pub fn permit_open(
        &self,
        identity: &Identity,
        client: SocketAddr,
        command: Command,
    ) -> Result<Permit, Denied> {
        let file = self.current.get();
        let verdict = file.index.opening(&asked(identity, client, command, 0));
        match (verdict, self.route(&file, verdict)) {
            (Some(verdict), _) if !verdict.allow => Err(denied_by(&file, verdict, None)),
            (_, Some(upstream)) => {
                Err(Denied::Through { upstream: Arc::clone(upstream.shown()), command })
            }
            (_, None) => Ok(Permit { command, addresses: Vec::new(), route: None }),
        }
    }

    /// What a rule allows may still be closed by default. Only a rule that allows an address or a
    /// network opens that: whoever has the DNS of an allowed name may point it at this machine, and a
    /// rule without `to` says who may do what, not where.
    fn judge(
        &self,
        file: &RuleFile,
        verdict: Option<Verdict>,
        client: IpAddr,
        address: SocketAddr,
    ) -> Result<(), Denied> {
        match verdict {
            Some(verdict) if !verdict.allow => Err(denied_by(file, verdict, Some(address))),
            Some(Verdict { opens: true, .. }) => Ok(()),
            Some(_) | None => self.judge_by_default(client, address),
        }
    }

    /// What no rule opens is judged by what it is.
    fn judge_by_default(&self, client: IpAddr, address: SocketAddr) -> Result<(), Denied> {
        match closed(client, address, &self.own_ports, &self.interfaces) {
            Some(reason) => Err(Denied::Closed { address, reason }),
            None => Ok(()),
        }
    }
}

fn denied_by(file: &RuleFile, verdict: Verdict, address: Option<SocketAddr>) -> Denied {
    Denied::ByRule { file: Arc::clone(&file.name), line: verdict.line, address }
}

fn asked(identity: &Identity, client: SocketAddr, command: Command, port: u16) -> RuleQuery<'_> {
    let command = match command {
        // Who asks for an address means to connect to it.
        Command::Resolve | Command::ResolvePtr => Command::Connect,
        Command::Connect | Command::Bind | Command::UdpAssociate => command,
    };
    RuleQuery { command, user: identity.user(), client: client.ip().to_canonical(), port }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::users::{Passwords, Users};
    use crate::socks5::Address;
    use crate::system::interfaces::InterfaceAddress;
    use std::convert::Infallible;
    use std::io::Cursor;
    use std::net::Ipv4Addr;

    pub(super) const LAN: &str = "192.168.1.7:50000";
    pub(super) const LOCAL: &str = "127.0.0.1:50000";

    pub(super) fn anyone() -> Identity {
        let mut client = Cursor::new(b"\x05\x01\x00\0\0".to_vec());
        Users::default().authenticate(&mut client, Ipv4Addr::LOCALHOST.into()).unwrap()
    }

    /// The rules on a machine at 192.168.1.1 and `2001:db8::1`.
    fn on_a_router(rules: Rules) -> Rules {
        let read = || {
            let own = ["192.168.1.1", "2001:db8::1"].map(|ip| InterfaceAddress {
                interface: "eth0".into(),
                ip: ip.parse().unwrap(),
                scope: 0,
            });
            Some(own.to_vec())
        };
        Rules { interfaces: Arc::new(Interfaces::read_by(read)), ..rules }
    }

    #[test]
    fn only_the_permitted_addresses_of_a_name_are_in_the_permit() {
        let all = |list: &[&str]| -> Vec<SocketAddr> {
            list.iter().map(|address| address.parse().unwrap()).collect()
        };
        let name = Name::new(b"rebinding.example".to_vec()).unwrap();
        let destination = Address { host: Host::Name(name), port: 80 };
        let request = Request { command: Command::Connect, destination };
        let judge = |found: &[&str]| {
            let rules = Rules::new(&[], vec![1080]);
            let found = all(found);
            rules.permit(&anyone(), LAN.parse().unwrap(), &request, |_, _| Ok::<_, ()>(found))
        };
        let permit = judge(&["127.0.0.1:80", "192.0.2.1:80", "[::1]:80"]).unwrap();
        assert_eq!(permit.addresses(), all(&["192.0.2.1:80"]));
        let refusal = judge(&["127.0.0.1:80", "[::1]:80"]).unwrap_err();
        assert!(
            matches!(refusal, PermitError::Denied(Denied::Closed { address, .. }) if address == all(&["127.0.0.1:80"])[0])
        );
    }

    fn identity(user: &str) -> Identity {
        let passwords = Passwords::parse(format!("{user}:x").as_bytes(), "users").unwrap();
        let users = Users::new(Some(Arc::new(passwords)));
        let length = [u8::try_from(user.len()).unwrap()];
        let said = [b"\x05\x01\x02\0\0\x01", &length[..], user.as_bytes(), b"\x01x\0\0"].concat();
        // What is written goes where the zeros are.
        users.authenticate(&mut Cursor::new(said), Ipv4Addr::LOCALHOST.into()).unwrap()
    }

    pub(super) fn following(file: &str) -> Rules {
        let file = RuleFile::parse(file.as_bytes(), "rules").unwrap();
        on_a_router(Rules::new(&[], vec![1080]).with_file(Arc::new(file)))
    }

    /// Asks for `destination` with a client on the network; a name has the addresses of `found`,
    /// or must not be looked up where they are `None`.
    pub(super) fn ask(
        file: &str,
        user: Option<&str>,
        destination: (&str, u16),
        found: Option<&[&str]>,
    ) -> Result<Vec<String>, String> {
        let host = Host::from(Name::new(destination.0.into()).unwrap());
        let destination = Address { host, port: destination.1 };
        let request = Request { command: Command::Connect, destination };
        let identity = user.map_or_else(anyone, identity);
        let lookup = |name: &Name, port| {
            let found = found.unwrap_or_else(|| panic!("{} is looked up", name.as_str()));
            let all = found.iter().map(|ip| SocketAddr::new(ip.parse().unwrap(), port));
            Ok::<_, Infallible>(all.collect())
        };
        match following(file).permit(&identity, LAN.parse().unwrap(), &request, lookup) {
            Ok(permit) => Ok(permit.addresses().iter().map(|it| it.ip().to_string()).collect()),
            Err(PermitError::Denied(denied)) => Err(denied.to_string()),
            Err(PermitError::Lookup(never)) => match never {},
        }
    }

    #[test]
    fn the_first_rule_that_matches_decides() {
        let file = "# the household\n\
            deny to *.tracker.example\n\
            allow user alice to 10.0.0.0/8 port 22\n\
            deny to 10.0.0.0/8\n\
            deny port 25\n";
        let told = |line: u32| Err(format!("rules:{line}: this rule denies it"));
        assert_eq!(ask(file, None, ("ads.tracker.example", 80), None), told(2));
        assert_eq!(ask(file, None, ("ADS.Tracker.example.", 80), None), told(2));
        let address = Ok(vec!["192.0.2.1".to_owned()]);
        assert_eq!(ask(file, None, ("tracker.example", 80), Some(&["192.0.2.1"])), address);
        assert_eq!(ask(file, None, ("192.0.2.1", 80), None), address);
        assert_eq!(ask(file, Some("alice"), ("10.0.0.1", 22), None), Ok(vec!["10.0.0.1".into()]));
        for (user, port) in [(Some("alice"), 23), (Some("bob"), 22), (None, 22)] {
            let denied = Err(format!("rules:4: this rule denies 10.0.0.1:{port}"));
            assert_eq!(ask(file, user, ("10.0.0.1", port), None), denied);
            assert_eq!(ask(file, user, ("::ffff:10.0.0.1", port), None), denied);
        }
    }

    #[test]
    fn a_name_is_looked_up_only_when_its_address_may_make_a_difference() {
        let whitelist = "allow to 192.0.2.0/24 port 443\nallow to example.org\ndeny\n";
        assert!(ask(whitelist, None, ("example.com", 80), None).is_err());
        let both: &[&str] = &["192.0.2.1", "198.51.100.1"];
        let found = ask(whitelist, None, ("example.com", 443), Some(both));
        assert_eq!(found, Ok(vec!["192.0.2.1".into()]));
        let found = ask(whitelist, None, ("example.org", 80), Some(both));
        assert_eq!(found.unwrap(), both);
        let found = ask(whitelist, None, ("example.com", 443), Some(&both[1..]));
        assert_eq!(found, Err("rules:3: this rule denies 198.51.100.1:443".into()));
        // What an earlier rule denies would not change that all is denied.
        let blacklist = "deny to 192.0.2.0/24\ndeny to *.example\n";
        assert!(ask(blacklist, None, ("a.example", 80), None).is_err());
        let found = ask(blacklist, None, ("example.org", 80), Some(both));
        assert_eq!(found, Ok(vec!["198.51.100.1".into()]));
    }

    #[test]
    fn an_address_has_no_name() {
        let file = "deny to *.0.0.example\ndeny to localhost\n";
        assert!(ask(file, None, ("192.0.2.1", 80), None).is_ok());
        assert!(ask(file, None, ("[2001:db8::1]", 80), None).is_ok());
    }

    #[test]
    fn only_a_rule_with_an_address_or_a_network_opens_this_machine() {
        let opened = |file, name| ask(file, None, (name, 80), Some(&["127.0.0.1"])).is_ok();
        assert!(opened("allow to 127.0.0.0/8", "127.0.0.1"));
        assert!(opened("allow to 127.0.0.0/8", "this.example"));
        assert!(!opened("allow to 127.0.0.0/8 port 81", "this.example"));
        assert!(!opened("allow\n", "127.0.0.1"));
        assert!(!opened("allow port 80\nallow to 127.0.0.0/8", "127.0.0.1"));
        assert!(!opened("allow to 127.0.0.1 port 81", "127.0.0.1"));
        let told = ask("allow port 80", None, ("169.254.169.254", 80), None).unwrap_err();
        assert!(told.contains("a link-local address"), "{told}");
    }

    #[test]
    fn who_has_the_dns_of_an_allowed_name_does_not_get_at_this_machine() {
        let found: &[&str] = &["127.0.0.1", "192.0.2.1", "169.254.169.254", "::1"];
        for file in ["allow to *.allowed.example\ndeny", "allow to a.allowed.example"] {
            let permitted = ask(file, None, ("a.allowed.example", 80), Some(found));
            assert_eq!(permitted, Ok(vec!["192.0.2.1".into()]), "{file}");
        }
        let closed = ask("allow to a.example", None, ("a.example", 80), Some(&["127.0.0.1"]));
        assert!(closed.unwrap_err().contains("127.0.0.1:80 is a loopback address"));
    }

    #[test]
    fn rules_are_for_clients_on_this_machine_too() {
        let rules = following("deny to 127.0.0.0/8");
        let destination = Address { host: Host::Ip(Ipv4Addr::LOCALHOST.into()), port: 80 };
        let request = Request { command: Command::Bind, destination };
        let judged =
            rules.permit(&anyone(), LOCAL.parse().unwrap(), &request, |_, _| Err::<_, ()>(()));
        assert!(matches!(judged, Err(PermitError::Denied(Denied::ByRule { line: 1, .. }))));
    }

    #[test]
    fn a_request_without_destination_is_denied_when_nothing_could_come_of_it() {
        let judge = |file, user: Option<&str>, command| {
            let identity = user.map_or_else(anyone, identity);
            following(file).permit_open(&identity, LAN.parse().unwrap(), command).map_err(
                |denied| {
                    let Denied::ByRule { line, .. } = denied else { panic!("{denied}") };
                    line
                },
            )
        };
        let (udp, bind) = (Command::UdpAssociate, Command::Bind);
        assert!(judge("", None, udp).unwrap().addresses().is_empty());
        assert_eq!(judge("", None, bind).unwrap().command(), bind);
        assert_eq!(judge("deny command bind", None, bind).unwrap_err(), 1);
        assert!(judge("deny command bind", None, udp).is_ok());
        // These wait for the destination.
        assert!(judge("deny command udp to 10.0.0.0/8\ndeny port 53", None, udp).is_ok());
        let only_dns = "allow command udp port 53\n\ndeny command udp";
        assert!(judge(only_dns, None, udp).is_ok());
        let only_alice = "allow user alice\ndeny\nallow user bob";
        assert!(judge(only_alice, Some("alice"), udp).is_ok());
        assert_eq!(judge(only_alice, Some("bob"), udp).unwrap_err(), 2);
        assert_eq!(judge(only_alice, None, udp).unwrap_err(), 2);
        assert_eq!(judge("deny from 192.168.0.0/16", None, udp).unwrap_err(), 1);
    }

    #[test]
    fn an_ipv4_address_in_the_clothes_of_ipv6_is_judged_as_well() {
        let dressed = |ip: &str| {
            let [a, b, c, d] = ip.parse::<Ipv4Addr>().unwrap().octets();
            let (high, low) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
            [
                format!("64:ff9b::{ip}"),
                format!("2002:{high:x}:{low:x}::1"),
                format!("::{ip}"),
                format!("2001:db8::5efe:{ip}"),
                format!("2001:db8::200:5efe:{ip}"),
            ]
        };
        for ip in ["127.0.0.1", "169.254.169.254", "224.0.0.1", "255.255.255.255"] {
            for ip in dressed(ip) {
                let closed = ask("", None, (&ip, 80), None);
                assert!(closed.is_err_and(|it| it.contains("closed to clients")), "{ip}");
            }
        }
        for ip in dressed("10.1.2.3") {
            let found: &[&str] = &[&ip];
            assert!(ask("", None, (&ip, 80), None).is_ok(), "{ip}");
            let denied = Err("rules:1: this rule denies 10.1.2.3:80".into());
            assert_eq!(ask("deny to 10.0.0.0/8", None, (&ip, 80), None), denied, "{ip}");
            let by_name = ask("deny to 10.0.0.0/8", None, ("a.example", 80), Some(found));
            assert_eq!(by_name, denied, "{ip}");
            // Both have to be permitted, so that a list of what is allowed has no hole either.
            assert!(ask("allow to 10.0.0.0/8\ndeny", None, (&ip, 80), None).is_err(), "{ip}");
            assert!(ask("allow to ::/0\ndeny", None, (&ip, 80), None).is_err(), "{ip}");
            let both = "allow to ::/0\nallow to 10.0.0.0/8\ndeny";
            assert!(ask(both, None, (&ip, 80), None).is_ok(), "{ip}");
        }
    }
}
