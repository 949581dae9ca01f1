//! SOCKS4 and `SOCKS4a` as a client sees them.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::thread;
use std::time::Instant;

use crate::scratch::{Program, Scratch};
use crate::stage::{
    LONG, accept, at_end, connect, connect_from, echo, expect, expect_reset, listen,
    nobody_listens, pattern, reset, send, start, take,
};

const CONNECT: u8 = 0x01;
const BIND: u8 = 0x02;
const GRANTED: u8 = 0x5a;
const REJECTED: u8 = 0x5b;

/// A request with an address.
fn request(cd: u8, to: SocketAddr, user: &[u8]) -> Vec<u8> {
    let SocketAddr::V4(to) = to else { panic!("SOCKS4 has no {to}") };
    [&[0x04, cd], &to.port().to_be_bytes()[..], &to.ip().octets(), user, b"\0"].concat()
}

/// A request with a name.
fn request_by_name(cd: u8, name: &[u8], port: u16) -> Vec<u8> {
    [&[0x04, cd], &port.to_be_bytes()[..], b"\0\0\0\x01alice\0", name, b"\0"].concat()
}

fn saying(server: SocketAddr, octets: &[u8]) -> TcpStream {
    let mut client = connect(server);
    client.write_all(octets).unwrap();
    client
}

/// CD of a reply, and the address in it.
fn reply(client: &mut TcpStream) -> (u8, SocketAddr) {
    let [vn, cd, high, low, ip @ ..]: [u8; 8] = take(client);
    assert_eq!(vn, 0x00);
    (cd, (ip, u16::from_be_bytes([high, low])).into())
}

/// The line of a client's session in the log, which may not end before the client does.
fn logged(program: &mut Program, client: TcpStream) -> String {
    let own = client.local_addr().unwrap();
    drop(client);
    program.log_line(&format!("client={own} "))
}

/// All that a client is told who says this.
fn told(server: SocketAddr, octets: &[u8]) -> Vec<u8> {
    let mut words = Vec::new();
    saying(server, octets).read_to_end(&mut words).unwrap();
    words
}

const REFUSED: [u8; 8] = [0x00, REJECTED, 0, 0, 0, 0, 0, 0];

fn tunnel(server: SocketAddr) -> (TcpStream, TcpStream) {
    let (listener, target) = listen();
    let mut client = saying(server, &request(CONNECT, target, b""));
    let far = accept(&listener);
    assert_eq!(reply(&mut client), (GRANTED, far.peer_addr().unwrap()));
    (client, far)
}

#[test]
fn bytes_go_both_ways_and_what_is_sent_early_arrives() {
    let server = start(&[]);
    let target = echo();
    for (said, length) in [
        (request(CONNECT, target, b""), 100),
        (request(CONNECT, target, b"alice"), 0),
        (request(CONNECT, target, &[b'a'; 255]), 1),
        (request_by_name(CONNECT, b"localhost", target.port()), 300_000),
    ] {
        let mut early = Vec::new();
        pattern(1, length).read_to_end(&mut early).unwrap();
        let mut client = saying(server.address, &said);
        let mut writer = client.try_clone().unwrap();
        thread::scope(|scope| {
            scope.spawn(move || {
                writer.write_all(&early).unwrap();
                writer.write_all(b"later").unwrap();
                writer.shutdown(Shutdown::Write).unwrap();
            });
            assert_eq!(reply(&mut client).0, GRANTED);
            expect(&mut client, pattern(1, length));
            assert_eq!(take(&mut client), *b"later");
            assert!(at_end(&mut client));
        });
    }
}

#[test]
fn a_request_may_come_octet_by_octet_or_with_all_that_follows() {
    let server = start(&[]);
    let target = echo();
    for said in
        [request(CONNECT, target, b"alice"), request_by_name(CONNECT, b"localhost", target.port())]
    {
        let said = [&said, b"payload".as_slice()].concat();
        for pieces in [1, said.len()] {
            let mut client = connect(server.address);
            client.set_nodelay(true).unwrap();
            for piece in said.chunks(pieces) {
                client.write_all(piece).unwrap();
            }
            assert_eq!(reply(&mut client).0, GRANTED);
            assert_eq!(take(&mut client), *b"payload");
        }
    }
}

