//! The verdict: who is served, and what each may do. All that decides stands here, from top to bottom;
//! [`RuleFile`] is what a file says, and finds the rule that matches.

use std::iter::once;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;

mod clients;
mod closed;
mod doubts;
mod exposure;
mod permit;

pub use clients::{AllowFrom, Clients};
pub use permit::{Denied, Permit, UpstreamRoute};

use super::in_force::{AccessFiles, InForce};
use super::rules::{Entry, Place, RuleFile, RuleQuery};
use super::upstream::{self, Upstream};
use super::users::Identity;
use crate::system::hosts::{Hosts, is_host_name};
use crate::system::interfaces::{Interfaces, source_towards};
use crate::system::ip;
use crate::system::rate::Rate;
use crate::wire::address::{Address, Host, Name};
use crate::wire::request::{Command, Request};

/// Who is served, and what each may do.
#[derive(Debug)]
pub struct Policy {
    clients: Clients,
    /// Where this server itself listens, for its status page, too.
    own: Vec<SocketAddr>,
    interfaces: Interfaces,
    hosts: &'static Hosts,
    in_force: Arc<InForce>,
    /// For what no rule decides.
    upstream: Option<Arc<Upstream>>,
}

/// What it is made of.
impl Policy {
    /// Serves the clients that `allow_from` says; without any, this machine and its neighbours. `own` is where
    /// the server itself listens, for its status page, too.
    pub fn new(allow_from: &[AllowFrom], own: Vec<SocketAddr>) -> Self {
        Policy {
            clients: Clients::new(allow_from),
            own,
            interfaces: Interfaces::default(),
            hosts: Hosts::of_this_machine(),
            in_force: Arc::default(),
            upstream: None,
        }
    }

    /// The same, beginning with `files`, whose rules come before the default access.
    pub fn with_files(self, files: Arc<AccessFiles>) -> Self {
        Policy { in_force: Arc::new(InForce::new(files)), ..self }
    }

    /// The same, where what no rule decides goes through `upstream`, if there is one.
    pub fn with_upstream(self, upstream: Option<Arc<Upstream>>) -> Self {
        Policy { upstream, ..self }
    }

    /// The users and rules that it judges by. What is being judged while they are replaced is judged by
    /// the earlier ones.
    pub fn in_force(&self) -> &Arc<InForce> {
        &self.in_force
    }

    /// Another number than before once users, rules or the addresses of this machine have changed: a verdict
    /// that was kept is worth nothing then. Whoever keeps one asks for the number first.
    pub fn generation(&self) -> usize {
        self.in_force.generation() + self.interfaces.generation()
    }

    /// Says which upstream, of `file` or that for the rest, is this very server, if one is: requests would
    /// go round in a circle. A name is looked at without a lookup.
    pub fn upstream_is_self(&self, file: &RuleFile) -> Option<String> {
        let is_self = |upstream: &Upstream| {
            upstream.known_addresses().into_iter().any(|address| self.is_self(address))
        };
        let (upstream, place) = self.upstreams(file).find(|(upstream, _)| is_self(upstream))?;
        Some(format!("{place}: the upstream {upstream} is this server itself"))
    }

    /// The upstreams, and where each is written.
    fn upstreams<'a>(&'a self, file: &'a RuleFile) -> impl Iterator<Item = (&'a Upstream, String)> {
        let option = self.upstream.iter().map(|upstream| (&**upstream, "--upstream".into()));
        option.chain(file.upstreams())
    }

    /// Whether it is this very server that listens at `address`.
    fn is_self(&self, address: SocketAddr) -> bool {
        let ip = address.ip().to_canonical();
        let listens = |own: &SocketAddr| {
            let here = own.ip().to_canonical();
            own.port() == address.port()
                && (here == ip
                    || (ip::listens_at(here, ip) && self.interfaces.is_ours(ip) == Some(true)))
        };
        self.own.iter().any(listens)
    }

    /// What `file` says but hardly means.
    pub fn doubts(&self, file: &RuleFile) -> Vec<String> {
        let (own, ports) = (self.interfaces.all(), self.own_ports().collect::<Vec<_>>());
        let entries = file.index.entries().iter();
        let seeming = entries.filter_map(|it| doubts::seems_to_open(it, &file.name, &own, &ports));
        let upstreams = self.upstreams(file).filter(|(upstream, _)| {
            let mut addresses = upstream.known_addresses().into_iter();
            let has_our_name = upstream.address().host.name().is_some_and(is_host_name);
            let is_here =
                has_our_name || addresses.any(|address| self.is_this_machine(address.ip()));
            upstream.takes_names() && is_here
        });
        let here = upstreams.map(|(upstream, place)| doubts::is_here(upstream, &place, &ports));
        here.chain(seeming).chain(file.doubts()).collect()
    }

    fn own_ports(&self) -> impl Iterator<Item = u16> {
        self.own.iter().map(SocketAddr::port)
    }
}

