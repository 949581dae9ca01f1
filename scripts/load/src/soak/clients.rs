//! The clients: each does one thing over and over, from ever other addresses.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};
use sha2::{Digest, Sha256};
use socket2::SockRef;

use super::books::{Books, Kind};
use super::targets::Targets;
use crate::association::{associate, header};
use crate::digest::{echo, octets};
use crate::http;
use crate::sockets::dial;
use crate::tunnel::{self, By, Proxy};

const PATIENCE: Duration = Duration::from_secs(30);

/// Between two sessions of one client, so that the log takes a line of each: it takes ten a second of
/// each address, and there are 200.
const PAUSE: Duration = Duration::from_millis(10);
const ADDRESSES: u64 = 200;

/// Load balancers, by the proxy's options.
pub(super) const BALANCERS: &str = "127.8.0.0/16";

/// A client of one kind.
pub(super) struct Client {
    pub(super) kind: Kind,
    pub(super) number: u64,
    pub(super) proxy: SocketAddr,
    pub(super) targets: Arc<Targets>,
    pub(super) books: Arc<Books>,
    pub(super) is_over: Arc<AtomicBool>,
}

impl Client {
    /// Works until it is over.
    pub(super) fn work(&self) {
        let mut round = self.number;
        while !self.is_over() {
            round = round.wrapping_add(97);
            match self.once(round) {
                Ok((up, down)) => self.books.client(self.kind, up, down),
                Err(error) => self.books.fault(format!("client {:?}: {error}", self.kind)),
            }
            thread::sleep(PAUSE);
        }
    }

    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    fn address(&self, round: u64) -> Ipv4Addr {
        let host = u8::try_from(1 + round % ADDRESSES).unwrap_or(1);
        match self.kind {
            Kind::Header => Ipv4Addr::new(127, 8, 0, host),
            // They are braked, and nobody else is to be.
            Kind::WrongPassword => Ipv4Addr::new(127, 7, 0, host),
            _ => Ipv4Addr::new(127, 1, 0, host),
        }
    }

    /// One session, and the bytes that went up and came down.
    fn once(&self, round: u64) -> io::Result<(u64, u64)> {
        match self.kind {
            Kind::Short | Kind::Upstream | Kind::Header | Kind::HttpConnect => {
                let mut stream = self.tunnel(round)?;
                let length = 1 + usize::try_from(round * 7919 % 65_536).unwrap_or(0);
                // Both buffers on the way hold this much.
                echo(&mut stream, &octets(round, length))?;
                Ok((length as u64, length as u64))
            }
            Kind::PlainHttp => self.plain_http(round),
            Kind::Long => self.long(round),
            Kind::HalfClosed => self.half_closed(round, 200_000, Duration::ZERO),
            Kind::Slow => self.half_closed(round, 600_000, Duration::from_millis(20)),
            Kind::Datagrams => self.datagrams(round),
            Kind::Aborted => self.aborted(round),
            Kind::Reset => self.reset(round),
            Kind::Vanished => self.vanished(round),
            Kind::WrongPassword => self.wrong_password(round),
        }
    }

    fn dial(&self, round: u64) -> io::Result<TcpStream> {
        let mut stream = dial(self.address(round), self.proxy, PATIENCE)?;
        if self.kind == Kind::Header {
            // A client on its machine, whose target may be there, too.
            stream.write_all(b"PROXY TCP4 127.1.1.1 127.0.0.1 50000 1080\r\n")?;
        }
        Ok(stream)
    }

    fn tunnel(&self, round: u64) -> io::Result<TcpStream> {
        let mut stream = self.dial(round)?;
        let by = if self.kind == Kind::HttpConnect { By::HttpConnect } else { By::Socks5 };
        tunnel::ask(&mut stream, self.proxy_by(by), self.targets.of(self.kind).into())?;
        Ok(stream)
    }

    fn proxy_by(&self, by: By) -> Proxy {
        Proxy { address: self.proxy, by, users: true }
    }

    fn plain_http(&self, round: u64) -> io::Result<(u64, u64)> {
        let length = usize::try_from(round * 7919 % 1_000_000).unwrap_or(0);
        let proxy = Some(self.proxy_by(By::PlainHttp));
        http::check_over(proxy, &mut self.dial(round)?, self.targets.of(self.kind), length)?;
        Ok((0, length as u64))
    }

