//! What tabi's files find under `std`, `threadpool` and `portable_atomic` when they are checked.
//! Where threads meet it is a model: all of them are coroutines of one thread, and at each step
//! shuttle decides who goes on. The rest is std's own.

pub use std::{
    any, array, ascii, borrow, boxed, cell, char, clone, cmp, collections, convert, default, env,
    error, ffi, fmt, fs, hash, io, iter, marker, mem, net, num, ops, option, os, panic, path,
    process, ptr, result, slice, str, string, vec,
};

pub mod sync;
pub mod thread;
pub mod time;

mod threadpool;

// For `portable_atomic`.
pub use sync::atomic::{AtomicU64, Ordering};
// For `threadpool`.
pub use threadpool::{Builder, ThreadPool, live_threads};

/// Lets others go first.
fn step() {
    shuttle::thread::sleep(time::Duration::ZERO);
}
