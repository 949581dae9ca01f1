//! The second thread of a session, and what it is asked to do.

use std::sync::{Arc, Mutex, PoisonError};
use std::{mem, thread};

use super::thread::Thread;

/// A thread that waits beside a worker for the second direction of a tunnel.
pub struct Partner(pub(super) Thread);

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
        self.0.inbox().run(move || {
            let result = job();
            told.0.tell(Progress::Done(result));
        });
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

impl<T> Pending<'_, T> {
    /// Waits for the result. `None` if the job panicked.
    #[must_use]
    pub fn wait(mut self) -> Option<T> {
        self.take()
    }

    fn take(&mut self) -> Option<T> {
        loop {
            match self.outcome.news() {
                None => thread::park(),
                Some(news) => {
                    self.over = true;
                    return match news {
                        Progress::Done(result) => Some(result),
                        Progress::UnderWay | Progress::Failed => None,
                    };
                }
            }
        }
    }
}

impl<T> Drop for Pending<'_, T> {
    fn drop(&mut self) {
        if !self.over {
            let _ = self.take();
        }
    }
}
