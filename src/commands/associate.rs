//! UDP ASSOCIATE: a relay of datagrams that lives and dies with its TCP connection (RFC 1928
//! section 7).
//!
//! One thread serves an association: it waits for the client's connection and for its sockets, and
//! sends on what has come, without queues. Only names are looked up elsewhere, on threads of their own.

use std::io;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;

use self::inside::Inside;
use self::outside::Outside;
use self::relay::DatagramRelay;
use super::egress::Egress;
use super::resolver::Resolver;
use crate::access::policy::{Permit, Policy};
use crate::wire::request::Command;

mod batch;
mod budget;
mod client;
mod destinations;
mod dropped;
mod inner_port;
mod inside;
mod lookups;
mod outside;
mod relay;
mod socket;
mod table;
mod targets;

pub(crate) use client::AssociateClient;
pub(crate) use dropped::DropCounts;
pub(crate) use inner_port::InnerPort;

/// The sockets of an association. They close when it is dropped.
pub(crate) struct Association {
    inside: Inside,
    outside: Outside,
    /// The address to which the client is to send.
    pub(crate) bound: SocketAddr,
}

impl Association {
    /// Binds the sockets: the client's to the address that it is told, and one of `ports`, if they are
    /// given; the others to `egress`.
    ///
    /// # Errors
    ///
    /// The error of `socket(2)` or `bind(2)`; `AddrInUse` when none of `ports` is free.
    ///
    /// # Panics
    ///
    /// If `permit` is for another command.
    pub(crate) fn open(
        permit: &Permit,
        egress: Egress,
        told: SocketAddr,
        ports: Option<&RangeInclusive<u16>>,
    ) -> io::Result<Self> {
        assert_eq!(permit.command(), Command::UdpAssociate);
        let inside = Inside::open(told, ports)?;
        let outside = Outside::open(egress)?;
        let bound = SocketAddr::new(told.ip(), inside.port()?);
        Ok(Association { inside, outside, bound })
    }

    /// How many pairs of descriptors it takes beside that of its session, as which the client's connection
    /// and the inner socket are counted. The others are an outer socket, or one for each family, one for
    /// this machine itself, and the waker of lookups.
    pub(crate) fn more_pairs(egress: Egress) -> usize {
        1 + usize::from(egress.ipv4.or(egress.ipv6).is_some() || egress.interface.is_some())
    }

