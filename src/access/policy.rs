//! The verdict: who is served, and what each may do. All that decides stands here, from top to bottom;
//! [`RuleFile`] is what a file says, and finds the rule that matches.

use std::iter::once;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;

mod clients;
mod exposure;
mod permit;

pub use clients::AllowFrom;
pub use permit::{Denied, Permit, UpstreamRoute};

use clients::Clients;

use super::in_force::{AccessFiles, InForce};
use super::rules::{Action, Entry, RuleFile, RuleQuery};
use super::upstream::Upstream;
use super::users::Identity;
use crate::socks5::{Command, Host, Name, Request};
use crate::system::interfaces::Interfaces;
use crate::system::ip;

/// Who is served, and what each may do.
#[derive(Debug)]
pub struct Policy {
    clients: Clients,
    own_ports: Vec<u16>,
    interfaces: Interfaces,
    in_force: Arc<InForce>,
    /// For what no rule decides.
    upstream: Option<Arc<Upstream>>,
}

/// What it is made of.
impl Policy {
    /// Serves the clients that `allow_from` says; without any, this machine and its neighbours. `own_ports`
    /// are the ports that the server itself listens on.
    pub fn new(allow_from: &[AllowFrom], own_ports: Vec<u16>) -> Self {
        Policy {
            clients: Clients::new(allow_from),
            own_ports,
            interfaces: Interfaces::default(),
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

    /// Another number than before once users and rules have changed: a verdict that was kept is worth
    /// nothing then. Whoever keeps one asks for the number first.
    pub fn generation(&self) -> usize {
        self.in_force.generation()
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

    /// Where clients on the home or office network reach a server that listens on `listen`: this machine's
    /// private addresses, and what it listens on by name.
    pub fn reached_at(&self, listen: &[SocketAddr]) -> Vec<SocketAddr> {
        exposure::reached_at(&self.interfaces.private(), listen)
    }
}

/// What a client may do.
impl Policy {
    /// Judges a request. A name is looked up with `lookup`, unless the rules deny it whatever its
    /// addresses are or it goes through an upstream; the permit has those of its addresses that are
    /// permitted.
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
        let query = query(identity, client, *command, destination.port);
        let files = self.in_force.get();
        check_login(&files, identity)?;
        let file = &files.rules;
        let named = file.index.match_name(&query, destination.host.name());
        let addresses = match &destination.host {
            Host::Ip(ip) => vec![(*ip, destination.port).into()],
            Host::Name(name) => {
                if let Some(upstream) = self.route(named) {
                    self.check_name(name, &query)?;
                    return Ok(permit_through(upstream, request.clone())?);
                }
                check_any_address(file, named, &query)?;
                lookup(name, destination.port)?
            }
        };
        let (mut direct, mut through, mut denied) = (Vec::new(), None, None);
        for address in addresses {
            match self.judge(file, named, address, &query) {
                Ok(None) => direct.push(address),
                Ok(Some(upstream)) => {
                    through.get_or_insert((upstream, address));
                }
                Err(reason) => {
                    denied.get_or_insert(reason);
                }
            }
        }
        match (through, denied) {
            (Some((upstream, address)), _) if direct.is_empty() => {
                let request = Request { command: *command, destination: address.into() };
                Ok(permit_through(upstream, request)?)
            }
            (None, Some(denied)) if direct.is_empty() => Err(denied.into()),
            _ => Ok(Permit { command: *command, addresses: direct, route: None }),
        }
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
        let rule = file.index.match_opening(&query(identity, client, command, 0));
        match (rule, self.route(rule)) {
            (Some(entry), _) if denies(entry) => Err(denied_by(file, entry, None)),
            (_, Some(upstream)) => Err(denied_through(upstream, command)),
            (_, None) => Ok(Permit { command, addresses: Vec::new(), route: None }),
        }
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
                Some(entry) if denies(entry) => return Err(denied_by(file, entry, Some(address))),
                Some(entry) if opens(entry) => {}
                Some(_) | None => self.check_default(address, query)?,
            }
            route = route.or(self.route(rule));
        }
        Ok(route)
    }

    /// Through which upstream goes what `rule`, or none, allows; `None` for a connection of our own.
    fn route<'a>(&'a self, rule: Option<&'a Entry>) -> Option<&'a Arc<Upstream>> {
        match rule.map(|entry| &entry.rule.action) {
            None => self.upstream.as_ref(),
            Some(Action::Via(upstream)) => Some(upstream),
            Some(Action::Allow | Action::Deny) => None,
        }
    }