    fn long(&self, round: u64) -> io::Result<(u64, u64)> {
        let (mut stream, mut total, mut seed) = (self.tunnel(round)?, 0, round);
        while !self.is_over() {
            seed += 1;
            echo(&mut stream, &octets(seed, 4096))?;
            total += 4096;
            thread::sleep(5 * PAUSE);
        }
        Ok((total, total))
    }

    /// Says all that it has to say, and then reads, with a pause after each piece.
    fn half_closed(&self, round: u64, length: u32, pause: Duration) -> io::Result<(u64, u64)> {
        let mut stream = self.tunnel(round)?;
        let up = [&length.to_be_bytes()[..], &octets(round, 50_000)].concat();
        stream.write_all(&up)?;
        stream.shutdown(Shutdown::Write)?;
        let (mut down, mut piece) = (Vec::new(), vec![0; 32 * 1024]);
        loop {
            match stream.read(&mut piece)? {
                0 => break,
                count => down.extend_from_slice(&piece[..count]),
            }
            thread::sleep(pause);
        }
        let expected = octets(length.into(), length as usize);
        if down.len() != 32 + expected.len() {
            return Err(io::Error::other(format!("{} bytes came down", down.len())));
        }
        if down[..32] != *Sha256::digest(&up) || down[32..] != expected {
            return Err(io::Error::other("bytes arrived changed"));
        }
        Ok((up.len() as u64, down.len() as u64))
    }

    fn datagrams(&self, round: u64) -> io::Result<(u64, u64)> {
        let mut control = self.dial(round)?;
        let socket = associate(&mut control, true, self.address(round), true)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        let header = header(self.targets.of(self.kind));
        let mut total = 0;
        for turn in 0..20 {
            let payload = octets(round + turn, 1 + 60 * usize::try_from(turn).unwrap_or(0));
            let sent = [&header[..], &payload].concat();
            socket.send(&sent)?;
            let mut received = [0; 2048];
            let length = socket.recv(&mut received)?;
            if received[..length] != sent {
                return Err(io::Error::other("a datagram arrived changed"));
            }
            total += payload.len() as u64;
        }
        Ok((total, total))
    }

    fn aborted(&self, round: u64) -> io::Result<(u64, u64)> {
        let mut stream = self.tunnel(round)?;
        stream.read_exact(&mut [0; 100])?;
        SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
        Ok((0, 100))
    }

    /// A cut-off answer must not look complete.
    fn reset(&self, round: u64) -> io::Result<(u64, u64)> {
        let mut stream = self.tunnel(round)?;
        stream.write_all(b"?")?;
        let mut down = Vec::new();
        match stream.read_to_end(&mut down) {
            Err(error) if error.kind() == ErrorKind::ConnectionReset => Ok((1, down.len() as u64)),
            Err(error) => Err(error),
            Ok(_) => Err(io::Error::other("a reset arrived as a clean end")),
        }
    }

    /// A socket that is closed in repair mode says nothing, as if its machine had lost power.
    fn vanished(&self, round: u64) -> io::Result<(u64, u64)> {
        let mut stream = self.tunnel(round)?;
        stream.read_exact(&mut [0; 100])?;
        setsockopt(&stream, sockopt::TcpRepair, &1)?;
        Ok((0, 100))
    }

    fn wrong_password(&self, round: u64) -> io::Result<(u64, u64)> {
        let mut stream = self.dial(round)?;
        stream.write_all(b"\x05\x01\x02\x01\x05bench\x05wrong")?;
        let mut answer = Vec::new();
        match stream.read_to_end(&mut answer) {
            Ok(_) if answer == [0x05, 0x02, 0x01, 0x01] => Ok((0, 0)),
            // The address has been turned away for a while.
            Ok(0) => Ok((0, 0)),
            Err(error) if answer.is_empty() && error.kind() == ErrorKind::ConnectionReset => {
                Ok((0, 0))
            }
            other => Err(io::Error::other(format!("{other:?}: {answer:02x?}"))),
        }
    }
}