/// Who is a client.
impl Policy {
    /// Why the client at `client` is not served at all, if it is not. The scope of a link-local address
    /// matters.
    pub fn rejection(&self, client: SocketAddr) -> Option<&'static str> {
        self.clients.rejection(client, &self.interfaces)
    }

    /// The networks whose clients are served.
    pub fn clients(&self) -> Vec<IpNet> {
        [&self.clients.default[..], &self.clients.named].concat()
    }

    /// What should be known about a server that listens on `listen`: for each interface on which it can
    /// be reached at a public address, which clients are served there and which are not.
    pub fn exposure(&self, listen: &[SocketAddr]) -> Vec<String> {
        let is_reached = |ip| listen.iter().any(|listen| ip::listens_at(listen.ip(), ip));
        let public = self.interfaces.public(is_reached);
        public.iter().map(|it| exposure::served_on(it, &self.clients)).collect()
    }

    /// The addresses of this machine that others may reach, those that are told first in front.
    pub fn own_addresses(&self) -> Vec<IpAddr> {
        self.interfaces.reachable()
    }

    /// Whether those are served who come in at this machine's address `ip`: its neighbours there, or a
    /// network that an option names and that is reached from there.
    pub fn serves_at(&self, ip: IpAddr) -> bool {
        let Clients { default, named } = &self.clients;
        let comes_in = |net: &IpNet| source_towards((net.addr(), 1).into()) == Some(ip);
        default.iter().chain(named).any(|net| net.contains(&ip)) || named.iter().any(comes_in)
    }
}

/// What a client may do.
impl Policy {
    /// Judges a request. A name is looked up with `lookup`, unless the rules deny it whatever its
    /// addresses are or it goes through an upstream as it is; the permit has those of its addresses that
    /// are permitted. Where a rule is about a name, the name is looked up as it stands: completed by a search
    /// list (`secret.corp` by `lan`) it would be another one, which the rules have not seen.
    ///
    /// # Errors
    ///
    /// [`Denied`] when no address is permitted, and the error of `lookup`.
    pub fn permit<E: From<Denied>>(
        &self,
        identity: &Identity,
        client: SocketAddr,
        request: &Request,
        lookup: impl FnOnce(&Name, u16) -> Result<Vec<SocketAddr>, E>,
    ) -> Result<Permit, E> {
        let Request { command, destination } = request;
        let query = query(identity.user(), client, *command, destination.port);
        let files = self.in_force.get();
        check_login(&files, identity)?;
        let file = &files.rules;
        let named = file.index.match_name(&query, destination.host.name());
        let addresses = match &destination.host {
            Host::Ip(ip) => vec![(*ip, destination.port).into()],
            Host::Name(name) => {
                let by_name = self.route_of_name(named);
                let spelled = by_name.map_or(Vec::new(), |_| upstream::spelled(name));
                match by_name {
                    Some(_) if !spelled.is_empty() => {
                        spelled.into_iter().map(|ip| (ip, destination.port).into()).collect()
                    }
                    Some(upstream) if !self.hosts.has(name.as_str()) => {
                        return Ok(Permit::through(upstream, request.clone())?);
                    }
                    _ => {
                        self.check_any_address(file, named, &query)?;
                        let absolute = file.index.has_names().then(|| name.absolute());
                        lookup(absolute.as_ref().unwrap_or(name), destination.port)?
                    }
                }
            }
        };
        Ok(self.permit_addresses(file, named, addresses, &query, request)?)
    }

