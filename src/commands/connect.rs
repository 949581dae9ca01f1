//! CONNECT: races the permitted addresses within a deadline, as RFC 8305 says.

use std::cell::Cell;
use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use socket2::{Domain, Protocol, Socket, Type};

use super::client_watch::ClientWatch;
use super::egress::Egress;
use super::error::Error;
use super::families::{Attempted, Families};
use crate::access::policy::Permit;
use crate::system::deadline::Deadline;
use crate::system::descriptors::{Descriptors, Reservation};
use crate::system::poll::poll;
use crate::wire::address::Address;

/// How long one address has the field to itself before the next one joins (RFC 8305 section 5).
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// How many addresses of one name are tried at the most.
const MAX_ATTEMPTS: usize = 16;

/// How many attempts one session has in flight at the most.
const MAX_IN_FLIGHT: usize = 4;

/// What every attempt has before it may have to give way: 4 x 250 ms, the time in which as many are
/// started.
const MIN_ATTEMPT_TIME: Duration = Duration::from_secs(1);

/// A connection with a target.
#[derive(Debug)]
pub(crate) struct Connection {
    /// The connection itself.
    pub stream: TcpStream,
    /// The address that was reached.
    pub address: SocketAddr,
    /// Where this server is seen: what the client is answered.
    pub bound: Address,
}

/// For whom is dialed, from where, and for how long.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dial<'a> {
    /// Where the sockets leave this machine.
    pub egress: Egress,
    /// When the connection has to be there.
    pub deadline: Deadline,
    /// Who waits for it.
    pub client: &'a ClientWatch<'a>,
    /// Those of the process. What one attempt takes is reserved for the session already.
    pub descriptors: &'a Arc<Descriptors>,
    /// Which family goes first.
    pub families: &'a Families,
}

/// Connects to the first of the permitted addresses that accepts.
pub(crate) fn connect(permit: &Permit, dial: &Dial<'_>) -> Result<Connection, Error> {
    race(permit.addresses(), dial)
}

/// Connects to the first of `addresses` that accepts.
pub(super) fn race(addresses: &[SocketAddr], dial: &Dial<'_>) -> Result<Connection, Error> {
    let mut addresses = addresses.to_vec();
    dial.families.order(&mut addresses, Instant::now());
    let mut race = Race::new(interleave(&addresses), dial);
    loop {
        let now = Instant::now();
        if dial.deadline.has_passed() {
            // A refusal says more.
            race.note_failure(ErrorKind::TimedOut.into());
            return Err(race.failure());
        }
        race.cancel_surplus(now);
        race.start_if_due(now);
        if !race.attempts.is_empty() {
            race.wait(now)?;
            if let Some((stream, address, bound)) = race.take_winner() {
                return Ok(Connection { stream, address, bound: bound.into() });
            }
        } else if race.addresses.is_empty() {
            return Err(race.failure());
        }
    }
}

/// The attempts in flight, the oldest first, and the failure that says most of those that are over.
struct Race<'a> {
    dial: &'a Dial<'a>,
    /// Those that are yet to be tried.
    addresses: VecDeque<SocketAddr>,
    next_start: Instant,
    attempts: Vec<Attempt>,
    /// For every attempt but one.
    reservations: Vec<Reservation>,
    finished: Vec<Attempted>,
    failure: Option<io::Error>,
}

struct Attempt {
    socket: Socket,
    address: SocketAddr,
    begun: Instant,
    /// The events that the last `poll` has returned for it.
    events: Cell<PollFlags>,
}

impl<'a> Race<'a> {
    fn new(addresses: Vec<SocketAddr>, dial: &'a Dial<'a>) -> Self {
        Race {
            dial,
            addresses: addresses.into_iter().take(MAX_ATTEMPTS).collect(),
            next_start: Instant::now(),
            attempts: Vec::with_capacity(1),
            reservations: Vec::new(),
            finished: Vec::new(),
            failure: None,
        }
    }

    /// Starts the next attempt if it is time to. Where none may be added the oldest gives way, once it
    /// has had its time.
    // A frame of its own: a race is where the stack is deepest, and each page of it stays.
    #[inline(never)]
    fn start_if_due(&mut self, now: Instant) {
        if self.addresses.is_empty() || (now < self.next_start && !self.attempts.is_empty()) {
            return;
        }
        if let Some(oldest) = self.attempts.first() {
            let may_give_way = oldest.begun + MIN_ATTEMPT_TIME;
            let may_add = self.attempts.len() < MAX_IN_FLIGHT;
            match may_add.then(|| self.dial.descriptors.try_reserve()).flatten() {
                Some(reservation) => self.reservations.push(reservation),
                None if now < may_give_way => {
                    self.next_start = may_give_way;
                    return;
                }
                None => self.cancel_oldest(),
            }
        }
        if let Some(address) = self.addresses.pop_front() {
            self.start(address, now);
            self.next_start = now + ATTEMPT_DELAY;
        }
    }

