//! The two ends of a direction: where its bytes come from, and where they go to. The end that fails ends
//! the session with that.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags};
use rustix::io::{Errno, retry_on_intr};
use rustix::net::{RecvFlags, recv};
use socket2::SockRef;

use crate::sessions::{Endpoint, SessionState};
use crate::system::poll::poll;

/// How often a source is asked for bytes before the thread falls asleep over them. In between others
/// get to run, and with few cores it is they who send the bytes: that costs less than to be woken. It
/// is tried after some reads without it, and done for as long as it helps: a short session never asks.
const MOST_ASKS: u32 = 8;
const TRY_ANEW_AFTER: u32 = 16;

/// A side of a session as a reader. To who copies, it ends with each burst: at the end of file, and also
/// where there is nothing to read for as long as a read may take.
pub(super) struct Source<'a> {
    pub(super) session: &'a SessionState,
    pub(super) endpoint: &'a Endpoint,
    pub(super) stream: &'a TcpStream,
    pub(super) fin_received: bool,
    /// How often to ask next time: the most once that has helped, half as often each time that it has
    /// not, and not at all to begin with.
    asks: u32,
    /// Reads without it.
    without: u32,
}

impl<'a> Source<'a> {
    /// `None` where there is no connection with `endpoint` yet.
    pub(super) fn new(session: &'a SessionState, endpoint: &'a Endpoint) -> Option<Self> {
        let stream = endpoint.stream()?;
        Some(Source { session, endpoint, stream, fin_received: false, asks: 0, without: 0 })
    }

    /// How long a read may take.
    pub(super) fn limit_reads(&self, limit: Option<Duration>) -> io::Result<()> {
        let limited = self.stream.set_read_timeout(limit);
        limited.inspect_err(|_| self.session.end(self.endpoint.failure))
    }

    /// Reads what has come already.
    pub(super) fn read_available(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.recv(buffer, RecvFlags::DONTWAIT);
        self.note(read)
    }

    /// What `read` means to who copies. Nobody else is told of a failure or of an end of file.
    pub(super) fn note(&mut self, read: Result<usize, Errno>) -> io::Result<usize> {
        self.fin_received = read == Ok(0);
        match read {
            Err(Errno::AGAIN) => Ok(0),
            read => Ok(read.inspect_err(|_| self.session.end(self.endpoint.failure))?),
        }
    }

    /// Reads, and does not fall asleep before it has asked a few times.
    fn ask(&mut self, buffer: &mut [u8]) -> Result<usize, Errno> {
        for ask in 0..self.asks {
            let read = self.recv(buffer, RecvFlags::DONTWAIT);
            if read != Err(Errno::AGAIN) {
                self.asks = if ask > 0 { MOST_ASKS } else { self.asks };
                return read;
            }
            thread::yield_now();
        }
        if self.asks > 0 {
            self.asks /= 2;
        } else {
            self.without = (self.without + 1) % TRY_ANEW_AFTER;
            self.asks = if self.without == 0 { 2 } else { 0 };
        }
        self.recv(buffer, RecvFlags::empty())
    }

    fn recv(&self, buffer: &mut [u8], flags: RecvFlags) -> Result<usize, Errno> {
        retry_on_intr(|| recv(self.stream, &mut *buffer, flags)).map(|(length, _)| length)
    }
}

impl Read for Source<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.ask(buffer);
        self.note(read)
    }
}

/// A side of a session as a writer: it counts what it takes, and lets the watch know while it waits for
/// that.
pub(super) struct Sink<'a> {
    session: &'a SessionState,
    pub(super) endpoint: &'a Endpoint,
    pub(super) stream: &'a TcpStream,
    /// The other side, which has sent what is written.
    source: &'a Endpoint,
}

impl<'a> Sink<'a> {
    /// `None` where there is no connection with `endpoint` yet.
    pub(super) fn new(
        session: &'a SessionState,
        endpoint: &'a Endpoint,
        source: &'a Endpoint,
    ) -> Option<Self> {
        Some(Sink { session, endpoint, stream: endpoint.stream()?, source })
    }

    /// How many bytes the sink takes at once: it is writable while a third of its queue is free, and what
    /// the system keeps beside the bytes is as much again.
    pub(super) fn room(&self) -> usize {
        let mut polled = [PollFd::new(self.stream, PollFlags::OUT)];
        match poll(&mut polled, Duration::ZERO) {
            Ok(()) if polled[0].revents().is_empty() => 0,
            _ => SockRef::from(self.stream).send_buffer_size().map_or(0, |size| size / 6),
        }
    }

    /// Waits until the sink takes bytes, or has failed, which the next write tells.
    pub(super) fn wait_for_room(&self) {
        let mut polled = [PollFd::new(self.stream, PollFlags::OUT)];
        let _ = self.endpoint.while_writing(|| poll(&mut polled, Duration::MAX));
    }

    /// How many bytes are passed on at once.
    pub(super) fn portion(&self) -> usize {
        self.session.portion()
    }

    /// Waits until some of so many bytes may be passed on, and says how many.
    pub(super) fn wait_for_turn(&self, bytes: usize) -> io::Result<usize> {
        let turn = bytes.min(self.portion());
        self.session.wait_for_turn(self.source, turn).map(|()| turn)
    }

    /// Writes by `call`, which has something to write.
    pub(super) fn send(&self, call: impl FnOnce() -> io::Result<usize>) -> io::Result<usize> {
        match self.endpoint.while_writing(call) {
            Ok(length @ 1..) => {
                self.source.count(length);
                Ok(length)
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => Err(error),
            failed => {
                self.session.end(self.endpoint.failure);
                failed.and(Err(ErrorKind::WriteZero.into()))
            }
        }
    }
}

impl Write for Sink<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let turn = self.wait_for_turn(bytes.len())?;
        self.send(|| { self.stream }.write(&bytes[..turn]))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