    /// A permit for those of the destination's `addresses` that the rules permit; `named` is the first rule that
    /// matches without an address.
    fn permit_addresses(
        &self,
        file: &RuleFile,
        named: Option<&Entry>,
        addresses: Vec<SocketAddr>,
        query: &RuleQuery<'_>,
        request: &Request,
    ) -> Result<Permit, Denied> {
        let Request { command, destination } = request;
        let (mut direct, mut through, mut denied) = (Vec::new(), None, None);
        for address in addresses {
            match self.judge(file, named, address, query) {
                Ok(Some(upstream)) if upstream.carries(*command) => {
                    through.get_or_insert((upstream, address));
                }
                Ok(_) => direct.push(address),
                Err(reason) => {
                    denied.get_or_insert(reason);
                }
            }
        }
        match (through, denied) {
            (Some((upstream, address)), denied) if direct.is_empty() => {
                // A name that this machine knows goes up as it is, too, where all its addresses may.
                let as_it_is = denied.is_none()
                    && self.route_of_name(named).is_some_and(|it| Arc::ptr_eq(it, upstream));
                let destination =
                    if as_it_is { destination.clone() } else { Address::from(address) };
                Permit::through(upstream, Request { command: *command, destination })
            }
            (None, Some(denied)) if direct.is_empty() => Err(denied),
            _ => Ok(Permit { command: *command, addresses: direct, route: None }),
        }
    }

    /// Judges where the upstream of `route` has turned out to be, at `addresses`: it is not to be this
    /// server itself, and one on this machine leads no name to an own port, whatever the name's addresses
    /// are there.
    ///
    /// # Errors
    ///
    /// [`Denied::UpstreamIsSelf`] if none of the addresses is left, and [`Denied::OwnPort`].
    pub fn permit_upstream(
        &self,
        route: &UpstreamRoute,
        client: SocketAddr,
        mut addresses: Vec<SocketAddr>,
    ) -> Result<Vec<SocketAddr>, Denied> {
        let Address { host, port } = &route.request().destination;
        let upstream = route.upstream().shown();
        addresses.retain(|address| !self.is_self(*address));
        if addresses.is_empty() {
            return Err(Denied::UpstreamIsSelf { upstream: Arc::clone(upstream) });
        }
        let may_be_own = !client.ip().is_loopback() && self.own_ports().any(|own| own == *port);
        if host.name().is_some()
            && may_be_own
            && addresses.iter().any(|it| self.is_this_machine(it.ip()))
        {
            return Err(Denied::OwnPort { upstream: Arc::clone(upstream), port: *port });
        }
        Ok(addresses)
    }

