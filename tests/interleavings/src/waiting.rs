//! In the place of tabi's `waiting`, whose `poll` would stop everybody here: it looks again and
//! again.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::yield_now;
use std::time::{self, Duration};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// A client that leaves at some time.
pub struct ClientWatch<'a>(&'a Arc<AtomicBool>);

impl<'a> ClientWatch<'a> {
    /// One that has left once `left` is true.
    pub fn new(left: &'a Arc<AtomicBool>) -> Self {
        ClientWatch(left)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WaitOutcome {
    Answer,
    ClientLeft,
    Nothing,
}

pub(super) fn wait_for(
    answer: impl AsFd,
    client: Option<&ClientWatch<'_>>,
    limit: Duration,
) -> io::Result<WaitOutcome> {
    const NOW: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };
    let deadline = time::deadline(limit);
    loop {
        if client.is_some_and(|client| client.0.load(Ordering::SeqCst)) {
            return Ok(WaitOutcome::ClientLeft);
        }
        if poll(&mut [PollFd::new(&answer, PollFlags::IN)], Some(&NOW))? > 0 {
            return Ok(WaitOutcome::Answer);
        }
        if deadline.is_some_and(time::is_past) {
            return Ok(WaitOutcome::Nothing);
        }
        yield_now();
    }
}
