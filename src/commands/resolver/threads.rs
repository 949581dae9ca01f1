//! The threads that look names up: made when they are needed, at most 64, gone when nothing has come
//! for a while.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use std::{io, thread};

use portable_atomic::{AtomicU64, Ordering};

use super::memory::Memory;
use super::queue::{Job, Queue, Waiter};
use super::{Answer, Counts, Found, spelling};
use crate::socks5::Name;
use crate::system::address_space;
use crate::system::descriptors::Descriptors;

/// Lookups at once. A lookup that hangs waits for as long as `resolv.conf` says, usually 5 s twice
/// for each name server.
const MOST_AT_ONCE: usize = 64;

/// Of the descriptors one in so many may be a lookup's: 64 of 1,024.
const SHARE_OF_DESCRIPTORS: usize = 16;

/// Stack of a thread. `getaddrinfo` needs less than 128 KiB; the modules that the system's name
/// service loads may need more.
const STACK: usize = 512 * 1024;

/// A thread that has had nothing to do for this long ends.
const IDLE: Duration = Duration::from_secs(10);

/// Addresses of one name that are used. CONNECT dials 16 at the most.
const MOST_ADDRESSES: usize = 64;

/// What the system's resolver does: a name, as it is to be asked for, to its addresses.
pub(super) type ResolveFn = dyn Fn(&str) -> io::Result<Vec<SocketAddr>> + Send + Sync;

/// The threads, and what they work on.
pub(super) struct Threads {
    work: Mutex<Work>,
    /// Signalled when there is a job for an idle thread, and at the end.
    news: Condvar,
    resolver: Box<ResolveFn>,
    descriptors: Arc<Descriptors>,
    stack: usize,
    found: AtomicU64,
    failed: AtomicU64,
    remembered: AtomicU64,
}

struct Work {
    memory: Memory,
    queue: Queue,
    /// Jobs for threads that are idle: never more than those.
    ready: VecDeque<Job>,
    idle: usize,
    over: bool,
}

impl Threads {
    pub(super) fn new(
        lasts: Duration,
        descriptors: Arc<Descriptors>,
        resolver: Box<ResolveFn>,
    ) -> Arc<Self> {
        let most = (descriptors.limit() / SHARE_OF_DESCRIPTORS).clamp(1, MOST_AT_ONCE);
        let work = Work {
            memory: Memory::new(lasts),
            queue: Queue::new(most),
            ready: VecDeque::new(),
            idle: 0,
            over: false,
        };
        Arc::new(Threads {
            work: Mutex::new(work),
            news: Condvar::new(),
            resolver,
            descriptors,
            stack: STACK,
            found: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            remembered: AtomicU64::new(0),
        })
    }

    /// What is remembered of the name with this key.
    pub(super) fn recall(&self, key: &str) -> Option<Answer> {
        let answer = self.lock().memory.recall(key, Instant::now());
        if answer.is_some() {
            self.remembered.fetch_add(1, Ordering::Relaxed);
        }
        answer
    }

    /// Lets the one whom `waiter` makes wait for the name, unless it is remembered.
    pub(super) fn join(
        self: &Arc<Self>,
        key: &str,
        waiter: impl FnOnce(u64, Arc<str>) -> Waiter,
    ) -> Result<Answer, Arc<Waiter>> {
        let mut work = self.lock();
        // It may have become known since it was last asked for.
        if let Some(answer) = work.memory.recall(key, Instant::now()) {
            drop(work);
            self.remembered.fetch_add(1, Ordering::Relaxed);
            return Ok(answer);
        }
        let name = work.queue.name(key).unwrap_or_else(|| key.into());
        let waiter = Arc::new(waiter(work.queue.number(), name));
        let job = work.queue.join(&waiter);
        drop(work);
        self.start(job);
        Err(waiter)
    }

    /// The one whom `waiter` stands for has gone.
    pub(super) fn leave(&self, waiter: &Waiter) {
        self.lock().queue.leave(waiter);
    }

    /// Remembers which address of a name has won a race.
    pub(super) fn won(&self, key: &str, address: IpAddr) {
        self.lock().memory.won(key, address);
    }

    pub(super) fn counts(&self) -> Counts {
        Counts {
            found: self.found.load(Ordering::Relaxed),
            failed: self.failed.load(Ordering::Relaxed),
            remembered: self.remembered.load(Ordering::Relaxed),
        }
    }

    /// Makes the threads end that are idle, and the others once their lookup is over.
    pub(super) fn close(&self) {
        self.lock().over = true;
        self.news.notify_all();
    }

