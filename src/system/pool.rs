//! The threads: a worker and a partner for each live session, grown on demand.
//!
//! `threadpool` queues without bound, never refuses, and hands jobs out in turn, so that each finds
//! a thread whose stack and caches have gone cold. So its jobs here are not sessions but threads
//! that wait for one, and admission is decided before: a session needs a [`Slot`], there are only
//! so many of them, and each is a worker and its partner, the most recently used first. Nothing
//! ever waits behind a live session.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};
use std::{io, mem, thread};

use log::{error, info, warn};
use threadpool::ThreadPool;

/// Stack of every thread that serves, in octets. `getaddrinfo` runs on it, with whatever modules the
/// system's name service loads, so it is far larger than tabi itself needs. Only what is touched
/// counts as memory.
const STACK: usize = 512 * 1024;

/// Pairs of threads that stay, however quiet it is.
const FEWEST_PAIRS: usize = 4;

/// How often the pool looks whether it has become larger than it needs to be.
const TRIM_EVERY: Duration = Duration::from_secs(60);

/// How long to wait before asking the system again for a thread that it has refused.
const THREAD_RETRY: Duration = Duration::from_millis(250);

thread_local! {
    /// This thread is asking `threadpool` for more threads.
    static GROWING: Cell<bool> = const { Cell::new(false) };
}

/// Whether a panic of this thread is only `threadpool`'s word for a thread that the system refuses.
/// The pool deals with it, and says so in the log.
#[must_use]
pub fn panic_is_expected() -> bool {
    GROWING.get()
}

/// A bounded number of threads in pairs.
pub struct Pool {
    max: usize,
    state: Mutex<State>,
    /// Signalled when a slot is free, and when the pool closes.
    freed: Condvar,
}

struct State {
    /// Has as many threads as there are in `idle` and in slots.
    threads: ThreadPool,
    /// Pairs in all.
    pairs: usize,
    /// Pairs without a slot, the most recently used one last.
    idle: Vec<Pair>,
    /// Slots taken.
    live: usize,
    /// The most slots taken at once since the last trim.
    peak: usize,
    trimmed: Instant,
    /// How many wait on `freed`; a signal that nobody waits for would cost a system call.
    waiting: usize,
    full_since: Option<Instant>,
    out_of_threads: bool,
    closed: bool,
}

struct Pair {
    worker: Thread,
    partner: Partner,
}

impl Pool {
    /// A pool of at most `max` sessions at once.
    #[must_use]
    pub fn new(max: usize) -> Arc<Self> {
        let state = State {
            threads: threadpool::Builder::new().num_threads(1).thread_stack_size(STACK).build(),
            pairs: 0,
            idle: Vec::new(),
            live: 0,
            peak: 0,
            trimmed: Instant::now(),
            waiting: 0,
            full_since: None,
            out_of_threads: false,
            closed: false,
        };
        Arc::new(Pool { max, state: Mutex::new(state), freed: Condvar::new() })
    }

    /// The most sessions at once.
    #[must_use]
    pub fn max(&self) -> usize {
        self.max
    }

    /// Waits until a slot is free without taking it. False once the pool is closed.
    pub fn wait_for_room(&self) -> bool {
        let mut state = self.lock();
        while !state.closed && state.live >= self.max {
            if state.full_since.is_none() {
                state.full_since = Some(Instant::now());
                warn!(
                    "all {} connections are in use; further clients wait (--max-connections)",
                    self.max
                );
            }
            state = self.wait(state, None);
        }
        !state.closed
    }

    /// Takes a slot, and waits for one where none is free. `None` once the pool is closed.
    pub fn slot(self: &Arc<Self>) -> Option<Slot> {
        let mut state = self.lock();
        while !state.closed {
            if state.live >= self.max {
                state = self.wait(state, None);
            } else if let Some(pair) = state.pair() {
                state.live += 1;
                state.peak = state.peak.max(state.live);
                return Some(Slot { pool: Arc::clone(self), pair: Some(pair) });
            } else {
                state = self.wait(state, Some(THREAD_RETRY));
            }
        }
        None
    }

    /// How many slots are taken.
    #[must_use]
    pub fn live(&self) -> usize {
        self.lock().live
    }

    /// Hands out no further slot and ends every wait for one.
    pub fn close(&self) {
        self.lock().closed = true;
        self.freed.notify_all();
    }

