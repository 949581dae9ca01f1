//! The threads: a worker of the pool and a partner for each live session, grown on demand.
//!
//! `threadpool` queues without bound and never refuses, so admission is decided here, before
//! `execute`: a job needs a [`Slot`], there are only so many of them, and every slot brings the
//! partner thread on which the second direction runs. Nothing ever waits behind a live session.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use std::{io, mem, thread};

use log::{error, info, warn};
use threadpool::ThreadPool;

/// Stack of every thread that serves, in octets. `getaddrinfo` runs on it, with whatever modules the
/// system's name service loads, so it is far larger than tabi itself needs. Only what is touched
/// counts as memory.
const STACK: usize = 512 * 1024;

/// Workers that stay, however quiet it is.
const FEWEST_WORKERS: usize = 4;

/// How often the pool looks whether it has become larger than it needs to be.
const TRIM_EVERY: Duration = Duration::from_secs(60);

/// How long to wait before asking the system again for a thread that it has refused.
const THREAD_RETRY: Duration = Duration::from_millis(250);

/// A bounded number of threads in pairs.
pub struct Pool {
    max: usize,
    state: Mutex<State>,
    /// Signalled when a slot is free, and when the pool closes.
    freed: Condvar,
}

struct State {
    threads: ThreadPool,
    /// Grows by one when `threads` is replaced; what an older one runs is not counted in `busy`.
    generation: u64,
    /// Workers in `threads`.
    size: usize,
    /// Workers in `threads` that have a slot.
    busy: usize,
    /// Slots taken, of every generation.
    live: usize,
    /// The most slots taken at once since the last trim.
    peak: usize,
    trimmed: Instant,
    /// Partners without a slot, the most recently used one last.
    idle: Vec<Partner>,
    /// How many wait on `freed`; a signal that nobody waits for would cost a system call.
    waiting: usize,
    full_since: Option<Instant>,
    out_of_threads: bool,
    closed: bool,
}

impl Pool {
    /// A pool of at most `max` sessions at once.
    ///
    /// # Panics
    ///
    /// If the system refuses the first few threads.
    #[must_use]
    pub fn new(max: usize) -> Arc<Self> {
        let size = FEWEST_WORKERS.min(max);
        let state = State {
            threads: workers(size),
            generation: 0,
            size,
            busy: 0,
            live: 0,
            peak: 0,
            trimmed: Instant::now(),
            idle: Vec::new(),
            waiting: 0,
            full_since: None,
            out_of_threads: false,
            closed: false,
        };
        Arc::new(Pool { max, state: Mutex::new(state), freed: Condvar::new() })
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
        loop {
            if state.closed {
                return None;
            }
            if state.live < self.max {
                if let Some(partner) = state.pair() {
                    state.live += 1;
                    state.busy += 1;
                    state.peak = state.peak.max(state.live);
                    let generation = state.generation;
                    drop(state);
                    return Some(Slot {
                        pool: Arc::clone(self),
                        generation,
                        partner: Some(partner),
                    });
                }
                state = self.wait(state, Some(THREAD_RETRY));
            } else {
                state = self.wait(state, None);
            }
        }
    }

