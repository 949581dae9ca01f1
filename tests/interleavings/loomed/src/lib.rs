//! What tabi's files find under `std`, `threadpool` and `portable_atomic` when they are checked.
//! Where threads meet it is a model: loom tries every order, and every value that a load may find
//! where memory is as weakly ordered as Rust allows it to be. The rest is std's own.

pub use std::{
    any, array, ascii, borrow, boxed, cell, char, clone, cmp, collections, convert, default, env,
    error, ffi, fmt, fs, hash, io, iter, marker, mem, net, num, ops, option, os, panic, path,
    process, ptr, result, slice, str, string, time, vec,
};

pub mod sync;

pub mod thread {
    pub use loom::thread::{Builder, JoinHandle, Thread, current, park, spawn, yield_now};

    /// There is no time in a model: whoever sleeps lets others go on.
    pub fn sleep(_: std::time::Duration) {
        yield_now();
    }
}

/// A count that loom does not see.
pub use std::sync::atomic::AtomicUsize as Count;

// For `portable_atomic`.
pub use sync::atomic::{AtomicU64, Ordering};

/// For `threadpool`: always one more thread.
#[derive(Debug)]
pub struct ThreadPool;

impl ThreadPool {
    pub fn execute(&self, job: impl FnOnce() + 'static) {
        thread::spawn(job);
    }
}
