//! What one may take: of everything that is bounded an attacker takes all that it gets, and a client at
//! another address is served beside it.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::thread;
use std::time::Instant;

use socket2::{Domain, Socket, Type};
use tabi::system::shares::{Bound, TABLE, Thing};

use crate::hashes::log_in;
use crate::names::{name_server, resolving_with};
use crate::namespace::{alone, ip, with_name_server};
use crate::scratch::{Program, Scratch, bare};
use crate::stage::{
    GREETING, LONG, connect_from, echo, limited, reply, request, request_by_name, start, take,
};

/// Those who attack, each from an address of its own, and the one who does not.
const ATTACKERS: [Ipv4Addr; 3] =
    [Ipv4Addr::new(127, 0, 0, 2), Ipv4Addr::new(127, 0, 0, 3), Ipv4Addr::new(127, 0, 0, 4)];
const HONEST: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 9);

/// An association, from wherever the client sends.
const ASSOCIATE: &[u8] = b"\x05\x03\x00\x01\0\0\0\0\0\0";

/// Greets and asks. Gives back REP and the client, or `None` for one that is turned away.
fn asks(mut client: TcpStream, request: &[u8]) -> Option<(u8, TcpStream)> {
    client.write_all(&[GREETING, request].concat()).ok()?;
    let mut octets = [0; 12];
    client.read_exact(&mut octets).ok()?;
    assert_eq!(octets[..2], *b"\x05\x00");
    Some((octets[3], client))
}

/// Takes what it gets, until it is turned away or has asked so often.
fn take_all(from: Ipv4Addr, server: SocketAddr, request: &[u8], most: usize) -> Vec<TcpStream> {
    let asked = (0..most).map_while(|_| asks(connect_from(from, server), request));
    asked.filter(|(rep, _)| *rep == 0x00).map(|(_, client)| client).collect()
}

fn assert_echoes(mut client: TcpStream) {
    client.write_all(b"payload").unwrap();
    assert_eq!(take(&mut client), *b"payload");
}

/// All attackers take all that they get of tunnels, and the client has its own served and keeps them.
fn tunnels(options: &[&str]) {
    let server = start(options);
    let target = echo();
    let tunnel = || asks(connect_from(HONEST, server.address), &request(target)).unwrap();
    let before: Vec<_> = (0..2).map(|_| tunnel()).collect();
    let taken = ATTACKERS.map(|it| take_all(it, server.address, &request(target), 20));
    assert!(taken[0].len() > 2);
    // A fair share of 16 among four, and one more who may come, is three.
    for (rep, client) in before.into_iter().chain([tunnel()]) {
        assert_eq!(rep, 0x00);
        assert_echoes(client);
    }
}

/// Three addresses have all associations that they get, each of which takes four descriptors.
fn descriptors() {
    let server = Program::start_with_descriptors(64, &[]);
    let taken = ATTACKERS.map(|it| take_all(it, server.address, ASSOCIATE, 20));
    assert!(taken[0].len() > 2);
    let target = echo();
    let tunnel = || asks(connect_from(HONEST, server.address), &request(target)).unwrap();
    for (rep, client) in [tunnel(), tunnel(), tunnel()] {
        assert_eq!(rep, 0x00);
        assert_echoes(client);
    }
    let (rep, _) = asks(connect_from(HONEST, server.address), ASSOCIATE).unwrap();
    assert_eq!(rep, 0x00, "an association, too");
}

fn udp_ports() {
    // No other program has one of these ports there.
    alone(|| {
        let server = Program::start(&["--udp-ports", "40000-40015"]);
        let before = asks(connect_from(HONEST, server.address), ASSOCIATE).unwrap();
        let taken = ATTACKERS.map(|it| take_all(it, server.address, ASSOCIATE, 20));
        assert!((4..=8).contains(&taken[0].len()));
        for _ in 0..2 {
            let (rep, _) = asks(connect_from(HONEST, server.address), ASSOCIATE).unwrap();
            assert_eq!(rep, 0x00);
        }
        before.1.set_nonblocking(true).unwrap();
        let still = { &before.1 }.read(&mut [0]).unwrap_err();
        assert_eq!(still.kind(), ErrorKind::WouldBlock);
    });
}

