//! Resolver to addresses, and addresses to names, within a deadline.
//!
//! The system's resolver cannot be interrupted, so lookups run on a few threads of their own, one for
//! each name that is asked for, however many ask. Whoever asks waits for the answer or gives up; the
//! lookup goes on, and its answer is remembered for a moment. Only what was found is remembered: the
//! rules are asked at each request.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use self::queue::Waiter;
use self::threads::{ResolveFn, Threads};
use super::client_watch::{ClientWatch, WaitOutcome, wait_for};
use super::families::Families;
use crate::socks5::Name;
use crate::system::descriptors::Descriptors;
use crate::system::ip::ClientPrefix;
use crate::system::waker::Waker;

mod memory;
mod queue;
mod spelling;
mod threads;

/// What a lookup has found, or why it has found nothing.
pub(crate) type Answer = Result<Found, Arc<io::Error>>;

/// What a lookup has found.
#[derive(Clone, Debug)]
pub(crate) enum Found {
    /// The addresses of a name, with port 0.
    Addresses(Arc<[SocketAddr]>),
    /// The name of an address.
    Name(Name),
}

impl Found {
    /// The addresses of a name.
    pub(super) fn addresses(&self) -> &[SocketAddr] {
        match self {
            Found::Addresses(addresses) => addresses,
            Found::Name(_) => &[],
        }
    }
}

/// Why a name has no addresses, or an address no name.
#[derive(Debug)]
pub(crate) enum Error {
    /// The resolver says so, or cannot be asked.
    Unresolved(Arc<io::Error>),
    /// The resolver has not answered within the deadline.
    TimedOut,
    /// The client has left meanwhile.
    ClientLeft,
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Error::Unresolved(Arc::new(error))
    }
}

/// Resolver that are looked up, and those that were a moment ago.
pub(crate) struct Resolver {
    lasts: Duration,
    families: Families,
    threads: Arc<Threads>,
}

/// How many lookups there were.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Lookups that have found an address.
    pub found: u64,
    /// Lookups that have not.
    pub failed: u64,
    /// Requests that were answered from memory.
    pub remembered: u64,
}

/// The answer for a name, if it is known.
pub(crate) enum LookupState {
    /// It is.
    Known(Answer),
    /// It will be.
    UnderWay(Lookup),
}

impl Resolver {
    /// Asks the system's resolver, and remembers its answers for the time of `lasts`; failures for
    /// 5 s at the most.
    pub(crate) fn new(lasts: Duration, descriptors: &Arc<Descriptors>) -> Self {
        Self::with_resolver(lasts, descriptors, |name| {
            (name, 0).to_socket_addrs().map(Iterator::collect)
        })
    }

    /// The same with another resolver, which is asked for names as `getaddrinfo` takes them: a dot
    /// at the end means that the name is complete.
    pub(crate) fn with_resolver(
        lasts: Duration,
        descriptors: &Arc<Descriptors>,
        resolver: impl Fn(&str) -> io::Result<Vec<SocketAddr>> + Send + Sync + 'static,
    ) -> Self {
        let resolver: Box<ResolveFn> = Box::new(resolver);
        let threads = Threads::new(lasts, Arc::clone(descriptors), resolver);
        Resolver { lasts, families: Families::new(), threads }
    }

    /// The addresses of `name` with `port`, for the client at `asker`. Waits until `deadline` at the
    /// latest, and for as long as `client`, if it is given, has not left.
    ///
    /// # Errors
    ///
    /// See [`Error`]. A name with no address at all is [`Error::Unresolved`].
    pub(crate) fn resolve(
        &self,
        name: &Name,
        port: u16,
        asker: IpAddr,
        deadline: Instant,
        client: Option<&ClientWatch<'_>>,
    ) -> Result<Vec<SocketAddr>, Error> {
        let found = self.find(&spelling::key(name.as_str()), asker, deadline, client)?;
        Ok(with_port(found.addresses(), port))
    }

    /// The name of the host at `ip`, as the system's resolver has it, for the client at `asker`. It
    /// waits as [`Resolver::resolve`] does.
    ///
    /// # Errors
    ///
    /// See [`Error`].
    pub(crate) fn name_of(
        &self,
        ip: IpAddr,
        asker: IpAddr,
        deadline: Instant,
        client: Option<&ClientWatch<'_>>,
    ) -> Result<Name, Error> {
        match self.find(&spelling::key_of_address(ip), asker, deadline, client)? {
            Found::Name(name) => Ok(name),
            Found::Addresses(_) => Err(io::Error::from(ErrorKind::NotFound).into()),
        }
    }

    fn find(
        &self,
        key: &str,
        asker: IpAddr,
        deadline: Instant,
        client: Option<&ClientWatch<'_>>,
    ) -> Result<Found, Error> {
        let answer = if let Some(answer) = self.threads.recall(key) {
            answer
        } else {
            // The session is counted as two descriptors, and has no target yet.
            let waker = Arc::new(Waker::new()?);
            match self.join(key, asker, &waker) {
                LookupState::Known(answer) => answer,
                LookupState::UnderWay(lookup) => lookup.wait(deadline, client)?,
            }
        };
        answer.map_err(Error::Unresolved)
    }

