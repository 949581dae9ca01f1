//! One direction of a tunnel: copies, and passes the end of file on.

use std::cell::Cell;
use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::thread;

use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};

use super::lane::{Lane, Pace, QUIET};
#[cfg(target_os = "linux")]
use super::splice::Pipe;
use crate::sessions::{Ending, Endpoint, SessionState};

/// The buffer of a direction in which little goes on, in bytes. It is on the stack: a tunnel that
/// idles costs little more than its threads.
const SMALL_BUFFER: usize = 512;

/// The buffer of a direction that has filled the small one.
const BUFFER: usize = 16 * 1024;

/// The buffer of bulk where there is no pipe. 64 KiB take up to twice the processor time, and plain
/// `io::copy` 2.5 times: it has 8 KiB, and has them on the stack, where they stay.
const LARGE_BUFFER: usize = 256 * 1024;

/// After this many bytes without a pause a direction counts as bulk.
const BULK_AFTER: usize = 256 * 1024;

/// Where there was no pipe to be had, one is asked for again after this many bytes.
const PIPE_AGAIN: usize = 64 * 1024 * 1024;

/// How often a source is asked for bytes before the thread falls asleep over them. In between others
/// get to run, and with few cores it is they who send the bytes: that costs less than to be woken. It
/// is tried after some reads without it, and done for as long as it helps: a short session never asks.
const MOST_ASKS: u32 = 8;
const TRY_ANEW_AFTER: u32 = 16;

/// One direction of a tunnel: from one side to the other.
pub(super) struct Direction<'a> {
    account: &'a SessionState,
    lane: Lane<'a>,
    /// How often to ask next time: the most once that has helped, half as often each time that it has
    /// not, and not at all to begin with.
    asks: Cell<u32>,
    /// Reads without it.
    without: Cell<u32>,
}

impl<'a> Direction<'a> {
    /// From the client to its target. `None` before there is a target.
    pub(super) fn up(account: &'a SessionState) -> Option<Self> {
        Direction::new(account, account.client(), account.target())
    }

    /// From the target to the client.
    pub(super) fn down(account: &'a SessionState) -> Option<Self> {
        Direction::new(account, account.target(), account.client())
    }

    fn new(account: &'a SessionState, source: &'a Endpoint, sink: &'a Endpoint) -> Option<Self> {
        let lane = Lane::new(source, sink)?;
        Some(Direction { account, lane, asks: Cell::new(0), without: Cell::new(0) })
    }

    /// Waits until one of the sides says something. If it is the source alone, its first bytes are passed
    /// on.
    #[inline(never)]
    pub(super) fn begin(&self) -> Result<Pace, Ending> {
        if self.lane.only_source_speaks() {
            self.step(&mut [0; SMALL_BUFFER])
        } else {
            Ok(Pace::Quiet)
        }
    }

    /// Carries bytes until the source's end of file, and passes that on.
    pub(super) fn carry(&self, pace: Pace) {
        match self.copy(pace) {
            Ok(()) if self.is_clean_end() => {
                // The order matters to `is_clean_end` of the other direction.
                self.lane.source.set_ended();
                let _ = self.lane.to.shutdown(Shutdown::Write);
                self.account.spare_concluded();
            }
            Ok(()) => self.account.end(self.lane.source.failure()),
            Err(side) => self.account.end(side),
        }
    }

    /// Copies until the source's end of file, in the way that suits how much there is to copy.
    fn copy(&self, mut pace: Pace) -> Result<(), Ending> {
        loop {
            pace = match pace {
                Pace::Quiet => self.talk()?,
                Pace::Busy => self.pour(BUFFER, BULK_AFTER)?,
                Pace::Bulk => self.bulk()?,
                Pace::Ended => return Ok(()),
            };
        }
    }

    /// Copies through a small buffer until the source fills it.
    // Each pace has a frame of its own, so that a thread that waits here touches one page of stack
    // beside the one with its thread-local data, also after it was busy.
    #[inline(never)]
    fn talk(&self) -> Result<Pace, Ending> {
        let mut buffer = [0; SMALL_BUFFER];
        loop {
            let pace = self.step(&mut buffer)?;
            if pace != Pace::Quiet {
                return Ok(pace);
            }
        }
    }