#[test]
fn names_are_taken_as_in_socks5() {
    let server = start(&[]);
    let port = echo().port();
    for name in ["localhost", "LocalHost", "127.0.0.1", "127.1", "[::ffff:127.0.0.1]"] {
        let mut client = saying(server.address, &request_by_name(CONNECT, name.as_bytes(), port));
        assert_eq!(reply(&mut client).0, GRANTED, "{name}");
        client.write_all(b"payload").unwrap();
        assert_eq!(take(&mut client), *b"payload");
    }
    for name in [b"".as_slice(), b"a b", b"name.invalid", b"\xff\xfe", b"a\nb", &[b'a'; 255]] {
        assert_eq!(
            told(server.address, &request_by_name(CONNECT, name, port)),
            REFUSED,
            "{name:?}"
        );
    }
    // 0.0.0.0 is an address, and an address ends where the user does.
    let octets = request(CONNECT, SocketAddr::from(([0, 0, 0, 0], port)), b"");
    let mut client = saying(server.address, &[&octets[..], b"payload"].concat());
    assert_eq!(reply(&mut client).0, GRANTED);
    assert_eq!(take(&mut client), *b"payload");
}

#[test]
fn half_closes_and_resets_are_passed_on() {
    let server = start(&[]);
    let (mut client, mut target) = tunnel(server.address);
    client.shutdown(Shutdown::Write).unwrap();
    assert!(at_end(&mut target));
    send(&mut target, pattern(2, 300_000)).unwrap();
    target.shutdown(Shutdown::Write).unwrap();
    expect(&mut client, pattern(2, 300_000));
    assert!(at_end(&mut client));
    let (client, mut target) = tunnel(server.address);
    reset(client);
    expect_reset(&mut target);
    let (mut client, target) = tunnel(server.address);
    reset(target);
    expect_reset(&mut client);
}

#[test]
fn each_failure_is_the_one_rejection_and_the_log_says_which() {
    let rules = Scratch::new(b"deny to 127.0.0.9\n");
    let mut program = Program::start(&["--rules", rules.path()]);
    let (_socket, nobody) = nobody_listens();
    let denied = SocketAddr::from(([127, 0, 0, 9], 80));
    for (octets, command, outcome) in [
        (request(CONNECT, nobody, b"bob"), "CONNECT", "refused"),
        (request(CONNECT, denied, b"bob"), "CONNECT", "denied why=\""),
        (request_by_name(CONNECT, b"name.invalid", 80), "CONNECT", "unresolved"),
        (request(0x03, nobody, b"bob"), "-", "bad-request why=\"CD 0x03 is unknown\""),
        (request(0x00, nobody, b"bob"), "-", "bad-request why=\"CD 0x00 is unknown\""),
        (
            request(CONNECT, nobody, &[b'a'; 256]),
            "-",
            "bad-request why=\"the message is too long\"",
        ),
        (
            request_by_name(CONNECT, &[b'a'; 256], 80),
            "-",
            "bad-request why=\"the message is too long\"",
        ),
        (request_by_name(CONNECT, b"a b", 80), "-", "bad-request why=\"no host is named 'a b'\""),
    ] {
        let mut client = saying(program.address, &octets);
        assert_eq!(take(&mut client), REFUSED);
        assert!(at_end(&mut client));
        let line = logged(&mut program, client);
        assert!(line.contains(&format!(" protocol=socks4 command={command} dest=")), "{line}");
        assert!(line.contains(&format!(" outcome={outcome}")), "{line}");
    }
}

