//! Waits for several descriptors at once, for a limited time.

use std::io;
use std::time::Duration;

use rustix::event::{PollFd, Timespec};
use rustix::io::Errno;

/// Waits until one of `polled` is ready, for at most `limit`. A signal may end the wait before that.
///
/// # Errors
///
/// The error of `poll(2)`.
pub fn poll(polled: &mut [PollFd<'_>], limit: Duration) -> io::Result<()> {
    let limit = Timespec::try_from(limit).map_err(io::Error::other)?;
    match rustix::event::poll(polled, Some(&limit)) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
