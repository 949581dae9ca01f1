//! One direction of a tunnel: copies, and passes the end of file on.

use std::io::{self, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};

#[cfg(target_os = "linux")]
use super::splice::Pipe;
use crate::sessions::{Account, Ending, Side};

/// The buffer of a direction in which little goes on, in octets. It is on the stack: a tunnel that
/// idles costs little more than its threads.
const SMALL_BUFFER: usize = 1024;

/// The buffer of a direction that has filled the small one. Plain `io::copy` has 8 KiB, and takes
/// 2.5 times the processor time.
const LARGE_BUFFER: usize = 64 * 1024;

/// After this many octets without a pause a direction counts as bulk.
const BULK_AFTER: u64 = 256 * 1024;

/// Where there was no pipe to be had, one is asked for again after this many octets.
const PIPE_AGAIN: u64 = 64 * 1024 * 1024;

/// A direction whose source says nothing for so long gives back its large buffer, or its pipe.
pub(super) const QUIET: Duration = Duration::from_secs(1);

/// How often a source is asked for octets before the thread falls asleep over them. In between others
/// get to run, and with few cores it is they who send the octets: that costs less than to be woken.
const ASKS: u32 = 8;

/// One direction of a tunnel: from one side to the other.
pub(super) struct Direction<'a> {
    pub(super) account: &'a Account,
    pub(super) source: &'a Side,
    pub(super) sink: &'a Side,
    pub(super) from: &'a TcpStream,
    pub(super) to: &'a TcpStream,
}

impl<'a> Direction<'a> {
    /// From the client to its target. `None` before there is a target.
    pub(super) fn up(account: &'a Account) -> Option<Self> {
        Direction::new(account, account.client(), account.target())
    }

    /// From the target to the client.
    pub(super) fn down(account: &'a Account) -> Option<Self> {
        Direction::new(account, account.target(), account.client())
    }

    fn new(account: &'a Account, source: &'a Side, sink: &'a Side) -> Option<Self> {
        Some(Direction { account, source, sink, from: source.stream()?, to: sink.stream()? })
    }

    /// Carries octets until the source's end of file, and passes that on.
    pub(super) fn carry(&self) {
        match self.copy() {
            Ok(()) if self.is_clean_end() => {
                // The order matters to `is_clean_end` of the other direction.
                self.source.set_ended();
                let _ = self.to.shutdown(Shutdown::Write);
                self.account.spare_concluded();
            }
            Ok(()) => self.account.end(self.source.failure()),
            Err(side) => self.account.end(side),
        }
    }

    /// Copies until the source's end of file, in the way that suits how much there is to copy.
    fn copy(&self) -> Result<(), Ending> {
        let mut pace = Pace::Quiet;
        loop {
            pace = match pace {
                Pace::Quiet => self.talk()?,
                Pace::Busy => self.pour(BULK_AFTER)?,
                Pace::Bulk => self.bulk()?,
                Pace::Ended => return Ok(()),
            };
        }
    }

    /// Copies through a small buffer until the source fills it.
    fn talk(&self) -> Result<Pace, Ending> {
        let mut buffer = [0; SMALL_BUFFER];
        loop {
            match self.read(&mut buffer) {
                Ok(0) => return Ok(Pace::Ended),
                Ok(length) => {
                    let mut sink = Sink { direction: self, failed: false };
                    sink.write_all(&buffer[..length]).map_err(|_| self.sink.failure())?;
                    if length == buffer.len() {
                        return Ok(Pace::Busy);
                    }
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Err(self.source.failure()),
            }
        }
    }

    /// Copies through a large buffer until `most` octets are over, or the source is quiet.
    fn pour(&self, most: u64) -> Result<Pace, Ending> {
        self.limit_reads(Some(QUIET))?;
        let mut source = Source { direction: self, left: most, next: Pace::Bulk };
        let mut sink = Sink { direction: self, failed: false };
        let copied = io::copy(&mut BufReader::with_capacity(LARGE_BUFFER, &mut source), &mut sink);
        let next = source.next;
        copied
            .map_err(|_| if sink.failed { self.sink.failure() } else { self.source.failure() })?;
        if next == Pace::Quiet {
            self.limit_reads(None)?;
        }
        Ok(next)
    }

    /// Copies the cheapest way that there is until the source is quiet.
    fn bulk(&self) -> Result<Pace, Ending> {
        #[cfg(target_os = "linux")]
        if let Some(pipe) = Pipe::open(self.account.descriptors()) {
            return pipe.carry(self);
        }
        self.pour(PIPE_AGAIN)
    }

    /// Reads from the source, and does not fall asleep before it has asked a few times.
    fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        for _ in 0..ASKS {
            match recv(self.from, &mut *buffer, RecvFlags::DONTWAIT) {
                Err(Errno::AGAIN) => thread::yield_now(),
                outcome => return Ok(outcome?.0),
            }
        }
        { self.from }.read(buffer)
    }

    /// How long a read may take.
    pub(super) fn limit_reads(&self, limit: Option<Duration>) -> Result<(), Ending> {
        self.from.set_read_timeout(limit).map_err(|_| self.source.failure())
    }

    /// Whether an end of file was the source's own. The system tells of a reset once: should the
    /// other direction have been told while it wrote, this one finds a mere end of file, and only
    /// that the source has no peer any more gives it away. The source has none either when it was
    /// closed in both directions, but then the other direction has ended before.
    fn is_clean_end(&self) -> bool {
        (self.account.ending().is_none() || self.source.finishes())
            && (self.sink.has_ended() || self.from.peer_addr().is_ok() || self.sink.has_ended())
    }
}

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

/// Reads from the source until a number of octets is over or the source is quiet, and remembers what
/// comes next.
struct Source<'a> {
    direction: &'a Direction<'a>,
    left: u64,
    next: Pace,
}

impl Read for Source<'_> {
    fn read(&mut self, octets: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 {
            return Ok(0);
        }
        match self.direction.read(octets) {
            Ok(0) => self.next = Pace::Ended,
            Ok(length) => {
                self.left = self.left.saturating_sub(length as u64);
                return Ok(length);
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => self.next = Pace::Quiet,
            Err(error) => return Err(error),
        }
        Ok(0)
    }
}

/// Writes to the sink, counts, and remembers that it was the writing that failed.
struct Sink<'a> {
    direction: &'a Direction<'a>,
    failed: bool,
}

impl Write for Sink<'_> {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        let Direction { source, sink, mut to, .. } = *self.direction;
        let written = sink.while_writing(|| to.write(octets));
        let written = written.inspect_err(|error| {
            self.failed = error.kind() != io::ErrorKind::Interrupted;
        })?;
        source.count(written);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
