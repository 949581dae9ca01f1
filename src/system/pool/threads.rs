//! Threads from `threadpool`, one more or one fewer at a time.
//!
//! `threadpool` has no word for a thread that the system refuses: it panics. So this catches that
//! panic, and asks the system beforehand once it has refused one.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::{io, thread};

use threadpool::ThreadPool;

use super::thread::Thread;

/// Stack of every thread that serves, in bytes. tabi itself touches 8 KiB of it; the rest is for
/// what the system's own functions may need, and costs addresses, not memory.
pub(in crate::system) const STACK: usize = 512 * 1024;

thread_local! {
    /// This thread is asking `threadpool` for more threads.
    static GROWING: Cell<bool> = const { Cell::new(false) };
}

/// Whether a panic of this thread is only `threadpool`'s word for a thread that the system refuses.
#[must_use]
pub fn panic_is_expected() -> bool {
    GROWING.get()
}

/// A number of threads, each of which runs one [`Thread`].
pub(super) struct Threads {
    pool: ThreadPool,
    count: usize,
    /// The system has refused the last one.
    refused: bool,
}

impl Threads {
    pub(super) fn new() -> Self {
        let pool = threadpool::Builder::new().num_threads(1).thread_stack_size(STACK).build();
        Threads { pool, count: 0, refused: false }
    }

    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// Two more.
    ///
    /// # Errors
    ///
    /// When the system refuses one of them.
    pub(super) fn add_two(&mut self) -> io::Result<[Thread; 2]> {
        if self.refused {
            probe_two()?;
        }
        let wanted = self.count + 2;
        GROWING.set(true);
        let grown = catch_unwind(AssertUnwindSafe(|| self.pool.set_num_threads(wanted)));
        GROWING.set(false);
        self.refused = grown.is_err();
        if self.refused {
            // It has counted the thread that it did not get.
            self.pool.set_num_threads(self.count.max(1));
            return Err(io::Error::other("the system refuses another thread"));
        }
        self.count = wanted;
        Ok([Thread::start(&self.pool), Thread::start(&self.pool)])
    }

    /// Notes that `gone` of them are about to be dropped. A thread whose [`Thread`] is dropped ends
    /// if there are more than this.
    pub(super) fn forget(&mut self, gone: usize) {
        self.count -= gone;
        self.pool.set_num_threads(self.count.max(1));
    }

    /// Ends a thread that nobody has asked for: one whose fellow the system has refused, or one that
    /// came while others were about to end. Such a thread waits for a job, and ends behind it.
    pub(super) fn end_spare(&self) {
        if self.pool.queued_count() == 0 {
            self.pool.execute(|| ());
        }
    }

    #[cfg(test)]
    pub(super) fn running(&self) -> usize {
        self.pool.active_count()
    }
}

/// Fails where the system does not give two threads at once. It costs as much as the threads.
fn probe_two() -> io::Result<()> {
    let probe = || thread::Builder::new().stack_size(STACK).spawn(|| ());
    for probe in [probe()?, probe()?] {
        let _ = probe.join();
    }
    Ok(())
}