    /// The answer for `name`, if it is known without asking anyone.
    pub(crate) fn recall(&self, name: &Name) -> Option<Answer> {
        self.threads.recall(&spelling::key(name.as_str()))
    }

    /// Looks `name` up for the client at `asker`, and rings `waker` when the answer is there.
    pub(crate) fn ask(&self, name: &Name, asker: IpAddr, waker: &Arc<Waker>) -> LookupState {
        self.join(&spelling::key(name.as_str()), asker, waker)
    }

    fn join(&self, key: &str, asker: IpAddr, waker: &Arc<Waker>) -> LookupState {
        let (group, waker) = (ClientPrefix::from(asker), Arc::clone(waker));
        let waiter = |number, name| Waiter { number, name, group, waker, answer: OnceLock::new() };
        match self.threads.join(key, waiter) {
            Ok(answer) => LookupState::Known(answer),
            Err(waiter) => {
                LookupState::UnderWay(Lookup { waiter, threads: Arc::clone(&self.threads) })
            }
        }
    }

    /// Notes that `address` has won the race among those of `name`. It goes first for as long as the
    /// name is remembered.
    pub(crate) fn won(&self, name: &Name, address: IpAddr) {
        self.threads.won(&spelling::key(name.as_str()), address);
    }

    /// Which family of a name's addresses goes first.
    pub(crate) fn families(&self) -> &Families {
        &self.families
    }

    /// How long addresses are remembered.
    pub(crate) fn lasts(&self) -> Duration {
        self.lasts
    }

    /// How many lookups there were so far.
    pub(crate) fn counts(&self) -> Counts {
        self.threads.counts()
    }
}

impl Drop for Resolver {
    fn drop(&mut self) {
        self.threads.close();
    }
}

/// A lookup that somebody waits for. Dropping it gives up on the answer, at once.
pub(crate) struct Lookup {
    waiter: Arc<Waiter>,
    threads: Arc<Threads>,
}

impl Lookup {
    /// The answer, once it is there. The waker has been rung then.
    pub(crate) fn answer(&self) -> Option<&Answer> {
        self.waiter.answer.get()
    }

    fn wait(&self, deadline: Instant, client: Option<&ClientWatch<'_>>) -> Result<Answer, Error> {
        loop {
            if let Some(answer) = self.answer() {
                return Ok(answer.clone());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Error::TimedOut);
            }
            if wait_for(&*self.waiter.waker, client, left)? == WaitOutcome::ClientLeft {
                return Err(Error::ClientLeft);
            }
        }
    }
}

impl Drop for Lookup {
    fn drop(&mut self) {
        self.threads.leave(&self.waiter);
    }
}

