//! One direction of a tunnel: copies, and passes the end of file on.

use std::io::{self, BufReader, Read, Write};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::retry_on_intr;

use super::ends::{Sink, Source};
#[cfg(target_os = "linux")]
use super::splice::Pipe;
use crate::sessions::{Endpoint, SessionState};
use crate::system::memory::is_tight;

/// The buffer of a direction in which little goes on, in bytes. It is on the stack: a tunnel that
/// idles costs little more than its threads.
const SMALL_BUFFER: usize = 512;

/// The buffer of a direction that has filled the small one. From 8 KiB on `io::copy` uses it in place of
/// the one that it has on the stack, where that would stay.
pub(super) const BUFFER: usize = 16 * 1024;

/// The buffer of bulk where there is no pipe: 64 KiB take up to twice the processor time, and 8 KiB 2.5
/// times. It is there only while its bytes find room in the sink's send queue.
const LARGE_BUFFER: usize = 256 * 1024;

/// After this many bytes without a pause a direction counts as bulk.
const BULK_AFTER: u64 = 256 * 1024;

/// Where there was no pipe to be had, one is asked for again after this many bytes.
const PIPE_AGAIN: u64 = 64 * 1024 * 1024;

/// A direction whose source says nothing for so long gives back its buffer or its pipe.
pub(super) const QUIET: Duration = Duration::from_secs(1);

/// How a direction copies.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum CopyMode {
    /// Through a small buffer: there is little to copy, or nothing just now.
    Small,
    /// The start of a message, which was read already, with its rest.
    Message(Box<[u8; SMALL_BUFFER]>),
    /// Through a buffer that is given back when there is nothing to copy.
    Buffered,
    /// In the cheapest way that there is: there is very much to copy.
    Bulk,
    /// Not any more: the source has sent its end of file.
    Ended,
}

/// One direction of a tunnel: from one side to the other.
pub(super) struct Direction<'a> {
    pub(super) source: Source<'a>,
    pub(super) sink: Sink<'a>,
}

impl<'a> Direction<'a> {
    /// From the client to its target. `None` before there is a target.
    pub(super) fn up(session: &'a SessionState) -> Option<Self> {
        Direction::new(session, session.client(), session.target())
    }

    /// From the target to the client.
    pub(super) fn down(session: &'a SessionState) -> Option<Self> {
        Direction::new(session, session.target(), session.client())
    }

    fn new(session: &'a SessionState, from: &'a Endpoint, to: &'a Endpoint) -> Option<Self> {
        Some(Direction { source: Source::new(session, from)?, sink: Sink::new(session, to, from)? })
    }

    /// Waits until one of the sides says something. If it is the source alone, its first bytes are passed
    /// on: only so many that a new connection takes them at once, since nobody reads from the sink yet.
    #[inline(never)]
    pub(super) fn begin(&mut self) -> io::Result<CopyMode> {
        if !self.only_source_speaks() {
            return Ok(CopyMode::Small);
        }
        let mut buffer = [0; SMALL_BUFFER];
        match self.source.read(&mut buffer)? {
            SMALL_BUFFER => Ok(CopyMode::Message(Box::new(buffer))),
            length => self.pass_on(&buffer[..length]),
        }
    }

    /// Waits until one of the sides has said something, or is gone. Whether it is the source alone.
    fn only_source_speaks(&self) -> bool {
        let sides = [self.source.stream, self.sink.stream];
        let mut ready = sides.map(|stream| PollFd::new(stream, PollFlags::IN));
        let _ = retry_on_intr(|| poll(&mut ready, None));
        !ready[0].revents().is_empty() && ready[1].revents().is_empty()
    }

    /// Carries bytes until the source's end of file, and passes that on. The side that fails has ended
    /// the session.
    pub(super) fn carry(&mut self, mode: CopyMode) {
        if self.copy(mode).is_ok() {
            self.source.session.pass_on_fin(self.source.endpoint, self.sink.endpoint);
        }
    }

    /// Copies until the source's end of file, in the way that suits how much there is to copy.
    fn copy(&mut self, mut mode: CopyMode) -> io::Result<()> {
        loop {
            mode = match mode {
                CopyMode::Small => self.copy_small()?,
                CopyMode::Message(start) => self.copy_with_rest(&*start)?,
                CopyMode::Buffered => self.copy_buffered()?,
                CopyMode::Bulk => self.copy_bulk()?,
                CopyMode::Ended => return Ok(()),
            };
        }
    }