    /// What no rule opens is judged by what it is. A client on another machine may not reach what
    /// listens for this machine alone nor, through the server, the server at its own ports.
    fn check_default(&self, address: SocketAddr, query: &RuleQuery<'_>) -> Result<(), Denied> {
        if query.client.is_loopback() {
            return Ok(());
        }
        let ip = address.ip().to_canonical();
        let reason = if ip.is_loopback() {
            "a loopback address"
        } else if ip.is_unspecified() {
            "the unspecified address"
        } else if ip::is_link_local(ip) {
            "a link-local address"
        } else if ip.is_multicast() {
            "a multicast address"
        } else if ip == Ipv4Addr::BROADCAST {
            "the broadcast address"
        } else if !self.own_ports.contains(&address.port()) {
            return Ok(());
        } else {
            match self.interfaces.is_ours_now(ip) {
                Some(true) => "this server itself",
                Some(false) => return Ok(()),
                None => "perhaps this server itself",
            }
        };
        Err(Denied::Closed { address, reason })
    }

    /// Judges a name that goes through an upstream. Its addresses are not known here, but those of this
    /// machine are, and what is nearly spelled as an address.
    fn check_name(&self, name: &Name, query: &RuleQuery<'_>) -> Result<(), Denied> {
        let localhost = name.is_localhost().then_some(Ipv4Addr::LOCALHOST.into());
        match localhost.or_else(|| nearly_spelled(name)) {
            Some(ip) => self.check_default(SocketAddr::new(ip, query.port), query),
            None => Ok(()),
        }
    }
}

/// A request without its host, as rules are asked about it.
fn query(identity: &Identity, client: SocketAddr, command: Command, port: u16) -> RuleQuery<'_> {
    let command = match command {
        // Who asks for an address means to connect to it.
        Command::Resolve | Command::ResolvePtr => Command::Connect,
        Command::Connect | Command::Bind | Command::UdpAssociate => command,
    };
    RuleQuery {
        command,
        user: identity.user().map(|user| &**user),
        client: client.ip().to_canonical(),
        port,
    }
}

/// Whoever has logged in is judged as one of the users of now.
fn check_login(files: &AccessFiles, identity: &Identity) -> Result<(), Denied> {
    identity
        .user()
        .and_then(|user| files.revoked(user))
        .map_or(Ok(()), |why| Err(Denied::Revoked(why)))
}

fn denies(entry: &Entry) -> bool {
    matches!(entry.rule.action, Action::Deny)
}

/// What a rule allows may still be closed by default. Only a rule that allows an address or a
/// network opens that: whoever has the DNS of an allowed name may point it at this machine, and a
/// rule without `to` says who may do what, not where.
fn opens(entry: &Entry) -> bool {
    matches!(entry.rule.action, Action::Allow) && entry.is_of_network
}

/// A name need not be looked up where the first rule that matches it denies it, and no earlier one
/// would allow an address that it may have.
fn check_any_address(
    file: &RuleFile,
    named: Option<&Entry>,
    query: &RuleQuery<'_>,
) -> Result<(), Denied> {
    match named.filter(|entry| denies(entry)) {
        Some(entry) if file.index.match_any_address(query, entry).is_none() => {
            Err(denied_by(file, entry, None))
        }
        Some(_) | None => Ok(()),
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
fn permit_through(upstream: &Arc<Upstream>, request: Request) -> Result<Permit, Denied> {
    let command = request.command;
    match command {
        Command::Connect | Command::Resolve | Command::ResolvePtr => {
            let route = Some(UpstreamRoute { upstream: Arc::clone(upstream), request });
            Ok(Permit { command, addresses: Vec::new(), route })
        }
        Command::Bind | Command::UdpAssociate => Err(denied_through(upstream, command)),
    }
}

fn denied_by(file: &RuleFile, entry: &Entry, address: Option<SocketAddr>) -> Denied {
    Denied::ByRule { file: Arc::clone(&file.name), line: entry.line, address }
}

fn denied_through(upstream: &Upstream, command: Command) -> Denied {
    Denied::Through { upstream: Arc::clone(upstream.shown()), command }
}

#[cfg(test)]
mod tests;
