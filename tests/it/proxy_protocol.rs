//! Behind a load balancer: `--proxy-protocol`.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::scratch::{Program, Scratch};
use crate::stage::{
    GREETING, Running, accept, at_end, at_end_or_reset, connect, echo, listen, reply, request,
    start, take,
};

/// The balancers of these tests are on loopback.
const BALANCER: [&str; 2] = ["--proxy-protocol", "127.0.0.0/8"];

/// What makes targets on loopback reachable for clients that are not on this machine.
const OPEN: &[u8] = b"allow to 127.0.0.0/8\n";

const LOCAL: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x00";

/// A version 1 header.
fn v1(client: &str) -> Vec<u8> {
    let client: SocketAddr = client.parse().unwrap();
    let (family, server) = if client.is_ipv4() { (4, "192.0.2.1") } else { (6, "2001:db8::1") };
    format!("PROXY TCP{family} {} {server} {} 1080\r\n", client.ip(), client.port()).into_bytes()
}

/// A version 2 header with a TLV.
fn v2(client: [u8; 4], port: u16) -> Vec<u8> {
    let [high, low] = port.to_be_bytes();
    let ports = [high, low, 0x04, 0x38];
    let head = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x11".as_slice();
    [head, &client, &[192, 0, 2, 1], &ports, b"\xee\x00\x02hi"].concat()
}

/// Sends `header` and a greeting, and gives back the method that the server selects.
fn greet(server: &Running, header: &[u8]) -> Option<(u8, TcpStream)> {
    let mut client = connect(server.address);
    client.write_all(&[header, GREETING].concat()).unwrap();
    let mut selection = [0; 2];
    match client.read_exact(&mut selection) {
        Ok(()) => (selection[0] == 0x05).then_some((selection[1], client)),
        Err(error) => {
            let kinds = [ErrorKind::UnexpectedEof, ErrorKind::ConnectionReset];
            assert!(kinds.contains(&error.kind()), "{error}");
            None
        }
    }
}

/// The REP for a client behind a balancer.
fn ask(server: &Running, header: &[u8], target: SocketAddr) -> (u8, TcpStream) {
    let (method, mut client) = greet(server, header).expect("the client is served");
    assert_eq!(method, 0x00);
    client.write_all(&request(target)).unwrap();
    (reply(&mut client).0, client)
}

fn served(server: &Running, header: &[u8]) -> bool {
    greet(server, header).is_some()
}

#[test]
fn the_log_names_the_true_client() {
    let rules = Scratch::new(OPEN);
    let options = [&BALANCER[..], &["--rules", rules.path()]].concat();
    let mut tabi = Program::start(&options);
    for (header, client) in [
        (v1("192.168.1.7:50001"), "192.168.1.7:50001"),
        (v1("[fd00::7]:50002"), "[fd00::7]:50002"),
        (v2([10, 1, 2, 3], 50_003), "10.1.2.3:50003"),
    ] {
        let mut client_end = connect(tabi.address);
        let (listener, target) = listen();
        client_end
            .write_all(&[&header[..], GREETING, &request(target), b"early"].concat())
            .unwrap();
        let mut far = accept(&listener);
        assert_eq!(take(&mut far), *b"early");
        drop((client_end, far));
        let line = tabi.log_line("command=CONNECT");
        assert!(line.contains(&format!("client={client} ")), "{line}");
    }
}

#[test]
fn a_header_may_come_octet_by_octet() {
    let rules = Scratch::new(OPEN);
    let server = start(&[&BALANCER[..], &["--rules", rules.path()]].concat());
    for header in [v1("192.168.1.7:50001"), v2([192, 168, 1, 7], 50_001)] {
        let mut client = connect(server.address);
        for octet in [&header[..], GREETING].concat() {
            client.write_all(&[octet]).unwrap();
        }
        assert_eq!(take(&mut client), *b"\x05\x00");
        client.write_all(&request(echo())).unwrap();
        assert_eq!(reply(&mut client).0, 0x00);
        client.write_all(b"payload").unwrap();
        assert_eq!(take(&mut client), *b"payload");
    }
}

#[test]
fn a_client_behind_a_balancer_on_this_machine_does_not_reach_its_loopback() {
    let server = start(&BALANCER);
    for header in [v1("192.168.1.7:50001"), v2([192, 168, 1, 7], 50_001)] {
        assert_eq!(ask(&server, &header, echo()).0, 0x02);
    }
}

#[test]
fn the_balancers_own_connections_are_its_own() {
    let server = start(&BALANCER);
    for header in [LOCAL, b"PROXY UNKNOWN\r\n"] {
        assert_eq!(ask(&server, header, echo()).0, 0x00);
    }
    // A client on the balancer's machine, which is this one here.
    assert_eq!(ask(&server, &v1("127.0.0.1:50001"), echo()).0, 0x00);
}