    /// Runs `job` on a worker. The slot is free again when the job is done, even if it panics.
    pub fn execute(slot: Slot, job: impl FnOnce(&Partner) + Send + 'static) {
        let pool = Arc::clone(&slot.pool);
        let state = pool.lock();
        // A slot of an older generation goes to the newer one, where it is not counted: the worst
        // is a worker more than is needed.
        state.threads.execute(move || {
            // A slot has its partner until it is dropped.
            let job = || slot.partner.as_ref().map(job);
            if catch_unwind(AssertUnwindSafe(job)).is_err() {
                error!("a session ended by a fault in tabi; please report the lines above");
            }
            drop(slot);
        });
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

    /// Ends threads that the last minute had no use for. `threadpool` never ends an idle worker, so
    /// a smaller pool takes the place of the larger one, whose workers end with their sessions.
    pub fn trim(&self, now: Instant) {
        let mut state = self.lock();
        if now.duration_since(state.trimmed) < TRIM_EVERY {
            return;
        }
        let wanted = state.peak.max(FEWEST_WORKERS).min(self.max);
        state.trimmed = now;
        state.peak = state.live;
        if state.size <= 2 * wanted {
            return;
        }
        let keep = (wanted - state.live.min(wanted)).min(state.idle.len());
        let surplus = state.idle.len() - keep;
        let ended: Vec<Partner> = state.idle.drain(..surplus).collect();
        let Ok(smaller) = catch_unwind(|| workers(wanted)) else { return };
        let larger = mem::replace(&mut state.threads, smaller);
        state.generation += 1;
        state.size = wanted;
        state.busy = 0;
        drop(state);
        drop((larger, ended));
    }

    fn release(&self, partner: Option<Partner>, generation: u64) {
        let mut state = self.lock();
        state.idle.extend(partner);
        state.live -= 1;
        if generation == state.generation {
            state.busy -= 1;
        }
        // The gap between full and free keeps a server at its limit from logging at every session.
        if let Some(since) = state.full_since
            && state.live <= self.max * 7 / 8
        {
            state.full_since = None;
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
    /// A free worker and its partner, both made now if need be. `None` when the system has no
    /// thread to give.
    fn pair(&mut self) -> Option<Partner> {
        let partner = match self.idle.pop() {
            Some(partner) => Ok(partner),
            None => Partner::start(),
        };
        let partner = partner.and_then(|partner| self.add_worker().map(|()| partner));
        match partner {
            Ok(partner) => {
                self.out_of_threads = false;
                Some(partner)
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

    /// Makes a worker if each has a slot.
    fn add_worker(&mut self) -> io::Result<()> {
        if self.busy < self.size {
            return Ok(());
        }
        let threads = &mut self.threads;
        let size = self.size;
        // `set_num_threads` panics when the system refuses a thread, having counted it already.
        if catch_unwind(AssertUnwindSafe(|| threads.set_num_threads(size + 1))).is_err() {
            threads.set_num_threads(size);
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.size += 1;
        Ok(())
    }
}

fn workers(count: usize) -> ThreadPool {
    threadpool::Builder::new()
        .num_threads(count)
        .thread_name("tabi worker".into())
        .thread_stack_size(STACK)
        .build()
}

/// The right to run one job, and the partner thread that goes with it.
pub struct Slot {
    pool: Arc<Pool>,
    generation: u64,
    partner: Option<Partner>,
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.pool.release(self.partner.take(), self.generation);
    }
}

type Job = Box<dyn FnOnce() + Send>;

/// A thread that waits beside a worker for what the worker cannot do itself: the second direction
/// of a tunnel, or a lookup that has to be given up on.
pub struct Partner {
    jobs: Sender<Job>,
}

impl Partner {
    fn start() -> io::Result<Self> {
        let (jobs, inbox) = channel::<Job>();
        thread::Builder::new().name("tabi partner".into()).stack_size(STACK).spawn(move || {
            for job in inbox {
                // The one who waits for the job sees that it has ended without a result.
                let _ = catch_unwind(AssertUnwindSafe(job));
            }
        })?;
        Ok(Partner { jobs })
    }

    /// Starts `job` on the partner thread.
    pub fn start_job<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Pending<'_, T> {
        let (sender, result) = sync_channel(1);
        let job = Box::new(move || {
            let _ = sender.send(job());
        });
        // Should the thread be gone, the job is dropped with its sender, and `wait` sees that.
        let _ = self.jobs.send(job);
        Pending { result, over: false, _partner: self }
    }
}

/// A job on its way on a partner thread. Dropping it waits for the job's end: a partner is never
/// handed on while it is busy.
pub struct Pending<'a, T> {
    result: Receiver<T>,
    over: bool,
    _partner: &'a Partner,
}

impl<T> Pending<'_, T> {
    /// Waits for the result. `None` if the job panicked.
    #[must_use]
    pub fn wait(mut self) -> Option<T> {
        self.over = true;
        self.result.recv().ok()
    }

    /// Waits for the result, for at most `limit`.
    ///
    /// # Errors
    ///
    /// `Timeout` when the job is still on its way, `Disconnected` when it panicked.
    pub fn wait_for(&mut self, limit: Duration) -> Result<T, RecvTimeoutError> {
        let result = self.result.recv_timeout(limit);
        self.over = !matches!(result, Err(RecvTimeoutError::Timeout));
        result
    }
}

impl<T> Drop for Pending<'_, T> {
    fn drop(&mut self) {
        if !self.over {
            let _ = self.result.recv();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(10);

    #[test]
    fn no_more_jobs_run_at_once_than_there_are_slots() {
        let pool = Pool::new(2);
        let (end, held) = channel::<()>();
        let held = Arc::new(Mutex::new(held));
        for _ in 0..2 {
            let held = Arc::clone(&held);
            Pool::execute(pool.slot().unwrap(), move |_| {
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
        assert_eq!(pool.lock().size, 64);
        drop(slots);
        assert_eq!(pool.lock().idle.len(), 64);
        let now = Instant::now();
        pool.trim(now + TRIM_EVERY);
        assert_eq!(pool.lock().size, 64, "the minute had use for them");
        pool.trim(now + 2 * TRIM_EVERY);
        assert_eq!(pool.lock().size, FEWEST_WORKERS);
        assert_eq!(pool.lock().idle.len(), FEWEST_WORKERS);
        let (sender, receiver) = channel();
        Pool::execute(pool.slot().unwrap(), move |_| sender.send(7).unwrap());
        assert_eq!(receiver.recv_timeout(LONG), Ok(7));
    }

    #[test]
    fn a_job_that_panics_frees_its_slot() {
        let pool = Pool::new(1);
        Pool::execute(pool.slot().unwrap(), |_| panic!("as this test wants it"));
        assert_eq!(pool.wait_until_idle(LONG), 0);
        let (sender, receiver) = channel();
        Pool::execute(pool.slot().unwrap(), move |partner| {
            let job: Pending<u32> = partner.start_job(|| panic!("as this test wants it"));
            sender.send((job.wait(), partner.start_job(|| 7).wait())).unwrap();
        });
        assert_eq!(receiver.recv_timeout(LONG), Ok((None, Some(7))));
    }

    #[test]
    fn a_pending_job_is_waited_for_when_it_is_dropped() {
        let partner = Partner::start().unwrap();
        let (release, held) = channel::<()>();
        let mut job = partner.start_job(move || held.recv());
        assert_eq!(job.wait_for(Duration::from_millis(10)), Err(RecvTimeoutError::Timeout));
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
