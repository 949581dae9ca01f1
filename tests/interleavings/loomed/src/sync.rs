//! Locks, conditions and cells.

use loom::sync::atomic::{AtomicBool, Ordering};

pub use loom::sync::{Condvar, Mutex, MutexGuard};
pub use std::sync::{Arc, LockResult, PoisonError, Weak};

pub mod atomic {
    pub use loom::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};
}

/// A cell that is written once. As std says, who finds it written has seen what was before that,
/// and no more.
#[derive(Debug)]
pub struct OnceLock<T> {
    value: std::sync::OnceLock<T>,
    is_written: AtomicBool,
    writing: Mutex<()>,
}

impl<T> OnceLock<T> {
    #[must_use]
    pub fn new() -> Self {
        OnceLock {
            value: std::sync::OnceLock::new(),
            is_written: AtomicBool::new(false),
            writing: Mutex::new(()),
        }
    }

    pub fn get(&self) -> Option<&T> {
        if self.is_written.load(Ordering::Acquire) { self.value.get() } else { None }
    }

    /// # Errors
    ///
    /// The value, when the cell has one already.
    pub fn set(&self, value: T) -> Result<(), T> {
        let _writing = self.writing.lock();
        self.value.set(value)?;
        self.is_written.store(true, Ordering::Release);
        Ok(())
    }

    pub fn get_or_init(&self, make: impl FnOnce() -> T) -> &T {
        if let Some(value) = self.get() {
            return value;
        }
        let _writing = self.writing.lock();
        if let Some(value) = self.value.get() {
            return value;
        }
        let made = make();
        let value = self.value.get_or_init(|| made);
        self.is_written.store(true, Ordering::Release);
        value
    }
}

impl<T> Default for OnceLock<T> {
    fn default() -> Self {
        OnceLock::new()
    }
}
