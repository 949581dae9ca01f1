//! The client of an association, and the port that it sends from.

use std::fmt;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::access::users::Identity;
use crate::sessions::SessionState;
use crate::wire::address::{Address, Host};

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

/// How long the port may still change, from its first datagram on. Before the client one may have sent a
/// datagram that forges its address; it does not keep the association.
const SETTLES_AFTER: Duration = Duration::from_secs(3);

/// A port that has sent is left for another that speaks only when it has said nothing for so long: nobody
/// takes an association that is in use.
const SILENT_AFTER: Duration = Duration::from_secs(1);

/// What is known of the client's port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Port {
    /// Nothing.
    Unknown,
    /// The client has announced it, and has sent nothing yet.
    Announced(u16),
    /// It is this one for now.
    Latest {
        address: SocketAddr,
        /// When it has last spoken.
        last: Instant,
        /// When it may be settled on.
        until: Instant,
        /// Another port has spoken since it has.
        is_disputed: bool,
    },
    /// It is this one.
    Settled(SocketAddr),
}

impl Port {
    /// Where the client gets its datagrams, if it has sent one.
    pub(super) fn address(self) -> Option<SocketAddr> {
        match self {
            Port::Unknown | Port::Announced(_) => None,
            Port::Latest { address, .. } | Port::Settled(address) => Some(address),
        }
    }

    /// Whether a datagram from this port of the client's address is the client's.
    pub(super) fn admits(&mut self, from: SocketAddr, now: Instant) -> bool {
        match self {
            Port::Unknown => true,
            Port::Announced(port) => from.port() == *port,
            Port::Settled(address) => from == *address,
            Port::Latest { address, last, is_disputed, .. } => {
                let is_admitted = from == *address || now >= *last + SILENT_AFTER;
                *is_disputed |= !is_admitted;
                is_admitted
            }
        }
    }

    /// What is known when a datagram of the client has come from there.
    pub(super) fn after(self, from: SocketAddr, now: Instant) -> Self {
        let until = match self {
            Port::Settled(_) => return self,
            Port::Announced(_) => now,
            Port::Latest { address, until, .. } if address == from => until,
            Port::Unknown | Port::Latest { .. } => now + SETTLES_AFTER,
        };
        Port::Latest { address: from, last: now, until, is_disputed: false }
    }

    /// The address that is to be settled on now, if one is. While another port speaks as well, it is not
    /// the one that was first but the one that goes on.
    pub(super) fn due(self, now: Instant) -> Option<SocketAddr> {
        match self {
            Port::Latest { address, until, is_disputed: false, .. } if now >= until => {
                Some(address)
            }
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
    fn a_port_that_has_sent_is_left_when_it_is_silent_and_another_speaks() {
        let now = Instant::now();
        let mut port = Port::Unknown;
        assert!(port.admits(from(1), now) && port.address().is_none());
        let mut port = port.after(from(1), now);
        assert!(!port.admits(from(2), now) && port.admits(from(1), now));
        let later = now + SILENT_AFTER;
        assert!(port.admits(from(2), later) && port.due(later).is_none());
        let port = port.after(from(2), later);
        assert_eq!(port.address(), Some(from(2)));
        assert_eq!(port.due(now + SETTLES_AFTER), None, "it begins anew");
        assert_eq!(port.due(later + SETTLES_AFTER), Some(from(2)));
        let mut port = Port::Settled(from(2));
        let much_later = later + 10 * SETTLES_AFTER;
        assert!(port.admits(from(2), much_later) && !port.admits(from(1), much_later));
        assert_eq!(port.after(from(2), now), port);
    }

    #[test]
    fn a_port_in_use_is_not_taken_and_one_that_spoke_once_is_not_kept_for_it() {
        let begin = Instant::now();
        let mut port = Port::Unknown.after(from(1), begin);
        for tick in 1..100 {
            let now = begin + tick * SILENT_AFTER / 20;
            assert!(!port.admits(from(2), now), "it sprays");
            if tick % 10 == 0 {
                assert!(port.admits(from(1), now));
                port = port.after(from(1), now);
            }
        }
        assert_eq!(port.due(begin + 6 * SILENT_AFTER), None, "it has not spoken for a while");
        let now = begin + 5 * SILENT_AFTER;
        assert!(port.admits(from(1), now));
        assert_eq!(port.after(from(1), now).due(now), Some(from(1)));
        // The first datagram was forged, and the client asks again later.
        let mut port = Port::Unknown.after(from(9), begin);
        assert!(!port.admits(from(1), begin));
        let later = begin + 2 * SETTLES_AFTER;
        assert_eq!(port.due(later), None);
        assert!(port.admits(from(1), later));
    }

    #[test]
    fn an_announced_port_is_settled_at_once() {
        let now = Instant::now();
        let mut port = Port::Announced(1);
        assert!(port.admits(from(1), now) && !port.admits(from(2), now));
        assert_eq!(port.after(from(1), now).due(now), Some(from(1)));
    }
}
