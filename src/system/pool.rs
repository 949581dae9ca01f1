//! The threads that serve: pairs of a worker and its partner, made on demand and used again.
//!
//! The threads come from `threadpool`, which the project is bound to. Its queue has no limit, it
//! never refuses a job, and it hands jobs out in turn, so that each finds a thread whose stack and
//! caches have gone cold. So a job of `threadpool` here is not a session: it is a thread that waits
//! for one after the other (`thread`), and this pool decides which. `threads` is the price: a
//! panic that is caught, and threads that are asked for on probation.
//!
//! What is left is simple. There are at most so many pairs; the one that was used last is used next;
//! and a worker has its partner before it begins, so that nothing ever waits behind a live session.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

mod partner;
mod thread;
mod threads;

pub use partner::{Partner, PartnerJob};
pub(super) use threads::STACK;
pub use threads::panic_is_expected;

use super::sync::Mutex;
use thread::Thread;
use threads::Threads;

/// Pairs of threads that stay, however quiet it is.
const FEWEST_PAIRS: usize = 4;

/// How long a further pair stays that does nothing.
const IDLE_LIMIT: Duration = Duration::from_secs(60);

/// A bounded number of threads in pairs.
pub struct Pool {
    /// Pairs at the most.
    max: usize,
    state: Mutex<State>,
}

struct State {
    threads: Threads,
    /// Pairs that do nothing, and since when. The most recently used one stands last and is used next.
    idle: Vec<(Instant, Pair)>,
}

struct Pair {
    worker: Thread,
    partner: Partner,
}

impl Pool {
    /// A pool of at most `max` pairs.
    pub fn new(max: usize) -> Arc<Self> {
        let state = State { threads: Threads::new(), idle: Vec::new() };
        Arc::new(Pool { max, state: Mutex::new(state) })
    }

    /// Runs `job` on a worker, with the partner that belongs to it.
    ///
    /// # Errors
    ///
    /// When every pair is busy, or when the system refuses a thread.
    pub fn start(self: &Arc<Self>, job: impl FnOnce(&Partner) + Send + 'static) -> io::Result<()> {
        let pair = self.state.lock().pair(self.max)?;
        let worker = pair.worker.inbox();
        let busy = Busy { pool: Arc::clone(self), pair: Some(pair) };
        worker.run(move || {
            if let Some(pair) = &busy.pair {
                job(&pair.partner);
            }
            drop(busy);
        });
        Ok(())
    }

    /// Makes sure of so many pairs that do nothing.
    ///
    /// # Errors
    ///
    /// When the system refuses a thread.
    pub fn prepare(&self, pairs: usize) -> io::Result<()> {
        let mut state = self.state.lock();
        let pairs = (0..pairs).map(|_| state.pair(self.max)).collect::<io::Result<Vec<_>>>()?;
        let now = Instant::now();
        state.idle.extend(pairs.into_iter().map(|pair| (now, pair)));
        Ok(())
    }

    /// How many pairs there may be.
    pub fn max(&self) -> usize {
        self.max
    }

    /// How many threads there are, idle ones included.
    pub fn threads(&self) -> usize {
        self.state.lock().threads.count()
    }

    /// Ends pairs that have done nothing for a minute. Says whether no pair is left that is to end later.
    pub fn trim(&self, now: Instant) -> bool {
        let mut state = self.state.lock();
        state.threads.end_surplus();
        let idle_for = |since: Instant| now.saturating_duration_since(since);
        let unused = state.idle.partition_point(|(since, _)| idle_for(*since) >= IDLE_LIMIT);
        let surplus = unused.min(state.pairs().saturating_sub(FEWEST_PAIRS));
        state.threads.forget(2 * surplus);
        let ended: Vec<_> = state.idle.drain(..surplus).collect();
        let is_done = state.idle.is_empty() || state.pairs() <= FEWEST_PAIRS;
        drop(state);
        drop(ended);
        is_done
    }
}

impl State {
    fn pairs(&self) -> usize {
        self.threads.count() / 2
    }