    /// Gives the jobs to idle threads, and to new ones where there are too few.
    fn start(self: &Arc<Self>, jobs: impl IntoIterator<Item = Job>) {
        let mut jobs: VecDeque<Job> = jobs.into_iter().collect();
        while let Some(job) = jobs.pop_front() {
            let mut work = self.lock();
            if work.idle > work.ready.len() {
                work.ready.push_back(job);
                drop(work);
                self.news.notify_one();
                continue;
            }
            drop(work);
            if let Err(error) = self.spawn(job.clone()) {
                let error = format!("cannot start a thread for the lookup: {error}");
                jobs.extend(self.finish(&job, &Err(Arc::new(io::Error::other(error)))));
            }
        }
    }

    fn spawn(self: &Arc<Self>, job: Job) -> io::Result<()> {
        address_space::room_for(self.stack)?;
        let threads = Arc::clone(self);
        let thread = thread::Builder::new().name("tabi lookup".into()).stack_size(self.stack);
        thread.spawn(move || threads.run(job)).map(drop)
    }

    fn run(self: Arc<Self>, mut job: Job) {
        loop {
            let answer = self.look_up(&job.name);
            let answer = self.lock().memory.keep(&job.name, answer, Instant::now());
            let mut next = self.finish(&job, &answer).into_iter();
            let first = next.next();
            self.start(next);
            match first.or_else(|| self.wait()) {
                Some(next) => job = next,
                None => return,
            }
        }
    }

    fn look_up(&self, key: &str) -> Answer {
        // Its socket, and a file that it reads.
        let _held = self.descriptors.reserve();
        let ask = || match spelling::address(key) {
            Some(ip) => name_of(ip),
            None => (self.resolver)(&spelling::question(key)).and_then(some),
        };
        let found = catch_unwind(AssertUnwindSafe(ask));
        found.unwrap_or_else(|_| Err(io::Error::other("the resolver failed"))).map_err(Arc::new)
    }

    /// Gives the answer to all who wait for it. Gives back the lookups that are to be started now.
    fn finish(&self, job: &Job, answer: &Answer) -> Vec<Job> {
        let count = if answer.is_ok() { &self.found } else { &self.failed };
        count.fetch_add(1, Ordering::Relaxed);
        let (waiters, jobs) = self.lock().queue.finish(job);
        for waiter in waiters {
            let _ = waiter.answer.set(answer.clone());
            waiter.waker.wake();
        }
        jobs
    }

    /// Waits for a job, for a while.
    fn wait(&self) -> Option<Job> {
        let deadline = Instant::now() + IDLE;
        let mut work = self.lock();
        work.idle += 1;
        let job = loop {
            let job = work.ready.pop_front();
            let left = deadline.saturating_duration_since(Instant::now());
            if job.is_some() || left.is_zero() || work.over {
                break job;
            }
            work = self.news.wait_timeout(work, left).unwrap_or_else(PoisonError::into_inner).0;
        };
        work.idle -= 1;
        job
    }

    fn lock(&self) -> MutexGuard<'_, Work> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// At least one address, and no more than are used.
fn some(mut addresses: Vec<SocketAddr>) -> io::Result<Found> {
    addresses.truncate(MOST_ADDRESSES);
    if addresses.is_empty() {
        return Err(io::ErrorKind::NotFound.into());
    }
    Ok(Found::Addresses(addresses.into()))
}

/// The name of an address, as getnameinfo(3) finds it: from the hosts file, a name server, or whatever
/// else this machine has been told to ask.
fn name_of(ip: IpAddr) -> io::Result<Found> {
    let name = dns_lookup::lookup_addr(&ip)?;
    // What it is instead may be long, and an error is remembered.
    let is_none = |_| io::Error::other("it has a name that is no host's");
    Name::new(name.into()).map(Found::Name).map_err(is_none)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system::waker::Waker;
    use std::sync::OnceLock;

    #[test]
    fn a_thread_that_the_system_refuses_is_a_failed_lookup() {
        let resolver = Box::new(|_: &str| Ok(vec!["127.0.0.1:0".parse().unwrap()]));
        let lasts = Duration::from_secs(30);
        let threads = Threads::new(lasts, Descriptors::new(1024), resolver);
        let mut threads = Arc::into_inner(threads).unwrap();
        threads.stack = usize::MAX - (1 << 20);
        let threads = Arc::new(threads);
        for _ in 0..100 {
            let waker = Arc::new(Waker::new().unwrap());
            let group = IpAddr::from([127, 0, 0, 1]).into();
            let waiter =
                |number, name| Waiter { number, name, group, waker, answer: OnceLock::new() };
            let waiter = threads.join("a", waiter).unwrap_err();
            let error = waiter.answer.get().unwrap().as_ref().unwrap_err();
            assert!(error.to_string().contains("cannot start a thread"), "{error}");
            threads.leave(&waiter);
        }
        assert!(threads.recall("a").is_none());
    }
}
