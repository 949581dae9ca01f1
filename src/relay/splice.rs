//! The bulk path on Linux: bytes go from socket to socket through a pipe, and the kernel hands on
//! pages where `io::copy` would copy them twice.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread;

use rustix::io::Errno;
use rustix::pipe::{
    PipeFlags, SpliceFlags, fcntl_getpipe_size, fcntl_setpipe_size, pipe_with, splice,
};

use super::lane::{Lane, Pace, QUIET};
use crate::sessions::Ending;
use crate::system::descriptors::{Descriptors, Reservation};

/// Sizes of a pipe, in bytes, the best first: 1 MiB costs a third less processor time than 64 KiB,
/// and a system may refuse it to ordinary users.
const SIZES: [usize; 3] = [1024 * 1024, 256 * 1024, 64 * 1024];

/// A pipe, empty whenever nobody moves bytes through it.
pub(super) struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
    size: usize,
    held: Reservation,
}

impl Pipe {
    /// `None` when descriptors are short, or where only a pipe is to be had that is too small to be
    /// worth it.
    pub(super) fn open(descriptors: &Arc<Descriptors>) -> Option<Self> {
        if descriptors.are_short() {
            return None;
        }
        let held = descriptors.reserve();
        let (read, write) = pipe_with(PipeFlags::CLOEXEC).ok()?;
        let resized = SIZES.iter().find_map(|&size| fcntl_setpipe_size(&write, size).ok());
        let size = resized.or_else(|| fcntl_getpipe_size(&write).ok())?;
        (size >= SIZES[2]).then_some(Pipe { read, write, size, held })
    }

    /// Carries bytes until the source ends or is quiet, or descriptors are needed elsewhere.
    ///
    /// # Errors
    ///
    /// The side that failed.
    pub(super) fn carry(self, lane: &Lane<'_>) -> Result<Pace, Ending> {
        // A splice from a socket heeds this, and not the flag that asks it not to wait.
        lane.limit_reads(Some(QUIET))?;
        while !self.held.of().are_short() {
            match again(|| splice(lane.from, None, &self.write, None, self.size, SpliceFlags::MOVE))
            {
                Ok(0) => return Ok(Pace::Ended),
                Ok(length) => self.empty_into(lane, length)?,
                Err(Errno::AGAIN) => {
                    lane.limit_reads(None)?;
                    return Ok(Pace::Quiet);
                }
                Err(_) => return Err(lane.source.failure()),
            }
            // Whoever fills the source gets to run, and the next move is larger for it.
            thread::yield_now();
        }
        Ok(Pace::Busy)
    }

    fn empty_into(&self, lane: &Lane<'_>, length: usize) -> Result<(), Ending> {
        let mut left = length;
        while left > 0 {
            let moved = lane.sink.while_writing(|| {
                again(|| splice(&self.read, None, lane.to, None, left, SpliceFlags::MOVE))
            });
            match moved {
                Ok(moved @ 1..) => {
                    lane.source.count(moved);
                    left -= moved;
                }
                Ok(0) | Err(_) => return Err(lane.sink.failure()),
            }
        }
        Ok(())
    }
}

/// Calls again what a signal has interrupted.
fn again(mut call: impl FnMut() -> Result<usize, Errno>) -> Result<usize, Errno> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            outcome => return outcome,
        }
    }
}
