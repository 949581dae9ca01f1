//! The back end that tunnels lead to, in a process of its own so that the proxy's figures are clean.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::thread;

use crate::digest::BLOCK;
use crate::process::Service;
use crate::sockets::listen;
use crate::{digest, echo, http};

/// The echo service is on this many loopback addresses, so that the ports of connections that have
/// just been closed do not run out.
pub(crate) const ADDRESSES: u8 = 64;

/// The HTTP origin is asked less often, and is on so many.
const ORIGINS: u8 = 8;

/// As many connections as are opened at once.
const BACKLOG: i32 = 4096;

/// A running back end and where its services are.
pub(crate) struct Backend {
    _service: Service,
    ports: [u16; 6],
}

impl Backend {
    pub(crate) fn start() -> io::Result<Backend> {
        let mut service = Service::start("backend")?;
        let ports = service.numbers()?.map(|port| u16::try_from(port).unwrap_or_default());
        Ok(Backend { _service: service, ports })
    }

    /// Answers with what it is sent. `number` spreads tunnels over the addresses of the service.
    pub(crate) fn echo(&self, number: usize) -> SocketAddrV4 {
        let offset = u8::try_from(number % usize::from(ADDRESSES)).unwrap_or_default();
        SocketAddrV4::new(Ipv4Addr::new(127, 0, 0, 1 + offset), self.ports[0])
    }

    /// Sends for as long as it is read from.
    pub(crate) fn source(&self) -> SocketAddrV4 {
        SocketAddrV4::new(Ipv4Addr::LOCALHOST, self.ports[1])
    }

    /// Reads for as long as it is sent to.
    pub(crate) fn sink(&self) -> SocketAddrV4 {
        SocketAddrV4::new(Ipv4Addr::LOCALHOST, self.ports[2])
    }

    /// Answers with the digest of what it was sent, and then with octets of its own.
    pub(crate) fn digest(&self) -> SocketAddrV4 {
        SocketAddrV4::new(Ipv4Addr::LOCALHOST, self.ports[3])
    }

    /// An HTTP origin, which answers with as many octets as the path says.
    pub(crate) fn origin(&self, number: usize) -> SocketAddrV4 {
        let offset = u8::try_from(number % usize::from(ORIGINS)).unwrap_or_default();
        SocketAddrV4::new(Ipv4Addr::new(127, 0, 0, 1 + offset), self.ports[4])
    }

    /// Sends each datagram back to where it came from.
    pub(crate) fn datagrams(&self) -> SocketAddrV4 {
        SocketAddrV4::new(Ipv4Addr::LOCALHOST, self.ports[5])
    }
}

/// The back end's whole life: says where it listens and serves until its input ends.
pub(crate) fn run() -> io::Result<()> {
    let echoes = listen_on(ADDRESSES)?;
    let mut ports = vec![echoes[0].local_addr()?.port()];
    thread::Builder::new().spawn(move || echo::serve(&echoes))?;
    let services: [(u8, Answer); 4] =
        [(1, source), (1, sink), (1, digest::answer), (ORIGINS, http::answer)];
    for (addresses, service) in services {
        let listeners = listen_on(addresses)?;
        ports.push(listeners[0].local_addr()?.port());
        for listener in listeners {
            thread::Builder::new().spawn(move || accept(&listener, service))?;
        }
    }
    let datagrams = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    ports.push(datagrams.local_addr()?.port());
    echo::datagrams(datagrams)?;
    println!("{}", ports.iter().map(u16::to_string).collect::<Vec<_>>().join(" "));
    io::copy(&mut io::stdin(), &mut io::sink())?;
    Ok(())
}

/// What is done with a connection.
type Answer = fn(TcpStream) -> io::Result<()>;

/// The same port on so many addresses.
fn listen_on(addresses: u8) -> io::Result<Vec<TcpListener>> {
    let mut listeners = vec![listen((Ipv4Addr::LOCALHOST, 0), BACKLOG)?];
    let port = listeners[0].local_addr()?.port();
    for last in 2..=addresses {
        listeners.push(listen((Ipv4Addr::new(127, 0, 0, last), port), BACKLOG)?);
    }
    Ok(listeners)
}

fn accept(listener: &TcpListener, service: Answer) {
    for stream in listener.incoming().flatten() {
        // How a tunnel ends is its client's business, so an error here is not one.
        let _ = thread::Builder::new().stack_size(64 * 1024).spawn(move || service(stream));
    }
}

fn source(mut stream: TcpStream) -> io::Result<()> {
    let block = vec![0x5a; BLOCK];
    loop {
        stream.write_all(&block)?;
    }
}

fn sink(mut stream: TcpStream) -> io::Result<()> {
    let mut block = vec![0; BLOCK];
    while stream.read(&mut block)? > 0 {}
    Ok(())
}
