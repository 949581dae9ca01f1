//! Requests and responses that are cut off: nobody takes a part for the whole.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use super::{assert_refused, exchange, rest};
use crate::relay::exchange_until_reset;
use crate::scratch::Program;
use crate::stage::{LONG, expect, expect_reset, pattern, read_head, reset, send, start, take};

const MIB: usize = 1024 * 1024;

/// Both framings, each with the beginning of a body.
const BEGUN: [(&str, &str); 2] = [
    ("Content-Length: 2000000\r\n", "begun"),
    ("Transfer-Encoding: chunked\r\n", "1e8480\r\nbegun"),
];

/// What the log says of the session of this client, behind what has moved.
fn outcome(program: &mut Program, client: SocketAddr) -> String {
    let line = program.log_line(&format!("client={client} "));
    assert!(line.contains(" protocol=http command=HTTP dest=127.0.0.1:"), "{line}");
    line.split_once(" outcome=").unwrap().1.trim_end().to_owned()
}

/// The same once the client is gone, too.
fn ended(program: &mut Program, client: TcpStream) -> String {
    let own = client.local_addr().unwrap();
    drop(client);
    outcome(program, own)
}

#[test]
fn a_target_that_resets_amid_its_answer_is_a_reset_for_the_client() {
    let mut program = Program::start(&[]);
    for octets in [0, 1, MIB] {
        let (mut client, mut target) = exchange(program.address, "GET", "");
        target.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
        read_head(&mut client);
        send(&mut target, pattern(1, octets)).unwrap();
        expect(&mut client, pattern(1, octets));
        reset(target);
        expect_reset(&mut client);
        assert_eq!(ended(&mut program, client), "target-reset");
    }
}

/// The system tells of a reset only once, and here it is told to who writes the body or to who reads the answer.
#[test]
fn a_target_that_resets_amid_the_body_and_its_answer_is_a_reset_for_the_client() {
    let server = start(&[]);
    let fields = format!("Content-Length: {}\r\n", 1024 * MIB);
    for _ in 0..100 {
        let (client, mut target) = exchange(server.address, "POST", &fields);
        thread::scope(|scope| {
            scope.spawn(|| exchange_until_reset(&client));
            target.write_all(b"HTTP/1.1 200 OK\r\n\r\nbegun").unwrap();
            target.read_exact(&mut vec![0; MIB]).unwrap();
            reset(target);
        });
    }
}

#[test]
fn a_client_that_leaves_amid_its_body_is_a_reset_for_the_target() {
    let mut program = Program::start(&[]);
    for (fields, begun) in BEGUN {
        for octets in [0, MIB] {
            for leave in [reset, drop] {
                let (mut client, mut target) = exchange(program.address, "POST", fields);
                let own = client.local_addr().unwrap();
                client.write_all(begun.as_bytes()).unwrap();
                send(&mut client, pattern(2, octets)).unwrap();
                let mut came = vec![0; begun.len()];
                target.read_exact(&mut came).unwrap();
                expect(&mut target, pattern(2, octets));
                leave(client);
                expect_reset(&mut target);
                assert_eq!(outcome(&mut program, own), "client-reset");
            }
        }
    }
}

#[test]
fn a_client_that_ends_its_body_too_soon_gets_no_answer() {
    let server = start(&[]);
    for (fields, begun) in BEGUN {
        let (mut client, mut target) = exchange(server.address, "POST", fields);
        client.write_all(begun.as_bytes()).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        expect_reset(&mut target);
        expect_reset(&mut client);
    }
}

#[test]
fn a_client_that_leaves_amid_the_answer_is_a_reset_for_the_target() {
    let mut program = Program::start(&[]);
    for leave in [reset, drop] {
        let (mut client, mut target) = exchange(program.address, "GET", "");
        let own = client.local_addr().unwrap();
        target.write_all(b"HTTP/1.1 200 OK\r\n\r\nbegun").unwrap();
        read_head(&mut client);
        assert_eq!(take(&mut client), *b"begun");
        leave(client);
        let begin = Instant::now();
        while target.write_all(&[0x55; 4096]).is_ok() {
            assert!(begin.elapsed() < LONG, "the target sends and nobody is there");
        }
        assert_eq!(outcome(&mut program, own), "client-reset");
    }
}

/// Nobody reads from a client that has said all it has to say, and yet its reset is noticed.
#[test]
fn a_client_that_resets_while_the_target_thinks_is_a_reset_for_the_target() {
    let mut program = Program::start(&["--handshake-timeout", "0.5"]);
    for (fields, body) in [("", ""), ("Content-Length: 4\r\n", "body")] {
        let (mut client, mut target) = exchange(program.address, "POST", fields);
        let own = client.local_addr().unwrap();
        client.write_all(body.as_bytes()).unwrap();
        let mut came = [0; 4];
        target.read_exact(&mut came[..body.len()]).unwrap();
        reset(client);
        expect_reset(&mut target);
        assert_eq!(outcome(&mut program, own), "client-reset");
    }
}

#[test]
fn a_bad_chunk_cuts_the_body_off_and_the_client_is_told_if_nothing_was_answered() {
    const BAD: &str = "bad-request why=\"a chunk of the body is none\"";
    let mut program = Program::start(&[]);
    for bad in ["zz\r\n", "-1\r\n", "5 \r\nhello\r\n", "\n", "5\nhello", "\r\n", "5\r\nhello!\r\n"]
    {
        for answered in [false, true] {
            let fields = "Transfer-Encoding: chunked\r\n";
            let (mut client, mut target) = exchange(program.address, "POST", fields);
            client.write_all(b"4\r\nWiki\r\n").unwrap();
            assert_eq!(take(&mut target), *b"4\r\nWiki\r\n");
            if answered {
                target.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
                read_head(&mut client);
            }
            client.write_all(bad.as_bytes()).unwrap();
            if answered {
                expect_reset(&mut client);
            } else {
                assert_refused(&rest(&mut client), 400);
            }
            assert_eq!(ended(&mut program, client), BAD, "{bad:?}");
            expect_reset(&mut target);
        }
    }
}

/// What the client sends on is thrown away, as far as it comes in time.
#[test]
fn a_client_that_sends_on_behind_a_bad_chunk_is_told_too() {
    let server = start(&[]);
    for _ in 0..10 {
        let (mut client, mut target) =
            exchange(server.address, "POST", "Transfer-Encoding: chunked\r\n");
        let mut writer = client.try_clone().unwrap();
        thread::scope(|scope| {
            // What it sends is taken or refused: it does not wait for nothing.
            scope.spawn(move || {
                let written = writer.write_all(&[b"zz\r\n", &vec![b'x'; 4 * MIB][..]].concat());
                assert_ne!(written.map_err(|error| error.kind()), Err(ErrorKind::WouldBlock));
            });
            let head = read_head(&mut client);
            assert!(head.starts_with("HTTP/1.1 400 "), "{head}");
            let _ = client.shutdown(Shutdown::Both);
            expect_reset(&mut target);
        });
    }
}

#[test]
fn a_session_in_which_nothing_moves_is_ended_by_the_idle_timeout() {
    let mut program = Program::start(&["--idle-timeout", "0.4"]);
    for answered in [false, true] {
        let begin = Instant::now();
        let (mut client, mut target) = exchange(program.address, "GET", "");
        if answered {
            target.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
            read_head(&mut client);
        }
        expect_reset(&mut client);
        expect_reset(&mut target);
        assert!(begin.elapsed() >= Duration::from_millis(350), "{:?}", begin.elapsed());
        assert_eq!(ended(&mut program, client), "idle-timeout");
    }
}
