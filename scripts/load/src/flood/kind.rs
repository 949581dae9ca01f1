//! The floods.

use std::net::SocketAddrV4;
use std::time::Duration;

use crate::socks::{CONNECT, Target, request};

/// A flood, and what the proxy is told that has to bear it.
#[derive(Debug)]
pub(super) struct Flood {
    pub(super) name: &'static str,
    pub(super) what: &'static str,
    pub(super) options: &'static [&'static str],
    /// The proxy asks for a password.
    pub(super) users: bool,
    /// The ordinary client asks for its target by name, one that needs no name server.
    pub(super) by_name: bool,
    /// How long the ordinary client's next message is on its way.
    pub(super) link: Duration,
    /// How many addresses the attacker has.
    pub(super) addresses: u8,
    /// Connections, or datagrams, in a second at the most.
    pub(super) per_second: u32,
    pub(super) act: Act,
    /// What the ordinary client's p99 has to stay below.
    pub(super) goal: Duration,
}

impl Flood {
    pub(super) fn needs_names(&self) -> bool {
        matches!(self.act, Act::Keep(_, Say::Name) | Act::Datagrams(_, To::Names))
    }
}

/// What the attacker does with each connection.
#[derive(Clone, Copy, Debug)]
pub(super) enum Act {
    /// Keeps so many; one that the proxy closes is replaced.
    Keep(usize, Say),
    /// Closes it with a reset at once.
    Reset,
    /// Closes it as soon as everything is said.
    Leave(Say),
    /// Keeps so many associations, and sends datagrams to ever other destinations.
    Datagrams(usize, To),
    /// Keeps so many associations, and sends on their connections, where nothing is expected.
    Junk(usize),
}

/// Where datagrams are sent to.
#[derive(Clone, Copy, Debug)]
pub(super) enum To {
    /// Addresses of this machine.
    Here,
    /// Other machines' addresses at the proxy's own port.
    OwnPort,
    /// Names that no name server tells anything of.
    Names,
}

/// What the attacker says first.
#[derive(Clone, Copy, Debug)]
pub(super) enum Say {
    Nothing,
    /// VER of a greeting.
    Half,
    /// A request to where nobody answers.
    BlackHole,
    /// The same, and a byte for the target.
    BlackHoleEarly,
    /// A request to a name that no name server tells anything of.
    Name,
    /// A request to a name that there cannot be.
    WrongName,
    /// A request to where somebody accepts, and says nothing.
    Sink,
    /// A request to where somebody sends for ever.
    Source,
    WrongPassword,
    /// A head of HTTP without its end.
    HalfHead,
    /// A plain HTTP request to where nobody answers.
    BlackHolePlain,
    /// A password in HTTP.
    WrongLogin,
}

impl Say {
    /// The message of connection `number`.
    pub(super) fn message(
        self,
        number: u64,
        black_hole: SocketAddrV4,
        [sink, source]: [SocketAddrV4; 2],
    ) -> Vec<u8> {
        match self {
            Say::Nothing => Vec::new(),
            Say::Half => vec![0x05],
            Say::BlackHole => asking(black_hole.into(), b""),
            Say::BlackHoleEarly => asking(black_hole.into(), b"e"),
            Say::Sink => asking(sink.into(), b""),
            Say::Source => asking(source.into(), b""),
            Say::WrongName => asking(Target::Name(&format!("n{number}..example"), 80), b""),
            Say::Name => asking(Target::Name(&format!("n{number}.silent.example"), 80), b""),
            Say::WrongPassword => {
                [b"\x05\x01\x02\x01\x05bench\x04".as_slice(), &number.to_be_bytes()[4..]].concat()
            }
            Say::HalfHead => b"GET http://192.0.2.1/ HTTP/1.1\r\nHost: 192.0.2.1\r\nX: ".to_vec(),
            Say::BlackHolePlain => plain(black_hole, ""),
            // Four of these digits are three octets of Base64; before them is "bench:".
            Say::WrongLogin => {
                let digits = number % 10_000;
                plain(sink, &format!("Proxy-Authorization: Basic YmVuY2g6{digits:04}\r\n"))
            }
        }
    }
}

/// A greeting, a request, and what is for the target, all at once.
fn asking(target: Target<'_>, early: &[u8]) -> Vec<u8> {
    let request = request(CONNECT, target).unwrap_or_default();
    [b"\x05\x01\x00", request.as_slice(), early].concat()
}

fn plain(target: SocketAddrV4, fields: &str) -> Vec<u8> {
    format!("GET http://{target}/ HTTP/1.1\r\nHost: {target}\r\n{fields}\r\n").into_bytes()
}

const GOAL: Duration = Duration::from_millis(100);

/// What a flood has where nothing else is said.
const PLAIN: Flood = Flood {
    name: "",
    what: "",
    options: &[],
    users: false,
    by_name: false,
    link: Duration::ZERO,
    addresses: 8,
    per_second: 2000,
    act: Act::Reset,
    goal: GOAL,
};