    fn start(&mut self, address: SocketAddr, begun: Instant) {
        match start_connecting(address, self.dial.egress) {
            Ok(socket) => {
                let events = Cell::new(PollFlags::empty());
                self.attempts.push(Attempt { socket, address, begun, events });
            }
            Err(error) => self.note_failure(error),
        }
        self.release_reservations();
    }

    /// Cancels attempts that have had their time, while tunnels are short of descriptors.
    fn cancel_surplus(&mut self, now: Instant) {
        while self.attempts.len() > 1
            && now >= self.attempts[0].begun + MIN_ATTEMPT_TIME
            && self.dial.descriptors.are_short()
        {
            self.cancel_oldest();
            self.release_reservations();
        }
    }

    fn cancel_oldest(&mut self) {
        let oldest = self.attempts.remove(0);
        self.finished.push(oldest.attempted(false));
        self.note_failure(ErrorKind::TimedOut.into());
    }

    fn release_reservations(&mut self) {
        self.reservations.truncate(self.attempts.len().saturating_sub(1));
    }

    /// Waits until an attempt is over, there is something to do, or the client has left.
    fn wait(&self, now: Instant) -> Result<(), Error> {
        let attempts = self.attempts.iter();
        let mut polled: Vec<PollFd<'_>> = [self.dial.client.poll_fd()]
            .into_iter()
            .chain(attempts.map(|attempt| PollFd::new(&attempt.socket, PollFlags::OUT)))
            .collect();
        let mut until = Instant::from(self.dial.deadline);
        if !self.addresses.is_empty() {
            until = until.min(self.next_start);
        } else if !self.reservations.is_empty() {
            // Tunnels may want what this race can do without.
            until = until.min(now + MIN_ATTEMPT_TIME);
        }
        poll(&mut polled, until.saturating_duration_since(now))?;
        for (attempt, polled) in self.attempts.iter().zip(&polled[1..]) {
            attempt.events.set(polled.revents());
        }
        if self.dial.client.has_left(polled[0].revents()) {
            return Err(Error::ClientLeft);
        }
        Ok(())
    }

    /// The attempt that has connected, if one has: its stream, its address and the local one. Those that
    /// have failed are put away.
    fn take_winner(&mut self) -> Option<(TcpStream, SocketAddr, SocketAddr)> {
        let mut index = 0;
        while index < self.attempts.len() {
            if self.attempts[index].events.get().is_empty() {
                index += 1;
                continue;
            }
            let attempt = self.attempts.remove(index);
            let attempted = attempt.attempted(true);
            match attempt.finish() {
                Ok((stream, bound)) => {
                    let pending = self.attempts.iter().map(|attempt| attempt.attempted(false));
                    self.finished.extend(pending.chain([attempted]));
                    self.dial.families.outcome(&self.finished, Instant::now());
                    return Some((stream, attempted.address, bound));
                }
                Err(error) => {
                    let answered = error.kind() == ErrorKind::ConnectionRefused;
                    self.finished.push(Attempted { answered, ..attempted });
                    self.note_failure(error);
                }
            }
        }
        self.release_reservations();
        None
    }

    fn failure(self) -> Error {
        self.failure.unwrap_or_else(|| ErrorKind::AddrNotAvailable.into()).into()
    }

    /// Keeps the failure that says most about the target: a refusal came from the target itself,
    /// an unreachable network only from this machine's routes.
    fn note_failure(&mut self, error: io::Error) {
        let weight = |error: &io::Error| match error.kind() {
            ErrorKind::ConnectionRefused => 4,
            ErrorKind::TimedOut => 3,
            ErrorKind::HostUnreachable => 2,
            ErrorKind::NetworkUnreachable => 1,
            _ => 0,
        };
        if self.failure.as_ref().is_none_or(|known| weight(&error) > weight(known)) {
            self.failure = Some(error);
        }
    }
}

