//! The heads of HTTP: CONNECT, and what an answer begins with. Requests are those of curl.

use std::io::{self, Read, Write};
use std::net::TcpStream;

use crate::socks::Target;

/// Nobody here has as much to say in a head.
const LONGEST_HEAD: usize = 16 * 1024;

/// Behind the start line and the target's host.
pub(crate) const FIELDS: &str = "User-Agent: curl/8.14.1\r\nProxy-Connection: Keep-Alive\r\n";

/// The user and the password, which are the same, in Base64.
pub(crate) const LOGIN: &str = "Proxy-Authorization: Basic YmVuY2g6YmVuY2g=\r\n";

/// Has the proxy connect to `target`. What that sends at once is left to be read.
pub(crate) fn connect(stream: &mut TcpStream, users: bool, target: Target<'_>) -> io::Result<()> {
    let login = if users { LOGIN } else { "" };
    let head = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{login}{FIELDS}\r\n");
    stream.write_all(head.as_bytes())?;
    expect_success(&read_head(stream)?)
}

/// Reads up to the empty line, and not one octet more.
pub(crate) fn read_head(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    let mut seen = [0; 1024];
    while head.len() < LONGEST_HEAD {
        let length = stream.peek(&mut seen)?;
        if length == 0 {
            return Err(io::Error::other("closed without an answer"));
        }
        let before = head.len();
        head.extend_from_slice(&seen[..length]);
        let end = head.windows(4).position(|octets| octets == b"\r\n\r\n").map(|at| at + 4);
        head.truncate(end.unwrap_or(head.len()));
        stream.read_exact(&mut seen[..head.len() - before])?;
        if end.is_some() {
            return Ok(head);
        }
    }
    Err(io::Error::other("a head without an end"))
}

pub(crate) fn expect_success(head: &[u8]) -> io::Result<()> {
    let text = String::from_utf8_lossy(head);
    let line = text.lines().next().unwrap_or_default();
    match line.split(' ').nth(1) {
        Some("200") => Ok(()),
        _ => Err(io::Error::other(format!("answer {line}"))),
    }
}

pub(crate) fn content_length(head: &[u8]) -> Option<usize> {
    let text = String::from_utf8_lossy(head);
    let mut fields = text.lines().filter_map(|line| line.split_once(':'));
    let (_, value) = fields.find(|(name, _)| name.eq_ignore_ascii_case("content-length"))?;
    value.trim().parse().ok()
}