#[test]
fn a_balancer_without_a_header_is_not_served() {
    let server = start(&BALANCER);
    assert!(!served(&server, b""));
    assert!(!served(&server, b"PROXY TCP4 192.168.1.7 192.0.2.1 50001\r\n"));
    // UNIX, and UDP over IPv4.
    for family in [0x31, 0x12] {
        let mut header = v2([192, 168, 1, 7], 50_001);
        header[13] = family;
        assert!(!served(&server, &header), "{family:#04x}");
    }
    assert!(served(&server, &v2([192, 168, 1, 7], 50_001)));
}

#[test]
fn the_header_of_anyone_else_is_not_believed() {
    let attacker = v1("127.0.0.1:50001");
    let server = start(&["--proxy-protocol", "192.0.2.0/24"]);
    assert!(!served(&server, &attacker));
    assert!(served(&server, b""), "who is no balancer needs no header");
    assert!(!served(&start(&[]), &attacker));
}

#[test]
fn the_true_client_has_to_be_one_that_is_served() {
    let server = start(&BALANCER);
    assert!(!served(&server, &v1("203.0.113.7:50001")));
    // The balancer itself need not be.
    let server = start(&[&BALANCER[..], &["--allow-from", "203.0.113.0/24"]].concat());
    assert!(served(&server, &v1("203.0.113.7:50001")));
    assert!(!served(&server, &v1("192.168.1.7:50001")));
    assert!(!served(&server, &v1("127.0.0.1:50001")), "it may be on another machine");
    // A probe's greeting is answered, and nothing else.
    let (_, mut probe) = greet(&server, LOCAL).expect("it may be a probe");
    probe.write_all(&request(echo())).unwrap();
    assert!(at_end_or_reset(&mut probe));
}

#[test]
fn limits_count_the_true_client() {
    let server = start(&[&BALANCER[..], &["--max-per-client", "2"]].concat());
    let header = v1("192.168.1.7:50001");
    let first = greet(&server, &header).expect("the first is served");
    let _second = greet(&server, &header).expect("the second is served");
    assert!(!served(&server, &header));
    let _others: Vec<_> = (1..=8)
        .map(|host| greet(&server, &v2([10, 0, 0, host], 50_001)).expect("a neighbour is served"))
        .collect();
    let unknown = [LOCAL, b"PROXY UNKNOWN\r\n"].into_iter().cycle().take(8);
    let own: Vec<_> = unknown.filter_map(|header| greet(&server, header)).collect();
    assert_eq!(own.len(), 2, "what a balancer opens for itself is its own");
    drop(first);
    let begin = Instant::now();
    while !served(&server, &header) {
        assert!(begin.elapsed() < Duration::from_secs(20), "the first one still counts");
    }
}

#[test]
fn penalties_are_the_true_clients() {
    let users = Scratch::new(b"alice:open sesame\n");
    let server = start(&[&BALANCER[..], &["--users", users.path()]].concat());
    let status = |header: &[u8], password: &[u8]| {
        let mut client = connect(server.address);
        client.write_all(&[header, b"\x05\x01\x02\x01\x05alice", password].concat()).unwrap();
        let mut told = [0; 4];
        client.read_exact(&mut told).ok().map(|()| told[3])
    };
    let (attacker, neighbour) = (v1("192.168.1.66:50001"), v1("192.168.1.7:50001"));
    // The fifth failure has it refused for a second, which may pass on a busy machine.
    let shut_out = (0..5).any(|_| {
        for _ in 0..5 {
            status(&attacker, b"\x04open");
        }
        status(&attacker, b"\x0bopen sesame") != Some(0x00)
    });
    assert!(shut_out);
    assert_eq!(status(&neighbour, b"\x0bopen sesame"), Some(0x00));
}

#[test]
fn rules_judge_the_true_client() {
    let rules = Scratch::new(b"deny from 192.168.1.66\nallow to 127.0.0.0/8\n");
    let server = start(&[&BALANCER[..], &["--rules", rules.path()]].concat());
    assert_eq!(ask(&server, &v1("192.168.1.66:50001"), echo()).0, 0x02);
    assert_eq!(ask(&server, &v1("192.168.1.7:50001"), echo()).0, 0x00);
}

#[test]
fn a_balancer_that_says_nothing_is_cut_by_the_one_deadline() {
    let server = start(&[&BALANCER[..], &["--handshake-timeout", "0.4"]].concat());
    for beginning in [b"".as_slice(), b"PROXY TCP4 192.1", b"\r\n\r\n\0"] {
        let begin = Instant::now();
        let mut attacker = connect(server.address);
        attacker.write_all(beginning).unwrap();
        assert!(at_end(&mut attacker));
        assert!(begin.elapsed() >= Duration::from_millis(350), "{:?}", begin.elapsed());
    }
}
