//! Users and rules are exchanged as a whole while the server runs.

use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::system::sync::Mutex;

/// The value that is in force. Whoever judges by it takes it once and goes on with that, so nothing is
/// judged by some of the old value and some of the new.
#[derive(Debug, Default)]
pub(super) struct InForce<T> {
    value: Mutex<Arc<T>>,
    generation: AtomicUsize,
}

impl<T> InForce<T> {
    pub(super) fn new(value: Arc<T>) -> Self {
        InForce { value: Mutex::new(value), generation: AtomicUsize::new(0) }
    }

    /// The value as it is now.
    pub(super) fn get(&self) -> Arc<T> {
        Arc::clone(&self.value.lock())
    }

    /// Puts another value into force.
    pub(super) fn replace(&self, value: Arc<T>) {
        let earlier = mem::replace(&mut *self.value.lock(), value);
        // Who sees the new number gets the new value.
        self.generation.fetch_add(1, Ordering::Release);
        // A long list takes a while to free: not under the lock.
        drop(earlier);
    }

    /// Another number than before once the value was replaced.
    pub(super) fn generation(&self) -> usize {
        self.generation.load(Ordering::Acquire)
    }
}
