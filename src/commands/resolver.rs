//! Names to addresses, and addresses to names, within a deadline.
//!
//! The system's resolver cannot be interrupted, so lookups run on threads of their own, at most 64, one
//! for each name that is asked for, however many ask. Whoever asks waits for the answer or gives up; the
//! lookup goes on, and its answer is remembered for a moment. Only what was found is remembered: the
//! rules are asked at each request.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{io, thread};

use self::memory::Memory;
use self::processor_time::ProcessorTime;
use self::question::ResolveFn;
use super::client_watch::{ClientWatch, wait_for};
use super::error::Error;
use super::families::Families;
use crate::system::address_space;
use crate::system::deadline::Deadline;
use crate::system::descriptors::Descriptors;
use crate::system::jobs::{self, Jobs};
use crate::system::shares::LOOKUPS;
use crate::system::sync::Mutex;
use crate::system::waker::Waker;
use crate::wire::address::Host;

mod answer;
mod memory;
mod processor_time;
mod question;

pub(crate) use answer::{Answer, Found};
pub(crate) use question::Question;

/// Of the descriptors one in so many may be a lookup's: 64 of 1,024.
const SHARE_OF_DESCRIPTORS: usize = 16;

/// Stack of a thread. `getaddrinfo` needs less than 128 KiB; the modules that the system's name
/// service loads may need more.
const STACK: usize = 512 * 1024;

type Job = jobs::Job<Question>;
type Waiter = jobs::Waiter<Question, Answer>;

/// Names that are looked up, and those that were a moment ago.
pub(crate) struct Resolver {
    ttl: Duration,
    families: Families,
    state: Mutex<State>,
    resolve: Box<ResolveFn>,
    descriptors: Arc<Descriptors>,
    stack: usize,
}

struct State {
    memory: Memory,
    queue: Jobs<Question, Answer>,
    processor_time: ProcessorTime,
    counts: Counts,
}

