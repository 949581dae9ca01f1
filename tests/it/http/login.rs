//! Name and password by HTTP (RFC 7617): the same users, brake and rules as with SOCKS5.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::mpsc::channel;

use super::{
    ANSWER, ANSWERED, CONNECTED, assert_first, assert_refused, connect_request, forwarded, get,
    logged, request, rest, saying, told, told_and_logged,
};
use crate::namespace::with_two_ways;
use crate::scratch::{Program, Scratch};
use crate::stage::{
    LONG, Running, accept, connect, echo, listen, read_head, start, start_on, take,
};
use crate::users::refused_within_a_second;

const USERS: &[u8] = b"alice:open sesame\nbob:a:b\n";

/// `alice:open sesame`, `bob:a:b`, and `alice:open`, which is wrong.
const ALICE: &str = "Proxy-Authorization: Basic YWxpY2U6b3BlbiBzZXNhbWU=\r\n";
const BOB: &str = "Proxy-Authorization: Basic Ym9iOmE6Yg==\r\n";
const WRONG: &str = "Proxy-Authorization: Basic YWxpY2U6b3Blbg==\r\n";

/// The head with which a login is asked for, and the connection stays open.
const CHALLENGE: &str = "HTTP/1.1 407 Proxy Authentication Required\r\n\
    Proxy-Authenticate: Basic realm=\"tabi\"\r\nContent-Length: 0\r\n\r\n";

fn guarded() -> (Running, Scratch) {
    let users = Scratch::new(USERS);
    (start(&["--users", users.path()]), users)
}

fn connect_with(target: SocketAddr, login: &str) -> String {
    format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{login}\r\n")
}

/// A refusal that says how to log in, and ends the connection.
#[track_caller]
fn assert_unauthorized(answer: &str) {
    assert_refused(answer, 407);
    assert!(answer.contains("\r\nProxy-Authenticate: Basic realm=\"tabi\"\r\n"), "{answer}");
}

/// Has the request that has come answered, and sees that it is what was said but for the login.
fn answer(client: &mut TcpStream, far: &mut TcpStream, head: &str, body: &str) {
    assert_eq!(read_head(far), head);
    let mut came = vec![0; body.len()];
    far.read_exact(&mut came).unwrap();
    assert_eq!(came, body.as_bytes());
    far.write_all(ANSWER.as_bytes()).unwrap();
    far.shutdown(Shutdown::Write).unwrap();
    assert_eq!(rest(client), ANSWERED);
}

#[test]
fn who_logs_in_at_once_is_served_and_the_login_goes_no_further() {
    let (server, _users) = guarded();
    for login in [
        ALICE,
        BOB,
        &ALICE.replace("Basic ", "basic   "),
        &ALICE.replace("Proxy-Authorization", "pROXY-aUTHORIZATION"),
    ] {
        let (listener, target) = listen();
        let mut client = saying(server.address, request("GET", target, login));
        let mut far = accept(&listener);
        answer(&mut client, &mut far, &forwarded("GET", target, ""), "");
        let mut client = saying(server.address, connect_with(echo(), login) + "payload");
        assert_eq!(read_head(&mut client), CONNECTED);
        assert_eq!(take(&mut client), *b"payload");
    }
}

#[test]
fn who_has_not_logged_in_is_asked_to_and_does_so_on_the_same_connection() {
    let (server, _users) = guarded();
    let small = "x".repeat(64 * 1024);
    let length = format!("Content-Length: {}\r\n", small.len());
    for (method, fields, body) in [
        ("GET", "", ""),
        ("HEAD", "", ""),
        ("POST", &*length, &*small),
        ("POST", "Transfer-Encoding: chunked\r\n", "5;a=b\r\nhello\r\n0\r\nX: y\r\n\r\n"),
    ] {
        let (listener, target) = listen();
        let mut client = saying(server.address, request(method, target, fields) + body);
        assert_eq!(read_head(&mut client), CHALLENGE, "{method} {fields}");
        let with_login = request(method, target, &format!("{fields}{ALICE}"));
        client.write_all((with_login + body).as_bytes()).unwrap();
        let mut far = accept(&listener);
        answer(&mut client, &mut far, &forwarded(method, target, fields), body);
    }
    let target = echo();
    let mut client = saying(server.address, connect_request(target));
    assert_eq!(read_head(&mut client), CHALLENGE);
    client.write_all((connect_with(target, ALICE) + "payload").as_bytes()).unwrap();
    assert_eq!(read_head(&mut client), CONNECTED);
    assert_eq!(take(&mut client), *b"payload");
}

