//! Locks and conditions without poison: a session that panics ends alone, and what it has left under a
//! lock is whole, since nothing is done there that panics halfway.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{self, MutexGuard, PoisonError};
use std::time::Duration;

/// A lock.
#[derive(Debug, Default)]
pub struct Mutex<T>(sync::Mutex<T>);

impl<T> Mutex<T> {
    /// A lock around `value`.
    pub fn new(value: T) -> Self {
        Mutex(sync::Mutex::new(value))
    }

    /// Waits for the lock.
    pub fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A condition to wait for. Each wait may end before the condition holds. Whoever makes it hold does so
/// under the lock of those who wait.
#[derive(Debug, Default)]
pub struct Condvar {
    condvar: sync::Condvar,
    /// A notification that nobody waits for would be a system call, too.
    waiting: AtomicUsize,
}

impl Condvar {
    /// Waits for a notification, for at most `limit` if there is one.
    pub fn wait<'a, T>(
        &self,
        guard: MutexGuard<'a, T>,
        limit: Option<Duration>,
    ) -> MutexGuard<'a, T> {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let guard = match limit {
            None => self.condvar.wait(guard).unwrap_or_else(PoisonError::into_inner),
            Some(limit) => {
                let woken = self.condvar.wait_timeout(guard, limit);
                woken.unwrap_or_else(PoisonError::into_inner).0
            }
        };
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        guard
    }

    /// Wakes one of those who wait.
    pub fn notify_one(&self) {
        if self.waiting.load(Ordering::Relaxed) > 0 {
            self.condvar.notify_one();
        }
    }

    /// Wakes all who wait.
    pub fn notify_all(&self) {
        if self.waiting.load(Ordering::Relaxed) > 0 {
            self.condvar.notify_all();
        }
    }
}
