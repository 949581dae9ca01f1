//! Who gets a session: a client that is served and has not had its share, also one for whom a load
//! balancer comes.

use std::net::{SocketAddr, TcpStream};

use super::Proxy;
use super::client::ClientStream;
use super::failure::Failure;
use crate::proxy_protocol::Header;
use crate::report::Rejection;
use crate::sessions::{AdmissionError, Session};
use crate::system::ip::canonical;

impl Proxy {
    /// Opens a session for a client that is served and has not had its share. It waits for room if
    /// there is none. The log tells of a client that is turned away.
    pub(crate) fn admit(&self, stream: TcpStream, peer: SocketAddr) -> Option<Session> {
        let peer = canonical(peer);
        self.metrics.accepted();
        match self.open(stream, peer) {
            Ok(session) => Some(session),
            Err((kind, why)) => {
                self.metrics.rejected(kind);
                self.refusals.log(&format!("turned away client={peer}: {why}"));
                None
            }
        }
    }

    fn open(&self, stream: TcpStream, peer: SocketAddr) -> Result<Session, Rejected> {
        let is_full = || {
            let text = "all connections are in use; further clients wait (--max-connections)";
            self.fullness.log(text);
        };
        let is_balancer = self.is_balancer(peer);
        if !is_balancer {
            self.check(peer)?;
        }
        // Its scope was for the check alone.
        let peer = SocketAddr::new(peer.ip(), peer.port());
        let opened = if is_balancer {
            self.sessions.open_for_balancer(peer, stream, is_full)
        } else {
            self.sessions.open(peer, stream, is_full)
        };
        opened.map_err(turned_away)
    }

    pub(super) fn is_balancer(&self, peer: SocketAddr) -> bool {
        self.balancers.iter().any(|net| net.contains(&peer.ip()))
    }

    /// Whether the client is served at all.
    fn check(&self, client: SocketAddr) -> Result<(), Rejected> {
        if let Some(why) = self.rules.rejection(client) {
            return Err((Rejection::Network, format!("{why} (--allow-from)")));
        }
        let Some(left) = self.users.penalty_left(client.ip()) else { return Ok(()) };
        let left = left.as_secs_f32();
        let why = format!("wrong passwords for too many names, for another {left:.1} s (--users)");
        Err((Rejection::Penalty, why))
    }

    /// Learns from a load balancer for whom it comes, and whether that client is served: the same is
    /// asked as of one that has come itself.
    #[inline(never)]
    pub(super) fn meet(
        &self,
        session: &Session,
        client: &mut ClientStream<'_>,
    ) -> Result<(), Failure> {
        let balancer = session.peer();
        let Header::Client(mut client) = Header::read_from(client)? else {
            return self.check(balancer).map_err(|refused| self.refused(refused));
        };
        if client.ip().is_loopback() {
            // It is on the balancer's machine, which may be another one than this.
            client.set_ip(balancer.ip());
        }
        let met = self.check(client).and_then(|()| session.rehome(client).map_err(turned_away));
        met.map_err(|refused| self.refused(refused))
    }

    fn refused(&self, (kind, why): Rejected) -> Failure {
        self.metrics.rejected(kind);
        Failure::Rejected(why)
    }
}

/// Why a client gets no session: the kind of reason, and what the log says.
type Rejected = (Rejection, String);

fn turned_away(too_many: AdmissionError) -> Rejected {
    (too_many.into(), too_many.to_string())
}
