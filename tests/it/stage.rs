//! What every test stands on: a running server, its clients, its targets.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use socket2::{Domain, SockRef, Socket, Type};
use tabi::cli;
use tabi::server::{Inherited, Notify, Server, Stopper};

/// How long anything may take before the test has failed.
pub const LONG: Duration = Duration::from_secs(20);

/// The greeting of a client without credentials.
pub const GREETING: &[u8] = b"\x05\x01\x00";

/// A server that is stopped when it is dropped.
pub struct Running {
    pub address: SocketAddr,
    /// Where the status page is, if there is one.
    pub status: Option<SocketAddr>,
    pub stopper: Arc<Stopper>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl Running {
    /// Waits until the server has stopped by itself.
    pub fn join(&mut self) {
        self.thread.take().expect("it is joined once").join().unwrap().unwrap();
    }

    /// Whether the server still runs.
    pub fn runs(&self) -> bool {
        self.thread.as_ref().is_some_and(|thread| !thread.is_finished())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stopper.stop();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Starts a server on a free port of 127.0.0.1. A grace is given in `options` or there is none.
pub fn start(options: &[&str]) -> Running {
    start_on("127.0.0.1:0", options)
}

pub fn start_on(listen: &str, options: &[&str]) -> Running {
    let grace: &[&str] = if options.contains(&"--grace") { &[] } else { &["--grace", "0"] };
    let arguments = cli::parse([&["tabi", listen], grace, options].concat()).unwrap();
    let server = Server::bind(arguments.config, Inherited::default(), Notify::default()).unwrap();
    let address = server.addresses()[0];
    let stopper = server.stopper();
    let status = server.status_address().unwrap();
    Running { address, status, stopper, thread: Some(thread::spawn(move || server.run())) }
}

/// Connects, and bounds every later wait on the connection.
pub fn connect(address: SocketAddr) -> TcpStream {
    limited(TcpStream::connect_timeout(&address, LONG).unwrap())
}

/// Bounds every later wait on the connection.
pub fn limited(stream: TcpStream) -> TcpStream {
    stream.set_read_timeout(Some(LONG)).unwrap();
    stream.set_write_timeout(Some(LONG)).unwrap();
    stream
}

/// A target that listens.
pub fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// Takes one connection.
pub fn accept(listener: &TcpListener) -> TcpStream {
    let (done, waited) = std::sync::mpsc::channel();
    thread::scope(|scope| {
        scope.spawn(|| done.send(listener.accept()).unwrap());
        if let Ok(accepted) = waited.recv_timeout(LONG) {
            return limited(accepted.unwrap().0);
        }
        // The thread that accepts must not outlive the wait.
        let _ = TcpStream::connect(listener.local_addr().unwrap());
        panic!("nobody has connected");
    })
}

/// An address at which nobody listens, and nobody will for as long as the socket is kept.
pub fn nobody_listens() -> (Socket, SocketAddr) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    (socket, address)
}

/// A target that neither accepts nor refuses, for as long as what is given back is kept: its backlog
/// is full.
pub fn black_hole() -> (Vec<TcpStream>, Socket, SocketAddr) {
    black_hole_at(Ipv4Addr::LOCALHOST)
}

/// The same at an address of this machine.
pub fn black_hole_at(ip: Ipv4Addr) -> (Vec<TcpStream>, Socket, SocketAddr) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((ip, 0)).into()).unwrap();
    socket.listen(0).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    let mut waiting = Vec::new();
    let connect = || TcpStream::connect_timeout(&address, Duration::from_millis(300));
    // On a busy machine the first attempt may only have taken long.
    while let Ok(stream) = connect().or_else(|_| connect()) {
        waiting.push(stream);
        assert!(waiting.len() < 100, "the backlog is never full");
    }
    (waiting, socket, address)
}

/// A target that sends back what it gets, for as many connections as come.
pub fn echo() -> SocketAddr {
    let (listener, address) = listen();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || {
                let _ = io::copy(&mut &stream, &mut &stream);
            });
        }
    });
    address
}

/// A request for CONNECT.
pub fn request(destination: SocketAddr) -> Vec<u8> {
    let mut octets = b"\x05\x01\x00".to_vec();
    match destination {
        SocketAddr::V4(v4) => {
            octets.push(1);
            octets.extend(v4.ip().octets());
        }
        SocketAddr::V6(v6) => {
            octets.push(4);
            octets.extend(v6.ip().octets());
        }
    }
    octets.extend(destination.port().to_be_bytes());
    octets
}

/// A request for CONNECT by name.
pub fn request_by_name(name: &[u8], port: u16) -> Vec<u8> {
    let length = [u8::try_from(name.len()).unwrap()];
    [b"\x05\x01\x00\x03", &length[..], name, &port.to_be_bytes()].concat()
}

/// Reads exactly `N` octets.
pub fn take<const N: usize>(stream: &mut impl Read) -> [u8; N] {
    let mut octets = [0; N];
    stream.read_exact(&mut octets).unwrap();
    octets
}