/// Starts to connect without waiting.
fn start_connecting(address: SocketAddr, egress: Egress) -> io::Result<Socket> {
    let domain = Domain::for_address(address);
    #[cfg(target_os = "linux")]
    let socket = Socket::new(domain, Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    #[cfg(not(target_os = "linux"))]
    let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
    #[cfg(not(target_os = "linux"))]
    socket.set_nonblocking(true)?;
    egress.bind(&socket, address)?;
    match socket.connect(&address.into()) {
        Err(error) if Errno::from_io_error(&error) != Some(Errno::INPROGRESS) => Err(error),
        _ => Ok(socket),
    }
}

impl Attempt {
    fn attempted(&self, answered: bool) -> Attempted {
        Attempted { address: self.address, begun: self.begun, answered }
    }

    /// Takes the connection and its local address out of an attempt that is over, or the failure.
    fn finish(self) -> io::Result<(TcpStream, SocketAddr)> {
        if self.events.get().intersects(PollFlags::ERR | PollFlags::HUP) {
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
        Ok((stream, bound))
    }
}

/// Takes the families in turn, beginning with that of the first address (RFC 8305 section 4).
fn interleave(addresses: &[SocketAddr]) -> Vec<SocketAddr> {
    let [first, _, ..] = addresses else { return addresses.to_vec() };
    let (mut first_family, mut other): (Vec<SocketAddr>, Vec<SocketAddr>) =
        addresses.iter().rev().copied().partition(|address| address.is_ipv4() == first.is_ipv4());
    let mut order = Vec::with_capacity(addresses.len());
    while !(first_family.is_empty() && other.is_empty()) {
        order.extend(first_family.pop());
        order.extend(other.pop());
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::LazyLock;

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

    static FAMILIES: LazyLock<Families> = LazyLock::new(Families::default);

    fn dial(descriptors: &Arc<Descriptors>) -> Dial<'_> {
        let deadline = Deadline::after(Duration::from_secs(3));
        let client = Box::leak(Box::new(ClientWatch::that_stays()));
        let families = &FAMILIES;
        Dial { egress: Egress::default(), deadline, client, descriptors, families }
    }

    #[test]
    fn the_failure_that_says_most_is_kept() {
        let descriptors = Descriptors::new(usize::MAX);
        let dialed = dial(&descriptors);
        let mut race = Race::new(Vec::new(), &dialed);
        for kind in [
            ErrorKind::NetworkUnreachable,
            ErrorKind::ConnectionRefused,
            ErrorKind::HostUnreachable,
            ErrorKind::Other,
        ] {
            race.note_failure(kind.into());
        }
        assert_eq!(race.failure.unwrap().kind(), ErrorKind::ConnectionRefused);
    }

    /// A target whose backlog is full: it neither accepts nor refuses.
    fn silence() -> (Vec<TcpStream>, Socket, SocketAddr) {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        socket.listen(0).unwrap();
        let target = socket.local_addr().unwrap().as_socket().unwrap();
        let mut waiting = Vec::new();
        while let Ok(stream) = TcpStream::connect_timeout(&target, Duration::from_millis(300)) {
            waiting.push(stream);
            assert!(waiting.len() < 100, "the backlog is never full");
        }
        (waiting, socket, target)
    }

    /// Races 16 silent addresses. Says how many attempts were in flight at the most, how many there
    /// were in all, and how many descriptors were counted at the most.
    fn race_of_silence(descriptors: &Arc<Descriptors>) -> (usize, usize, usize) {
        let (_waiting, _socket, target) = silence();
        let dialed = dial(descriptors);
        let mut race = Race::new(vec![target; 16], &dialed);
        let (mut at_once, mut counted, begin) = (0, 0, Instant::now());
        while !race.addresses.is_empty() {
            assert!(begin.elapsed() < Duration::from_secs(60));
            let now = Instant::now();
            race.cancel_surplus(now);
            race.start_if_due(now);
            at_once = at_once.max(race.attempts.len());
            counted = counted.max(race.reservations.len());
            race.wait(now).unwrap();
            assert!(race.take_winner().is_none());
        }
        (at_once, 16 - race.addresses.len(), counted)
    }

    #[test]
    fn a_name_with_16_silent_addresses_takes_four_sockets_and_counts_them() {
        let descriptors = Descriptors::new(usize::MAX);
        assert_eq!(race_of_silence(&descriptors), (4, 16, 3));
    }

    #[test]
    fn a_refusal_says_more_than_a_silence_that_outlasts_the_deadline() {
        let (_waiting, _socket, silent) = silence();
        let nobody = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        nobody.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        let refusing = nobody.local_addr().unwrap().as_socket().unwrap();
        let descriptors = Descriptors::new(usize::MAX);
        let within = |seconds, addresses: &[SocketAddr]| {
            let deadline = Deadline::after(Duration::from_secs(seconds));
            let Err(Error::Unreachable(error)) =
                race(addresses, &Dial { deadline, ..dial(&descriptors) })
            else {
                panic!("it is connected");
            };
            error.kind()
        };
        // The second is tried after a quarter of a second, and more on a busy machine.
        assert_eq!(within(3, &[silent, refusing]), ErrorKind::ConnectionRefused);
        assert_eq!(within(1, &[silent]), ErrorKind::TimedOut);
    }

    #[test]
    fn where_descriptors_are_short_addresses_are_tried_one_by_one() {
        let (_waiting, _socket, target) = silence();
        let short = Descriptors::new(0);
        let dialed = dial(&short);
        let mut race = Race::new(vec![target; 3], &dialed);
        let begin = Instant::now();
        race.start_if_due(begin);
        for (at, left) in [(250, 2), (999, 2), (1000, 1), (1250, 1), (1999, 1), (2000, 0)] {
            race.start_if_due(begin + Duration::from_millis(at));
            assert_eq!((race.attempts.len(), race.addresses.len()), (1, left), "{at} ms");
        }
    }
}
