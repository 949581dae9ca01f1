//! CONNECT: races the permitted addresses within a deadline, as RFC 8305 says.

use std::cell::Cell;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::{Domain, Protocol, Socket, Type};

use crate::access::rules::Permit;

/// How long one address has the field to itself before the next one joins (RFC 8305 section 5).
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// How many addresses of one name are tried at the most.
const MOST_ATTEMPTS: usize = 16;

/// A peer that has gone shows as this, and where the system can tell, one that has sent its end of
/// file, too.
#[cfg(target_os = "linux")]
pub(crate) const GONE: PollFlags = PollFlags::RDHUP;
#[cfg(not(target_os = "linux"))]
pub(crate) const GONE: PollFlags = PollFlags::HUP;

/// Why there is no connection to the target.
#[derive(Debug)]
pub enum Error {
    /// No address could be reached; this is the failure of the one that came furthest.
    Unreachable(io::Error),
    /// The client has left meanwhile.
    ClientLeft,
}

/// Local addresses of outgoing connections, one a family.
#[derive(Clone, Copy, Debug, Default)]
pub struct Source {
    /// For IPv4 targets.
    pub ipv4: Option<IpAddr>,
    /// For IPv6 targets.
    pub ipv6: Option<IpAddr>,
}

impl Source {
    /// The local address, port 0, for what goes to `target`, if one is set for its family.
    #[must_use]
    pub fn of(&self, target: SocketAddr) -> Option<SocketAddr> {
        let local = if target.is_ipv4() { self.ipv4 } else { self.ipv6 };
        local.map(|local| SocketAddr::new(local, 0))
    }
}

/// A connection with a target.
#[derive(Debug)]
pub struct Connection {
    /// The connection itself.
    pub stream: TcpStream,
    /// The address that was reached.
    pub address: SocketAddr,
    /// The local address: BND.ADDR and BND.PORT.
    pub bound: SocketAddr,
}

/// Connects to the first of the permitted addresses that accepts.
///
/// # Errors
///
/// [`Error::Unreachable`] when none has by `deadline`, [`Error::ClientLeft`] when `client`, if it is
/// given, has gone.
pub fn connect(
    permit: &Permit,
    source: Source,
    deadline: Instant,
    mut client: Option<&TcpStream>,
) -> Result<Connection, Error> {
    let mut race = Race { source, attempts: Vec::with_capacity(1), failure: None };
    let mut addresses = interleave(permit.addresses()).into_iter().take(MOST_ATTEMPTS).peekable();
    let mut next_start = Instant::now();
    loop {
        let now = Instant::now();
        if now >= deadline {
            return Err(Error::Unreachable(ErrorKind::TimedOut.into()));
        }
        if race.attempts.is_empty() || now >= next_start {
            if let Some(address) = addresses.next() {
                race.start(address);
                next_start = now + ATTEMPT_DELAY;
            }
        }
        if race.attempts.is_empty() {
            if addresses.peek().is_some() {
                continue;
            }
            return Err(Error::Unreachable(race.failure()));
        }
        let until = if addresses.peek().is_some() { next_start.min(deadline) } else { deadline };
        if race.wait(until, client).map_err(Error::Unreachable)? {
            if client.is_some_and(has_left) {
                return Err(Error::ClientLeft);
            }
            // The client has only sent all that it wants to send.
            client = None;
        }
        if let Some(winner) = race.winner() {
            return winner.map_err(Error::Unreachable);
        }
    }
}

/// Whether `client` is gone: reset, or closed with nothing left to read. A client that has sent
/// its request, its payload and its end of file is not gone.
#[must_use]
pub fn has_left(client: &TcpStream) -> bool {
    let mut ready = [PollFd::new(client, GONE)];
    match poll(&mut ready, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })) {
        // It is readable, so this does not wait.
        Ok(1..) => !matches!(client.peek(&mut [0]), Ok(1..)),
        _ => false,
    }
}

/// The attempts under way, and the most telling failure of those that are over.
struct Race {
    source: Source,
    attempts: Vec<Attempt>,
    failure: Option<io::Error>,
}

struct Attempt {
    socket: Socket,
    address: SocketAddr,
    /// What the last wait has seen of it.
    seen: Cell<PollFlags>,
}

impl Race {
    fn start(&mut self, address: SocketAddr) {
        match begin(address, self.source) {
            Ok(socket) => {
                self.attempts.push(Attempt {
                    socket,
                    address,
                    seen: Cell::new(PollFlags::empty()),
                });
            }
            Err(error) => self.fail(error),
        }
    }

