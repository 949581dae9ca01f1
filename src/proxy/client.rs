//! The client's connection until the relay begins.

use std::cell::OnceCell;
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use crate::commands;
use crate::commands::client_watch::{ClientWatch, wait_for};
use crate::sessions::{Ending, SessionState};
use crate::system::deadline::Deadline;
use crate::system::waker::Waker;
use crate::wire::error::Error;
use crate::wire::http::Body;

/// Bytes that are read at once from a client until its request is complete. Most messages fit; one
/// that does not takes a second read.
const HANDSHAKE_BUFFER: usize = 1024;

/// The client's connection until the relay begins: read through a buffer, written to at once.
pub(super) struct ClientStream<'a> {
    reader: BufReader<&'a TcpStream>,
    waiting: OnceCell<ClientWatch<'a>>,
    /// It has said all that it has to say: its end of file does not mean that it leaves.
    pub(super) has_said_all: bool,
}

impl<'a> ClientStream<'a> {
    pub(super) fn new(stream: &'a TcpStream) -> Self {
        let reader = BufReader::with_capacity(HANDSHAKE_BUFFER, stream);
        ClientStream { reader, waiting: OnceCell::new(), has_said_all: false }
    }

    /// The client while it waits for an answer: nothing more is read from it until then.
    pub(super) fn watch(&self) -> &ClientWatch<'a> {
        self.waiting.get_or_init(|| self.watch_from_now())
    }

    fn watch_from_now(&self) -> ClientWatch<'a> {
        let sent_more = self.has_said_all || !self.reader.buffer().is_empty();
        ClientWatch::new(self.reader.get_ref(), sent_more)
    }

    /// Waits until `answer` can be read, and says whether it can: the client of `session` may leave before, and
    /// its session end, which takes place here where whoever sees to that is late.
    pub(super) fn waits_for(
        &self,
        answer: &Waker,
        session: &SessionState,
        limit: Duration,
    ) -> bool {
        // Not the watch of later on: what is read until then may be an end of file.
        let waited = wait_for(answer, &self.watch_from_now(), Deadline::after(limit));
        if matches!(waited, Err(commands::Error::Unreachable(_))) {
            session.end(Ending::HandshakeTimeout);
        }
        waited.is_ok()
    }

    /// Where cores are scarce the client gets to run, and its message is there when it is asked for: that
    /// costs less than to fall asleep and be woken.
    fn give_way(&self) {
        if self.reader.buffer().is_empty() {
            thread::yield_now();
        }
    }

    /// Takes as much of the client's request's body as has come.
    pub(super) fn take_early(&mut self, body: &mut Body) -> Result<Vec<u8>, Error> {
        let taken = body.take(self.reader.buffer())?;
        let early = self.reader.buffer()[..taken].to_vec();
        self.reader.consume(taken);
        Ok(early)
    }

    /// Reads a body that nobody wants. Whether it has not more than `most` bytes.
    pub(super) fn discard(&mut self, body: &mut Body, most: usize) -> Result<bool, Error> {
        let mut discarded = 0;
        while !body.is_complete() && discarded <= most {
            let taken = match self.fill_buf()? {
                [] => return Err(io::Error::from(ErrorKind::UnexpectedEof).into()),
                octets => body.take(octets)?,
            };
            self.consume(taken);
            discarded += taken;
        }
        Ok(body.is_complete())
    }

    /// Sends the target what the client has sent behind its request. Nothing of a session that was
    /// ended before it had a target: no reset would follow, and a part would look complete.
    pub(super) fn pass_on_early_bytes(&self, session: &SessionState) -> io::Result<()> {
        if session.ending().is_some() {
            return Ok(());
        }
        let early = self.reader.buffer();
        if let (false, Some(mut target)) = (early.is_empty(), session.target().stream()) {
            session.wait_for_turn(session.client(), early.len())?;
            target.write_all(early)?;
            session.client().count(early.len());
        }
        Ok(())
    }
}

impl Read for ClientStream<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.give_way();
        self.reader.read(bytes)
    }
}

impl BufRead for ClientStream<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.give_way();
        self.reader.fill_buf()
    }

    fn consume(&mut self, amount: usize) {
        self.reader.consume(amount);
    }
}

impl Write for ClientStream<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.reader.get_mut().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{LONG, connection};
    use super::*;
    use crate::sessions::{Ending, Limits, Sessions};
    use crate::system::descriptors::Descriptors;

    #[test]
    fn a_session_that_was_ended_while_it_connected_sends_its_target_no_part_of_anything() {
        let limits = Limits::of_one(LONG, LONG);
        let sessions = Sessions::new(limits, Descriptors::new(usize::MAX));
        let (mut sender, stream) = connection();
        let (mut target, outgoing) = connection();
        let open = sessions.open(sender.local_addr().unwrap(), false, stream, || ()).unwrap();
        let session = open.state();
        sender.write_all(b"request, and early bytes").unwrap();
        let mut client = ClientStream::new(session.stream());
        client.read_exact(&mut [0; 7]).unwrap();
        session.end(Ending::Stopped);
        session.connected(outgoing, target.local_addr().unwrap());
        client.pass_on_early_bytes(session).unwrap();
        drop(client);
        drop(open);
        assert_eq!(target.read(&mut [0]).unwrap(), 0);
    }

    #[test]
    fn a_wait_that_takes_too_long_ends_the_session_though_its_watch_is_late() {
        let sessions = Sessions::new(Limits::of_one(LONG, LONG), Descriptors::new(usize::MAX));
        let (sender, stream) = connection();
        let open = sessions.open(sender.local_addr().unwrap(), false, stream, || ()).unwrap();
        let client = ClientStream::new(open.state().stream());
        let waker = Waker::new().unwrap();
        assert!(!client.waits_for(&waker, open.state(), Duration::from_millis(10)));
        assert_eq!(open.state().ending(), Some(Ending::HandshakeTimeout));
    }
}