/// `addresses` with `port`.
pub(super) fn with_port(addresses: &[SocketAddr], port: u16) -> Vec<SocketAddr> {
    let mut addresses = addresses.to_vec();
    for address in &mut addresses {
        address.set_port(port);
    }
    addresses
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, TcpListener, TcpStream};
    use std::sync::Mutex;
    use std::sync::mpsc::{Receiver, Sender, channel};
    use std::thread;

    const LONG: Duration = Duration::from_secs(20);
    const LASTS: Duration = Duration::from_secs(30);

    fn name(name: &str) -> Name {
        Name::new(name.into()).unwrap()
    }

    fn soon() -> Instant {
        Instant::now() + LONG
    }

    /// An asker with a number.
    fn asker(number: u8) -> IpAddr {
        [192, 0, 2, number].into()
    }

    fn resolve(names: &Resolver, host: &str) -> Result<Vec<SocketAddr>, Error> {
        names.resolve(&name(host), 80, asker(1), soon(), None)
    }

    /// A resolver that tells what it is asked, and hangs until it is released.
    fn hanging(lasts: Duration) -> (Resolver, Receiver<String>, Sender<()>) {
        let (asked_to, asked) = channel();
        let (release, released) = channel();
        let held = Mutex::new(released);
        let asked_to = Mutex::new(asked_to);
        let names = Resolver::with_resolver(lasts, &Descriptors::new(1024), move |name| {
            let _ = asked_to.lock().unwrap().send(name.to_owned());
            let _ = held.lock().unwrap().recv();
            Ok(vec![(Ipv4Addr::LOCALHOST, 0).into()])
        });
        (names, asked, release)
    }

    #[test]
    fn the_systems_resolver_is_asked() {
        let names = Resolver::new(LASTS, &Descriptors::new(1024));
        for host in ["localhost", "LOCALHOST"] {
            let found = resolve(&names, host).unwrap();
            assert!(found.iter().all(|it| it.ip().is_loopback() && it.port() == 80), "{found:?}");
        }
        for _ in 0..2 {
            assert!(matches!(resolve(&names, "tabi.invalid"), Err(Error::Unresolved(_))));
        }
        assert_eq!(names.counts(), Counts { found: 1, failed: 1, remembered: 2 });
    }

    #[test]
    fn a_resolver_that_hangs_holds_nobody_longer_than_the_deadline() {
        let (names, asked, release) = hanging(LASTS);
        let now = Instant::now();
        let timed_out =
            names.resolve(&name("a.example"), 80, asker(1), now + Duration::from_millis(50), None);
        assert!(matches!(timed_out, Err(Error::TimedOut)), "{timed_out:?}");
        assert_eq!(asked.recv_timeout(LONG).unwrap(), "a.example.");
        // The lookup goes on, and its answer is there for the next one.
        release.send(()).unwrap();
        let found = resolve(&names, "a.example").unwrap();
        assert_eq!(found, ["127.0.0.1:80".parse().unwrap()]);
        assert!(asked.try_recv().is_err(), "it is looked up once");
    }

    #[test]
    fn a_client_that_leaves_is_noticed_while_the_resolver_hangs() {
        let (names, _asked, release) = hanging(LASTS);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (session, _) = listener.accept().unwrap();
        let (over_to, over) = channel();
        thread::scope(|scope| {
            let names = &names;
            scope.spawn(move || {
                let found = names.resolve(
                    &name("a.example"),
                    80,
                    asker(1),
                    soon(),
                    Some(&ClientWatch::new(&session, false)),
                );
                over_to.send(matches!(found, Err(Error::ClientLeft))).unwrap();
            });
            assert!(over.recv_timeout(Duration::from_millis(50)).is_err());
            drop(client);
            assert_eq!(over.recv_timeout(LONG), Ok(true));
        });
        drop(release);
    }

    #[test]
    fn one_lookup_serves_all_who_ask() {
        let (names, asked, release) = hanging(LASTS);
        thread::scope(|scope| {
            let askers: Vec<_> = (0..50)
                .map(|number| {
                    let names = &names;
                    scope.spawn(move || {
                        names.resolve(&name("A.example."), number, asker(1), soon(), None)
                    })
                })
                .collect();
            asked.recv_timeout(LONG).unwrap();
            release.send(()).unwrap();
            for (number, asker) in askers.into_iter().enumerate() {
                assert_eq!(usize::from(asker.join().unwrap().unwrap()[0].port()), number);
            }
        });
        assert!(asked.try_recv().is_err(), "it is looked up once");
        assert_eq!(names.counts().found, 1);
    }

    #[test]
    fn lookups_that_hang_for_one_client_leave_room_for_others() {
        let (names, asked, release) = hanging(Duration::ZERO);
        let waker = Arc::new(Waker::new().unwrap());
        let ask = |host: &str, asker: IpAddr| match names.ask(&name(host), asker, &waker) {
            LookupState::UnderWay(lookup) => lookup,
            LookupState::Known(_) => panic!("{host} is known"),
        };
        let attacker: Vec<Lookup> =
            (0..100).map(|number| ask(&format!("n{number}.example"), asker(1))).collect();
        let started: Vec<String> = (0..16).map(|_| asked.recv_timeout(LONG).unwrap()).collect();
        assert!(started.iter().all(|name| name.starts_with('n')));
        assert!(asked.try_recv().is_err());
        let other = ask("other.example", asker(2));
        assert_eq!(asked.recv_timeout(LONG).unwrap(), "other.example.");
        // Whoever gives up does so at once, and what has not begun never does.
        drop(attacker);
        drop(release);
        let begin = Instant::now();
        while other.answer().is_none() {
            assert!(begin.elapsed() < LONG);
            thread::yield_now();
        }
        assert!(asked.try_recv().is_err());
    }

    #[test]
    fn a_resolver_that_panics_is_a_failed_lookup() {
        let names = Resolver::with_resolver(LASTS, &Descriptors::new(1024), |name| {
            assert_ne!(name, "bad.example.", "as this test wants it");
            Ok(vec![(Ipv4Addr::LOCALHOST, 0).into()])
        });
        assert!(matches!(resolve(&names, "bad.example"), Err(Error::Unresolved(_))));
        assert!(resolve(&names, "good.example").is_ok());
    }

    #[test]
    fn the_winner_of_a_race_goes_first() {
        let both: [SocketAddr; 2] = ["[::1]:0".parse().unwrap(), "127.0.0.1:0".parse().unwrap()];
        let names =
            Resolver::with_resolver(LASTS, &Descriptors::new(1024), move |_| Ok(both.to_vec()));
        assert!(resolve(&names, "a.example").unwrap()[0].is_ipv6());
        names.won(&name("A.example"), both[1].ip());
        assert!(resolve(&names, "a.example").unwrap()[0].is_ipv4());
    }
}