    /// Copies once. A message that does not fit is passed on with what has come of its rest: some
    /// programs take what one read gives them for the whole.
    fn step(&self, buffer: &mut [u8; SMALL_BUFFER]) -> Result<Pace, Ending> {
        match self.take(buffer)? {
            None => Ok(Pace::Quiet),
            Some(0) => Ok(Pace::Ended),
            Some(SMALL_BUFFER) => self.pass_on_with_rest(buffer).map(|()| Pace::Busy),
            Some(length) => self.pass_on(&buffer[..length]).map(|()| Pace::Quiet),
        }
    }

    #[inline(never)]
    fn pass_on_with_rest(&self, start: &[u8]) -> Result<(), Ending> {
        let mut whole = vec![0; BUFFER];
        let (first, rest) = whole.split_at_mut(start.len());
        first.copy_from_slice(start);
        let more = match recv(self.lane.from, rest, RecvFlags::DONTWAIT) {
            Ok((length, _)) => length,
            Err(Errno::AGAIN | Errno::INTR) => 0,
            Err(_) => return Err(self.lane.source.failure()),
        };
        self.pass_on(&whole[..start.len() + more])
    }

    /// Copies through a buffer of `size` bytes until `most` are over, or the source is quiet.
    #[inline(never)]
    fn pour(&self, size: usize, most: usize) -> Result<Pace, Ending> {
        self.lane.limit_reads(Some(QUIET))?;
        let mut buffer = vec![0; size];
        let mut copied = 0;
        while copied < most {
            match self.copy_once(&mut buffer)? {
                Some(0) => return Ok(Pace::Ended),
                Some(length) => copied += length,
                None => {
                    self.lane.limit_reads(None)?;
                    return Ok(Pace::Quiet);
                }
            }
        }
        Ok(Pace::Bulk)
    }

    /// Copies the cheapest way that there is until the source is quiet.
    #[inline(never)]
    fn bulk(&self) -> Result<Pace, Ending> {
        #[cfg(target_os = "linux")]
        if let Some(pipe) = Pipe::open(self.account.descriptors()) {
            return pipe.carry(&self.lane);
        }
        self.pour(LARGE_BUFFER, PIPE_AGAIN)
    }

    /// Copies once through `buffer`. 0 is the end of file, and `None` a source that has said nothing
    /// for as long as a read may take.
    fn copy_once(&self, buffer: &mut [u8]) -> Result<Option<usize>, Ending> {
        let taken = self.take(buffer)?;
        self.pass_on(&buffer[..taken.unwrap_or(0)])?;
        Ok(taken)
    }

    /// Reads once, with the same meaning.
    fn take(&self, buffer: &mut [u8]) -> Result<Option<usize>, Ending> {
        loop {
            match self.read(buffer) {
                Ok(length) => return Ok(Some(length)),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
                Err(_) => return Err(self.lane.source.failure()),
            }
        }
    }

    fn pass_on(&self, bytes: &[u8]) -> Result<(), Ending> {
        let written = self.lane.sink.while_writing(|| { self.lane.to }.write_all(bytes));
        written.map_err(|_| self.lane.sink.failure())?;
        self.lane.source.count(bytes.len());
        Ok(())
    }

    /// Reads from the source, and does not fall asleep before it has asked a few times.
    fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let asks = self.asks.get();
        for ask in 0..asks {
            match recv(self.lane.from, &mut *buffer, RecvFlags::DONTWAIT) {
                Err(Errno::AGAIN) => thread::yield_now(),
                outcome => {
                    if ask > 0 {
                        self.asks.set(MOST_ASKS);
                    }
                    return Ok(outcome?.0);
                }
            }
        }
        self.asks.set(asks / 2);
        if asks == 0 {
            let without = (self.without.get() + 1) % TRY_ANEW_AFTER;
            self.without.set(without);
            self.asks.set(if without == 0 { 2 } else { 0 });
        }
        { self.lane.from }.read(buffer)
    }

    /// Whether an end of file was the source's own. The system tells of a reset once: should the
    /// other direction have been told while it wrote, this one finds a mere end of file, and only
    /// that the source has no peer any more gives it away. The source has none either when it was
    /// closed in both directions, but then the other direction has ended before.
    fn is_clean_end(&self) -> bool {
        (self.account.ending().is_none() || self.lane.source.finishes())
            && (self.lane.sink.has_ended()
                || self.lane.from.peer_addr().is_ok()
                || self.lane.sink.has_ended())
    }
}
