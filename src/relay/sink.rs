//! Where the bytes of a direction go to.

use std::io::{self, ErrorKind, Write};
use std::net::TcpStream;

use crate::sessions::{Endpoint, SessionState};

/// A side of a session as a writer: it counts what it takes, and lets the watch know while it waits for
/// that. When it fails, the session ends with that.
pub(super) struct Sink<'a> {
    session: &'a SessionState,
    pub(super) endpoint: &'a Endpoint,
    /// The other side, which has sent what is written.
    source: &'a Endpoint,
    pub(super) stream: &'a TcpStream,
}

impl<'a> Sink<'a> {
    /// `None` where there is no connection with `endpoint` yet.
    pub(super) fn new(
        session: &'a SessionState,
        endpoint: &'a Endpoint,
        source: &'a Endpoint,
    ) -> Option<Self> {
        Some(Sink { session, endpoint, source, stream: endpoint.stream()? })
    }

    /// Writes by `call`, which has something to write.
    pub(super) fn send(&self, call: impl FnOnce() -> io::Result<usize>) -> io::Result<usize> {
        let written = match self.endpoint.while_writing(call) {
            Ok(0) => Err(ErrorKind::WriteZero.into()),
            outcome => outcome,
        };
        match &written {
            Ok(length) => self.source.count(*length),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => self.session.end(self.endpoint.failure()),
        }
        written
    }
}

impl Write for Sink<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.send(|| { self.stream }.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