/// Reads a head of HTTP, up to its empty line.
pub fn read_head(stream: &mut impl Read) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.extend(take::<1>(stream));
    }
    String::from_utf8(head).unwrap()
}

/// Reads a reply with an IPv4 bound address: REP and the address.
pub fn reply(stream: &mut TcpStream) -> (u8, SocketAddr) {
    let octets: [u8; 10] = take(stream);
    assert_eq!((octets[0], octets[2], octets[3]), (0x05, 0x00, 0x01), "{octets:02x?}");
    let ip: [u8; 4] = octets[4..8].try_into().unwrap();
    (octets[1], (ip, u16::from_be_bytes([octets[8], octets[9]])).into())
}

/// Sends greeting and request, and gives back REP.
pub fn ask(server: &Running, request: &[u8]) -> (u8, TcpStream) {
    ask_over(connect(server.address), request)
}

fn ask_over(mut client: TcpStream, request: &[u8]) -> (u8, TcpStream) {
    client.write_all(GREETING).unwrap();
    assert_eq!(take(&mut client), *b"\x05\x00");
    client.write_all(request).unwrap();
    (reply(&mut client).0, client)
}

/// What the client is told, octet for octet, beside the method selection.
pub fn told(server: SocketAddr, request: &[u8]) -> Vec<u8> {
    let mut client = connect(server);
    client.write_all(&[GREETING, request].concat()).unwrap();
    let mut words = Vec::new();
    client.read_to_end(&mut words).unwrap();
    assert_eq!(words[..2], *b"\x05\x00");
    words.split_off(2)
}

/// A tunnel to `target`.
pub fn tunnel(server: &Running, target: SocketAddr) -> TcpStream {
    let (rep, client) = ask(server, &request(target));
    assert_eq!(rep, 0x00);
    client
}

/// The same for a client at `ip`, through a server that may be a program of its own.
pub fn tunnel_from(ip: Ipv4Addr, server: SocketAddr, target: SocketAddr) -> TcpStream {
    let (rep, client) = ask_over(connect_from(ip, server), &request(target));
    assert_eq!(rep, 0x00);
    client
}

/// A connection of a client at `ip`.
pub fn connect_from(ip: Ipv4Addr, server: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((ip, 0)).into()).unwrap();
    socket.connect_timeout(&server.into(), LONG).unwrap();
    limited(socket.into())
}

/// A tunnel whose far end is in our hands, too: the client's end first.
pub fn pair(server: &Running) -> (TcpStream, TcpStream) {
    let (listener, address) = listen();
    let client = tunnel(server, address);
    (client, accept(&listener))
}

/// Closes with a reset.
pub fn reset(stream: TcpStream) {
    SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
    drop(stream);
}

/// Octets that repeat nowhere near: what comes out of order, twice or not at all is noticed.
pub struct Pattern {
    state: u64,
    left: usize,
}

pub fn pattern(seed: u64, length: usize) -> Pattern {
    Pattern { state: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1, left: length }
}

impl Read for Pattern {
    fn read(&mut self, octets: &mut [u8]) -> io::Result<usize> {
        let length = octets.len().min(self.left);
        for octet in &mut octets[..length] {
            self.state ^= self.state << 13;
            self.state ^= self.state >> 7;
            self.state ^= self.state << 17;
            *octet = self.state.to_le_bytes()[3];
        }
        self.left -= length;
        Ok(length)
    }
}

/// Reads from `stream` what `pattern` holds, octet for octet, and nothing else is asked of it.
pub fn expect(stream: &mut impl Read, mut pattern: Pattern) {
    let (mut expected, mut found) = (vec![0; 64 * 1024], vec![0; 64 * 1024]);
    let mut offset = 0;
    loop {
        let length = pattern.read(&mut expected).unwrap();
        if length == 0 {
            return;
        }
        stream.read_exact(&mut found[..length]).unwrap_or_else(|error| {
            panic!("the stream ends between octet {offset} and {}: {error}", offset + length)
        });
        assert!(expected[..length] == found[..length], "wrong octets behind {offset}");
        offset += length;
    }
}

/// Sends what `pattern` holds.
pub fn send(stream: &mut impl Write, mut pattern: Pattern) -> io::Result<()> {
    io::copy(&mut pattern, stream).map(drop)
}

/// Whether the peer has sent its end of file.
pub fn at_end(stream: &mut impl Read) -> bool {
    matches!(stream.read(&mut [0]), Ok(0))
}

/// Whether the peer has closed, cleanly or not.
pub fn at_end_or_reset(stream: &mut impl Read) -> bool {
    match stream.read(&mut [0]) {
        Ok(length) => length == 0,
        Err(error) => error.kind() == io::ErrorKind::ConnectionReset,
    }
}

/// Reads until the stream ends, and fails unless it ends with a reset.
pub fn expect_reset(stream: &mut impl Read) {
    let mut octets = vec![0; 64 * 1024];
    loop {
        match stream.read(&mut octets) {
            Ok(0) => panic!("a clean end of file where a reset was due"),
            Ok(_) => {}
            Err(error) => return assert_eq!(error.kind(), io::ErrorKind::ConnectionReset),
        }
    }
}
