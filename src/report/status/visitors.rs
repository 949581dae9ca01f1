//! The visitors of the status page: each has a thread of its own, and limits on its bytes and its time.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant};

use log::warn;
use rustix::event::{PollFd, PollFlags};

use super::super::rate_limit::{Rate, RateLimit};
use super::handler::StatusHandler;
use super::request::MAX_HEAD;
use crate::system::deadline::Deadline;
use crate::system::ip::ClientPrefix;
use crate::system::poll::poll;
use crate::system::shares::VISITORS;
use crate::system::timed_stream::TimedStream;
use crate::system::waker::Waker;

/// Visitors at once. One more takes the place of another: see [`gives_way`].
const MAX_VISITORS: usize = VISITORS.all;

/// Connections of one client: far more than browsers and health checks make. At a tenth of a millisecond
/// each, 500 a second are a twentieth of a core.
const RATE: Rate = Rate {
    each: 500,
    all: 500 * 1024,
    burst: Duration::from_secs(1),
    summary_after: Duration::from_secs(10),
    summary: |client, count| {
        let whose = client.map_or("others".into(), |client| client.to_string());
        warn!(
            "closed {count} connections of client={whose} to the status page: more than 500 a second"
        );
    },
};

/// How long a visitor may take for its request, and then to read the response.
const REQUEST: Duration = Duration::from_secs(5);
const RESPONSE: Duration = Duration::from_secs(15);

/// How long the end of a response may take to arrive. Closing at once on a visitor who has sent more
/// than was read would be a reset, and the response would be lost.
const CLOSE: Duration = Duration::from_secs(1);

/// Pause after an error of `accept(2)`: most likely there are no descriptors.
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
    let (rate, mut visitors) = (RateLimit::new(RATE), Vec::with_capacity(MAX_VISITORS));
    loop {
        let next = handler.tick(Instant::now());
        let mut polled = [PollFd::new(end, PollFlags::IN), PollFd::new(listener, PollFlags::IN)];
        poll(&mut polled, next.saturating_duration_since(Instant::now()))?;
        let [ends, comes] = polled.map(|polled| !polled.revents().is_empty());
        if ends {
            visitors.iter().for_each(close);
            return Ok(());
        }
        if !comes {
            continue;
        }
        match listener.accept() {
            Ok((stream, peer)) => {
                let client = peer.ip().into();
                // Behind a web server on this machine there are many visitors.
                let is_local = peer.ip().to_canonical().is_loopback();
                if handler.admits(&stream, peer) && (is_local || rate.admits(client)) {
                    let _ = receive(stream, client, &mut visitors, handler);
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(_) => thread::sleep(PAUSE),
        }
    }
}

/// A visitor, for as long as its thread holds its connection.
struct Visitor {
    client: ClientPrefix,
    stream: Weak<TcpStream>,
}

/// Has a visitor served. Another one gives way to it where there are too many.
fn receive(
    stream: TcpStream,
    client: ClientPrefix,
    visitors: &mut Vec<Visitor>,
    handler: &Arc<StatusHandler>,
) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    let stream = Arc::new(stream);
    visitors.retain(|visitor| visitor.stream.strong_count() > 0);
    if visitors.len() >= MAX_VISITORS {
        let clients: Vec<_> = visitors.iter().map(|visitor| visitor.client).collect();
        close(&visitors.remove(gives_way(&clients, client)));
    }
    visitors.push(Visitor { client, stream: Arc::downgrade(&stream) });
    start(&stream, handler);
    Ok(())
}

/// Which of these visitors gives way to one of the client `comes`: of the network that has most, that one
/// included, and there of the client that has most, the one who has been there for longest.
fn gives_way(visitors: &[ClientPrefix], comes: ClientPrefix) -> usize {
    let all = || visitors.iter().chain([&comes]);
    let has = |client: ClientPrefix| {
        let network = client.network();
        let of_network = all().filter(|other| other.network() == network).count();
        (of_network, all().filter(|other| **other == client).count())
    };
    // Of those that are equal `max_by_key` takes the last one, which is the oldest here.
    (0..visitors.len()).rev().max_by_key(|index| has(visitors[*index])).unwrap_or_default()
}

/// Ends a visit from another thread than its own.
fn close(visitor: &Visitor) {
    if let Some(stream) = visitor.stream.upgrade() {
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
    let mut connection = TimedStream::new(stream, deadline(REQUEST));
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
    let mut connection = TimedStream::new(stream, deadline(RESPONSE));
    connection.write_all(response.head.as_bytes())?;
    connection.write_all(response.body.as_bytes())?;
    connection.finish(deadline(CLOSE))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::IpAddr;

    #[test]
    fn who_has_most_visitors_gives_way() {
        let gives_way = |visitors: &[&str], comes: &str| {
            let client = |ip: &str| ip.parse::<IpAddr>().unwrap().into();
            let visitors: Vec<_> = visitors.iter().map(|ip| client(ip)).collect();
            gives_way(&visitors, client(comes))
        };
        let (a, b, c) = ("10.0.0.1", "10.0.0.2", "2001:db8::1");
        assert_eq!(gives_way(&[a, b, b], c), 1, "the oldest of the crowd");
        assert_eq!(gives_way(&[a, b, b], a), 0, "both have as many then: the oldest of all");
        assert_eq!(gives_way(&[a, b, c], b), 1, "its own");
        assert_eq!(gives_way(&[a, b, c], "10.0.0.4"), 0, "each has one");
        assert_eq!(gives_way(&[a, c, "2001:db8::2"], b), 1, "a network of IPv6 is one client");
        let host = ["fd77::1", "fd77::2", "fd77::3"];
        assert_eq!(gives_way(&[a, host[0], host[1]], host[2]), 1, "one host has many addresses");
    }
}