    /// Waits until no slot is taken, for at most `limit`. Says how many still are.
    pub fn wait_until_idle(&self, limit: Duration) -> usize {
        let deadline = Instant::now() + limit;
        let mut state = self.lock();
        while state.live > 0 {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            state = self.wait(state, Some(left));
        }
        state.live
    }

    /// Ends threads that the last minute had no use for. Says when there may be more to end, if
    /// there may be.
    pub fn trim(&self, now: Instant) -> Option<Duration> {
        let mut state = self.lock();
        let again = |state: &State| (state.pairs > FEWEST_PAIRS).then_some(TRIM_EVERY);
        if now.duration_since(state.trimmed) < TRIM_EVERY {
            return again(&state);
        }
        let wanted = state.peak.max(FEWEST_PAIRS);
        state.trimmed = now;
        state.peak = state.live;
        // The least recently used ones stand first.
        let surplus = state.pairs.saturating_sub(wanted).min(state.idle.len());
        let ended: Vec<Pair> = state.idle.drain(..surplus).collect();
        state.pairs -= surplus;
        // A thread whose job has ended leaves if there are more than this.
        let threads = 2 * state.pairs;
        state.threads.set_num_threads(threads.max(1));
        let again = again(&state);
        drop(state);
        drop(ended);
        again
    }

    fn release(&self, pair: Option<Pair>) {
        let mut state = self.lock();
        state.idle.extend(pair);
        state.live -= 1;
        // The gap between full and free keeps a server at its limit from logging at every session.
        let enough = state.live <= self.max * 7 / 8;
        if let Some(since) = enough.then(|| state.full_since.take()).flatten() {
            let seconds = since.elapsed().as_secs_f32();
            info!("connections are free again after {seconds:.1} s");
        }
        let signal = state.waiting > 0;
        drop(state);
        if signal {
            self.freed.notify_all();
        }
    }

    fn wait<'a>(
        &self,
        mut state: MutexGuard<'a, State>,
        limit: Option<Duration>,
    ) -> MutexGuard<'a, State> {
        state.waiting += 1;
        let mut state = match limit {
            None => self.freed.wait(state).unwrap_or_else(PoisonError::into_inner),
            Some(limit) => {
                self.freed.wait_timeout(state, limit).unwrap_or_else(PoisonError::into_inner).0
            }
        };
        state.waiting -= 1;
        state
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// A pair of threads without a slot, made now if need be. `None` when the system has none to
    /// give.
    fn pair(&mut self) -> Option<Pair> {
        let pair = match self.idle.pop() {
            Some(pair) => Ok(pair),
            None => self.add_pair(),
        };
        match pair {
            Ok(pair) => {
                self.out_of_threads = false;
                Some(pair)
            }
            Err(error) => {
                if !mem::replace(&mut self.out_of_threads, true) {
                    warn!(
                        "no thread to be had for a further client, who waits: {error} \
                         (lower --max-connections or raise the system's limit on threads)"
                    );
                }
                None
            }
        }
    }

    fn add_pair(&mut self) -> io::Result<Pair> {
        let threads = 2 * (self.pairs + 1);
        if self.out_of_threads {
            for probe in [probe()?, probe()?] {
                let _ = probe.join();
            }
        }
        // This panics when the system refuses a thread, which is then counted already. The system is
        // asked beforehand only when it has refused one: it costs as much as the thread.
        GROWING.set(true);
        let grown = catch_unwind(AssertUnwindSafe(|| self.threads.set_num_threads(threads)));
        GROWING.set(false);
        if grown.is_err() {
            self.threads.set_num_threads((threads - 2).max(1));
            return Err(io::Error::other("the system's limit is reached"));
        }
        self.pairs += 1;
        let worker = Thread::start(&self.threads);
        let partner = Partner(Thread::start(&self.threads));
        Ok(Pair { worker, partner })
    }
}

/// Fails where the system has no thread to give. Two at once stand for a pair.
fn probe() -> io::Result<thread::JoinHandle<()>> {
    thread::Builder::new().stack_size(STACK).spawn(|| ())
}

/// The right to run one job, and the threads that go with it.
pub struct Slot {
    pool: Arc<Pool>,
    pair: Option<Pair>,
}

impl Slot {
    /// Runs `job` on the worker. The slot is free again when the job is done, even if it panics.
    pub fn execute(self, job: impl FnOnce(&Partner) + Send + 'static) {
        let Some(worker) = self.pair.as_ref().map(|pair| Arc::clone(&pair.worker.inbox)) else {
            return;
        };
        worker.put(Next::Run(Box::new(move || {
            let job = || self.pair.as_ref().map(|pair| job(&pair.partner));
            if catch_unwind(AssertUnwindSafe(job)).is_err() {
                error!("a session ended by a fault in tabi; please report the lines above");
            }
            drop(self);
        })));
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.pool.release(self.pair.take());
    }
}

