//! A health check: greets a server as a client does, and says whether it answers.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use crate::config::Config;
use crate::system::deadline::Deadline;
use crate::system::ip::loopback_like;
use crate::system::timed_stream::TimedStream;
use crate::wire::protocol::Protocol;
use crate::wire::proxy_protocol;

/// How long the server may take from the connection to its answer.
pub const LIMIT: Duration = Duration::from_secs(2);

/// VER, NMETHODS and METHODS: no authentication, and username and password (RFC 1928 section 3).
const GREETING: &[u8] = b"\x05\x02\x00\x02";

/// Greets the server that listens on `address`, and waits for its method selection for at most
/// [`LIMIT`]. `config` is the server's: where this machine is one of its load balancers, the probe sends the
/// header that says it comes for nobody else. A server that does not serve SOCKS5 selects no method.
///
/// # Errors
///
/// Why the server is not well, in words.
pub fn probe(address: SocketAddr, config: &Config) -> Result<(), String> {
    let deadline = Deadline::after(LIMIT);
    if address.port() == 0 {
        return Err("give the port that the server listens on, not 0".into());
    }
    let server = connect(address, deadline)
        .map_err(|error| explain(address, "cannot connect", &error, "is the server running?"))?;
    ask(&server, config, deadline).map_err(|error| {
        explain(address, "no answer", &error, "does the server serve this machine (--allow-from)?")
    })
}

fn explain(address: SocketAddr, what: &str, error: &io::Error, hint: &str) -> String {
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => {
            format!("{address}: {what} within {} s", LIMIT.as_secs())
        }
        ErrorKind::InvalidData => format!("{address}: {error}"),
        ErrorKind::UnexpectedEof => {
            format!("{address}: {what}: the connection was closed; {hint}")
        }
        _ => format!("{address}: {what}: {error}; {hint}"),
    }
}

/// Connects with `address`. Where a server listens on every address it listens on loopback, too; on
/// that of IPv4 alone where IPv6 is switched off.
fn connect(address: SocketAddr, deadline: Deadline) -> io::Result<TcpStream> {
    let connect = |address| TcpStream::connect_timeout(&address, deadline.time_left()?);
    let (ip, port) = (address.ip(), address.port());
    if !ip.is_unspecified() {
        return connect(address);
    }
    connect((loopback_like(ip), port).into())
        .or_else(|_| connect((Ipv4Addr::LOCALHOST, port).into()))
}

fn ask(server: &TcpStream, config: &Config, deadline: Deadline) -> io::Result<()> {
    let own = server.local_addr()?.ip().to_canonical();
    let mut message = Vec::new();
    if config.proxy_protocol.iter().any(|net| net.contains(&own)) {
        message.extend_from_slice(proxy_protocol::LOCAL);
    }
    message.extend_from_slice(GREETING);
    let mut server = TimedStream::new(server, deadline);
    server.write_all(&message)?;
    let mut selection = [0; 2];
    server.read_exact(&mut selection)?;
    match selection {
        [0x05, 0x00 | 0x02] => Ok(()),
        [0x05, 0xff] if !config.protocols.contains(&Protocol::Socks5) => Ok(()),
        [0x05, _] => Err(invalid("the server accepts neither a password nor none")),
        _ => Err(invalid("what answers is no SOCKS5 server")),
    }
}

fn invalid(message: &'static str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, message)
}
