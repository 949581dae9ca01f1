//! The visitors of the status page: each has a thread of its own, and limits on its bytes and its time.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};

use super::handler::StatusHandler;
use super::request::MAX_HEAD;
use crate::system::deadline::Deadline;
use crate::system::poll::poll;
use crate::system::waker::Waker;

/// Visitors at once. One more takes the place of the one who has been there for longest.
const MAX_VISITORS: usize = 16;

/// How long a visitor may take for its request, and then to read the response.
const REQUEST: Duration = Duration::from_secs(5);
const RESPONSE: Duration = Duration::from_secs(15);

/// How long the end of a response may take to arrive. Closing at once on a visitor who has sent more
/// than was read would be a reset, and the response would be lost.
const CLOSE: Duration = Duration::from_secs(1);

/// From one visitor to the next, so that a crowd takes no core for itself.
const PAUSE: Duration = Duration::from_millis(10);

/// Stack of a visitor's thread in bytes. What is shown is on the heap.
const STACK: usize = 128 * 1024;

/// Serves whoever comes, until `end` is woken.
pub(super) fn serve(
    listener: &TcpListener,
    end: &Waker,
    handler: &Arc<StatusHandler>,
) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let mut visitors: Vec<Weak<TcpStream>> = Vec::with_capacity(MAX_VISITORS);
    loop {
        let next = handler.tick(Instant::now());
        let mut polled = [PollFd::new(end, PollFlags::IN), PollFd::new(listener, PollFlags::IN)];
        poll(&mut polled, next.saturating_duration_since(Instant::now()))?;
        let [ends, comes] = polled.map(|polled| !polled.revents().is_empty());
        if ends {
            visitors.iter().for_each(close);
            return Ok(());
        }
        if comes {
            if let Some(visitor) = accept(listener, handler) {
                visitors.retain(|visitor| visitor.strong_count() > 0);
                if visitors.len() >= MAX_VISITORS {
                    close(&visitors.remove(0));
                }
                visitors.push(Arc::downgrade(&visitor));
                start(&visitor, handler);
            }
            thread::sleep(PAUSE);
        }
    }
}

/// Accepts the next visitor, if it is one that may come.
fn accept(listener: &TcpListener, handler: &StatusHandler) -> Option<Arc<TcpStream>> {
    let (stream, _) = listener.accept().ok().filter(|(_, peer)| handler.admits(*peer))?;
    stream.set_nonblocking(false).ok()?;
    Some(Arc::new(stream))
}

/// Ends a visit from another thread than its own.
fn close(visitor: &Weak<TcpStream>) {
    if let Some(stream) = visitor.upgrade() {
        let _ = stream.shutdown(Shutdown::Both);
    }
}

/// Serves a visitor on a thread of its own. Where the system refuses one, the visitor is served here,
/// and has to be quick: the others wait.
fn start(visitor: &Arc<TcpStream>, handler: &Arc<StatusHandler>) {
    let (stream, of_thread) = (Arc::clone(visitor), Arc::clone(handler));
    let thread = thread::Builder::new().name("tabi visitor".into()).stack_size(STACK);
    if thread.spawn(move || visit(&stream, &of_thread, Duration::MAX)).is_err() {
        let _ = visit(visitor, handler, CLOSE);
    }
}

/// Reads a request and writes the response, each within its time and within `limit`.
fn visit(stream: &TcpStream, handler: &StatusHandler, limit: Duration) -> io::Result<()> {
    let deadline = |usual: Duration| Deadline::after(usual.min(limit));
    let mut connection = HttpConnection { stream, deadline: deadline(REQUEST) };
    let mut head = vec![0; MAX_HEAD];
    let mut length = 0;
    let response = loop {
        match connection.read(&mut head[length..]) {
            Ok(0) => return Ok(()),
            Ok(more) => length += more,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        }
        if let Some(response) = handler.respond(&head[..length]) {
            break response;
        }
    };
    connection.deadline = deadline(RESPONSE);
    connection.write_all(response.head.as_bytes())?;
    connection.write_all(response.body.as_bytes())?;
    stream.shutdown(Shutdown::Write)?;
    connection.deadline = deadline(CLOSE);
    io::copy(&mut connection, &mut io::sink())?;
    Ok(())
}

/// A connection that waits for its peer until a deadline.
struct HttpConnection<'a> {
    stream: &'a TcpStream,
    deadline: Deadline,
}

impl Read for HttpConnection<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.stream.set_read_timeout(Some(self.deadline.time_left()?))?;
        self.stream.read(bytes)
    }
}

impl Write for HttpConnection<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.set_write_timeout(Some(self.deadline.time_left()?))?;
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
