//! Threads.

use std::any::Any;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, Ordering};

use shuttle::rand::{Rng, thread_rng};

pub use shuttle::thread::{JoinHandle, Thread, current, park, sleep, spawn, yield_now};

/// The system refuses one thread of three. This is std's: to look at it lets nobody else go first.
static REFUSES: AtomicBool = AtomicBool::new(false);

/// Makes the system refuse some of the threads that are asked for, or none.
pub fn refuse_some(refuse: bool) {
    REFUSES.store(refuse, Ordering::SeqCst);
}

#[derive(Debug, Default)]
pub struct Builder(());

impl Builder {
    #[must_use]
    pub fn new() -> Self {
        Builder(())
    }

    #[must_use]
    pub fn name(self, _name: String) -> Self {
        self
    }

    #[must_use]
    pub fn stack_size(self, _bytes: usize) -> Self {
        self
    }

    /// # Errors
    ///
    /// When the system refuses the thread.
    pub fn spawn<T: Send + 'static>(
        self,
        run: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<JoinHandle<Option<T>>> {
        if REFUSES.load(Ordering::SeqCst) && thread_rng().gen_ratio(1, 3) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(spawn(move || until_it_ends(run)))
    }
}

/// What ends a thread that would go on for as long as its process.
struct End;

/// Ends this thread, which a [`Builder`] has made.
pub fn end() -> ! {
    resume_unwind(Box::new(End))
}

fn until_it_ends<T>(run: impl FnOnce() -> T) -> Option<T> {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(result) => Some(result),
        Err(cause) if <dyn Any>::is::<End>(&*cause) => None,
        Err(cause) => resume_unwind(cause),
    }
}
