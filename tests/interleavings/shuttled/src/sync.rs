//! Locks, conditions and cells.

use std::ops::{Deref, DerefMut};

use shuttle::rand::{Rng, thread_rng};

use crate::step;
use crate::thread::{Thread, current, park, yield_now};
use crate::time::{Duration, Instant, deadline, is_past};

pub use shuttle::sync::{Arc, LockResult, PoisonError, Weak, atomic, mpsc};

/// A lock. It is never poisoned: tabi takes its locks all the same.
#[derive(Debug, Default)]
pub struct Mutex<T>(shuttle::sync::Mutex<T>);

pub struct MutexGuard<'a, T> {
    guard: shuttle::sync::MutexGuard<'a, T>,
    of: &'a Mutex<T>,
}

impl<T> Mutex<T> {
    pub const fn new(value: T) -> Self {
        Mutex(shuttle::sync::Mutex::new(value))
    }

    pub fn lock(&self) -> LockResult<MutexGuard<'_, T>> {
        let guard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(MutexGuard { guard, of: self })
    }
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.guard
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.guard
    }
}

/// A condition. A wait with a limit may come to its end at any moment, as [`crate::time`] says.
#[derive(Debug, Default)]
pub struct Condvar {
    // This lock is std's: nobody else runs while it is held.
    waits: std::sync::Mutex<Waits>,
}

#[derive(Debug, Default)]
struct Waits {
    next: u64,
    threads: Vec<(u64, Thread)>,
}

#[derive(Clone, Copy, Debug)]
pub struct WaitTimeoutResult(bool);

impl WaitTimeoutResult {
    #[must_use]
    pub fn timed_out(self) -> bool {
        self.0
    }
}

impl Condvar {
    #[must_use]
    pub const fn new() -> Self {
        Condvar { waits: std::sync::Mutex::new(Waits { next: 0, threads: Vec::new() }) }
    }

    pub fn wait<'a, T>(&self, guard: MutexGuard<'a, T>) -> LockResult<MutexGuard<'a, T>> {
        Ok(self.wait_until(guard, None).0)
    }

    pub fn wait_timeout<'a, T>(
        &self,
        guard: MutexGuard<'a, T>,
        limit: Duration,
    ) -> LockResult<(MutexGuard<'a, T>, WaitTimeoutResult)> {
        let (guard, timed_out) = self.wait_until(guard, deadline(limit));
        Ok((guard, WaitTimeoutResult(timed_out)))
    }

    /// Wakes one of those who wait, whichever.
    pub fn notify_one(&self) {
        step();
        if let Some(thread) = self.any() {
            thread.unpark();
        }
    }

    pub fn notify_all(&self) {
        step();
        let threads = std::mem::take(&mut self.waits.lock().unwrap().threads);
        threads.iter().for_each(|(_, thread)| thread.unpark());
    }

    /// Says whether the time was up before somebody woke this thread.
    fn wait_until<'a, T>(
        &self,
        guard: MutexGuard<'a, T>,
        deadline: Option<Instant>,
    ) -> (MutexGuard<'a, T>, bool) {
        let of = guard.of;
        // Nobody else runs between these two.
        drop(guard);
        let ticket = self.enter();
        let timed_out = loop {
            if !self.has(ticket) {
                break false;
            }
            match deadline {
                None => park(),
                Some(deadline) if is_past(deadline) => break true,
                Some(_) => yield_now(),
            }
        };
        self.waits.lock().unwrap().threads.retain(|(it, _)| *it != ticket);
        (of.lock().unwrap_or_else(PoisonError::into_inner), timed_out)
    }

    fn any(&self) -> Option<Thread> {
        let threads = &mut self.waits.lock().unwrap().threads;
        let lucky = (!threads.is_empty()).then(|| thread_rng().gen_range(0..threads.len()))?;
        Some(threads.remove(lucky).1)
    }

    fn enter(&self) -> u64 {
        let mut waits = self.waits.lock().unwrap();
        waits.next += 1;
        let ticket = waits.next;
        waits.threads.push((ticket, current()));
        ticket
    }

    fn has(&self, ticket: u64) -> bool {
        self.waits.lock().unwrap().threads.iter().any(|(it, _)| *it == ticket)
    }
}

/// A cell that is written once. While it is, others who want to write it wait.
#[derive(Debug)]
pub struct OnceLock<T> {
    value: std::sync::OnceLock<T>,
    writing: shuttle::sync::Mutex<()>,
}

impl<T> OnceLock<T> {
    #[must_use]
    pub const fn new() -> Self {
        OnceLock { value: std::sync::OnceLock::new(), writing: shuttle::sync::Mutex::new(()) }
    }

    pub fn get(&self) -> Option<&T> {
        step();
        self.value.get()
    }

    /// # Errors
    ///
    /// The value, when the cell has one already.
    pub fn set(&self, value: T) -> Result<(), T> {
        let _writing = self.writing.lock();
        self.value.set(value)
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
        self.value.get_or_init(|| made)
    }
}

impl<T> Default for OnceLock<T> {
    fn default() -> Self {
        OnceLock::new()
    }
}
