//! A connection that waits for its peer no longer than until a deadline.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};

use super::deadline::Deadline;

/// A connection that waits for its peer no longer than until a deadline.
pub struct TimedStream<'a> {
    stream: &'a TcpStream,
    deadline: Deadline,
}

impl<'a> TimedStream<'a> {
    /// `stream`, which waits until `deadline`.
    pub fn new(stream: &'a TcpStream, deadline: Deadline) -> Self {
        TimedStream { stream, deadline }
    }

    /// Gives the peer until `deadline` to read what was sent and to close. Closing at once would reset a
    /// connection on which the peer has sent more than was read, and what was sent would be lost.
    ///
    /// # Errors
    ///
    /// The error of `shutdown(2)` or `recv(2)`; `TimedOut` or `WouldBlock` when the peer has not closed.
    pub fn finish(mut self, deadline: Deadline) -> io::Result<()> {
        self.stream.shutdown(Shutdown::Write)?;
        self.deadline = deadline;
        let mut unread = [0; 1024];
        loop {
            match self.read(&mut unread) {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

impl Read for TimedStream<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.stream.set_read_timeout(Some(self.deadline.time_left()?))?;
        self.stream.read(bytes)
    }
}

impl Write for TimedStream<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.set_write_timeout(Some(self.deadline.time_left()?))?;
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::thread;
    use std::time::Duration;

    #[test]
    fn what_was_sent_is_read_though_the_peer_has_sent_more_and_a_peer_that_stays_is_left() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (stream, _) = listener.accept().unwrap();
        peer.write_all(&[7; 3000]).unwrap();
        let long = Deadline::after(Duration::from_secs(20));
        let served = thread::spawn(move || {
            let mut timed = TimedStream::new(&stream, long);
            timed.write_all(b"the last").unwrap();
            timed.finish(long)
        });
        let mut read = Vec::new();
        peer.read_to_end(&mut read).unwrap();
        assert_eq!(read, b"the last");
        drop(peer);
        served.join().unwrap().unwrap();

        let _peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (stream, _) = listener.accept().unwrap();
        let soon = Deadline::after(Duration::from_millis(20));
        let error = TimedStream::new(&stream, long).finish(soon).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{error}");
    }
}