#[test]
fn a_body_that_is_large_or_has_not_come_is_not_waited_for() {
    let (server, _users) = guarded();
    let (listener, target) = listen();
    for (fields, body) in [
        ("Content-Length: 70000\r\n", "x".repeat(70_000)),
        ("Content-Length: 70000000\r\n", "x".repeat(100_000)),
        ("Transfer-Encoding: chunked\r\n", format!("11170\r\n{}\r\n0\r\n\r\n", "x".repeat(70_000))),
        ("Content-Length: 5\r\nExpect: 100-continue\r\n", String::new()),
    ] {
        let mut client = connect(server.address);
        let _ = client.write_all((request("POST", target, fields) + &body).as_bytes());
        assert_unauthorized(&rest(&mut client));
    }
    let bad = request("POST", target, "Transfer-Encoding: chunked\r\n") + "zz\r\n";
    assert_refused(&told(server.address, bad), 400);
    assert_first(&listener, b"nobody");
}

#[test]
fn nothing_but_a_request_with_a_login_is_taken_after_the_question_for_one() {
    let (server, _users) = guarded();
    let ((listener, target), (_, other)) = (listen(), listen());
    for first in [get(other), connect_request(other)] {
        for second in [
            // A client that takes the connection for its tunnel.
            "\x16\x03\x01\x02\0\x01".to_owned(),
            "SSH-2.0-x\r\n".to_owned(),
            "GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(),
            "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n".to_owned(),
            get(target),
            connect_request(target),
            request("GET", target, "Proxy-Authorization: Bearer abc\r\n"),
            request("GET", target, "Proxy-Authorization: Basic %%%\r\n"),
            request("GET", target, "Proxy-Authorization: Basic YWxpY2U=\r\n"),
            "x".repeat(20_000),
        ] {
            for together in [true, false] {
                let mut client = connect(server.address);
                if together {
                    client.write_all((first.clone() + &second).as_bytes()).unwrap();
                    assert_eq!(read_head(&mut client), CHALLENGE);
                } else {
                    client.write_all(first.as_bytes()).unwrap();
                    assert_eq!(read_head(&mut client), CHALLENGE);
                    let _ = client.write_all(second.as_bytes());
                }
                let _ = client.shutdown(Shutdown::Write);
                // Nothing more is read, which may be a reset.
                let mut last = String::new();
                if client.read_to_string(&mut last).is_ok() && !last.is_empty() {
                    assert_unauthorized(&last);
                }
            }
        }
        // Nor is there a third time.
        let mut client = saying(server.address, &first);
        assert_eq!(read_head(&mut client), CHALLENGE);
        client.write_all((get(target) + &request("GET", target, ALICE)).as_bytes()).unwrap();
        assert_unauthorized(&rest(&mut client));
    }
    assert_first(&listener, b"nobody");
}

#[test]
fn a_wrong_login_is_refused_and_ends_the_connection() {
    let (server, _users) = guarded();
    let (listener, target) = listen();
    let mallory = "Proxy-Authorization: Basic bWFsbG9yeTp4\r\n";
    for login in [WRONG, mallory] {
        for said in [request("GET", target, login), connect_with(target, login)] {
            let right = request("GET", target, ALICE);
            assert_unauthorized(&told(server.address, said + &right));
        }
    }
    let mut client = saying(server.address, get(target));
    assert_eq!(read_head(&mut client), CHALLENGE);
    client.write_all(request("GET", target, mallory).as_bytes()).unwrap();
    assert_unauthorized(&rest(&mut client));
    let twice = request("GET", target, &[ALICE, BOB].concat());
    assert_refused(&told(server.address, twice), 400);
    assert_first(&listener, b"nobody");
}

/// The status of alice's login by SOCKS5.
fn by_socks5(server: &Running, password: &[u8]) -> u8 {
    let length = [u8::try_from(password.len()).unwrap()];
    let said = [b"\x05\x01\x02\x01\x05alice", &length[..], password].concat();
    take::<4>(&mut saying(server.address, said))[3]
}

