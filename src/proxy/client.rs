//! The client's connection until the relay begins.

use std::io::{self, BufReader, Read, Write};
use std::net::TcpStream;
use std::thread;

use crate::sessions::Account;

/// Bytes that are read at once from a client until its request is complete. Most messages fit; one
/// that does not takes a second read.
const HANDSHAKE_BUFFER: usize = 128;

/// The client's connection until the relay begins: read through a buffer, written to at once.
pub(super) struct Client<'a> {
    reader: BufReader<&'a TcpStream>,
}

impl<'a> Client<'a> {
    pub(super) fn new(stream: &'a TcpStream) -> Self {
        Client { reader: BufReader::with_capacity(HANDSHAKE_BUFFER, stream) }
    }

    /// The connection, if an end of file on it means that the client has gone. A client that has sent
    /// bytes for its target waits for an answer to them.
    pub(super) fn watched(&self) -> Option<&'a TcpStream> {
        self.reader.buffer().is_empty().then_some(*self.reader.get_ref())
    }

    /// Sends the target what the client has sent behind its request.
    pub(super) fn pass_on_early_bytes(&self, session: &Account) -> io::Result<()> {
        let early = self.reader.buffer();
        if let (false, Some(mut target)) = (early.is_empty(), session.target().stream()) {
            target.write_all(early)?;
            session.client().count(early.len());
        }
        Ok(())
    }
}

impl Read for Client<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        if self.reader.buffer().is_empty() {
            // Where cores are scarce the client gets to run, and its message is there when it is
            // asked for: that costs less than to fall asleep and be woken.
            thread::yield_now();
        }
        self.reader.read(bytes)
    }
}

impl Write for Client<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.reader.get_mut().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
