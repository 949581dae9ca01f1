//! The client of an association, and the port that it sends from.

use std::fmt;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::access::users::Identity;
use crate::sessions::SessionState;
use crate::socks5::{Address, Host};

/// Whom an association is for.
pub(crate) struct AssociateClient<'a> {
    /// The session: the client's address and connection, and what it has moved.
    pub session: &'a SessionState,
    /// Who the client is.
    pub identity: &'a Identity,
    /// DST.ADDR and DST.PORT: where the client will send from, as far as it knows.
    pub announced: &'a Address,
    /// How long nothing may go either way.
    pub idle_timeout: Duration,
    /// Logs what somebody wants to know who looks for a fault.
    pub log: &'a dyn Fn(fmt::Arguments<'_>),
}

impl AssociateClient<'_> {
    /// What is known of the port that the client sends from. One that announces an address other than
    /// its own is behind a NAT, which changes the port as well.
    pub(super) fn port(&self) -> Port {
        let Address { host, port } = self.announced;
        let is_its_own = match host {
            Host::Ip(ip) => ip.is_unspecified() || *ip == self.session.peer().ip(),
            Host::Name(_) => false,
        };
        if is_its_own && *port != 0 { Port::Announced(*port) } else { Port::Unknown }
    }
}

/// How long the port may still change, from the first datagram on. Before that one another host may
/// have sent one in the client's name; it does not keep the association.
const SETTLES_AFTER: Duration = Duration::from_secs(3);

/// What is known of the client's port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Port {
    /// Nothing.
    Unknown,
    /// The client has announced it, and has sent nothing yet.
    Announced(u16),
    /// It is that of the latest datagram, and may still change until then.
    Latest(SocketAddr, Instant),
    /// It is this one.
    Settled(SocketAddr),
}

impl Port {
    /// Where the client gets its datagrams, if it has sent one.
    pub(super) fn address(self) -> Option<SocketAddr> {
        match self {
            Port::Unknown | Port::Announced(_) => None,
            Port::Latest(address, _) | Port::Settled(address) => Some(address),
        }
    }

    /// Whether a datagram from this port of the client's address is the client's.
    pub(super) fn admits(self, from: SocketAddr) -> bool {
        match self {
            Port::Unknown | Port::Latest(..) => true,
            Port::Announced(port) => from.port() == port,
            Port::Settled(address) => from == address,
        }
    }

    /// What is known when a datagram of the client has come from there.
    pub(super) fn after(self, from: SocketAddr, now: Instant) -> Self {
        match self {
            Port::Unknown => Port::Latest(from, now + SETTLES_AFTER),
            Port::Announced(_) => Port::Latest(from, now),
            Port::Latest(_, until) => Port::Latest(from, until),
            Port::Settled(_) => self,
        }
    }

    /// The address that is to be settled on now, if one is.
    pub(super) fn due(self, now: Instant) -> Option<SocketAddr> {
        match self {
            Port::Latest(address, until) if now >= until => Some(address),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(port: u16) -> SocketAddr {
        ([192, 168, 1, 7], port).into()
    }

    #[test]
    fn the_latest_port_counts_for_the_first_seconds() {
        let now = Instant::now();
        let port = Port::Unknown;
        assert!(port.admits(from(1)) && port.address().is_none());
        let port = port.after(from(1), now);
        assert!(port.admits(from(2)) && port.due(now).is_none());
        let port = port.after(from(2), now + SETTLES_AFTER / 2);
        assert_eq!(port.address(), Some(from(2)));
        assert_eq!(port.due(now + SETTLES_AFTER), Some(from(2)), "it does not begin anew");
        let port = Port::Settled(from(2));
        assert!(port.admits(from(2)) && !port.admits(from(1)));
        assert_eq!(port.after(from(2), now), port);
    }

    #[test]
    fn an_announced_port_is_settled_at_once() {
        let now = Instant::now();
        let port = Port::Announced(1);
        assert!(port.admits(from(1)) && !port.admits(from(2)));
        assert_eq!(port.after(from(1), now).due(now), Some(from(1)));
    }
}
