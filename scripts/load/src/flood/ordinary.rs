//! The ordinary client, and the target that it wants to reach.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Socket, Type};

use super::{address, listener};
use crate::socks::{self, CONNECT, Proxy, Target};

/// A client gives up after this time.
const PATIENCE: Duration = Duration::from_secs(5);

/// Visits go on at this pace, whatever the earlier ones do, while fewer than [`AT_ONCE`] are under way.
const EVERY: Duration = Duration::from_millis(8);
const AT_ONCE: u32 = 8;

/// How the client comes to its target.
pub(super) struct Visit {
    pub(super) proxy: Option<Proxy>,
    pub(super) target: SocketAddrV4,
    /// It asks for its target by a name that the hosts file has.
    pub(super) by_name: bool,
}

/// How long visits took, in order, and how many failed.
#[derive(Default)]
pub(super) struct Figures {
    times: Vec<Duration>,
    pub(super) failures: usize,
    /// Of the first failure.
    pub(super) why: Option<String>,
}

impl Figures {
    pub(super) fn p50(&self) -> Duration {
        self.part(50)
    }

    pub(super) fn p99(&self) -> Duration {
        self.part(99)
    }

    pub(super) fn longest(&self) -> Duration {
        self.times.last().copied().unwrap_or_default()
    }

    pub(super) fn tried(&self) -> usize {
        self.times.len() + self.failures
    }

    /// The time that so many in a hundred stayed below.
    fn part(&self, hundredths: usize) -> Duration {
        let place = self.times.len() * hundredths / 100;
        self.times.get(place).or(self.times.last()).copied().unwrap_or_default()
    }
}

/// Makes visits for so long.
pub(super) fn visit(visit: &Visit, length: Duration) -> Figures {
    let begin = Instant::now();
    let mut figures = Figures::default();
    thread::scope(|scope| {
        let visitors: Vec<_> = (0..AT_ONCE)
            .map(|number| scope.spawn(move || visits(visit, begin, number, length)))
            .collect();
        for visitor in visitors {
            let of_one = visitor.join().unwrap_or_default();
            figures.times.extend(of_one.times);
            figures.failures += of_one.failures;
            figures.why = figures.why.take().or(of_one.why);
        }
    });
    figures.times.sort_unstable();
    figures
}

/// Every eighth visit.
fn visits(visit: &Visit, begin: Instant, number: u32, length: Duration) -> Figures {
    let mut figures = Figures::default();
    let mut due = begin + EVERY * number;
    while due < begin + length {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        let start = Instant::now();
        match once(visit) {
            Ok(()) => figures.times.push(start.elapsed()),
            Err(error) => {
                figures.failures += 1;
                let after = start.elapsed().as_secs_f32();
                figures.why.get_or_insert_with(|| format!("{error} after {after:.1} s"));
            }
        }
        due = (due + EVERY * AT_ONCE).max(Instant::now());
    }
    figures
}

/// From the connection to the first byte that comes back.
fn once(visit: &Visit) -> io::Result<()> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    setsockopt(&socket, sockopt::IpBindAddressNoPort, &true)?;
    socket.bind(&SocketAddrV4::new(address(9, 9), 0).into())?;
    let to = visit.proxy.map_or(visit.target.into(), |proxy| proxy.address);
    socket.connect_timeout(&to.into(), PATIENCE)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.set_tcp_nodelay(true)?;
    let mut stream = TcpStream::from(socket);
    if let Some(proxy) = visit.proxy {
        let target = if visit.by_name {
            Target::Name("localhost", visit.target.port())
        } else {
            visit.target.into()
        };
        socks::negotiate(&mut stream, proxy.users, CONNECT, target)?;
    }
    stream.write_all(b"?")?;
    stream.read_exact(&mut [0])
}

/// A target that gives back the first byte of each connection.
pub(super) struct Echo {
    pub(super) address: SocketAddrV4,
    is_over: Arc<AtomicBool>,
}

impl Echo {
    pub(super) fn start() -> io::Result<Echo> {
        let listener = Arc::new(listener(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0), 1024)?);
        let port = listener.local_addr()?.port();
        let is_over = Arc::new(AtomicBool::new(false));
        for _ in 0..AT_ONCE {
            let (listener, is_over) = (Arc::clone(&listener), Arc::clone(&is_over));
            thread::Builder::new().spawn(move || serve(&listener, &is_over))?;
        }
        Ok(Echo { address: SocketAddrV4::new(Ipv4Addr::LOCALHOST, port), is_over })
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        for _ in 0..AT_ONCE {
            let _ = TcpStream::connect(self.address);
        }
    }
}

fn serve(listener: &TcpListener, is_over: &AtomicBool) {
    while let Ok((mut client, _)) = listener.accept() {
        if is_over.load(Ordering::Relaxed) {
            return;
        }
        let mut byte = [0];
        let _ = client.set_read_timeout(Some(PATIENCE));
        let _ = client.read_exact(&mut byte).and_then(|()| client.write_all(&byte));
        // The client closes first, so that no port of the proxy is kept waiting.
        let _ = client.read(&mut byte);
    }
}