    /// Relays datagrams until the client's connection ends, or
    /// [`SessionState::end`](crate::sessions::SessionState::end) ends it, or nothing has moved for five
    /// minutes. What it drops is counted in `dropped`.
    pub(crate) fn serve(
        self,
        client: &AssociateClient<'_>,
        policy: &Policy,
        resolver: &Arc<Resolver>,
        dropped: &DropCounts,
    ) {
        let sockets = (self.inside, self.outside);
        let mut relay = DatagramRelay::new(sockets, client, policy, resolver, dropped);
        while relay.turn() {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::users::{Identity, Users};
    use crate::sessions::{Limits, Session, Sessions};
    use crate::system::descriptors::Descriptors;
    use crate::wire::address::{Address, Host};
    use std::net::{TcpListener, TcpStream, UdpSocket};
    use std::sync::Mutex;
    use std::sync::mpsc::{Receiver, channel};
    use std::thread;
    use std::time::{Duration, Instant};

    pub(super) const LONG: Duration = Duration::from_secs(20);
    pub(super) const LOCAL: &str = "127.0.0.1:0";

    /// A session of a client at `address`, and the client's end of its connection.
    pub(super) fn session(address: &str) -> (Session, TcpStream) {
        let listener = TcpListener::bind(LOCAL).unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let limits = Limits::of_one(LONG, LONG);
        let (stream, _) = listener.accept().unwrap();
        let sessions = Sessions::new(limits, Descriptors::raise());
        (sessions.open(address.parse().unwrap(), false, stream, || ()).unwrap(), client)
    }

    fn identity() -> Identity {
        Users::default().authenticate(None, [127, 0, 0, 1].into(), |_| false).unwrap()
    }

    fn open(identity: &Identity, policy: &Policy) -> Association {
        let local = LOCAL.parse().unwrap();
        let permit = policy.permit_open(identity, local, Command::UdpAssociate).unwrap();
        Association::open(&permit, Egress::default(), local, None).unwrap()
    }

    /// Runs `job` with an association on a thread of its own. What it gives back waits for the result.
    pub(super) fn with_association<T: Send + 'static>(
        session: Session,
        names: Arc<Resolver>,
        job: impl FnOnce(Association, &AssociateClient<'_>, &Policy, &Arc<Resolver>) -> T
        + Send
        + 'static,
    ) -> impl FnOnce() -> T {
        let (sender, result) = channel();
        thread::spawn(move || {
            let (identity, policy) = (identity(), Policy::new(&[], vec![]));
            let association = open(&identity, &policy);
            let announced = Address { host: Host::Ip([0, 0, 0, 0].into()), port: 0 };
            let client = AssociateClient {
                session: session.state(),
                identity: &identity,
                announced: &announced,
                idle_timeout: LONG,
                log: &|_| (),
            };
            sender.send(job(association, &client, &policy, &names)).unwrap();
        });
        move || result.recv_timeout(LONG).unwrap()
    }

    /// A resolver that finds these addresses for all names.
    pub(super) fn names(addresses: &[&str]) -> Arc<Resolver> {
        let addresses: Vec<SocketAddr> =
            addresses.iter().map(|ip| SocketAddr::new(ip.parse().unwrap(), 0)).collect();
        resolving(move || Ok(addresses.clone()))
    }

    fn resolving(
        resolver: impl Fn() -> io::Result<Vec<SocketAddr>> + Send + Sync + 'static,
    ) -> Arc<Resolver> {
        let descriptors = Descriptors::new(1024);
        Resolver::with_resolver(Duration::from_secs(30), &descriptors, move |_| resolver())
    }

    /// An association at work: the client's end of its connection, a socket that is connected to the
    /// association, and what waits for the end.
    fn working(names: Arc<Resolver>) -> (TcpStream, UdpSocket, impl FnOnce()) {
        let (session, control) = session("127.0.0.1:1");
        let (bound_to, bound) = channel();
        let ended = with_association(session, names, move |association, client, policy, names| {
            bound_to.send(association.bound).unwrap();
            association.serve(client, policy, names, &DropCounts::default());
        });
        let client = UdpSocket::bind(LOCAL).unwrap();
        client.connect(bound.recv_timeout(LONG).unwrap()).unwrap();
        (control, client, ended)
    }

    fn target(ip: &str) -> (UdpSocket, [u8; 2]) {
        let target = UdpSocket::bind((ip, 0)).unwrap();
        target.set_read_timeout(Some(LONG)).unwrap();
        let port = target.local_addr().unwrap().port().to_be_bytes();
        (target, port)
    }

    fn hanging(released: Receiver<()>) -> Arc<Resolver> {
        let released = Mutex::new(released);
        resolving(move || {
            let _ = released.lock().unwrap().recv();
            Ok(vec![LOCAL.parse().unwrap()])
        })
    }

    #[test]
    fn a_slow_lookup_does_not_stall_the_other_datagrams() {
        let (release, released) = channel();
        let (control, client, ended) = working(hanging(released));
        let (target, port) = target("127.0.0.1");
        let by_name = [b"\0\0\0\x03\x04late", &port[..], b"late"].concat();
        let by_address = [b"\0\0\0\x01\x7f\0\0\x01", &port[..], b"at once"].concat();
        client.send(&by_name).unwrap();
        let mut bytes = [0; 64];
        for _ in 0..100 {
            client.send(&by_address).unwrap();
            let length = target.recv(&mut bytes).unwrap();
            assert_eq!(&bytes[..length], b"at once");
        }
        release.send(()).unwrap();
        let length = target.recv(&mut bytes).unwrap();
        assert_eq!(&bytes[..length], b"late");
        drop(control);
        ended();
    }

    #[test]
    fn a_lookup_that_hangs_does_not_hold_the_end_up() {
        let (release, released) = channel();
        let (control, client, ended) = working(hanging(released));
        let (target, port) = target("127.0.0.1");
        client.send(&[b"\0\0\0\x03\x04late", &port[..], b"never"].concat()).unwrap();
        client.send(&[b"\0\0\0\x01\x7f\0\0\x01", &port[..], b"x"].concat()).unwrap();
        // The lookup is under way then.
        target.recv(&mut [0]).unwrap();
        drop(control);
        ended();
        drop(release);
    }

    #[test]
    fn an_idle_limit_shorter_than_memory_is_kept_ends_an_association_in_time() {
        let (session, _control) = session("127.0.0.1:1");
        let (bound_to, bound) = channel();
        let ended =
            with_association(session, names(&[]), move |association, client, policy, names| {
                let client =
                    AssociateClient { idle_timeout: Duration::from_millis(100), ..*client };
                bound_to.send(association.bound).unwrap();
                association.serve(&client, policy, names, &DropCounts::default());
                Instant::now()
            });
        let client = UdpSocket::bind(LOCAL).unwrap();
        let (target, port) = target("127.0.0.1");
        let datagram = [b"\0\0\0\x01\x7f\0\0\x01", &port[..], b"x"].concat();
        client.send_to(&datagram, bound.recv_timeout(LONG).unwrap()).unwrap();
        target.recv(&mut [0]).unwrap();
        let last = Instant::now();
        let idle = ended().saturating_duration_since(last);
        assert!(idle < Duration::from_secs(2), "{idle:?}");
    }

    #[test]
    fn dead_ipv6_does_not_keep_the_datagrams_of_a_name() {
        let (control, client, ended) = working(names(&["127.0.0.2", "127.0.0.1"]));
        let (target, port) = target("127.0.0.1");
        let _silent = UdpSocket::bind(("127.0.0.2", u16::from_be_bytes(port))).unwrap();
        client.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        target.set_nonblocking(true).unwrap();
        let question = [b"\0\0\0\x03\x04name", &port[..], b"question"].concat();
        let begin = Instant::now();
        let mut bytes = [0; 64];
        // What has come through once does so from then on.
        let mut answers = 0;
        while answers < 50 {
            assert!(begin.elapsed() < LONG, "{answers} answers");
            client.send(&question).unwrap();
            if let Ok((_, from)) = target.recv_from(&mut bytes) {
                target.send_to(b"answer", from).unwrap();
            }
            match client.recv(&mut bytes) {
                Ok(length) => {
                    assert!(bytes[..length].ends_with(b"answer"));
                    answers += 1;
                }
                Err(error) => assert!(
                    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut),
                    "{error}"
                ),
            }
        }
        drop(control);
        ended();
    }

    #[test]
    fn an_address_without_a_route_gives_way_at_once() {
        // Nothing can be sent to the broadcast address without asking for it.
        let (control, client, ended) = working(names(&["255.255.255.255", "127.0.0.1"]));
        let (target, port) = target("127.0.0.1");
        client.send(&[b"\0\0\0\x03\x04name", &port[..], b"question"].concat()).unwrap();
        let mut bytes = [0; 64];
        let length = target.recv(&mut bytes).unwrap();
        assert_eq!(&bytes[..length], b"question");
        drop(control);
        ended();
    }
}