    /// Waits until an attempt is over, `until` comes, or the client may have left (then: true).
    fn wait(&self, until: Instant, client: Option<&TcpStream>) -> io::Result<bool> {
        let mut polled: Vec<PollFd<'_>> = self
            .attempts
            .iter()
            .map(|attempt| PollFd::new(&attempt.socket, PollFlags::OUT))
            .chain(client.map(|client| PollFd::new(client, GONE)))
            .collect();
        let pause = until.saturating_duration_since(Instant::now());
        let pause = Timespec::try_from(pause).map_err(io::Error::other)?;
        match poll(&mut polled, Some(&pause)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        for (attempt, polled) in self.attempts.iter().zip(&polled) {
            attempt.seen.set(polled.revents());
        }
        let gone = polled.last().filter(|_| client.is_some());
        Ok(gone.is_some_and(|polled| !polled.revents().is_empty()))
    }

    /// The attempt that has connected, if one has; those that have failed are put away.
    fn winner(&mut self) -> Option<io::Result<Connection>> {
        let mut index = 0;
        while index < self.attempts.len() {
            if self.attempts[index].seen.get().is_empty() {
                index += 1;
                continue;
            }
            match self.attempts.swap_remove(index).finish() {
                Ok(connection) => return Some(Ok(connection)),
                Err(error) => self.fail(error),
            }
        }
        None
    }

    /// Keeps the failure that tells most about the target: a refusal came from the target itself,
    /// an unreachable network only from this machine's routes.
    fn fail(&mut self, error: io::Error) {
        let telling = |error: &io::Error| match error.kind() {
            ErrorKind::ConnectionRefused => 4,
            ErrorKind::TimedOut => 3,
            ErrorKind::HostUnreachable => 2,
            ErrorKind::NetworkUnreachable => 1,
            _ => 0,
        };
        if self.failure.as_ref().is_none_or(|known| telling(&error) > telling(known)) {
            self.failure = Some(error);
        }
    }

    fn failure(self) -> io::Error {
        self.failure.unwrap_or_else(|| ErrorKind::AddrNotAvailable.into())
    }
}

/// Starts to connect without waiting.
fn begin(address: SocketAddr, source: Source) -> io::Result<Socket> {
    let domain = Domain::for_address(address);
    #[cfg(target_os = "linux")]
    let socket = Socket::new(domain, Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    #[cfg(not(target_os = "linux"))]
    let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
    #[cfg(not(target_os = "linux"))]
    socket.set_nonblocking(true)?;
    if let Some(local) = source.of(address) {
        socket.bind(&local.into())?;
    }
    match socket.connect(&address.into()) {
        Err(error)
            if error.raw_os_error() != Some(rustix::io::Errno::INPROGRESS.raw_os_error()) =>
        {
            Err(error)
        }
        _ => Ok(socket),
    }
}

impl Attempt {
    /// Takes the connection out of an attempt that is over, or the failure.
    fn finish(self) -> io::Result<Connection> {
        if self.seen.get().intersects(PollFlags::ERR | PollFlags::HUP) {
            if let Some(error) = self.socket.take_error()? {
                return Err(error);
            }
        }
        let stream = TcpStream::from(self.socket);
        let bound = stream.local_addr()?;
        // Where nobody listens on a local port that is free for outgoing connections, TCP may
        // connect a socket to itself.
        if bound == self.address {
            return Err(ErrorKind::ConnectionRefused.into());
        }
        stream.set_nonblocking(false)?;
        Ok(Connection { stream, address: self.address, bound })
    }
}

/// Takes the families in turn, beginning with that of the first address (RFC 8305 section 4).
fn interleave(addresses: &[SocketAddr]) -> Vec<SocketAddr> {
    let [first, _, ..] = addresses else { return addresses.to_vec() };
    let (mut ours, mut theirs): (Vec<SocketAddr>, Vec<SocketAddr>) =
        addresses.iter().rev().copied().partition(|address| address.is_ipv4() == first.is_ipv4());
    let mut order = Vec::with_capacity(addresses.len());
    while !(ours.is_empty() && theirs.is_empty()) {
        order.extend(ours.pop());
        order.extend(theirs.pop());
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(addresses: &[&str]) -> Vec<SocketAddr> {
        addresses.iter().map(|address| address.parse().unwrap()).collect()
    }

    #[test]
    fn families_take_turns() {
        let resolved = all(&["[::1]:1", "[::2]:1", "[::3]:1", "192.0.2.1:1", "192.0.2.2:1"]);
        let order = all(&["[::1]:1", "192.0.2.1:1", "[::2]:1", "192.0.2.2:1", "[::3]:1"]);
        assert_eq!(interleave(&resolved), order);
        let one = all(&["192.0.2.1:1", "192.0.2.2:1"]);
        assert_eq!(interleave(&one), one);
        assert!(interleave(&[]).is_empty());
    }

    #[test]
    fn the_most_telling_failure_is_kept() {
        let mut race = Race { source: Source::default(), attempts: Vec::new(), failure: None };
        for kind in [
            ErrorKind::NetworkUnreachable,
            ErrorKind::ConnectionRefused,
            ErrorKind::HostUnreachable,
            ErrorKind::Other,
        ] {
            race.fail(kind.into());
        }
        assert_eq!(race.failure().kind(), ErrorKind::ConnectionRefused);
    }
}
