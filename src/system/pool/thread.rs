//! A thread that runs one job after the other.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock};
use std::{mem, thread};

use threadpool::ThreadPool;

use crate::system::sync::Mutex;

type Job = Box<dyn FnOnce() + Send>;

/// A thread of the pool that runs one job after the other, and ends when this is dropped.
pub(super) struct Thread {
    inbox: Arc<Inbox>,
}

/// Holds one job at the most: whoever sends the next one knows that this one has begun. Its thread
/// parks rather than waiting on a condition: nobody then makes a system call to wake the waking.
#[derive(Default)]
pub(super) struct Inbox {
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
    /// Makes a job of `threads` that has one of its threads for itself.
    pub(super) fn start(threads: &ThreadPool) -> Self {
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

    /// Where this thread finds its jobs.
    pub(super) fn inbox(&self) -> Arc<Inbox> {
        Arc::clone(&self.inbox)
    }
}

impl Inbox {
    /// Makes the thread run `job`. It has to be idle: a job that it has not begun would be lost.
    pub(super) fn run(&self, job: impl FnOnce() + Send + 'static) {
        self.put(Next::Run(Box::new(job)));
    }

    fn put(&self, next: Next) {
        *self.next.lock() = next;
        // A thread that has not begun yet looks into its inbox before it parks.
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }

    fn take(&self) -> Option<Job> {
        loop {
            let next = mem::take(&mut *self.next.lock());
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
