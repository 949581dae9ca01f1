//! The attacker: one thread that opens connections at a pace and never waits for an answer.

use std::fmt::Write;
use std::io::{self, Read, Write as _};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use socket2::{Domain, SockRef, Socket, Type};

use super::kind::{Act, FLOODS, Flood, Say, To};
use super::{Attack, address};
use crate::association::associate;
use crate::sockets::{dial, listen};
use crate::socks::{ASSOCIATE, Target, request};

/// The attacker acts in rounds of this length.
const ROUND: Duration = Duration::from_millis(1);

/// A connection that takes longer gets nowhere.
const BACKLOG_FULL: Duration = Duration::from_millis(20);

/// Kept connections are all looked at once in so many rounds.
const ROUNDS_TO_LOOK: usize = 100;

/// Makes one flood for its time, and says what it was.
pub(crate) fn run(told: &Attack) -> io::Result<()> {
    let flood = FLOODS.iter().find(|flood| flood.name == told.name);
    let flood = flood.ok_or_else(|| io::Error::other("no such flood"))?;
    let mut attacker = Attacker::new(flood, told.proxy)?;
    let (begin, length) = (Instant::now(), Duration::from_secs(told.seconds));
    let associations = match flood.act {
        Act::Datagrams(count, _) | Act::Junk(count) => associations(flood, told.proxy, count),
        Act::Keep(..) | Act::Reset | Act::Leave(_) => Vec::new(),
    };
    let (mut allowance, mut last) = (0.0, begin);
    while begin.elapsed() < length {
        let now = Instant::now();
        let rate = f64::from(flood.per_second);
        // What a late round has missed is made up for, but not for more than a tenth of a second.
        allowance = (allowance + (now - last).as_secs_f64() * rate).min(rate / 10.0);
        last = now;
        match flood.act {
            Act::Keep(count, say) => attacker.keep(count, say, &mut allowance),
            Act::Reset => attacker.leave(Say::Nothing, true, &mut allowance),
            Act::Leave(say) => attacker.leave(say, false, &mut allowance),
            Act::Datagrams(_, to) => attacker.send(&associations, to, &mut allowance)?,
            Act::Junk(_) => attacker.send_junk(&associations, &mut allowance),
        }
        thread::sleep(ROUND.saturating_sub(now.elapsed()));
    }
    println!("{}", attacker.account(begin.elapsed(), associations.len()));
    Ok(())
}

struct Attacker {
    flood: &'static Flood,
    proxy: SocketAddr,
    black_hole: SocketAddrV4,
    /// Somebody who says nothing, and somebody who sends for ever.
    targets: [SocketAddrV4; 2],
    /// They fill the black hole.
    _full: Vec<Socket>,
    _black_hole: TcpListener,
    kept: Vec<Option<TcpStream>>,
    place: usize,
    opened: u64,
    not_accepted: u64,
}

impl Attacker {
    fn new(flood: &'static Flood, proxy: SocketAddr) -> io::Result<Attacker> {
        let black_hole = listen((address(3, 1), 0), 0)?;
        let SocketAddr::V4(place) = black_hole.local_addr()? else {
            return Err(io::Error::other("IPv4 has become IPv6"));
        };
        Ok(Attacker {
            flood,
            proxy,
            black_hole: place,
            targets: [target(|_| Ok(()))?, target(send_for_ever)?],
            _full: fill(place)?,
            _black_hole: black_hole,
            kept: Vec::new(),
            place: 0,
            opened: 0,
            not_accepted: 0,
        })
    }

    /// Opens connections until there are `count`, as far as the allowance goes, and looks for those
    /// that the proxy has closed.
    fn keep(&mut self, count: usize, say: Say, allowance: &mut f64) {
        for _ in 0..self.kept.len().div_ceil(ROUNDS_TO_LOOK) {
            self.place = (self.place + 1) % self.kept.len();
            if self.kept[self.place].as_ref().is_some_and(is_closed) {
                self.kept[self.place] = None;
            }
            if self.kept[self.place].is_none() && *allowance >= 1.0 {
                *allowance -= 1.0;
                self.kept[self.place] = self.open(say, false);
            }
        }
        while self.kept.len() < count && *allowance >= 1.0 {
            *allowance -= 1.0;
            let opened = self.open(say, false);
            self.kept.push(opened);
        }
    }

    fn leave(&mut self, say: Say, reset: bool, allowance: &mut f64) {
        while *allowance >= 1.0 {
            *allowance -= 1.0;
            drop(self.open(say, reset));
        }
    }

    fn open(&mut self, say: Say, reset: bool) -> Option<TcpStream> {
        let number = self.opened;
        self.opened += 1;
        let message = say.message(number, self.black_hole, self.targets);
        let client = self.client(number);
        let open = || {
            // The handshake is the kernel's, and done at once unless the backlog is full.
            let mut stream = dial(client, self.proxy, BACKLOG_FULL)?;
            if reset {
                SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
            }
            stream.set_nonblocking(true)?;
            stream.write_all(&message)?;
            Ok::<_, io::Error>(stream)
        };
        let opened = open();
        self.not_accepted += u64::from(opened.is_err());
        opened.ok()
    }

