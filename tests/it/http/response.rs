//! Responses: what the client gets of what the target says.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use super::{ANSWER, ANSWERED, assert_refused, exchange, get, logged, request, rest, saying};
use crate::scratch::Program;
use crate::stage::{
    LONG, accept, at_end, at_end_or_reset, connect, expect, listen, pattern, read_head, send, start,
};

const MIB: usize = 1024 * 1024;

/// The end of a head that is passed on.
const MARKS: &str = "Via: 1.1 tabi\r\nConnection: close\r\n\r\n";

/// What the client gets when the target says this in these pieces, and closes.
fn passed_on(pieces: &[&str]) -> String {
    let server = start(&[]);
    let (mut client, mut target) = exchange(server.address, "GET", "");
    target.set_nodelay(true).unwrap();
    for piece in pieces {
        target.write_all(piece.as_bytes()).unwrap();
    }
    drop(target);
    rest(&mut client)
}

#[test]
fn a_response_comes_as_it_is_but_for_what_is_for_this_hop() {
    let head = "HTTP/1.1 299 Odd  reason: yes\r\n\
        Set-Cookie: a=b\r\n\
        set-cookie:c=d\r\n\
        X-Loose:   two  words\r\n\
        X-Empty:\r\n\
        Via: 1.0 fred\r\n";
    let hop = "Connection: keep-alive, X-Named\r\nX-Named: gone\r\nKeep-Alive: timeout=5\r\n\
        Upgrade: h2\r\nProxy-Authenticate: Basic realm=\"other\"\r\nProxy-Connection: close\r\n";
    let body = "Transfer-Encoding: chunked\r\n\r\n4;x=y\r\nWiki\r\n0\r\nTrailer: x\r\n\r\n";
    let said = [head, hop, body].concat();
    let expected = [head, &body.replacen("\r\n\r\n", &format!("\r\n{MARKS}"), 1)].concat();
    assert_eq!(passed_on(&[&said]), expected);
    let octets: Vec<String> = said.chars().map(String::from).collect();
    let octets: Vec<&str> = octets.iter().map(String::as_str).collect();
    assert_eq!(passed_on(&octets), expected);
}

#[test]
fn lines_that_end_with_lf_alone_and_empty_lines_in_front_are_made_good() {
    let expected = format!("HTTP/1.1 200 OK\r\nA: 1\r\nB: 2\r\n{MARKS}body\n");
    assert_eq!(passed_on(&["HTTP/1.1 200 OK\nA: 1\nB: 2\n\nbody\n"]), expected);
    assert_eq!(passed_on(&["\r\n\nHTTP/1.1 200 OK\r\nA: 1\r\nB: 2\r\n\r\nbody\n"]), expected);
    assert_eq!(
        passed_on(&["HTTP/1.0 200\r\n\r\n"]),
        "HTTP/1.0 200\r\nVia: 1.0 tabi\r\nConnection: close\r\n\r\n"
    );
}

#[test]
fn interim_responses_pass_through_together_and_apart() {
    let hints = "HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n";
    let processing = "HTTP/1.1 102 Processing\r\n\r\n";
    let expected = [hints, processing, hints, ANSWERED].concat();
    assert_eq!(passed_on(&[hints, processing, hints, ANSWER]), expected);
    assert_eq!(passed_on(&[&[hints, processing, hints, ANSWER].concat()]), expected);
}

#[test]
fn a_response_without_a_length_ends_with_the_connection() {
    let server = start(&[]);
    let (mut client, mut target) = exchange(server.address, "GET", "");
    thread::scope(|scope| {
        scope.spawn(|| {
            target.write_all(b"HTTP/1.0 200 OK\r\n\r\n").unwrap();
            send(&mut target, pattern(3, 3 * MIB)).unwrap();
            target.shutdown(Shutdown::Write).unwrap();
        });
        let head = read_head(&mut client);
        assert_eq!(head, "HTTP/1.0 200 OK\r\nVia: 1.0 tabi\r\nConnection: close\r\n\r\n");
        expect(&mut client, pattern(3, 3 * MIB));
        assert!(at_end(&mut client));
    });
    drop(client);
    assert!(at_end(&mut target));
}

#[test]
fn a_bulk_answer_arrives_whole() {
    let server = start(&[]);
    let (mut client, mut target) = exchange(server.address, "GET", "");
    thread::scope(|scope| {
        scope.spawn(|| {
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", 64 * MIB);
            target.write_all(head.as_bytes()).unwrap();
            send(&mut target, pattern(4, 64 * MIB)).unwrap();
            drop(target);
        });
        assert!(read_head(&mut client).ends_with(MARKS));
        expect(&mut client, pattern(4, 64 * MIB));
        assert!(at_end(&mut client));
    });
}

/// What comes behind a request is read before the connection closes: closing with it unread would reset the
/// connection, and the rest of the answer would be lost.
#[test]
fn a_second_request_does_not_cut_the_end_of_a_big_answer_to_a_slow_reader() {
    let server = start(&[]);
    let (listener, target) = listen();
    let mut client = connect(server.address);
    let second = request("POST", target, "Content-Length: 9\r\n") + "pipelined";
    let said = [get(target), second.repeat(20)].concat();
    client.write_all(said.as_bytes()).unwrap();
    let mut far = accept(&listener);
    read_head(&mut far);
    // So much that all of it finds room in queues: the target is done before the client reads.
    far.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
    send(&mut far, pattern(5, 200_000)).unwrap();
    far.shutdown(Shutdown::Write).unwrap();
    assert!(at_end_or_reset(&mut far), "the session is over, and the client has read nothing");
    assert!(read_head(&mut client).ends_with(MARKS));
    expect(&mut client, pattern(5, 200_000));
    assert!(at_end(&mut client));
}

