//! UDP ASSOCIATE: a relay of datagrams that lives and dies with its TCP connection (RFC 1928
//! section 7).
//!
//! One thread serves an association: it waits for the client's connection and for both sockets, and
//! sends on what has come, without queues. Only names are looked up elsewhere, on the partner
//! thread.

use std::io;
use std::net::{SocketAddr, UdpSocket};

use self::relay::Relay;
use self::sockets::Outside;
use crate::access::rules::{Permit, Rules};
use crate::access::users::Identity;
use crate::commands::source::Source;
use crate::sessions::Account;
use crate::socks5::{Address, Command, Host};
use crate::system::pool::Partner;

mod batch;
mod destinations;
mod lookups;
mod recent;
mod relay;
mod route;
mod sockets;

/// Whom an association is for.
pub struct Client<'a> {
    /// The session: the client's address and connection, and what it has moved.
    pub account: &'a Account,
    /// Who the client is.
    pub identity: &'a Identity,
    /// DST.ADDR and DST.PORT: where the client will send from, as far as it knows.
    pub announced: &'a Address,
}

impl Client<'_> {
    /// The port that the client has to send from, if it has said so. A client that announces an
    /// address other than its own is behind a NAT, which changes the port as well.
    fn announced_port(&self) -> Option<u16> {
        let here = match self.announced.host {
            Host::Ip(ip) => ip.is_unspecified() || ip == self.account.peer().ip(),
            Host::Name(_) => false,
        };
        (here && self.announced.port != 0).then_some(self.announced.port)
    }
}

/// The sockets of an association. They close when it is dropped.
pub struct Association {
    /// Towards the client, connected to it once it is known.
    inside: UdpSocket,
    /// Towards everyone else.
    outside: Outside,
    bound: SocketAddr,
}

impl Association {
    /// Binds the sockets: the client's to the address of its connection here, `control`, the others
    /// to `source`.
    ///
    /// # Errors
    ///
    /// The error of `socket(2)` or `bind(2)`.
    ///
    /// # Panics
    ///
    /// If `permit` is for another command.
    pub fn open(permit: &Permit, source: Source, control: SocketAddr) -> io::Result<Self> {
        assert_eq!(permit.command(), Command::UdpAssociate);
        let inside = sockets::inside(control)?;
        let bound = inside.local_addr()?;
        Ok(Association { inside, outside: Outside::open(source)?, bound })
    }

    /// The address to which the client is to send.
    #[must_use]
    pub fn bound(&self) -> SocketAddr {
        self.bound
    }

    /// Relays datagrams until the client's connection ends, or [`Account::end`] ends it, or nothing
    /// has moved for five minutes.
    pub fn serve(self, client: &Client<'_>, rules: &Rules, partner: &Partner) {
        // Every session is counted as two descriptors, and this one has up to two more.
        let _more = client.account.descriptors().hold();
        let mut relay = Relay::new(self, client, rules, partner);
        while relay.turn() {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::users::Users;
    use crate::sessions::{Limits, Session, Sessions};
    use crate::system::descriptors::Descriptors;
    use crate::system::pool::Pool;
    use std::io::Cursor;
    use std::net::{TcpListener, TcpStream};
    use std::sync::mpsc::channel;
    use std::time::Duration;

    pub(super) const LONG: Duration = Duration::from_secs(20);
    pub(super) const LOCAL: &str = "127.0.0.1:0";

    /// A session of a client at `address`, and the client's end of its connection.
    pub(super) fn session(address: &str) -> (Session, TcpStream) {
        let listener = TcpListener::bind(LOCAL).unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let limits = Limits { sessions: 1, per_client: 1, handshake: LONG, idle: LONG };
        let (stream, _) = listener.accept().unwrap();
        let sessions = Sessions::new(limits, Descriptors::raise());
        (sessions.open(address.parse().unwrap(), stream, || ()).unwrap(), client)
    }

    /// Runs `job` with an association, beside a partner. What it gives back waits for the result.
    pub(super) fn with_association<T: Send + 'static>(
        session: Session,
        job: impl FnOnce(Association, &Client<'_>, &Rules, &Partner) -> T + Send + 'static,
    ) -> impl FnOnce() -> T {
        let (sender, result) = channel();
        let pool = Pool::new(1);
        let started = pool.start(move |partner| {
            let mut greeting = Cursor::new(b"\x05\x01\x00\0\0".to_vec());
            let ip = session.peer().ip();
            let identity = Users::default().authenticate(&mut greeting, ip).unwrap();
            let rules = Rules::new(&[], vec![]);
            let command = Command::UdpAssociate;
            let permit = rules.permit_open(&identity, session.peer(), command).unwrap();
            let association =
                Association::open(&permit, Source::default(), LOCAL.parse().unwrap()).unwrap();
            let announced = Address { host: Host::Ip([0, 0, 0, 0].into()), port: 0 };
            let client = Client { account: &session, identity: &identity, announced: &announced };
            sender.send(job(association, &client, &rules, partner)).unwrap();
        });
        started.unwrap();
        move || result.recv_timeout(LONG).unwrap()
    }
}
