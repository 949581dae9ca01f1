//! HTTP as a client sees it (RFC 9110, RFC 9112): tunnels, requests that are passed on, what is refused, and the
//! pages of the server itself.

use std::fmt::Display;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

use crate::scratch::Program;
use crate::stage::{accept, connect, listen, read_head};

mod access;
mod connect;
mod cut;
mod forward;
mod login;
mod malformed;
mod pages;
mod response;
mod seen;

/// What says that a tunnel is open, octet for octet.
const CONNECTED: &str = "HTTP/1.1 200 Connection established\r\n\r\n";

/// A response whose end its length says, and the octets that the client has of it.
const ANSWER: &str = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\npong";
const ANSWERED: &str = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\
    Via: 1.1 tabi\r\nConnection: close\r\n\r\npong";

/// A request for a tunnel.
fn connect_request(target: impl Display) -> String {
    format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n")
}

/// A request that is passed on.
fn get(target: impl Display) -> String {
    request("GET", target, "")
}

/// The same with another method and further fields, each with the end of its line.
fn request(method: &str, target: impl Display, fields: &str) -> String {
    format!("{method} http://{target}/path HTTP/1.1\r\nHost: {target}\r\n{fields}\r\n")
}

/// The head that the target gets for that.
fn forwarded(method: &str, target: impl Display, fields: &str) -> String {
    format!(
        "{method} /path HTTP/1.1\r\nHost: {target}\r\n{fields}Via: 1.1 tabi\r\n\
         Connection: close\r\n\r\n"
    )
}

/// A client that has said this.
fn saying(server: SocketAddr, said: impl AsRef<[u8]>) -> TcpStream {
    let mut client = connect(server);
    client.write_all(said.as_ref()).unwrap();
    client
}

/// All that a client is told who says this.
fn told(server: SocketAddr, said: impl AsRef<[u8]>) -> String {
    rest(&mut saying(server, said))
}

/// The same, and the line of the session in the log.
fn told_and_logged(program: &mut Program, said: impl AsRef<[u8]>) -> (String, String) {
    let mut client = saying(program.address, said);
    let answer = rest(&mut client);
    (answer, logged(program, client))
}

/// The line of a client's session in the log, which may not end before the client does.
fn logged(program: &mut Program, client: TcpStream) -> String {
    let own = client.local_addr().unwrap();
    drop(client);
    program.log_line(&format!("client={own} "))
}

/// All that comes until the end of file.
fn rest(stream: &mut impl Read) -> String {
    let mut octets = Vec::new();
    stream.read_to_end(&mut octets).unwrap();
    String::from_utf8(octets).unwrap()
}

/// A tunnel by HTTP, whose far end is in our hands, too: the client's end first.
fn tunnel(server: SocketAddr) -> (TcpStream, TcpStream) {
    let (listener, target) = listen();
    let mut client = saying(server, connect_request(target));
    assert_eq!(read_head(&mut client), CONNECTED);
    (client, accept(&listener))
}

/// A request that has reached its target: the client's end, the target's, and the target's address. The
/// target has read the head.
fn exchange(server: SocketAddr, method: &str, fields: &str) -> (TcpStream, TcpStream) {
    let (listener, target) = listen();
    let client = saying(server, request(method, target, fields));
    let mut far = accept(&listener);
    assert_eq!(read_head(&mut far), forwarded(method, target, fields));
    (client, far)
}

/// An answer that is the server's own, with which the connection ends: this is its status.
#[track_caller]
fn assert_refused(answer: &str, status: u16) {
    let (head, text) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{answer:?}"));
    assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{status} {answer}");
    let length = format!("Content-Length: {}", text.len());
    for field in ["Content-Type: text/plain", &length, "Connection: close"] {
        assert!(head.lines().any(|line| line == field), "{field} {answer}");
    }
    assert!(text.len() > 10 && text.ends_with(".\n"), "{answer}");
}

/// Nobody has connected to a target: whoever is first there says this.
#[track_caller]
fn assert_first(listener: &TcpListener, said: &[u8]) {
    let mut first = connect(listener.local_addr().unwrap());
    first.write_all(said).unwrap();
    let mut accepted = accept(listener);
    let mut octets = vec![0; said.len()];
    accepted.read_exact(&mut octets).unwrap();
    assert_eq!(octets, said, "somebody was there before");
}

/// Nothing has come, and no end of file.
#[track_caller]
fn assert_silent(stream: &TcpStream) {
    stream.set_nonblocking(true).unwrap();
    let seen = stream.peek(&mut [0]);
    stream.set_nonblocking(false).unwrap();
    assert_eq!(seen.map_err(|error| error.kind()), Err(ErrorKind::WouldBlock));
}