type Job = Box<dyn FnOnce() + Send>;

/// A thread of the pool that runs one job after the other, and ends when this is dropped.
struct Thread {
    inbox: Arc<Inbox>,
}

/// Holds one job at the most: whoever sends the next one knows that this one has begun. Its thread
/// parks rather than waiting on a condition: nobody then makes a system call to wake the waking.
#[derive(Default)]
struct Inbox {
    next: Mutex<Next>,
    thread: OnceLock<thread::Thread>,
}

#[derive(Default)]
enum Next {
    #[default]
    Wait,
    Run(Job),
    End,
}

impl Thread {
    fn start(threads: &ThreadPool) -> Self {
        let inbox = Arc::<Inbox>::default();
        let thread = Thread { inbox: Arc::clone(&inbox) };
        threads.execute(move || {
            inbox.thread.get_or_init(thread::current);
            while let Some(job) = inbox.take() {
                // The one who waits for the job sees that it has ended without a result.
                let _ = catch_unwind(AssertUnwindSafe(job));
            }
        });
        thread
    }
}

impl Inbox {
    fn put(&self, next: Next) {
        *self.next.lock().unwrap_or_else(PoisonError::into_inner) = next;
        // A thread that has not begun yet looks into its inbox before it parks.
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }

    fn take(&self) -> Option<Job> {
        loop {
            let next = mem::take(&mut *self.next.lock().unwrap_or_else(PoisonError::into_inner));
            match next {
                Next::Wait => thread::park(),
                Next::Run(job) => return Some(job),
                Next::End => return None,
            }
        }
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        self.inbox.put(Next::End);
    }
}

/// A thread that waits beside a worker for what the worker cannot do itself: the second direction
/// of a tunnel, or a lookup that has to be given up on.
pub struct Partner(Thread);

impl Partner {
    /// Starts `job` on the partner thread.
    pub fn start_job<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Pending<'_, T> {
        let outcome = Arc::new(Outcome {
            progress: Mutex::new(Progress::UnderWay),
            awaited_by: thread::current(),
        });
        let told = Told(Arc::clone(&outcome));
        self.0.inbox.put(Next::Run(Box::new(move || {
            let result = job();
            told.0.tell(Progress::Done(result));
        })));
        Pending { outcome, over: false, _partner: self }
    }
}

struct Outcome<T> {
    progress: Mutex<Progress<T>>,
    awaited_by: thread::Thread,
}

enum Progress<T> {
    UnderWay,
    Done(T),
    Failed,
}

impl<T> Outcome<T> {
    /// Only the first word counts.
    fn tell(&self, news: Progress<T>) {
        let mut progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(*progress, Progress::UnderWay) {
            *progress = news;
            drop(progress);
            self.awaited_by.unpark();
        }
    }

    /// The news, once there is some; it is taken only once.
    fn news(&self) -> Option<Progress<T>> {
        let mut progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        match *progress {
            Progress::UnderWay => None,
            _ => Some(mem::replace(&mut *progress, Progress::Failed)),
        }
    }
}

/// Tells of a failure when it is dropped before anything else was told.
struct Told<T>(Arc<Outcome<T>>);

impl<T> Drop for Told<T> {
    fn drop(&mut self) {
        self.0.tell(Progress::Failed);
    }
}

/// A job on its way on a partner thread. Dropping it waits for the job's end: a partner is never
/// handed on while it is busy.
pub struct Pending<'a, T> {
    outcome: Arc<Outcome<T>>,
    over: bool,
    _partner: &'a Partner,
}

/// A job is still on its way.
#[derive(Debug, PartialEq, Eq)]
pub struct UnderWay;

