//! The client's connection until the relay begins.

use std::cell::OnceCell;
use std::io::{self, BufReader, Read, Write};
use std::net::TcpStream;
use std::thread;

use crate::commands::waiting::Waiting;
use crate::sessions::Account;

/// Bytes that are read at once from a client until its request is complete. Most messages fit; one
/// that does not takes a second read.
const HANDSHAKE_BUFFER: usize = 128;

/// The client's connection until the relay begins: read through a buffer, written to at once.
pub(super) struct Client<'a> {
    reader: BufReader<&'a TcpStream>,
    waiting: OnceCell<Waiting<'a>>,
}

impl<'a> Client<'a> {
    pub(super) fn new(stream: &'a TcpStream) -> Self {
        let reader = BufReader::with_capacity(HANDSHAKE_BUFFER, stream);
        Client { reader, waiting: OnceCell::new() }
    }

    /// The client while it waits for an answer: nothing more is read from it until then.
    pub(super) fn waiting(&self) -> &Waiting<'a> {
        let sent_more = !self.reader.buffer().is_empty();
        self.waiting.get_or_init(|| Waiting::new(self.reader.get_ref(), sent_more))
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
