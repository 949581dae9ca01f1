//! What every way of copying knows of a direction: its two sides.

use std::net::TcpStream;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

use crate::sessions::{Ending, Endpoint};

/// A direction whose source says nothing for so long gives back its buffer or its pipe.
pub(super) const QUIET: Duration = Duration::from_secs(1);

/// How much there is to copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pace {
    /// Little, or nothing just now.
    Quiet,
    /// More than a small buffer holds.
    Busy,
    /// Very much.
    Bulk,
    /// Nothing any more: the source has sent its end of file.
    Ended,
}

/// The sides of a direction, and their connections.
pub(super) struct Lane<'a> {
    pub(super) source: &'a Endpoint,
    pub(super) sink: &'a Endpoint,
    pub(super) from: &'a TcpStream,
    pub(super) to: &'a TcpStream,
}

impl<'a> Lane<'a> {
    /// `None` where there is no connection with one of the sides yet.
    pub(super) fn new(source: &'a Endpoint, sink: &'a Endpoint) -> Option<Self> {
        Some(Lane { source, sink, from: source.stream()?, to: sink.stream()? })
    }

    /// Waits until one of the sides has said something, or is gone. Whether it is the source alone.
    pub(super) fn only_source_speaks(&self) -> bool {
        let mut ready = [self.from, self.to].map(|stream| PollFd::new(stream, PollFlags::IN));
        while poll(&mut ready, None) == Err(Errno::INTR) {}
        !ready[0].revents().is_empty() && ready[1].revents().is_empty()
    }

    /// How long a read may take.
    pub(super) fn limit_reads(&self, limit: Option<Duration>) -> Result<(), Ending> {
        self.from.set_read_timeout(limit).map_err(|_| self.source.failure())
    }
}