#[test]
fn what_is_no_response_is_a_bad_gateway() {
    let mut program = Program::start(&[]);
    let long = format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(17_000));
    let endless = format!("HTTP/1.1 200 OK\r\nX: {}", "x".repeat(20_000));
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "X: x\r\n".repeat(129));
    // What `httparse` says.
    let invalid = "invalid ";
    let closed = "the target has closed without a response";
    let large = "the message is too long";
    for (said, why) in [
        ("", closed),
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n", closed),
        ("HTTP/1.1 103 Early Hints\r\n\r\n", closed),
        ("SSH-2.0-OpenSSH_9.2p1 Debian\r\n", invalid),
        ("HTTP/2.0 200 OK\r\n\r\n", invalid),
        ("HTTP/1.1 2000 OK\r\n\r\n", invalid),
        ("HTTP/1.1 200 OK\r\nA : b\r\n\r\n", invalid),
        ("HTTP/1.1 200 OK\r\n folded: b\r\n\r\n", invalid),
        ("HTTP/1.1 200 OK\r\nA: b\0c\r\n\r\n", invalid),
        (&long, large),
        (&endless, large),
        (&many, large),
    ] {
        // A body that has not come makes no difference, but takes a second.
        let unsent =
            if said.is_empty() || said.starts_with("SSH") { "Content-Length: 5\r\n" } else { "" };
        for fields in ["", unsent] {
            let (mut client, mut target) = exchange(program.address, "POST", fields);
            target.write_all(said.as_bytes()).unwrap();
            target.shutdown(Shutdown::Write).unwrap();
            let answer = rest(&mut client);
            let interim = if said.contains(" 103 ") { said } else { "" };
            assert_refused(answer.strip_prefix(interim).unwrap(), 502);
            let line = logged(&mut program, client);
            assert!(line.contains(" protocol=http command=HTTP dest=127.0.0.1:"), "{line}");
            assert!(line.contains(&format!(" outcome=failed why=\"{why}")), "{line}");
            assert!(at_end_or_reset(&mut target));
        }
    }
}

/// As much of a body as fits nowhere: whoever sends it waits until the other side takes it or is gone.
const STUCK: usize = 64 * MIB;

#[test]
fn an_early_answer_arrives_whole_while_the_body_is_still_sent() {
    let server = start(&[]);
    let fields = format!("Content-Length: {STUCK}\r\n");
    for reads in [true, false] {
        let (mut client, mut target) = exchange(server.address, "POST", &fields);
        let answer = ANSWER.replace("200 OK", "413 Content Too Large");
        let mut writer = client.try_clone().unwrap();
        thread::scope(|scope| {
            // It ends when the connection does.
            scope.spawn(move || send(&mut writer, pattern(6, STUCK)).is_err());
            if reads {
                expect(&mut target, pattern(6, MIB));
            }
            target.write_all(answer.as_bytes()).unwrap();
            target.shutdown(Shutdown::Write).unwrap();
            let expected = ANSWERED.replace("200 OK", "413 Content Too Large");
            assert_eq!(rest(&mut client), expected);
            client.shutdown(Shutdown::Both).unwrap();
        });
        await_end(&target);
    }
}

/// A server that reads no more closes its connection with a reset: what it has said first counts.
#[test]
fn an_early_answer_of_a_target_that_closes_at_once_arrives() {
    let server = start(&[]);
    let fields = format!("Content-Length: {STUCK}\r\n");
    for _ in 0..20 {
        let (mut client, mut target) = exchange(server.address, "POST", &fields);
        let mut writer = client.try_clone().unwrap();
        thread::scope(|scope| {
            scope.spawn(move || send(&mut writer, pattern(6, STUCK)).is_err());
            target.write_all(ANSWER.as_bytes()).unwrap();
            // With something unread, closing is a reset.
            assert_eq!(target.peek(&mut [0]).unwrap(), 1);
            drop(target);
            let mut octets = vec![0; ANSWERED.len()];
            client.read_exact(&mut octets).unwrap();
            assert_eq!(octets, ANSWERED.as_bytes());
            let _ = client.shutdown(Shutdown::Both);
        });
    }
}

/// Waits until the connection is over, whatever is unread.
fn await_end(mut stream: &TcpStream) {
    let begin = Instant::now();
    while stream.write(b"x").is_ok() {
        assert!(begin.elapsed() < LONG, "the connection stays open");
    }
}

#[test]
fn a_target_may_think_for_longer_than_a_client_may_take_to_ask() {
    let server = start(&["--handshake-timeout", "0.2", "--connect-timeout", "0.2"]);
    let (mut client, mut target) = exchange(server.address, "GET", "");
    client.set_read_timeout(Some(Duration::from_millis(600))).unwrap();
    let error = client.read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WouldBlock, "it waits");
    client.set_read_timeout(Some(LONG)).unwrap();
    target.write_all(ANSWER.as_bytes()).unwrap();
    drop(target);
    assert_eq!(rest(&mut client), ANSWERED);
}

#[test]
fn what_an_http_1_0_client_asks_for_is_answered_by_1_0() {
    let server = start(&[]);
    let (listener, target) = listen();
    let mut client = saying(server.address, format!("GET http://{target}/ HTTP/1.0\r\n\r\n"));
    let mut far = accept(&listener);
    let expected =
        format!("GET / HTTP/1.0\r\nHost: {target}\r\nVia: 1.0 tabi\r\nConnection: close\r\n\r\n");
    assert_eq!(read_head(&mut far), expected);
    far.write_all(ANSWER.as_bytes()).unwrap();
    drop(far);
    assert_eq!(rest(&mut client), ANSWERED);
}