fn pending() {
    let server = start(&["--max-connections", "64"]);
    let mut slow = connect_from(HONEST, server.address);
    slow.write_all(GREETING).unwrap();
    assert_eq!(take(&mut slow), *b"\x05\x00");
    let mut flood: Vec<_> = (0..100)
        .map(|number| {
            let mut attacker = connect_from(ATTACKERS[number % 3], server.address);
            let _ = attacker.write_all(b"\x05");
            attacker.set_nonblocking(true).unwrap();
            attacker
        })
        .collect();
    let is_open = |attacker: &mut TcpStream| {
        attacker.read(&mut [0]).is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
    };
    let begin = Instant::now();
    while flood.len() > 64 / 4 {
        flood.retain_mut(is_open);
        assert!(begin.elapsed() < LONG, "{} are left", flood.len());
        thread::yield_now();
    }
    let target = echo();
    slow.write_all(&request(target)).unwrap();
    assert_eq!(reply(&mut slow).0, 0x00);
    assert_echoes(slow);
}

fn lookups() {
    with_name_server(|_| {
        let server = Program::start(&["--connect-timeout", "30"]);
        let hanging: Vec<_> = (0..120)
            .map(|number| {
                let mut client = connect_from(ATTACKERS[number % 3], server.address);
                let name = format!("n{number}.example");
                let asked = [GREETING, &request_by_name(name.as_bytes(), 80)].concat();
                client.write_all(&asked).unwrap();
                assert_eq!(take(&mut client), *b"\x05\x00");
                client
            })
            .collect();
        let asked = request_by_name(b"localhost", echo().port());
        for _ in 0..4 {
            let (rep, client) = asks(connect_from(HONEST, server.address), &asked).unwrap();
            assert_eq!(rep, 0x00);
            assert_echoes(client);
        }
        drop(hanging);
    });
}

fn remembered_names() {
    resolving_with("nameserver 127.0.0.1\noptions timeout:30\n", "", || {
        let questions = name_server(&["nas.example"]);
        let server = Program::start(&["--name-cache", "600"]);
        let asked = request_by_name(b"nas.example", echo().port());
        let is_served = || {
            let (rep, client) = asks(connect_from(HONEST, server.address), &asked).unwrap();
            assert_eq!(rep, 0x00);
            assert_echoes(client);
        };
        is_served();
        assert!(questions.try_iter().count() > 0);
        // More than are remembered, of names that need no name server.
        thread::scope(|scope| {
            for thread in 0..4 {
                let address = server.address;
                scope.spawn(move || {
                    for number in 0..1250 {
                        let name = format!("a-name-of-forty-bytes-{thread}-{number:010}.onion");
                        let asked = request_by_name(name.as_bytes(), 80);
                        let told = asks(connect_from(ATTACKERS[0], address), &asked);
                        assert_eq!(told.unwrap().0, 0x04);
                    }
                });
            }
        });
        is_served();
        assert_eq!(questions.try_iter().count(), 0, "its name is forgotten");
    });
}

fn upstream_connections() {
    let upstream = start(&["--max-connections", "64"]);
    let url = format!("socks5h://{}", upstream.address);
    tunnels(&["--max-connections", "16", "--upstream", &url]);
}

fn passwords() {
    let file = Scratch::new(b"alice:secret\n");
    let server = start(&["--users", file.path()]);
    let login = |from, name: &[u8], password: &[u8]| {
        let mut client = connect_from(from, server.address);
        let length = |octets: &[u8]| [u8::try_from(octets.len()).unwrap()];
        let message = [&[1][..], &length(name), name, &length(password), password].concat();
        client.write_all(&[b"\x05\x01\x02", &message[..]].concat()).ok()?;
        let mut told = [0; 4];
        client.read_exact(&mut told).ok().map(|()| told[3] == 0x00)
    };
    for number in 0..50 {
        login(ATTACKERS[0], format!("n{number}").as_bytes(), b"x");
        login(ATTACKERS[1], b"alice", b"x");
    }
    assert_eq!(login(ATTACKERS[0], b"alice", b"secret"), None, "it is turned away");
    assert_eq!(login(HONEST, b"alice", b"secret"), Some(true));
}

/// Each attacker has more guesses at hashes waiting than can be looked at meanwhile.
fn verifications() {
    let password = "$2b$05$6ND3p0xdFjM8y6k20HA1oOozRM5UtNgz/xsx87SmlQKeuLuYXNQba";
    let users: Vec<_> = (0..33).map(|number| format!("user{number:02}:{password}")).collect();
    let file = Scratch::new(users.join("\n").as_bytes());
    let server = start(&["--users", file.path()]);
    let guess = |from: Ipv4Addr, number: usize| {
        let mut client = connect_from(from, server.address);
        let name = format!("user{number:02}");
        let said = [b"\x05\x01\x02\x01\x06", name.as_bytes(), b"\x01x"].concat();
        client.write_all(&said).unwrap();
        client
    };
    let guesses = (0..33).flat_map(|number| ATTACKERS.map(|from| guess(from, number)));
    let guesses: Vec<_> = guesses.collect();
    assert_eq!(log_in(HONEST, server.address, "user07", "open sesame"), Some(0));
    drop(guesses);
}

