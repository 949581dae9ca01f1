//! `threadpool` 1.8, in as far as tabi uses it: the same steps in the same order.

use std::sync::atomic::AtomicUsize as Count;

use crate::sync::Arc;
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicUsize, Ordering};
use crate::sync::mpsc::{Receiver, Sender, channel};
use crate::thread;

type Job = Box<dyn FnOnce() + Send>;

pub struct ThreadPool {
    jobs: Sender<Job>,
    state: Arc<State>,
}

struct State {
    jobs: Mutex<Receiver<Job>>,
    queued: AtomicUsize,
    active: AtomicUsize,
    most: AtomicUsize,
}

#[derive(Debug)]
pub struct Builder(usize);

impl Builder {
    #[must_use]
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        Builder(1)
    }

    #[must_use]
    pub fn num_threads(self, threads: usize) -> Self {
        Builder(threads)
    }

    #[must_use]
    pub fn thread_stack_size(self, _bytes: usize) -> Self {
        self
    }

    #[must_use]
    pub fn build(self) -> ThreadPool {
        let (sender, jobs) = channel();
        let (queued, active) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let most = AtomicUsize::new(self.0);
        let state = Arc::new(State { jobs: Mutex::new(jobs), queued, active, most });
        (0..self.0).for_each(|_| start(Arc::clone(&state)));
        ThreadPool { jobs: sender, state }
    }
}

impl ThreadPool {
    pub fn execute(&self, job: impl FnOnce() + Send + 'static) {
        self.state.queued.fetch_add(1, Ordering::SeqCst);
        self.jobs.send(Box::new(job)).expect("the pool lives");
    }

    /// # Panics
    ///
    /// When the system refuses a thread.
    pub fn set_num_threads(&mut self, threads: usize) {
        let before = self.state.most.swap(threads, Ordering::SeqCst);
        (before..threads).for_each(|_| start(Arc::clone(&self.state)));
    }

    #[must_use]
    pub fn queued_count(&self) -> usize {
        self.state.queued.load(Ordering::SeqCst)
    }
}

static LIVE: Count = Count::new(0);

/// How many threads of pools there are.
pub fn live_threads() -> usize {
    LIVE.load(Ordering::SeqCst)
}

fn start(state: Arc<State>) {
    let thread = thread::Builder::new().spawn(move || {
        while state.active.load(Ordering::SeqCst) < state.most.load(Ordering::SeqCst) {
            let job = state.jobs.lock().unwrap().recv();
            let Ok(job) = job else { break };
            state.active.fetch_add(1, Ordering::SeqCst);
            state.queued.fetch_sub(1, Ordering::SeqCst);
            job();
            state.active.fetch_sub(1, Ordering::SeqCst);
        }
        LIVE.fetch_sub(1, Ordering::SeqCst);
    });
    thread.unwrap();
    LIVE.fetch_add(1, Ordering::SeqCst);
}
