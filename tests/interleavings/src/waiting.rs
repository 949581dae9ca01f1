//! In the place of tabi's `client_watch`, whose `poll` would stop everybody here: it looks again and
//! again.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::yield_now;
use std::time;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::error::Error;
use crate::system::deadline::Deadline;

/// A client that leaves at some time.
pub struct ClientWatch<'a>(&'a Arc<AtomicBool>);

impl<'a> ClientWatch<'a> {
    /// One that has left once `left` is true.
    pub fn new(left: &'a Arc<AtomicBool>) -> Self {
        ClientWatch(left)
    }
}

pub(super) fn wait_for(
    answer: impl AsFd,
    client: &ClientWatch<'_>,
    deadline: Deadline,
) -> Result<(), Error> {
    const NOW: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };
    let end = time::deadline(deadline.time_left()?);
    loop {
        if client.0.load(Ordering::SeqCst) {
            return Err(Error::ClientLeft);
        }
        if poll(&mut [PollFd::new(&answer, PollFlags::IN)], Some(&NOW)).map_err(io::Error::from)?
            > 0
        {
            return Ok(());
        }
        if end.is_some_and(time::is_past) {
            return Err(io::Error::from(io::ErrorKind::TimedOut).into());
        }
        yield_now();
    }
}