fn log_lines() {
    let mut server = Program::start(&[]);
    for _ in 0..1100 {
        let mut attacker = connect_from(ATTACKERS[0], server.address);
        let _ = attacker.write_all(b"x");
        let _ = attacker.read(&mut [0]);
    }
    drop(asks(connect_from(HONEST, server.address), &request(echo())).unwrap());
    server.log_line(&format!("client={HONEST}:"));
}

fn visitors() {
    let mut server = Program::start(&["--status", "0"]);
    let line = server.log_line("status page at http://");
    let page = line.split(['/', ' ']).find_map(|word| word.parse().ok()).unwrap();
    let silent: Vec<_> = (0..40).map(|_| connect_from(ATTACKERS[0], page)).collect();
    let mut visitor = connect_from(HONEST, page);
    write!(visitor, "GET /healthz HTTP/1.1\r\nHost: {page}\r\n\r\n").unwrap();
    let mut answer = String::new();
    visitor.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    drop(silent);
}

#[test]
fn of_everything_that_is_bounded_others_get_theirs() {
    for bound in TABLE {
        println!("{}", bound.thing);
        match bound.thing {
            Thing::Places => tunnels(&["--max-connections", "16"]),
            Thing::Pending => pending(),
            Thing::Descriptors => descriptors(),
            Thing::UdpPorts => udp_ports(),
            Thing::Lookups => lookups(),
            Thing::RememberedNames => remembered_names(),
            Thing::UpstreamConnections => upstream_connections(),
            Thing::Passwords => passwords(),
            Thing::Verifications => verifications(),
            Thing::LogLines => log_lines(),
            Thing::Visitors => visitors(),
        }
    }
}

#[test]
fn the_documents_have_the_table_of_what_is_bounded() {
    let text = include_str!("../../scripts/docs/reference.md");
    let rows: Vec<_> = TABLE.iter().map(Bound::row).collect();
    assert!(text.contains(&rows.join("\n")), "it should be\n{}", rows.join("\n"));
}

/// A connection from an address that this namespace has, or is about to have.
fn connect_from_ipv6(from: &str, server: SocketAddr) -> TcpStream {
    let from = SocketAddr::new(from.parse().unwrap(), 0).into();
    let begin = Instant::now();
    loop {
        let socket = Socket::new(Domain::IPV6, Type::STREAM, None).unwrap();
        socket.bind(&from).unwrap();
        match socket.connect_timeout(&server.into(), LONG) {
            Ok(()) => return limited(socket.into()),
            Err(error) => assert_eq!(error.kind(), ErrorKind::NetworkUnreachable),
        }
        assert!(begin.elapsed() < LONG, "there is no route yet");
        thread::yield_now();
    }
}

#[test]
fn a_neighbour_on_an_ipv6_lan_leaves_another_its_places() {
    let rules = Scratch::new(b"allow to 127.0.0.1\n");
    alone(|| {
        let few = ["--max-connections", "64", "--max-per-client", "16"];
        let others = ["--allow-from", "::/0", "--rules", rules.path()];
        let mut command = bare();
        command.arg("[::]:0").args(few).args(others);
        let program = Program::spawn(command);
        let port = program.address.port();
        // Unique-local, and on-link as soon as this machine has an address there.
        for prefix in ["fd77", "2001:db8:77:1", "2001:db8:77:2"] {
            let commands =
                [1, 2, 9].map(|host| format!("addr add {prefix}::{host}/64 dev lo nodad"));
            if !ip(&commands.join("\n")) {
                return;
            }
            let server = SocketAddr::new(format!("{prefix}::1").parse().unwrap(), port);
            let asked = request(echo());
            let client = |host: u8| connect_from_ipv6(&format!("{prefix}::{host}"), server);
            let taken: Vec<_> = (0..40).map_while(|_| asks(client(2), &asked)).collect();
            assert_eq!(taken.len(), 16, "{prefix}");
            for _ in 0..10 {
                let (rep, honest) = asks(client(9), &asked).expect(prefix);
                assert_eq!(rep, 0x00);
                assert_echoes(honest);
            }
        }
    });
}
