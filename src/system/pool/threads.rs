//! Threads from `threadpool`, one more or one fewer at a time.
//!
//! `threadpool` has no word for a thread that the system refuses: it panics. So this catches that
//! panic, and asks the system beforehand once it has refused one.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::{io, thread};

use threadpool::ThreadPool;

use super::thread::Thread;
use crate::system::address_space;

/// Stack of every thread that serves, in bytes. tabi itself touches 8 KiB of it; the rest is for
/// what the system's own functions may need, and costs addresses, not memory.
pub(in crate::system) const STACK: usize = 512 * 1024;

thread_local! {
    /// This thread is asking `threadpool` for more threads.
    static GROWING: Cell<bool> = const { Cell::new(false) };
}

/// Whether a panic of this thread is only `threadpool`'s word for a thread that the system refuses.
pub fn panic_is_expected() -> bool {
    GROWING.get()
}

/// A number of threads, each of which runs one [`Thread`].
pub(super) struct Threads {
    /// `None` before the first thread: there is no pool without one.
    pool: Option<ThreadPool>,
    count: usize,
    /// The system has refused the last one.
    refused: bool,
}

impl Threads {
    pub(super) fn new() -> Self {
        Threads { pool: None, count: 0, refused: false }
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
        let first = self.add()?;
        match self.add() {
            Ok(second) => Ok([first, second]),
            Err(refused) => {
                self.forget(1);
                Err(refused)
            }
        }
    }

    fn add(&mut self) -> io::Result<Thread> {
        address_space::room_for(STACK)?;
        if self.refused {
            probe()?;
        }
        let wanted = self.count + 1;
        GROWING.set(true);
        let grown = catch_unwind(AssertUnwindSafe(|| match &mut self.pool {
            Some(pool) => pool.set_num_threads(wanted),
            none => *none = Some(pool_of_one()),
        }));
        GROWING.set(false);
        self.refused = grown.is_err();
        match &mut self.pool {
            Some(pool) if !self.refused => {
                self.count = wanted;
                Ok(Thread::start(pool))
            }
            pool => {
                if let Some(pool) = pool {
                    // It has counted the thread that it did not get.
                    pool.set_num_threads(self.count.max(1));
                }
                Err(io::Error::other("the system refuses another thread"))
            }
        }
    }

    /// Notes that `gone` of them are about to be dropped. A thread whose [`Thread`] is dropped ends
    /// if there are more than this.
    pub(super) fn forget(&mut self, gone: usize) {
        self.count -= gone;
        if let Some(pool) = &mut self.pool {
            pool.set_num_threads(self.count.max(1));
        }
    }

    /// Ends a thread that nobody needs: one that came while others were about to end. Such a thread waits
    /// for a job, and ends behind it.
    pub(super) fn end_surplus(&self) {
        if let Some(pool) = self.pool.as_ref().filter(|pool| pool.queued_count() == 0) {
            pool.execute(|| ());
        }
    }

    #[cfg(test)]
    pub(super) fn running(&self) -> usize {
        self.pool.as_ref().map_or(0, ThreadPool::active_count)
    }
}

fn pool_of_one() -> ThreadPool {
    // A name would take memory of each tunnel, twice.
    threadpool::Builder::new().num_threads(1).thread_stack_size(STACK).build()
}

/// Fails where the system gives no thread. It costs as much as a thread.
fn probe() -> io::Result<()> {
    let thread = thread::Builder::new().stack_size(STACK).spawn(|| ())?;
    let _ = thread.join();
    Ok(())
}
