//! Where the bytes of a direction come from.

use std::io::{self, ErrorKind, Read};
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use rustix::net::{RecvFlags, recv};

use crate::sessions::{Endpoint, SessionState};

/// How often a source is asked for bytes before the thread falls asleep over them. In between others
/// get to run, and with few cores it is they who send the bytes: that costs less than to be woken. It
/// is tried after some reads without it, and done for as long as it helps: a short session never asks.
const MOST_ASKS: u32 = 8;
const TRY_ANEW_AFTER: u32 = 16;

/// A side of a session as a reader. To who copies, it ends with each burst: at the end of file, and also
/// where there is nothing to read for as long as a read may take. When it fails, the session ends with
/// that.
pub(super) struct Source<'a> {
    session: &'a SessionState,
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
    pub(super) fn limit_reads(&mut self, limit: Option<Duration>) -> io::Result<()> {
        self.stream.set_read_timeout(limit).inspect_err(|_| self.fail())
    }

    /// Reads what has come already.
    pub(super) fn read_available(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.receive(|source| source.recv(buffer, RecvFlags::DONTWAIT))
    }

    /// Reads by `call`, as often as a signal interrupts that, and takes note of what the outcome means.
    pub(super) fn receive(
        &mut self,
        mut call: impl FnMut(&mut Self) -> io::Result<usize>,
    ) -> io::Result<usize> {
        loop {
            match call(self) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(0),
                Err(error) => {
                    self.fail();
                    return Err(error);
                }
                Ok(length) => {
                    self.fin_received = length == 0;
                    return Ok(length);
                }
            }
        }
    }

    fn fail(&self) {
        self.session.end(self.endpoint.failure());
    }

    /// Reads, and does not fall asleep before it has asked a few times.
    fn ask(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let asks = self.asks;
        for ask in 0..asks {
            match self.recv(buffer, RecvFlags::DONTWAIT) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => thread::yield_now(),
                outcome => {
                    if ask > 0 {
                        self.asks = MOST_ASKS;
                    }
                    return outcome;
                }
            }
        }
        self.asks = asks / 2;
        if asks == 0 {
            self.without = (self.without + 1) % TRY_ANEW_AFTER;
            if self.without == 0 {
                self.asks = 2;
            }
        }
        self.recv(buffer, RecvFlags::empty())
    }

    fn recv(&self, buffer: &mut [u8], flags: RecvFlags) -> io::Result<usize> {
        Ok(recv(self.stream, buffer, flags)?.0)
    }
}

impl Read for Source<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.receive(|source| source.ask(buffer))
    }
}