    fn pair(&mut self, max: usize) -> io::Result<Pair> {
        if let Some((_, pair)) = self.idle.pop() {
            return Ok(pair);
        }
        if self.pairs() >= max {
            return Err(io::Error::other(format!("all {max} pairs of threads are busy")));
        }
        let [worker, partner] = self.threads.add_two()?;
        Ok(Pair { worker, partner: Partner(partner) })
    }
}

/// A pair that runs a job. It is idle again when this is dropped, also by a panic of the job.
struct Busy {
    pool: Arc<Pool>,
    pair: Option<Pair>,
}

impl Drop for Busy {
    fn drop(&mut self) {
        let pair = self.pair.take().map(|pair| (Instant::now(), pair));
        self.pool.state.lock().idle.extend(pair);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::mpsc::{Receiver, Sender, channel};
    use std::thread::yield_now;

    const LONG: Duration = Duration::from_secs(10);

    /// Jobs that are busy until the sender is dropped.
    fn keep_busy(pool: &Arc<Pool>, jobs: usize) -> Sender<()> {
        let (end, held) = channel::<()>();
        let held: Arc<Mutex<Receiver<()>>> = Arc::new(Mutex::new(held));
        for _ in 0..jobs {
            let held = Arc::clone(&held);
            pool.start(move |_| assert!(held.lock().recv().is_err())).unwrap();
        }
        end
    }

    fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
        let begin = Instant::now();
        while !is_so() {
            assert!(begin.elapsed() < LONG, "{what}");
            yield_now();
        }
    }

    #[test]
    fn no_more_pairs_are_busy_at_once_than_there_may_be() {
        let pool = Pool::new(2);
        let end = keep_busy(&pool, 2);
        assert!(pool.start(|_| ()).is_err());
        assert_eq!(pool.threads(), 4);
        drop(end);
        wait_until("the pairs stay busy", || pool.state.lock().idle.len() == 2);
        pool.start(|_| ()).unwrap();
        assert_eq!(pool.threads(), 4);
    }

    #[test]
    fn grows_to_as_many_as_are_needed_and_shrinks_again() {
        let pool = Pool::new(64);
        drop(keep_busy(&pool, 64));
        assert_eq!(pool.threads(), 128);
        wait_until("the pairs stay busy", || pool.state.lock().idle.len() == 64);
        let now = Instant::now();
        assert!(!pool.trim(now + IDLE_LIMIT / 2));
        assert_eq!(pool.threads(), 128, "the minute had use for them");
        assert!(pool.trim(now + IDLE_LIMIT));
        assert_eq!(pool.threads(), 2 * FEWEST_PAIRS);
        wait_until("the threads stay", || pool.state.lock().threads.running() <= 2 * FEWEST_PAIRS);
        let (sender, receiver) = channel();
        pool.start(move |_| sender.send(7).unwrap()).unwrap();
        assert_eq!(receiver.recv_timeout(LONG), Ok(7));
    }

    #[test]
    fn a_job_that_panics_gives_its_threads_back() {
        let pool = Pool::new(1);
        pool.start(|_| panic!("as this test wants it")).unwrap();
        wait_until("the pair is lost", || pool.state.lock().idle.len() == 1);
        let (sender, receiver) = channel();
        pool.start(move |partner| {
            partner.start_job(|| panic!("as this test wants it")).wait();
            partner.start_job(move || sender.send(7).unwrap()).wait();
        })
        .unwrap();
        assert_eq!(receiver.recv_timeout(LONG), Ok(7));
    }

    #[test]
    fn a_pending_job_is_waited_for_when_it_is_dropped() {
        let pool = Pool::new(1);
        let (sender, receiver) = channel();
        pool.start(move |partner| {
            let (begin, is_under_way) = channel();
            let over = Arc::new(AtomicBool::new(false));
            let job = partner.start_job({
                let over = Arc::clone(&over);
                move || {
                    begin.send(()).unwrap();
                    yield_now();
                    over.store(true, Ordering::Release);
                }
            });
            is_under_way.recv_timeout(LONG).unwrap();
            drop(job);
            assert!(over.load(Ordering::Acquire));
            partner.start_job(move || sender.send(7).unwrap()).wait();
        })
        .unwrap();
        assert_eq!(receiver.recv_timeout(LONG), Ok(7));
    }
}