impl<T> Pending<'_, T> {
    /// Waits for the result. `None` if the job panicked.
    #[must_use]
    pub fn wait(mut self) -> Option<T> {
        self.take(None).unwrap_or(None)
    }

    /// Waits for the result, for at most `limit`. `None` if the job panicked, or if its result was
    /// taken before.
    ///
    /// # Errors
    ///
    /// When the job is still on its way.
    pub fn wait_for(&mut self, limit: Duration) -> Result<Option<T>, UnderWay> {
        self.take(Some(limit))
    }

    fn take(&mut self, limit: Option<Duration>) -> Result<Option<T>, UnderWay> {
        let begin = Instant::now();
        loop {
            match self.outcome.news() {
                Some(Progress::Done(result)) => {
                    self.over = true;
                    return Ok(Some(result));
                }
                Some(_) => {
                    self.over = true;
                    return Ok(None);
                }
                None => {}
            }
            match limit.map(|limit| limit.saturating_sub(begin.elapsed())) {
                None => thread::park(),
                Some(Duration::ZERO) => return Err(UnderWay),
                Some(left) => thread::park_timeout(left),
            }
        }
    }
}

impl<T> Drop for Pending<'_, T> {
    fn drop(&mut self) {
        if !self.over {
            let _ = self.take(None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    const LONG: Duration = Duration::from_secs(10);

    #[test]
    fn no_more_jobs_run_at_once_than_there_are_slots() {
        let pool = Pool::new(2);
        let (end, held) = channel::<()>();
        let held = Arc::new(Mutex::new(held));
        for _ in 0..2 {
            let held = Arc::clone(&held);
            pool.slot().unwrap().execute(move |_| {
                let _ = held.lock().unwrap().recv();
            });
        }
        assert_eq!(pool.live(), 2);
        let waiting = thread::spawn({
            let pool = Arc::clone(&pool);
            move || pool.wait_for_room() && pool.slot().is_some()
        });
        assert_eq!(pool.wait_until_idle(Duration::from_millis(50)), 2);
        assert!(!waiting.is_finished());
        end.send(()).unwrap();
        assert!(waiting.join().unwrap());
        drop(end);
        assert_eq!(pool.wait_until_idle(LONG), 0);
    }

    #[test]
    fn grows_to_as_many_as_are_needed_and_shrinks_again() {
        let pool = Pool::new(64);
        let slots: Vec<Slot> = (0..64).map(|_| pool.slot().unwrap()).collect();
        assert_eq!(pool.lock().pairs, 64);
        drop(slots);
        assert_eq!(pool.lock().idle.len(), 64);
        let now = Instant::now();
        assert_eq!(pool.trim(now + TRIM_EVERY), Some(TRIM_EVERY));
        assert_eq!(pool.lock().pairs, 64, "the minute had use for them");
        assert_eq!(pool.trim(now + 2 * TRIM_EVERY), None);
        assert_eq!(pool.lock().pairs, FEWEST_PAIRS);
        assert_eq!(pool.lock().idle.len(), FEWEST_PAIRS);
        let begin = Instant::now();
        while pool.lock().threads.active_count() > 2 * FEWEST_PAIRS {
            assert!(begin.elapsed() < LONG, "the threads stay");
            thread::yield_now();
        }
        let (sender, receiver) = channel();
        pool.slot().unwrap().execute(move |_| sender.send(7).unwrap());
        assert_eq!(receiver.recv_timeout(LONG), Ok(7));
    }

    #[test]
    fn a_job_that_panics_frees_its_slot() {
        let pool = Pool::new(1);
        pool.slot().unwrap().execute(|_| panic!("as this test wants it"));
        assert_eq!(pool.wait_until_idle(LONG), 0);
        let (sender, receiver) = channel();
        pool.slot().unwrap().execute(move |partner| {
            let job: Pending<u32> = partner.start_job(|| panic!("as this test wants it"));
            sender.send((job.wait(), partner.start_job(|| 7).wait())).unwrap();
        });
        assert_eq!(receiver.recv_timeout(LONG), Ok((None, Some(7))));
    }

    #[test]
    fn a_pending_job_is_waited_for_when_it_is_dropped() {
        let threads = ThreadPool::new(1);
        let partner = Partner(Thread::start(&threads));
        let (release, held) = channel::<()>();
        let mut job = partner.start_job(move || held.recv());
        assert_eq!(job.wait_for(Duration::from_millis(10)), Err(UnderWay));
        release.send(()).unwrap();
        drop(job);
        assert_eq!(partner.start_job(|| 7).wait(), Some(7));
    }

    #[test]
    fn a_closed_pool_ends_every_wait() {
        let pool = Pool::new(1);
        let slot = pool.slot();
        let waiting = thread::spawn({
            let pool = Arc::clone(&pool);
            move || (pool.wait_for_room(), pool.slot().is_none())
        });
        pool.close();
        assert_eq!(waiting.join().unwrap(), (false, true));
        drop(slot);
    }
}
