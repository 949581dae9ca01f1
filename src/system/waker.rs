//! Wakes a thread that waits in `poll`.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

/// A descriptor that is readable from [`Waker::wake`] to [`Waker::clear`].
#[derive(Debug)]
pub struct Waker {
    #[cfg(target_os = "linux")]
    event: std::os::fd::OwnedFd,
    #[cfg(not(target_os = "linux"))]
    pair: [std::os::unix::net::UnixStream; 2],
}

#[cfg(target_os = "linux")]
impl Waker {
    /// A waker that is not readable. It holds one descriptor.
    ///
    /// # Errors
    ///
    /// The error of `eventfd(2)`.
    pub fn new() -> io::Result<Self> {
        use rustix::event::{EventfdFlags, eventfd};
        Ok(Waker { event: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)? })
    }

    /// Makes it readable.
    pub fn wake(&self) {
        // It fails only where it was called 2^64 times.
        let _ = rustix::io::write(&self.event, &1u64.to_ne_bytes());
    }

    /// Makes it not readable.
    pub fn clear(&self) {
        let _ = rustix::io::read(&self.event, &mut [0; 8]);
    }
}

#[cfg(not(target_os = "linux"))]
impl Waker {
    /// A waker that is not readable. It holds two descriptors.
    ///
    /// # Errors
    ///
    /// The error of `socketpair(2)`.
    pub fn new() -> io::Result<Self> {
        let (near, far) = std::os::unix::net::UnixStream::pair()?;
        near.set_nonblocking(true)?;
        far.set_nonblocking(true)?;
        Ok(Waker { pair: [near, far] })
    }

    /// Makes it readable.
    pub fn wake(&self) {
        // Where it fails, it is readable already.
        let _ = io::Write::write(&mut &self.pair[1], &[1]);
    }

    /// Makes it not readable.
    pub fn clear(&self) {
        while matches!(io::Read::read(&mut &self.pair[0], &mut [0; 64]), Ok(1..)) {}
    }
}

impl AsFd for Waker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        #[cfg(target_os = "linux")]
        return self.event.as_fd();
        #[cfg(not(target_os = "linux"))]
        return self.pair[0].as_fd();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    #[test]
    fn it_is_readable_from_a_wake_to_a_clear() {
        let waker = Waker::new().unwrap();
        let is_readable = || {
            let mut polled = [PollFd::new(&waker, PollFlags::IN)];
            poll(&mut polled, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).unwrap() > 0
        };
        assert!(!is_readable());
        for _ in 0..3 {
            waker.wake();
        }
        assert!(is_readable() && is_readable());
        waker.clear();
        assert!(!is_readable());
    }
}