    /// Copies through a small buffer until the source fills it.
    // Each mode has a frame of its own, so that a thread that waits here touches one page of stack
    // beside the one with its thread-local data, also after it was busy.
    #[inline(never)]
    fn copy_small(&mut self) -> io::Result<CopyMode> {
        let mut buffer = [0; SMALL_BUFFER];
        loop {
            let mode = self.copy_once(&mut buffer)?;
            if mode != CopyMode::Small {
                return Ok(mode);
            }
        }
    }

    /// Copies once.
    fn copy_once(&mut self, buffer: &mut [u8; SMALL_BUFFER]) -> io::Result<CopyMode> {
        match self.source.read(buffer)? {
            SMALL_BUFFER => self.copy_with_rest(buffer),
            length => self.pass_on(&buffer[..length]),
        }
    }

    /// Passes on what one read has given, nothing at the end of a burst.
    fn pass_on(&mut self, mut bytes: &[u8]) -> io::Result<CopyMode> {
        if bytes.is_empty() {
            return self.end_burst();
        }
        io::copy(&mut bytes, &mut self.sink).map(|_| CopyMode::Small)
    }

    /// Passes on the start of a message with what has come of its rest: some programs take what one read
    /// gives them for the whole.
    #[inline(never)]
    fn copy_with_rest(&mut self, start: &[u8]) -> io::Result<CopyMode> {
        let mut whole = vec![0; BUFFER];
        let (first, rest) = whole.split_at_mut(start.len());
        first.copy_from_slice(start);
        let length = start.len() + self.source.read_available(rest)?;
        io::copy(&mut &whole[..length], &mut self.sink)?;
        Ok(CopyMode::Buffered)
    }

    /// Copies through a buffer until there was much without a pause, or the burst ends.
    #[inline(never)]
    fn copy_buffered(&mut self) -> io::Result<CopyMode> {
        self.source.limit_reads(Some(QUIET))?;
        let mut burst = BufReader::with_capacity(BUFFER, (&mut self.source).take(BULK_AFTER));
        // The compiler sees by this that `io::copy` needs no buffer of its own, on the stack.
        assert!(burst.capacity() >= BUFFER);
        let copied = io::copy(&mut burst, &mut self.sink)?;
        if copied == BULK_AFTER { Ok(CopyMode::Bulk) } else { self.end_burst() }
    }

    #[inline(never)]
    fn copy_bulk(&mut self) -> io::Result<CopyMode> {
        #[cfg(target_os = "linux")]
        if let Some(pipe) = Pipe::open(self.source.session.descriptors()) {
            // A splice from a socket heeds this, and not the flag that asks it not to wait.
            self.source.limit_reads(Some(QUIET))?;
            pipe.copy(&mut self.source, &self.sink)?;
            return self.end_burst();
        }
        self.copy_large()
    }

    /// Copies through a large buffer until it is time to ask for a pipe again, or the burst ends. A
    /// direction whose sink takes nothing holds at most a small one.
    #[inline(never)]
    fn copy_large(&mut self) -> io::Result<CopyMode> {
        self.source.limit_reads(Some(QUIET))?;
        let (mut buffer, mut left) = (Vec::new(), PIPE_AGAIN);
        while left > 0 {
            let room = self.sink.room();
            if room < BUFFER {
                buffer = Vec::new();
                self.sink.wait_for_room();
            }
            let most = if is_tight() { BUFFER } else { LARGE_BUFFER };
            buffer.resize(room.clamp(BUFFER, most), 0);
            let length = self.source.read(&mut buffer)?;
            if length == 0 {
                return self.end_burst();
            }
            self.sink.write_all(&buffer[..length])?;
            left = left.saturating_sub(length as u64);
        }
        Ok(CopyMode::Bulk)
    }

    fn end_burst(&mut self) -> io::Result<CopyMode> {
        if self.source.fin_received {
            return Ok(CopyMode::Ended);
        }
        self.source.limit_reads(None)?;
        Ok(CopyMode::Small)
    }
}
