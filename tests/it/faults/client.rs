//! What a client says in each protocol, and what it is told.

use std::fmt;
use std::io::Read;
use std::net::{SocketAddr, TcpStream};

use super::Step;
use crate::stage::{read_head, reply, request, request_by_name, take};

/// `alice:sesame`, as HTTP has it.
const LOGIN: &str = "Proxy-Authorization: Basic YWxpY2U6c2VzYW1l\r\n";

/// The length of a request's body: more than is written before a writer is stuck.
pub(super) const BODY: usize = 512 * 1024 * 1024;

/// What the client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Speaks {
    Socks5,
    Socks4,
    /// HTTP, with a login once it is asked for.
    Connect,
    /// HTTP in absolute-form, with a login at once.
    Plain,
}

/// Where it wants to go.
#[derive(Clone, Copy)]
pub(super) enum Destination<'a> {
    Address(SocketAddr),
    Name(&'a str, u16),
}

/// A message of the client, and how it is answered.
pub(super) type Message = (Vec<u8>, Answer);

/// How far an answer goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Octets(usize),
    /// A head with this status, and as much behind it as it says.
    Http(u16),
    /// Nothing comes from the server itself.
    Nothing,
}

impl Speaks {
    pub(super) const ALL: [Speaks; 4] =
        [Speaks::Socks5, Speaks::Socks4, Speaks::Connect, Speaks::Plain];

    /// The steps at which it can matter what is spoken.
    pub(super) fn steps(self) -> &'static [Step] {
        use Step::{
            Authentication, Dial, FailingReply, Greeting, HalfClosedByClient, HalfClosedByTarget,
            Lookup, RelayDown, RelayUp, Reply, Request,
        };
        match self {
            Speaks::Socks5 => &Step::ALL,
            Speaks::Socks4 => &[Request, Lookup, Dial, Reply, FailingReply],
            // The first request, without a login, is its greeting.
            Speaks::Connect => &[
                Greeting,
                Authentication,
                Lookup,
                Dial,
                Reply,
                FailingReply,
                RelayUp,
                HalfClosedByClient,
                HalfClosedByTarget,
            ],
            Speaks::Plain => &[Request, Lookup, Dial, FailingReply, RelayUp, RelayDown],
        }
    }

    /// Whether it can log in.
    pub(super) fn has_login(self) -> bool {
        self != Speaks::Socks4
    }

    /// What the client says, and how each message is answered; the last one is the request.
    pub(super) fn conversation(self, step: Step, to: Destination<'_>) -> Vec<Message> {
        match self {
            Speaks::Socks5 => socks5(true, to),
            Speaks::Socks4 => vec![(socks4(to), Answer::Octets(8))],
            Speaks::Connect => {
                let head = |login| format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n{login}\r\n");
                vec![(head("").into(), Answer::Http(407)), (head(LOGIN).into(), Answer::Http(200))]
            }
            Speaks::Plain => {
                let (method, length) = match step {
                    Step::RelayUp => ("POST", format!("Content-Length: {BODY}\r\n")),
                    _ => ("GET", String::new()),
                };
                let line = format!("{method} http://{to}/path HTTP/1.1\r\n");
                vec![(format!("{line}Host: {to}\r\n{length}{LOGIN}\r\n").into(), Answer::Nothing)]
            }
        }
    }

    /// The command, as it is shown.
    pub(super) fn command(self) -> &'static str {
        if self == Speaks::Plain { "HTTP" } else { "CONNECT" }
    }

    /// So much of an answer is there that it cannot but be the server's.
    pub(super) fn await_answer(self, client: &TcpStream) {
        let length = if self == Speaks::Socks4 { 8 } else { 10 };
        assert_eq!(client.peek(&mut [0; 10][..length]).unwrap(), length);
    }

    /// The answer that says that all is well.
    pub(super) fn read_success(self, client: &mut TcpStream) {
        match self {
            Speaks::Socks5 => assert_eq!(reply(client).0, 0x00),
            Speaks::Socks4 => assert_eq!(take::<8>(client)[..2], [0x00, 0x5a]),
            Speaks::Connect => read_answer(client, Answer::Http(200)),
            Speaks::Plain => {}
        }
    }

    /// The answer that says what SOCKS5 says with this REP.
    pub(super) fn read_refusal(self, client: &mut TcpStream, rep: u8) {
        match self {
            Speaks::Socks5 => assert_eq!(reply(client).0, rep),
            Speaks::Socks4 => assert_eq!(take::<8>(client)[..2], [0x00, 0x5b]),
            Speaks::Connect | Speaks::Plain => {
                read_answer(client, Answer::Http(if rep == 0x06 { 504 } else { 502 }));
            }
        }
    }
}

/// With a name and a password, or without.
pub(super) fn socks5(login: bool, to: Destination<'_>) -> Vec<Message> {
    let request = match to {
        Destination::Address(address) => request(address),
        Destination::Name(name, port) => request_by_name(name.as_bytes(), port),
    };
    let credentials = (b"\x01\x05alice\x06sesame".to_vec(), Answer::Octets(2));
    let mut messages = vec![(vec![0x05, 0x01, if login { 0x02 } else { 0x00 }], Answer::Octets(2))];
    messages.extend(login.then_some(credentials));
    messages.push((request, Answer::Octets(10)));
    messages
}

fn socks4(to: Destination<'_>) -> Vec<u8> {
    let (ip, port, name) = match to {
        Destination::Address(SocketAddr::V4(v4)) => (v4.ip().octets(), v4.port(), None),
        Destination::Address(v6) => panic!("SOCKS4 has no {v6}"),
        Destination::Name(name, port) => ([0, 0, 0, 1], port, Some(format!("{name}\0"))),
    };
    let name = name.unwrap_or_default();
    [b"\x04\x01", &port.to_be_bytes()[..], &ip, b"alice\0", name.as_bytes()].concat()
}

pub(super) fn read_answer(stream: &mut TcpStream, answer: Answer) {
    match answer {
        Answer::Octets(length) => stream.read_exact(&mut vec![0; length]).unwrap(),
        Answer::Http(status) => {
            let head = read_head(stream);
            assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
            let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
            let length = length.map_or(0, |length| length.parse().unwrap());
            stream.read_exact(&mut vec![0; length]).unwrap();
        }
        Answer::Nothing => {}
    }
}

impl From<SocketAddr> for Destination<'_> {
    fn from(address: SocketAddr) -> Self {
        Destination::Address(address)
    }
}

impl fmt::Display for Destination<'_> {
    fn fmt(&self, text: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Destination::Address(address) => write!(text, "{address}"),
            Destination::Name(name, port) => write!(text, "{name}:{port}"),
        }
    }
}
