//! CONNECT (RFC 9110 section 9.3.6).

use std::io::Write;
use std::net::{Shutdown, TcpListener};
use std::thread;
use std::time::{Duration, Instant};

use super::{CONNECTED, assert_refused, connect_request, rest, saying, told, tunnel};
use crate::scratch::Scratch;
use crate::stage::{
    accept, at_end, black_hole, connect, echo, expect, expect_reset, listen, nobody_listens,
    pattern, read_head, reset, send, start, take,
};

const MIB: usize = 1024 * 1024;

#[test]
fn bytes_go_both_ways_and_what_is_sent_early_arrives() {
    let server = start(&[]);
    for version in ["1.1", "1.0"] {
        let (listener, target) = listen();
        let said = format!("CONNECT {target} HTTP/{version}\r\n\r\nearly");
        let mut client = saying(server.address, said);
        let mut far = accept(&listener);
        assert_eq!(take(&mut far), *b"early");
        assert_eq!(read_head(&mut client), CONNECTED);
        client.write_all(b"later").unwrap();
        assert_eq!(take(&mut far), *b"later");
        far.write_all(b"answer").unwrap();
        assert_eq!(take(&mut client), *b"answer");
    }
}

#[test]
fn early_bytes_may_be_many_and_end_with_the_end_of_file() {
    let server = start(&[]);
    let (listener, target) = listen();
    let mut client = saying(server.address, connect_request(target));
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut far = accept(&listener);
            expect(&mut far, pattern(1, MIB));
            assert!(at_end(&mut far));
        });
        send(&mut client, pattern(1, MIB)).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
    });
    assert_eq!(read_head(&mut client), CONNECTED);
    assert!(at_end(&mut client));
}

#[test]
fn a_head_may_come_octet_by_octet() {
    let server = start(&[]);
    let mut client = connect(server.address);
    client.set_nodelay(true).unwrap();
    for octet in [connect_request(echo()).as_bytes(), b"payload"].concat() {
        client.write_all(&[octet]).unwrap();
    }
    assert_eq!(read_head(&mut client), CONNECTED);
    assert_eq!(take(&mut client), *b"payload");
}

#[test]
fn no_host_is_too_strange_beside_the_target() {
    let server = start(&[]);
    let target = echo();
    for fields in [
        "",
        "Host: \r\n",
        "Host: elsewhere.example\r\n",
        "Host: a b, c\r\n",
        "Host: one.example\r\nHost: two.example\r\n",
    ] {
        let said = format!("CONNECT {target} HTTP/1.1\r\n{fields}\r\npayload");
        let mut client = saying(server.address, said);
        assert_eq!(read_head(&mut client), CONNECTED, "{fields}");
        assert_eq!(take(&mut client), *b"payload");
    }
}

#[test]
fn a_target_is_taken_in_every_spelling() {
    let server = start(&[]);
    let port = echo().port();
    for host in ["localhost", "LocalHost", "127.0.0.1", "127.1", "[::ffff:127.0.0.1]"] {
        let mut client = saying(server.address, connect_request(format!("{host}:{port}")));
        assert_eq!(read_head(&mut client), CONNECTED, "{host}");
        client.write_all(b"payload").unwrap();
        assert_eq!(take(&mut client), *b"payload");
    }
    if let Ok(listener) = TcpListener::bind("[::1]:0") {
        let target = listener.local_addr().unwrap();
        let mut client = saying(server.address, connect_request(target));
        assert_eq!(read_head(&mut client), CONNECTED);
        assert_eq!(accept(&listener).local_addr().unwrap(), target);
    }
}