pub(super) static FLOODS: [Flood; 23] = [
    Flood {
        name: "half-open",
        what: "2,000 half-open greetings",
        act: Act::Keep(2000, Say::Half),
        ..PLAIN
    },
    Flood {
        name: "silent",
        what: "2,000 connections that say nothing",
        act: Act::Keep(2000, Say::Nothing),
        ..PLAIN
    },
    Flood {
        name: "silent-fast",
        what: "ever more connections that say nothing",
        per_second: 10_000,
        act: Act::Keep(15_000, Say::Nothing),
        ..PLAIN
    },
    Flood {
        name: "slow-link",
        what: "8,500 half-open greetings a second, 3 addresses, the client's link takes 300 ms",
        link: Duration::from_millis(300),
        addresses: 3,
        per_second: 8500,
        act: Act::Keep(15_000, Say::Half),
        goal: Duration::from_millis(300 + 100),
        ..PLAIN
    },
    Flood {
        name: "reset",
        what: "connections reset at once",
        addresses: 16,
        per_second: 20_000,
        ..PLAIN
    },
    Flood {
        name: "black-hole",
        what: "requests to a black hole, kept, 7 addresses",
        addresses: 7,
        per_second: 305,
        act: Act::Keep(20_000, Say::BlackHole),
        ..PLAIN
    },
    Flood {
        name: "early-kept",
        what: "requests to a black hole with an early byte, kept, 7 addresses",
        addresses: 7,
        per_second: 305,
        act: Act::Keep(20_000, Say::BlackHoleEarly),
        ..PLAIN
    },
    Flood {
        name: "early-left",
        what: "requests to a black hole with an early byte, left at once, 7 addresses",
        addresses: 7,
        per_second: 305,
        act: Act::Leave(Say::BlackHoleEarly),
        ..PLAIN
    },
    Flood {
        name: "names",
        what: "names that never resolve, 4 addresses",
        addresses: 4,
        per_second: 600,
        act: Act::Keep(20_000, Say::Name),
        ..PLAIN
    },
    Flood {
        name: "names-looked-up",
        what: "the same, nothing is remembered, the client asks for a name",
        options: &["--name-cache", "0"],
        by_name: true,
        addresses: 4,
        per_second: 600,
        act: Act::Keep(20_000, Say::Name),
        ..PLAIN
    },
    Flood {
        name: "wrong-names",
        what: "names that there cannot be, the client asks for a name that is remembered",
        by_name: true,
        addresses: 4,
        act: Act::Keep(2000, Say::WrongName),
        ..PLAIN
    },
    Flood {
        name: "idle",
        what: "4,096 idle tunnels, 4 addresses",
        addresses: 4,
        act: Act::Keep(4096, Say::Sink),
        ..PLAIN
    },
    Flood {
        name: "many-tunnels",
        what: "4,093 tunnels, 13 addresses",
        addresses: 13,
        act: Act::Keep(4093, Say::Sink),
        ..PLAIN
    },
    Flood {
        name: "stalled",
        what: "60 downloads that nobody reads, 4 addresses",
        addresses: 4,
        act: Act::Keep(60, Say::Source),
        ..PLAIN
    },
    Flood {
        name: "strangers",
        what: "strangers",
        options: &["--allow-from", "127.9.0.0/16"],
        per_second: 10_000,
        act: Act::Leave(Say::Half),
        ..PLAIN
    },
    Flood {
        name: "udp",
        what: "16 UDP associations to many destinations",
        addresses: 4,
        per_second: 20_000,
        act: Act::Datagrams(16, To::Here),
        ..PLAIN
    },
    Flood {
        name: "own-port",
        what: "the same, to the proxy's own port at foreign addresses",
        addresses: 4,
        per_second: 20_000,
        act: Act::Datagrams(16, To::OwnPort),
        ..PLAIN
    },
    Flood {
        name: "associations",
        what: "3,059 UDP associations to names that never resolve, 3 addresses",
        addresses: 3,
        per_second: 3000,
        act: Act::Datagrams(3059, To::Names),
        ..PLAIN
    },
    Flood {
        name: "junk",
        what: "16 KiB of junk at a time on the connections of 16 UDP associations",
        addresses: 4,
        per_second: 20_000,
        act: Act::Junk(16),
        ..PLAIN
    },
    Flood {
        name: "passwords",
        what: "wrong passwords, 4 addresses",
        users: true,
        addresses: 4,
        per_second: 5000,
        act: Act::Keep(1000, Say::WrongPassword),
        ..PLAIN
    },
    Flood {
        name: "http-heads",
        what: "2,000 heads of HTTP without an end",
        act: Act::Keep(2000, Say::HalfHead),
        ..PLAIN
    },
    Flood {
        name: "http-black-hole",
        what: "plain HTTP requests to a black hole, kept, 7 addresses",
        addresses: 7,
        per_second: 305,
        act: Act::Keep(20_000, Say::BlackHolePlain),
        ..PLAIN
    },
    Flood {
        name: "http-passwords",
        what: "wrong passwords by HTTP, 4 addresses",
        users: true,
        addresses: 4,
        per_second: 5000,
        act: Act::Keep(1000, Say::WrongLogin),
        ..PLAIN
    },
];
