//! A small HTTP/1.1 origin server: the target that the scripts reach through tabi.
//!
//! `origin [--until-eof] ADDRESS:PORT...` prints each bound address on a line of its own.
//! It is made for tests only: it trusts its clients, and it ends by itself.
//!
//! | request            | answer                                                          |
//! |--------------------|-----------------------------------------------------------------|
//! | `GET /`            | a short page                                                    |
//! | `GET /bytes/N`     | N octets, the same for the same N each time                     |
//! | `GET /cut/N`       | N octets are promised, and after half of them comes a reset     |
//! | `GET /peer`        | the client's address as it is seen here                         |
//! | `PUT`, `POST /echo`| the body comes back while it is still arriving                  |

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc;
use std::time::Duration;
use std::{env, thread};

/// How long the origin lives at most, so that a script that dies leaves nothing behind for long.
const LIFETIME: Duration = Duration::from_secs(600);

/// How long a client may keep a connection silent.
const IDLE: Duration = Duration::from_secs(60);

/// How much is sent at a time, in octets.
const PIECE: usize = 1 << 16;

/// The longest line of a request's head.
const LINE_MAX: u64 = 8192;

/// The most header lines of a request.
const HEADERS_MAX: usize = 100;

fn main() -> io::Result<()> {
    let (end, ended) = mpsc::channel();
    let mut until_eof = false;
    for argument in env::args().skip(1) {
        if argument == "--until-eof" {
            until_eof = true;
        } else {
            listen(&argument)?;
        }
    }
    if until_eof {
        thread::spawn(move || {
            let _ = io::copy(&mut io::stdin(), &mut io::sink());
            drop(end);
        });
    }
    // The sender is gone at the end of standard input, and otherwise lives as long as main.
    let _: Result<(), _> = ended.recv_timeout(LIFETIME);
    Ok(())
}

/// Binds `address` before it returns, and accepts on a thread of its own.
fn listen(address: &str) -> io::Result<()> {
    let listener = TcpListener::bind(address)
        .map_err(|error| io::Error::new(error.kind(), format!("{address}: {error}")))?;
    println!("{}", listener.local_addr()?);
    io::stdout().flush()?;
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            // A client that breaks off is a case of the tests and nothing to report.
            thread::spawn(move || serve(&client));
        }
    });
    Ok(())
}

/// Answers one request after the other until the client closes or asks for it.
fn serve(mut client: &TcpStream) -> io::Result<()> {
    client.set_read_timeout(Some(IDLE))?;
    client.set_write_timeout(Some(IDLE))?;
    client.set_nodelay(true)?;
    // One octet of buffer: what the head does not contain stays in the socket. Bodies are read in
    // large pieces, which pass the buffer by.
    let mut reader = BufReader::with_capacity(1, client);
    loop {
        let line = read_line(&mut reader)?;
        let mut words = line.split(' ');
        let (Some(method), Some(path)) = (words.next(), words.next()) else {
            return Ok(());
        };
        if let Some(promised) = number_after("/cut/", path) {
            return cut(client, promised);
        }
        let head = Head::read_from(&mut reader)?;
        if head.expects_continue {
            client.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        match (method, path) {
            ("GET", "/") => page(client, "200 OK", "This is the origin.\n")?,
            ("GET", "/peer") => page(client, "200 OK", &format!("{}\n", client.peer_addr()?))?,
            ("PUT" | "POST", "/echo") => echo(&mut reader, client, head.length)?,
            ("GET", path) => match number_after("/bytes/", path) {
                Some(length) => bytes(client, length)?,
                None => page(client, "404 Not Found", "There is no such page.\n")?,
            },
            _ => return page(client, "405 Method Not Allowed", "Use GET, PUT or POST.\n"),
        }
        if head.close {
            return Ok(());
        }
    }
}

/// What the origin wants to know from a request's header lines.
#[derive(Default)]
struct Head {
    length: u64,
    expects_continue: bool,
    close: bool,
}

impl Head {
    fn read_from(reader: &mut impl BufRead) -> io::Result<Self> {
        let mut head = Self::default();
        for _ in 0..HEADERS_MAX {
            let line = read_line(reader)?.to_ascii_lowercase();
            let Some((name, value)) = line.split_once(':') else {
                return Ok(head);
            };
            match (name, value.trim()) {
                ("content-length", value) => {
                    head.length = value.parse().map_err(io::Error::other)?;
                }
                ("expect", "100-continue") => head.expects_continue = true,
                ("connection", "close") => head.close = true,
                ("transfer-encoding", _) => return Err(io::Error::other("a chunked body")),
                _ => {}
            }
        }
        Err(io::Error::other("too many header lines"))
    }
}

/// One line without its end; empty at the end of the head, and at the end of the input too.
fn read_line(reader: &mut impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    reader.take(LINE_MAX).read_line(&mut line)?;
    Ok(line.trim_end().to_owned())
}

fn number_after(prefix: &str, path: &str) -> Option<u64> {
    path.strip_prefix(prefix)?.parse().ok()
}

fn page(mut client: &TcpStream, status: &str, text: &str) -> io::Result<()> {
    start(client, status, text.len() as u64)?;
    client.write_all(text.as_bytes())
}

fn echo(reader: &mut impl BufRead, mut client: &TcpStream, length: u64) -> io::Result<()> {
    start(client, "200 OK", length)?;
    let copied = io::copy(&mut reader.take(length), &mut client)?;
    if copied == length { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

fn bytes(client: &TcpStream, length: u64) -> io::Result<()> {
    start(client, "200 OK", length)?;
    send(client, length, length)
}

/// Returns with the header lines unread: a socket that is closed with octets unread sends a reset.
fn cut(client: &TcpStream, promised: u64) -> io::Result<()> {
    start(client, "200 OK", promised)?;
    send(client, promised, promised / 2)
}

fn start(mut client: &TcpStream, status: &str, length: u64) -> io::Result<()> {
    let head = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n");
    client.write_all(head.as_bytes())
}

/// Sends the first `length` octets of the xorshift sequence that `seed` begins.
fn send(mut client: &TcpStream, seed: u64, mut length: u64) -> io::Result<()> {
    let mut state = seed | (1 << 63);
    let mut piece = Vec::with_capacity(PIECE);
    while length > 0 {
        piece.clear();
        while piece.len() < PIECE {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            piece.extend_from_slice(&state.to_be_bytes());
        }
        let count = usize::try_from(length).map_or(PIECE, |left| left.min(PIECE));
        client.write_all(&piece[..count])?;
        length -= count as u64;
    }
    Ok(())
}