#[test]
fn the_user_is_for_the_log_alone() {
    let rules = Scratch::new(b"deny user alice\n");
    let mut program = Program::start(&["--rules", rules.path()]);
    for (user, shown) in [(b"alice".as_slice(), "alice"), (b"a b=\xff", r"a\x20b=\xff"), (b"", "-")]
    {
        let mut client = saying(program.address, &request(CONNECT, echo(), user));
        assert_eq!(reply(&mut client).0, GRANTED, "no rule is about who says to be somebody");
        let line = logged(&mut program, client);
        assert!(
            line.contains(&format!(" user={shown} protocol=socks4 command=CONNECT ")),
            "{line}"
        );
        assert!(line.ends_with(" outcome=closed\n"), "{line}");
    }
}

#[test]
fn where_users_are_required_nobody_is_served_and_the_log_says_why() {
    let users = Scratch::new(b"alice:sesame\n");
    let mut program = Program::start(&["--users", users.path()]);
    let (listener, target) = listen();
    for octets in [
        request(CONNECT, target, b"alice"),
        request(BIND, target, b""),
        request_by_name(CONNECT, b"localhost", target.port()),
    ] {
        let mut client = saying(program.address, &octets);
        assert_eq!(take(&mut client), REFUSED);
        assert!(at_end(&mut client));
        let line = logged(&mut program, client);
        let why = " outcome=bad-request why=\"SOCKS4 knows no password (--users)\"\n";
        assert!(line.contains(" protocol=socks4 ") && line.ends_with(why), "{line}");
    }
    let mut first = connect(target);
    first.write_all(b"nobody").unwrap();
    assert_eq!(take(&mut accept(&listener)), *b"nobody");
}

#[test]
fn a_peer_that_is_expected_may_come() {
    let server = start(&[]);
    let expected = |ip: [u8; 4]| request(BIND, SocketAddr::from((ip, 9)), b"alice");
    for said in [expected([127, 0, 0, 2]), request_by_name(BIND, b"127.2", 9)] {
        let mut client = saying(server.address, &said);
        let (cd, bound) = reply(&mut client);
        assert_eq!(cd, GRANTED);
        let mut attacker = connect_from([127, 0, 0, 3].into(), bound);
        assert!(!matches!(attacker.read(&mut [0]), Ok(1)));
        let mut peer = connect_from([127, 0, 0, 2].into(), bound);
        assert_eq!(reply(&mut client), (GRANTED, peer.local_addr().unwrap()));
        peer.write_all(b"payload").unwrap();
        assert_eq!(take(&mut client), *b"payload");
    }
    let mut client = saying(server.address, &expected(Ipv4Addr::UNSPECIFIED.octets()));
    let (cd, bound) = reply(&mut client);
    assert_eq!(cd, GRANTED);
    let peer = connect_from([127, 0, 0, 7].into(), bound);
    assert_eq!(reply(&mut client), (GRANTED, peer.local_addr().unwrap()));
}

#[test]
fn when_no_peer_comes_the_second_reply_says_so() {
    let mut program = Program::start(&["--connect-timeout", "0.2"]);
    let octets = request(BIND, SocketAddr::from(([127, 0, 0, 2], 9)), b"");
    let mut client = saying(program.address, &octets);
    assert_eq!(reply(&mut client).0, GRANTED);
    assert_eq!(take(&mut client), REFUSED);
    assert!(at_end(&mut client));
    let line = program.log_line("command=BIND");
    assert!(line.contains("outcome=timed-out why=\"no peer has come\""), "{line}");
}

#[test]
fn a_client_that_says_a_part_is_cut_by_the_one_deadline() {
    let server = start(&["--handshake-timeout", "0.3"]);
    let begin = Instant::now();
    let mut attacker = saying(server.address, b"\x04\x01\x00\x50\x7f\0\0\x01alice");
    assert!(at_end(&mut attacker));
    assert!((0.25..LONG.as_secs_f64()).contains(&begin.elapsed().as_secs_f64()));
}