    fn client(&self, number: u64) -> Ipv4Addr {
        let turn = u8::try_from(number % u64::from(self.flood.addresses)).unwrap_or(0);
        address(1, 1 + turn)
    }

    /// Sends datagrams, each to another destination.
    fn send(&mut self, from: &[Association], to: To, allowance: &mut f64) -> io::Result<()> {
        while let Some((number, association)) = self.next(from, allowance) {
            let [.., high, low] = (number / from.len() as u64).to_be_bytes();
            let name = format!("n{number}.silent.example");
            let target = match to {
                To::Here => SocketAddrV4::new(Ipv4Addr::new(127, 2, high, low), 20_000).into(),
                To::OwnPort => {
                    let address = Ipv4Addr::new(198, 18, high, low);
                    SocketAddrV4::new(address, self.proxy.port()).into()
                }
                To::Names => Target::Name(&name, 80),
            };
            // What follows RSV is the same in a request and in front of a datagram.
            let datagram = [&[0; 3], &request(ASSOCIATE, target)?[3..], b"u"].concat();
            match association.socket.send(&datagram) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    self.not_accepted += 1;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Sends as much junk as is taken.
    fn send_junk(&mut self, on: &[Association], allowance: &mut f64) {
        while let Some((_, association)) = self.next(on, allowance) {
            let written = (&association.control).write(&[0x5a; 16 * 1024]);
            self.not_accepted += u64::from(written.is_err());
        }
    }

    /// Whose turn it is, as far as the allowance goes.
    fn next<'a>(
        &mut self,
        of: &'a [Association],
        allowance: &mut f64,
    ) -> Option<(u64, &'a Association)> {
        if *allowance < 1.0 {
            return None;
        }
        let number = self.opened;
        let turn = usize::try_from(number.checked_rem(of.len() as u64)?).ok()?;
        *allowance -= 1.0;
        self.opened += 1;
        Some((number, &of[turn]))
    }

    fn account(&self, took: Duration, associations: usize) -> String {
        let milliseconds = u64::try_from(took.as_millis()).unwrap_or(u64::MAX).max(1);
        let per_second = |count: u64| count * 1000 / milliseconds;
        let what = if matches!(self.flood.act, Act::Datagrams(..)) { "datagrams/s" } else { "/s" };
        let mut text = format!("{} {what}", per_second(self.opened));
        if associations > 0 {
            let _ = write!(text, " from {associations}");
        }
        if matches!(self.flood.act, Act::Keep(..)) {
            let kept = self.kept.iter().flatten().filter(|stream| !is_closed(stream)).count();
            let _ = write!(text, ", {kept} open at the end");
        }
        if self.not_accepted > 0 {
            let _ = write!(text, ", {} /s got nowhere", per_second(self.not_accepted));
        }
        text
    }
}

/// Whether the proxy has closed a connection. What it has said is thrown away.
fn is_closed(mut stream: &TcpStream) -> bool {
    let mut said = [0; 64];
    match stream.read(&mut said) {
        Ok(0) => true,
        Ok(_) => false,
        Err(error) => error.kind() != io::ErrorKind::WouldBlock,
    }
}

/// Somebody who accepts, and what comes then.
fn target(serve: fn(&mut TcpStream) -> io::Result<()>) -> io::Result<SocketAddrV4> {
    let target = listen((Ipv4Addr::LOCALHOST, 0), 4096)?;
    let address = SocketAddrV4::new(Ipv4Addr::LOCALHOST, target.local_addr()?.port());
    thread::Builder::new().spawn(move || {
        let mut accepted = Vec::new();
        while let Ok((mut stream, _)) = target.accept() {
            let _ = serve(&mut stream);
            accepted.push(stream);
        }
    })?;
    Ok(address)
}

/// In a thread of its own.
fn send_for_ever(stream: &mut TcpStream) -> io::Result<()> {
    let mut stream = stream.try_clone()?;
    let send = move || while stream.write_all(&[0x5a; 16 * 1024]).is_ok() {};
    thread::Builder::new().stack_size(64 * 1024).spawn(send).map(drop)
}

/// Fills the backlog of a listener, so that nobody gets an answer from it.
fn fill(place: SocketAddrV4) -> io::Result<Vec<Socket>> {
    let mut full = Vec::new();
    for _ in 0..16 {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        match socket.connect_timeout(&place.into(), Duration::from_millis(300)) {
            Ok(()) => full.push(socket),
            Err(error) if error.kind() == io::ErrorKind::TimedOut => return Ok(full),
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::other("the black hole's backlog does not become full"))
}

struct Association {
    socket: UdpSocket,
    /// It lasts for as long as this does.
    control: TcpStream,
}

/// So many associations, or as many of them as there are to be had.
fn associations(flood: &Flood, proxy: SocketAddr, count: usize) -> Vec<Association> {
    let open = |number: usize| {
        let turn = u8::try_from(number % usize::from(flood.addresses)).unwrap_or(0);
        let client = address(1, 1 + turn);
        let mut control = dial(client, proxy, Duration::from_secs(5))?;
        let socket = associate(&mut control, flood.users, client, false)?;
        control.set_nonblocking(true)?;
        Ok::<_, io::Error>(Association { socket, control })
    };
    (0..count).filter_map(|number| open(number).ok()).collect()
}