#[test]
fn a_target_that_is_none_is_refused() {
    let server = start(&[]);
    let long = format!("{}.example:80", "a".repeat(250));
    for target in [
        "localhost",
        "localhost:",
        "localhost:0",
        "localhost:65536",
        "localhost:+80",
        "localhost:http",
        "localhost:80:80",
        "127.0.0.1",
        ":80",
        "[::1]",
        "[::1:80",
        "::1:80",
        "[]:80",
        "[localhost]:80",
        "a_very/odd:80",
        "alice@localhost:80",
        "http://localhost:80",
        "localhost:80/",
        "*",
        "/",
        &long,
    ] {
        assert_refused(&told(server.address, connect_request(target)), 400);
    }
}

#[test]
fn half_closes_are_passed_on_both_ways() {
    let server = start(&[]);
    let (mut client, mut target) = tunnel(server.address);
    thread::scope(|scope| {
        scope.spawn(|| {
            send(&mut client, pattern(1, 2 * MIB)).unwrap();
            client.shutdown(Shutdown::Write).unwrap();
            expect(&mut client, pattern(2, MIB));
            assert!(at_end(&mut client));
        });
        expect(&mut target, pattern(1, 2 * MIB));
        assert!(at_end(&mut target));
        send(&mut target, pattern(2, MIB)).unwrap();
        target.shutdown(Shutdown::Write).unwrap();
    });
    let (mut client, mut target) = tunnel(server.address);
    target.write_all(b"bye").unwrap();
    target.shutdown(Shutdown::Write).unwrap();
    assert_eq!(rest(&mut client), "bye");
    client.write_all(b"late").unwrap();
    assert_eq!(take(&mut target), *b"late");
    drop(client);
    assert!(at_end(&mut target));
}

#[test]
fn a_reset_of_either_side_becomes_one_of_the_other() {
    let server = start(&[]);
    for octets in [0, 1, MIB] {
        let (mut client, mut target) = tunnel(server.address);
        send(&mut client, pattern(5, octets)).unwrap();
        expect(&mut target, pattern(5, octets));
        reset(client);
        expect_reset(&mut target);
        let (mut client, mut target) = tunnel(server.address);
        send(&mut target, pattern(6, octets)).unwrap();
        expect(&mut client, pattern(6, octets));
        reset(target);
        expect_reset(&mut client);
    }
}

#[test]
fn success_is_told_only_once_the_target_has_accepted() {
    let server = start(&["--connect-timeout", "0.3"]);
    let (_waiting, _socket, silent) = black_hole();
    let begin = Instant::now();
    assert_refused(&told(server.address, connect_request(silent)), 504);
    assert!(begin.elapsed() >= Duration::from_millis(250), "{:?}", begin.elapsed());
    let (_socket, nobody) = nobody_listens();
    assert_refused(&told(server.address, connect_request(nobody)), 502);
}

#[test]
fn a_refusal_reaches_a_client_that_has_sent_more() {
    let server = start(&[]);
    let (_socket, nobody) = nobody_listens();
    for request in [connect_request(nobody), connect_request("nothing")] {
        let said = [request.as_bytes(), &vec![0x55; 100_000]].concat();
        for _ in 0..10 {
            let answer = told(server.address, &said);
            assert_refused(&answer, if request.contains("nothing") { 400 } else { 502 });
        }
    }
}

#[test]
fn one_deadline_holds_from_the_connection_to_the_request_with_a_login() {
    let users = Scratch::new(b"alice:sesame\n");
    let server = start(&["--users", users.path(), "--handshake-timeout", "0.5"]);
    let head = connect_request(echo());
    for (said, answer) in [(&*head, true), ("CONNECT ", false)] {
        let begin = Instant::now();
        let mut attacker = saying(server.address, said);
        attacker.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        if answer {
            assert!(read_head(&mut attacker).contains(" 407 "));
        }
        let mut drip = b"CONNECT ".iter().chain(std::iter::repeat(&b'a'));
        while attacker.write_all(&[*drip.next().unwrap()]).is_ok() && !at_end(&mut attacker) {
            assert!(begin.elapsed() < Duration::from_secs(10), "it was let drip on");
        }
        assert!(begin.elapsed() >= Duration::from_millis(450), "{:?}", begin.elapsed());
    }
}