/// How many lookups there were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Lookups that have found something.
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
    /// Asks the system's resolver, and remembers its answers for `ttl`; failures for
    /// 5 s at the most.
    pub(crate) fn new(ttl: Duration, descriptors: &Arc<Descriptors>) -> Arc<Self> {
        Self::with_resolver(ttl, descriptors, |name| {
            (name, 0).to_socket_addrs().map(Iterator::collect)
        })
    }

    /// The same with another resolver, which is asked for names as `getaddrinfo` takes them: a dot
    /// at the end means that the name is complete.
    pub(crate) fn with_resolver(
        ttl: Duration,
        descriptors: &Arc<Descriptors>,
        resolve: impl Fn(&str) -> io::Result<Vec<SocketAddr>> + Send + Sync + 'static,
    ) -> Arc<Self> {
        let max_running = (descriptors.limit() / SHARE_OF_DESCRIPTORS).clamp(1, LOOKUPS.all);
        let (memory, queue) = (Memory::new(ttl), Jobs::new(max_running, LOOKUPS.of_one));
        Arc::new(Resolver {
            ttl,
            families: Families::default(),
            state: Mutex::new(State {
                memory,
                queue,
                processor_time: ProcessorTime::default(),
                counts: Counts::default(),
            }),
            resolve: Box::new(resolve),
            descriptors: Arc::clone(descriptors),
            stack: STACK,
        })
    }

    /// Looks up a name, or the name of an address, for `client`. Waits until `deadline` at the latest, and
    /// for as long as the client of `watch` has not left.
    ///
    /// # Errors
    ///
    /// [`Error::Unresolved`], also for a name with no address at all; `TimedOut` at the deadline;
    /// [`Error::ClientLeft`].
    pub(crate) fn resolve(
        self: &Arc<Self>,
        question: impl Into<Question>,
        client: IpAddr,
        deadline: Deadline,
        watch: &ClientWatch<'_>,
    ) -> Result<Found, Error> {
        // The session is counted as two descriptors, and has no target yet.
        let waker = || Waker::new().map(Arc::new);
        let answer = match self.ask(question, client, waker).map_err(Error::unresolved)? {
            LookupState::Known(answer) => answer,
            LookupState::UnderWay(lookup) => lookup.wait(deadline, watch)?,
        };
        answer.map_err(Error::Unresolved)
    }

    /// The same without waiting: if the answer is not known, `waker` gives what is woken when it is
    /// there.
    pub(crate) fn ask(
        self: &Arc<Self>,
        question: impl Into<Question>,
        client: IpAddr,
        waker: impl FnOnce() -> io::Result<Arc<Waker>>,
    ) -> io::Result<LookupState> {
        let question = question.into();
        let mut state = self.state.lock();
        if let Some(answer) = state.memory.recall(&question, Instant::now()) {
            state.counts.remembered += 1;
            return Ok(LookupState::Known(answer));
        }
        let (waiter, job) = state.queue.join(question, client.into(), waker()?);
        drop(state);
        self.start(job.into_iter().collect());
        Ok(LookupState::UnderWay(Lookup { waiter, resolver: Arc::clone(self) }))
    }

    /// Notes that `address` has won the race among those of `host`, if that is a name. It goes first
    /// for as long as the name is remembered, and for a minute at the most.
    pub(crate) fn won(&self, host: &Host, address: IpAddr) {
        let Host::Name(name) = host else { return };
        let mut state = self.state.lock();
        // Which of both was looked up was for the rules to say.
        for name in [name, &name.absolute()] {
            state.memory.won(&name.into(), address, Instant::now());
        }
    }

    /// Which family of a name's addresses goes first.
    pub(crate) fn families(&self) -> &Families {
        &self.families
    }

    /// How long addresses are remembered.
    pub(crate) fn ttl(&self) -> Duration {
        self.ttl
    }

    /// How many lookups there were so far.
    pub(crate) fn counts(&self) -> Counts {
        self.state.lock().counts
    }

    /// Starts a thread for each of the lookups. One that the system refuses is the answer.
    fn start(self: &Arc<Self>, mut jobs: Vec<Job>) {
        while let Some(job) = jobs.pop() {
            let (resolver, first) = (Arc::clone(self), job.clone());
            let thread = thread::Builder::new().name("tabi lookup".into()).stack_size(self.stack);
            let started = address_space::room_for(self.stack)
                .and_then(|()| thread.spawn(move || resolver.run(first)));
            if let Err(error) = started {
                let error = format!("cannot start a thread for the lookup: {error}");
                self.answer(&job, &Err(Arc::new(io::Error::other(error))));
                jobs.extend(self.state.lock().queue.release(&job));
            }
        }
    }

    /// Does one lookup after the other for as long as more wait than may run. The place of one that has
    /// taken much processor time stays taken for a while.
    fn run(self: Arc<Self>, job: Job) {
        let mut next = Some(job);
        while let Some(job) = next {
            let begin = processor_time::of_this_thread();
            let answer = self.look_up(&job.question);
            self.state.lock().memory.keep(&job.question, job.client, &answer, Instant::now());
            self.answer(&job, &answer);
            let taken = processor_time::of_this_thread().saturating_sub(begin);
            let now = Instant::now();
            let pause = self.state.lock().processor_time.charge(job.client, taken, now);
            thread::sleep(pause);
            let mut jobs = self.state.lock().queue.release(&job);
            next = jobs.pop();
            self.start(jobs);
        }
    }

    fn look_up(&self, question: &Question) -> Answer {
        // Its socket, and a file that it reads.
        let _reservation = self.descriptors.reserve();
        let found = catch_unwind(AssertUnwindSafe(|| question.look_up(&self.resolve)));
        found.unwrap_or_else(|_| Err(io::Error::other("the resolver failed"))).map_err(Arc::new)
    }

    /// Gives the answer to all who wait for it.
    fn answer(&self, job: &Job, answer: &Answer) {
        let mut state = self.state.lock();
        let Counts { found, failed, .. } = &mut state.counts;
        *(if answer.is_ok() { found } else { failed }) += 1;
        let waiters = state.queue.answered(job);
        drop(state);
        for waiter in waiters {
            let _ = waiter.answer.set(answer.clone());
            waiter.waker.wake();
        }
    }
}

/// A lookup that somebody waits for. Dropping it gives up on the answer, at once.
pub(crate) struct Lookup {
    waiter: Arc<Waiter>,
    resolver: Arc<Resolver>,
}

impl Lookup {
    /// The answer, once it is there. The waker has been woken then.
    pub(crate) fn answer(&self) -> Option<&Answer> {
        self.waiter.answer.get()
    }