#[test]
fn wrong_logins_count_together_whatever_is_spoken() {
    let (server, _users) = guarded();
    let target = echo();
    refused_within_a_second(|| {
        for _ in 0..5 {
            assert_unauthorized(&told(server.address, connect_with(target, WRONG)));
        }
        by_socks5(&server, b"open sesame") != 0x00
    });
    let (server, _users) = guarded();
    refused_within_a_second(|| {
        for _ in 0..5 {
            assert_ne!(by_socks5(&server, b"open"), 0x00);
        }
        read_head(&mut saying(server.address, connect_with(target, ALICE))).contains(" 407 ")
    });
}

#[test]
fn a_login_that_is_missing_is_no_wrong_one() {
    let ((server_to, server), (over_to, over)) = (channel(), channel());
    let neighbour = move || {
        let server: SocketAddr = server.recv_timeout(LONG).unwrap();
        let ask = |login: &str| {
            let said = format!("GET http://10.1.0.2:9/ HTTP/1.1\r\nHost: x\r\n{login}\r\n");
            let mut client = saying(server, said);
            read_head(&mut client)
        };
        // So many names that nobody has would have this address turned away.
        let missing = (0..100).filter(|_| ask("") == CHALLENGE).count();
        over_to.send((missing, ask(ALICE))).unwrap();
    };
    with_two_ways(neighbour, move || {
        let users = Scratch::new(USERS);
        let server = start_on("10.1.0.1:0", &["--users", users.path()]);
        server_to.send(server.address).unwrap();
        let (missing, last) = over.recv_timeout(LONG).unwrap();
        assert_eq!(missing, 100);
        assert!(last.starts_with("HTTP/1.1 502 "), "nobody listens there: {last}");
    });
}

#[test]
fn rules_by_user_are_for_who_has_logged_in_so() {
    let users = Scratch::new(USERS);
    let ((open, target), closed) = (listen(), echo());
    let rules =
        format!("deny user alice port {}\ndeny user bob port {}\n", closed.port(), target.port());
    let rules = Scratch::new(rules.as_bytes());
    let server = start(&["--users", users.path(), "--rules", rules.path()]);
    for (login, other) in [(ALICE, BOB), (BOB, ALICE)] {
        let (yes, no) = if login == ALICE { (target, closed) } else { (closed, target) };
        assert_refused(&told(server.address, request("GET", no, login)), 403);
        assert_refused(&told(server.address, connect_with(no, login)), 403);
        assert_refused(&told(server.address, request("GET", yes, other)), 403);
        let mut client = saying(server.address, connect_with(yes, login));
        assert_eq!(read_head(&mut client), CONNECTED);
    }
    drop(open);
}

#[test]
fn the_log_names_the_user_and_holds_no_password() {
    let users = Scratch::new(USERS);
    let mut program = Program::start(&["--users", users.path(), "-v"]);
    let (listener, target) = listen();
    let mut client = saying(program.address, request("GET", target, ALICE));
    let mut far = accept(&listener);
    answer(&mut client, &mut far, &forwarded("GET", target, ""), "");
    let told = logged(&mut program, client);
    assert!(told.contains(" user=alice protocol=http command=HTTP "), "{told}");
    assert!(told.contains(&format!(" dest={target} reached={target} ")), "{told}");
    assert!(told.ends_with(" outcome=closed\n"), "{told}");

    let odd = "Proxy-Authorization: Basic bWFsIG91dGNvbWU9eAoiOmd1ZXNz\r\n";
    let (answer, told) = told_and_logged(&mut program, request("GET", target, odd));
    assert_unauthorized(&answer);
    assert!(told.contains(r" user=mal\x20outcome=x\x0a\x22 protocol=http command=- "), "{told}");
    assert!(told.ends_with(" outcome=bad-credentials\n"), "{told}");

    let mut client = saying(program.address, get(target));
    assert_eq!(read_head(&mut client), CHALLENGE);
    let told = logged(&mut program, client);
    let why = "outcome=bad-request why=\"the client offers no name and password (--users)\"\n";
    assert!(told.contains(" user=- protocol=http command=- ") && told.ends_with(why), "{told}");

    let log = program.log_so_far();
    for secret in ["sesame", "guess", "YWxpY2U6", "bWFsIG91"] {
        assert!(!log.contains(secret), "{log}");
    }
}
