//! A client that waits for the answer to its request, and that may leave meanwhile.

use std::cell::Cell;
use std::net::TcpStream;
use std::os::fd::AsFd;

use rustix::event::{PollFd, PollFlags};

use super::error::Error;
use crate::system::deadline::Deadline;
use crate::system::poll::poll;

/// What an end of file shows as, where the system tells of it without a read.
#[cfg(target_os = "linux")]
const END_OF_FILE: PollFlags = PollFlags::RDHUP;
#[cfg(not(target_os = "linux"))]
const END_OF_FILE: PollFlags = PollFlags::HUP;

/// What a reset shows as. Linux has HUP only once both directions are over, and nobody has closed
/// the one to the client.
#[cfg(target_os = "linux")]
const RESET: PollFlags = PollFlags::ERR.union(PollFlags::HUP);
#[cfg(not(target_os = "linux"))]
const RESET: PollFlags = PollFlags::ERR;

/// A client that waits for an answer. It has left once its connection was reset, or once it has
/// closed it and has sent nothing behind its request: whoever has sent bytes for the target may have
/// sent all that it wants to send.
#[derive(Debug)]
pub(crate) struct ClientWatch<'a> {
    stream: &'a TcpStream,
    /// The events that are polled for besides a reset.
    events: Cell<PollFlags>,
}

impl<'a> ClientWatch<'a> {
    /// The client at the far end of `stream`, which has `sent_more` than its request or not.
    pub(crate) fn new(stream: &'a TcpStream, sent_more: bool) -> Self {
        let events = if sent_more { PollFlags::empty() } else { END_OF_FILE };
        ClientWatch { stream, events: Cell::new(events) }
    }

    /// What to poll for it.
    pub(super) fn poll_fd(&self) -> PollFd<'a> {
        PollFd::new(self.stream, self.events.get())
    }

    /// Whether it has left, now that `poll` has returned these events for it.
    pub(super) fn has_left(&self, returned: PollFlags) -> bool {
        if returned.intersects(RESET & !self.events.get()) {
            return true;
        }
        if !returned.intersects(self.events.get()) {
            return false;
        }
        // It is readable, so this does not wait.
        let has_sent_more = matches!(self.stream.peek(&mut [0]), Ok(1..));
        if has_sent_more {
            self.events.set(PollFlags::empty());
        }
        !has_sent_more
    }
}

/// Waits until `answer` can be read.
///
/// # Errors
///
/// [`Error::Unreachable`] with `TimedOut` once `deadline` has passed, [`Error::ClientLeft`] once
/// `client` has left.
pub(crate) fn wait_for(
    answer: impl AsFd,
    client: &ClientWatch<'_>,
    deadline: Deadline,
) -> Result<(), Error> {
    loop {
        let mut polled = [PollFd::new(&answer, PollFlags::IN), client.poll_fd()];
        poll(&mut polled, deadline.time_left()?)?;
        let [of_answer, of_client] = polled.map(|polled| polled.revents());
        if client.has_left(of_client) {
            return Err(Error::ClientLeft);
        }
        if !of_answer.is_empty() {
            return Ok(());
        }
    }
}

#[cfg(test)]
impl ClientWatch<'static> {
    /// A client that waits for as long as it takes.
    pub(crate) fn that_stays() -> Self {
        let (client, stream) = tests::connection();
        std::mem::forget(client);
        ClientWatch::new(Box::leak(Box::new(stream)), false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sessions::{Ending, Limits, Sessions};
    use crate::system::descriptors::Descriptors;
    use socket2::SockRef;
    use std::io::Write;
    use std::net::{Shutdown, TcpListener};
    use std::time::Duration;

    const LONG: Duration = Duration::from_secs(20);
    const SHORT: Duration = Duration::from_millis(100);

    pub(super) fn connection() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (client, listener.accept().unwrap().0)
    }

    /// Whether there is an event of the client, and whether it has left then.
    fn look(client: &ClientWatch<'_>, limit: Duration) -> Option<bool> {
        let mut polled = [client.poll_fd()];
        poll(&mut polled, limit).unwrap();
        let returned = polled[0].revents();
        (!returned.is_empty()).then(|| client.has_left(returned))
    }

    #[test]
    fn a_client_that_closes_has_left() {
        for sends in [false, true] {
            let (mut client, stream) = connection();
            let watch = ClientWatch::new(&stream, false);
            assert_eq!(look(&watch, SHORT), None);
            if sends {
                client.write_all(b"payload").unwrap();
            }
            client.shutdown(Shutdown::Write).unwrap();
            assert_eq!(look(&watch, LONG), Some(!sends), "{sends}");
        }
    }

    #[test]
    fn a_client_that_resets_has_left_though_it_has_sent_bytes_early() {
        let (client, stream) = connection();
        let watch = ClientWatch::new(&stream, true);
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(look(&watch, SHORT), None);
        SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
        drop(client);
        assert_eq!(look(&watch, LONG), Some(true));
    }

    /// A stop would wait for its target, and end without a line about it.
    #[test]
    fn a_client_whose_session_is_ended_has_left_though_it_has_sent_bytes_early() {
        let limits = Limits::of_one(LONG, LONG);
        let sessions = Sessions::new(limits, Descriptors::new(usize::MAX));
        for sends in [false, true] {
            let (mut client, stream) = connection();
            let peer = client.local_addr().unwrap();
            let session = sessions.open(peer, false, stream, || ()).unwrap();
            let watch = ClientWatch::new(session.state().stream(), true);
            if sends {
                client.write_all(b"payload").unwrap();
            }
            assert_eq!(look(&watch, SHORT), None);
            session.state().end(Ending::Stopped);
            assert_eq!(look(&watch, LONG), Some(true));
        }
    }
}