    /// Judges a request whose destination is not known yet. It is denied only when the rules leave
    /// this client no destination at all; [`Policy::permit`] judges each destination once it is known.
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
        let files = self.in_force.get();
        check_login(&files, identity)?;
        let file = &files.rules;
        let rule = file.index.match_opening(&query(identity.user(), client, command, 0));
        match (rule, self.route(rule)) {
            (Some(entry), _) if entry.rule.denies() => Err(Denied::by_rule(file, entry, None)),
            (_, Some(upstream)) => Err(Denied::through(upstream, command)),
            (_, None) => Ok(Permit { command, addresses: Vec::new(), route: None }),
        }
    }

    /// The limits of a client that has asked for this and reaches one of `addresses`, by what each of them
    /// counts. A session that `is_new` takes a place in all of them, for as long as it holds what it gets here;
    /// one that has its places keeps them.
    ///
    /// # Errors
    ///
    /// [`Denied::Full`] where one of them has no place left.
    pub fn limits(
        &self,
        (user, client): (Option<&Arc<str>>, SocketAddr),
        (command, destination): &(Command, Address),
        addresses: &[SocketAddr],
        is_new: bool,
    ) -> Result<Vec<Arc<Rate>>, Denied> {
        let files = self.in_force.get();
        let file = &files.rules;
        if file.limits.is_empty() {
            return Ok(Vec::new());
        }
        let name = destination.host.name();
        let name = name.map(|name| name.trim_end_matches('.').to_ascii_lowercase());
        // What goes through an upstream is known by what was asked for alone.
        let asked = match &destination.host {
            Host::Ip(ip) if *command != Command::UdpAssociate => Some(*ip),
            _ => None,
        };
        let addresses = addresses.iter().map(SocketAddr::ip).chain(asked);
        let place = Place {
            name: name.as_deref(),
            addresses: &addresses.map(|ip| ip.to_canonical()).collect::<Vec<_>>(),
            is_ours: &|ip| self.interfaces.is_ours(ip) != Some(false),
        };
        let query = query(user, client, *command, destination.port);
        let matching = file.limits.iter().filter(|limit| limit.matches(&query, &place));
        let full = |line| Denied::Full { file: Arc::clone(&file.name), line };
        matching.map(|it| it.share(&query, is_new).ok_or_else(|| full(it.line))).collect()
    }

    /// Whether `ip`, or an IPv4 address inside it, is one of this machine's, as far as that can be known.
    pub fn is_this_machine(&self, ip: IpAddr) -> bool {
        let inside = ip::embedded_ipv4(ip).map(IpAddr::from);
        once(ip).chain(inside).any(|ip| self.interfaces.is_ours(ip) != Some(false))
    }

    /// Judges one address, and the IPv4 addresses inside it as well: through which upstream it goes, if
    /// it does not go directly. `named` is the first rule that matches without an address.
    fn judge<'a>(
        &'a self,
        file: &'a RuleFile,
        named: Option<&Entry>,
        address: SocketAddr,
        query: &RuleQuery<'_>,
    ) -> Result<Option<&'a Arc<Upstream>>, Denied> {
        let mut route = None;
        let inside = ip::embedded_ipv4(address.ip()).map(|ip| (ip, address.port()).into());
        for address in once(address).chain(inside) {
            let is_ours = || self.interfaces.is_ours(address.ip());
            let rule = file.index.match_address(query, named, address.ip(), is_ours);
            match rule {
                Some(entry) if entry.rule.denies() => {
                    return Err(Denied::by_rule(file, entry, Some(address)));
                }
                Some(_) | None => self.check_default(address, query, rule)?,
            }
            route = route.or(self.route(rule));
        }
        Ok(route)
    }

    /// Through which upstream goes what `rule`, or none, allows; `None` for a connection of our own.
    fn route<'a>(&'a self, rule: Option<&'a Entry>) -> Option<&'a Arc<Upstream>> {
        rule.map_or(self.upstream.as_ref(), |entry| entry.rule.upstream())
    }

    /// Through which upstream a name goes as it is, where `named` is the first rule that matches it.
    fn route_of_name<'a>(&'a self, named: Option<&'a Entry>) -> Option<&'a Arc<Upstream>> {
        self.route(named).filter(|upstream| upstream.takes_names())
    }

    /// What `rule`, or none, does not open is judged by what it is. A client on another machine may not
    /// reach what is closed nor, through the server, the server at its own ports.
    fn check_default(
        &self,
        address: SocketAddr,
        query: &RuleQuery<'_>,
        rule: Option<&Entry>,
    ) -> Result<(), Denied> {
        if query.client.is_loopback() {
            return Ok(());
        }
        let ip = address.ip().to_canonical();
        if let Some(reason) = closed::kind(ip, rule) {
            return Err(Denied::Closed { address, reason });
        }
        let is_own_port = self.own_ports().any(|port| port == address.port());
        if !is_own_port || rule.is_some_and(|rule| closed::opens_port(rule, address.port())) {
            return Ok(());
        }
        let reason = match self.interfaces.is_ours(ip) {
            Some(true) => "this server itself",
            Some(false) => return Ok(()),
            None => "perhaps this server itself",
        };
        Err(Denied::Closed { address, reason })
    }

    /// A name need not be looked up where the first rule that matches it denies it, or sends through an
    /// upstream what does not go there, and no earlier one would allow an address that it may have.
    fn check_any_address(
        &self,
        file: &RuleFile,
        named: Option<&Entry>,
        query: &RuleQuery<'_>,
    ) -> Result<(), Denied> {
        let denied = match named.filter(|entry| entry.rule.denies()) {
            Some(entry) => Denied::by_rule(file, entry, None),
            None => match self.route(named).filter(|_| query.command != Command::Connect) {
                Some(upstream) => Denied::through(upstream, query.command),
                None => return Ok(()),
            },
        };
        file.index.match_any_address(query, named).map_or(Err(denied), |_| Ok(()))
    }
}

/// A request without its host, as rules are asked about it.
fn query(
    user: Option<&Arc<str>>,
    client: SocketAddr,
    command: Command,
    port: u16,
) -> RuleQuery<'_> {
    let command = match command {
        // Who asks for an address means to connect to it, and a request that is passed on goes by a connection.
        Command::Resolve | Command::ResolvePtr | Command::Http => Command::Connect,
        Command::Connect | Command::Bind | Command::UdpAssociate => command,
    };
    let user = user.map(|user| &**user);
    RuleQuery { command, user, client: client.ip().to_canonical(), port }
}

/// Whoever has logged in is judged as one of the users of now.
fn check_login(files: &AccessFiles, identity: &Identity) -> Result<(), Denied> {
    identity
        .user()
        .and_then(|user| files.revoked(user))
        .map_or(Ok(()), |why| Err(Denied::Revoked(why)))
}

#[cfg(test)]
mod tests;
