//! The targets.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use sha2::{Digest, Sha256};
use socket2::SockRef;

use super::books::{Books, KINDS, Kind};
use crate::digest::octets;
use crate::{echo, http};

/// Where what goes through the upstream has its target: a rule says so.
pub(super) const BEHIND_UPSTREAM: Ipv4Addr = Ipv4Addr::new(127, 5, 0, 1);

const PATIENCE: Duration = Duration::from_secs(30);

/// A target that talks to a client who has vanished hears of it at the next tick.
const TICK: Duration = Duration::from_millis(100);

/// Where the target of each kind is.
pub(super) struct Targets(Vec<SocketAddrV4>);

impl Targets {
    pub(super) fn start(books: &Arc<Books>) -> io::Result<Targets> {
        let start = |kind| {
            let host = if kind == Kind::Upstream { BEHIND_UPSTREAM } else { Ipv4Addr::LOCALHOST };
            let port = if kind == Kind::Datagrams {
                let socket = UdpSocket::bind((host, 0))?;
                let port = socket.local_addr()?.port();
                echo::datagrams(socket)?;
                port
            } else {
                let listener = TcpListener::bind((host, 0))?;
                let port = listener.local_addr()?.port();
                let books = Arc::clone(books);
                thread::Builder::new().spawn(move || accept(&listener, kind, &books))?;
                port
            };
            Ok(SocketAddrV4::new(host, port))
        };
        KINDS.into_iter().map(start).collect::<io::Result<_>>().map(Targets)
    }

    pub(super) fn of(&self, kind: Kind) -> SocketAddrV4 {
        self.0[kind as usize]
    }
}

fn accept(listener: &TcpListener, kind: Kind, books: &Arc<Books>) {
    while let Ok((stream, _)) = listener.accept() {
        let books = Arc::clone(books);
        let serve = move || match serve(stream, kind) {
            Ok((up, down)) => books.target(kind, up, down),
            Err(error) if kind.is_exact() => books.fault(format!("target of {kind:?}: {error}")),
            Err(_) => {}
        };
        if let Err(error) = thread::Builder::new().spawn(serve) {
            eprintln!("soak: no thread for a target: {error}");
        }
    }
}

/// Serves one client, and says how many bytes have come and gone.
fn serve(mut stream: TcpStream, kind: Kind) -> io::Result<(u64, u64)> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    match kind {
        Kind::HalfClosed | Kind::Slow => answer(stream),
        Kind::Reset => {
            stream.read_exact(&mut [0])?;
            stream.write_all(&[0x55; 1000])?;
            SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
            Ok((1, 1000))
        }
        Kind::Aborted | Kind::Vanished => {
            let mut sent = 0;
            while stream.write_all(&[0x55; 1000]).is_ok() {
                sent += 1000;
                thread::sleep(TICK);
            }
            Ok((0, sent))
        }
        Kind::PlainHttp => http::answer(stream).map(|()| (0, 0)),
        Kind::Short
        | Kind::HttpConnect
        | Kind::Long
        | Kind::Upstream
        | Kind::Header
        | Kind::Datagrams
        | Kind::WrongPassword => give_back(stream),
    }
}

fn give_back(mut stream: TcpStream) -> io::Result<(u64, u64)> {
    let (mut buffer, mut total) = (vec![0; 16 * 1024], 0);
    loop {
        match stream.read(&mut buffer)? {
            0 => return Ok((total, total)),
            length => {
                stream.write_all(&buffer[..length])?;
                total += length as u64;
            }
        }
    }
}

/// Takes all that comes until the client has no more, and then answers its digest and as many bytes
/// as the first four say.
fn answer(mut stream: TcpStream) -> io::Result<(u64, u64)> {
    let mut received = Vec::new();
    stream.read_to_end(&mut received)?;
    let first = received.first_chunk().copied();
    let length = first.map_or(0, u32::from_be_bytes);
    stream.write_all(&Sha256::digest(&received))?;
    stream.write_all(&octets(length.into(), length as usize))?;
    Ok((received.len() as u64, 32 + u64::from(length)))
}
