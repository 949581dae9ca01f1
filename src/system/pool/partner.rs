//! The second thread of a session, and what it is asked to do.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use super::thread::Thread;

/// A thread that waits beside a worker for the second direction of a tunnel.
pub struct Partner(pub(super) Thread);

impl Partner {
    /// Starts `job` on the partner thread.
    pub fn start_job(&self, job: impl FnOnce() + Send + 'static) -> PartnerJob<'_> {
        let end = Arc::new(End { has_come: AtomicBool::new(false), awaited_by: thread::current() });
        let notice = EndNotice(Arc::clone(&end));
        self.0.inbox().run(move || {
            job();
            drop(notice);
        });
        PartnerJob { end, _partner: self }
    }
}

/// The end of a job.
struct End {
    has_come: AtomicBool,
    awaited_by: thread::Thread,
}

/// Reports the end of a job when it is dropped, also by a panic.
struct EndNotice(Arc<End>);

impl Drop for EndNotice {
    fn drop(&mut self) {
        self.0.has_come.store(true, Ordering::Release);
        self.0.awaited_by.unpark();
    }
}

/// A job on its way on a partner thread. Dropping it waits for the job's end: a partner is never
/// handed on while it is busy.
pub struct PartnerJob<'a> {
    end: Arc<End>,
    _partner: &'a Partner,
}

impl PartnerJob<'_> {
    /// Waits for the job's end. A panic is one, too.
    pub fn wait(self) {}
}

impl Drop for PartnerJob<'_> {
    fn drop(&mut self) {
        while !self.end.has_come.load(Ordering::Acquire) {
            thread::park();
        }
    }
}