    fn wait(&self, deadline: Deadline, watch: &ClientWatch<'_>) -> Result<Answer, Error> {
        loop {
            if let Some(answer) = self.answer() {
                return Ok(answer.clone());
            }
            wait_for(&*self.waiter.waker, watch, deadline)
                .map_err(|error| error.timed_out("no name server has answered"))?;
        }
    }
}

impl Drop for Lookup {
    fn drop(&mut self) {
        self.resolver.state.lock().queue.leave(&self.waiter);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::address::Name;
    use std::net::{Ipv4Addr, TcpListener, TcpStream};
    use std::sync::Mutex;
    use std::sync::mpsc::{Receiver, Sender, channel};
    use std::thread;

    const LONG: Duration = Duration::from_secs(20);
    const TTL: Duration = Duration::from_secs(30);

    fn name(name: &str) -> Name {
        Name::new(name.into()).unwrap()
    }

    fn soon() -> Deadline {
        Deadline::after(LONG)
    }

    /// A client with a number.
    fn client(number: u8) -> IpAddr {
        [192, 0, 2, number].into()
    }

    fn resolve(names: &Arc<Resolver>, host: &str) -> Result<Vec<SocketAddr>, Error> {
        let found = names.resolve(&name(host), client(1), soon(), &ClientWatch::that_stays())?;
        Ok(found.with_port(80))
    }

    /// A resolver that says what it is asked, and hangs until it is released.
    fn hanging(ttl: Duration) -> (Arc<Resolver>, Receiver<String>, Sender<()>) {
        let (asked_to, asked) = channel();
        let (release, released) = channel();
        let released = Mutex::new(released);
        let asked_to = Mutex::new(asked_to);
        let names = Resolver::with_resolver(ttl, &Descriptors::new(1024), move |name| {
            let _ = asked_to.lock().unwrap().send(name.to_owned());
            let _ = released.lock().unwrap().recv();
            Ok(vec![(Ipv4Addr::LOCALHOST, 0).into()])
        });
        (names, asked, release)
    }

    #[test]
    fn the_systems_resolver_is_asked() {
        let names = Resolver::new(TTL, &Descriptors::new(1024));
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
        let (names, asked, release) = hanging(TTL);
        let deadline = Deadline::after(Duration::from_millis(50));
        let watch = ClientWatch::that_stays();
        let answer = names.resolve(&name("a.example"), client(1), deadline, &watch);
        let is_late = |error: &io::Error| error.kind() == io::ErrorKind::TimedOut;
        assert!(matches!(&answer, Err(Error::Unreachable(error)) if is_late(error)), "{answer:?}");
        assert_eq!(asked.recv_timeout(LONG).unwrap(), "a.example");
        // The lookup goes on, and its answer is there for the next one.
        release.send(()).unwrap();
        let found = resolve(&names, "a.example").unwrap();
        assert_eq!(found, ["127.0.0.1:80".parse().unwrap()]);
        assert!(asked.try_recv().is_err(), "it is looked up once");
    }

    #[test]
    fn a_client_that_leaves_is_noticed_while_the_resolver_hangs() {
        let (names, _asked, release) = hanging(TTL);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (session, _) = listener.accept().unwrap();
        let (over_to, over) = channel();
        thread::scope(|scope| {
            let names = &names;
            scope.spawn(move || {
                let watch = ClientWatch::new(&session, false);
                let found = names.resolve(&name("a.example"), client(1), soon(), &watch);
                over_to.send(matches!(found, Err(Error::ClientLeft))).unwrap();
            });
            assert!(over.recv_timeout(Duration::from_millis(50)).is_err());
            drop(stream);
            assert_eq!(over.recv_timeout(LONG), Ok(true));
        });
        drop(release);
    }

    #[test]
    fn one_lookup_serves_all_who_ask() {
        let (names, asked, release) = hanging(TTL);
        thread::scope(|scope| {
            let requests: Vec<_> = (0..50)
                .map(|_| {
                    let names = &names;
                    scope.spawn(move || {
                        let watch = ClientWatch::that_stays();
                        names.resolve(&name("A.example"), client(1), soon(), &watch)
                    })
                })
                .collect();
            asked.recv_timeout(LONG).unwrap();
            release.send(()).unwrap();
            for (number, request) in (0..).zip(requests) {
                let found = request.join().unwrap().unwrap().with_port(number);
                assert_eq!(found, [(Ipv4Addr::LOCALHOST, number).into()]);
            }
        });
        assert!(asked.try_recv().is_err(), "it is looked up once");
        assert_eq!(names.counts().found, 1);
    }

    #[test]
    fn lookups_that_hang_for_one_client_leave_room_for_others() {
        let (names, asked, release) = hanging(Duration::ZERO);
        let waker = Arc::new(Waker::new().unwrap());
        let ask = |host: &str, client: IpAddr| match names
            .ask(&name(host), client, || Ok(Arc::clone(&waker)))
            .unwrap()
        {
            LookupState::UnderWay(lookup) => lookup,
            LookupState::Known(_) => panic!("{host} is known"),
        };
        let attacker: Vec<Lookup> =
            (0..100).map(|number| ask(&format!("n{number}.example"), client(1))).collect();
        let started: Vec<String> = (0..16).map(|_| asked.recv_timeout(LONG).unwrap()).collect();
        assert!(started.iter().all(|name| name.starts_with('n')));
        assert!(asked.try_recv().is_err());
        let other = ask("other.example", client(2));
        assert_eq!(asked.recv_timeout(LONG).unwrap(), "other.example");
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
    fn a_lookup_that_has_taken_much_processor_time_keeps_its_place_for_a_while() {
        let (ended_to, ended) = channel();
        // There is one place.
        let names = Resolver::with_resolver(TTL, &Descriptors::new(16), move |name| {
            // An eighth of a second a second, and a second at once.
            let until = processor_time::of_this_thread() + Duration::from_millis(1200);
            while name.starts_with("costly.") && processor_time::of_this_thread() < until {}
            let _ = ended_to.send(Instant::now());
            Ok(vec![(Ipv4Addr::LOCALHOST, 0).into()])
        });
        // A busy machine takes its time for so much processor time.
        let patient = Deadline::after(30 * LONG);
        let costly = name("costly.example");
        names.resolve(&costly, client(1), patient, &ClientWatch::that_stays()).unwrap();
        let begin = ended.recv().unwrap();
        let again = names.ask(&costly, client(1), || panic!("nobody waits"));
        assert!(matches!(again, Ok(LookupState::Known(Ok(_)))), "it is answered before that");
        resolve(&names, "cheap.example").unwrap();
        assert!(begin.elapsed() > Duration::from_millis(500), "{:?}", begin.elapsed());
    }

    #[test]
    fn a_resolver_that_panics_is_a_failed_lookup() {
        let names = Resolver::with_resolver(TTL, &Descriptors::new(1024), |name| {
            assert_ne!(name, "bad.example", "as this test wants it");
            Ok(vec![(Ipv4Addr::LOCALHOST, 0).into()])
        });
        assert!(matches!(resolve(&names, "bad.example"), Err(Error::Unresolved(_))));
        assert!(resolve(&names, "good.example").is_ok());
    }

    #[test]
    fn the_winner_of_a_race_goes_first() {
        let both: [SocketAddr; 2] = ["[::1]:0".parse().unwrap(), "127.0.0.1:0".parse().unwrap()];
        let names =
            Resolver::with_resolver(TTL, &Descriptors::new(1024), move |_| Ok(both.to_vec()));
        assert!(resolve(&names, "a.example").unwrap()[0].is_ipv6());
        names.won(&Host::Name(name("A.example")), both[1].ip());
        assert!(resolve(&names, "a.example").unwrap()[0].is_ipv4());
    }

    #[test]
    fn a_thread_that_the_system_refuses_is_a_failed_lookup() {
        let descriptors = Descriptors::new(1024);
        let addresses = |_: &str| Ok(vec![(Ipv4Addr::LOCALHOST, 0).into()]);
        let names = Resolver::with_resolver(TTL, &descriptors, addresses);
        let mut names = Arc::into_inner(names).unwrap();
        names.stack = usize::MAX - (1 << 20);
        let names = Arc::new(names);
        for _ in 0..100 {
            let Err(Error::Unresolved(error)) = resolve(&names, "a.example") else {
                panic!("it has an answer");
            };
            assert!(error.to_string().contains("cannot start a thread"), "{error}");
        }
        assert_eq!(names.counts(), Counts { failed: 100, ..Counts::default() });
    }
}
