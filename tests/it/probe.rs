//! `tabi --probe`, as a container's health check runs it.

use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::thread;
use std::time::{Duration, Instant};

use crate::scratch::{Scratch, bare};
use crate::stage::{accept, listen, nobody_listens, start, start_on};

/// The exit status of a probe, and what it has said.
fn probe(listen: &str, options: &[&str]) -> (i32, String) {
    let output = bare().arg("--probe").arg(listen).args(options).output().unwrap();
    (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
}

fn well() -> (i32, String) {
    (0, String::new())
}

fn fails(address: SocketAddr, reason: &str) {
    let begin = Instant::now();
    let (status, told) = probe(&address.to_string(), &[]);
    assert_eq!(status, 1, "{told}");
    assert!(told.contains(&address.to_string()) && told.contains(reason), "{told}");
    // Two seconds, and much more than that for a busy machine.
    assert!(begin.elapsed() < Duration::from_secs(60), "{:?}", begin.elapsed());
}

#[test]
fn a_server_that_answers_is_well() {
    let users = Scratch::new(b"alice:open sesame\n");
    for options in [&[][..], &["--users", users.path()]] {
        let server = start(options);
        assert_eq!(probe(&server.address.to_string(), options), well());
    }
}

#[test]
fn a_port_alone_is_probed_on_this_machine() {
    let server = start_on("[::]:0", &[]);
    let listen = server.address.port().to_string();
    assert_eq!(probe(&listen, &[]), well());
    let server = start_on("0.0.0.0:0", &[]);
    assert_eq!(probe(&server.address.to_string(), &[]), well());
    // Where IPv6 is switched off, a port alone is IPv4's.
    assert_eq!(probe(&server.address.port().to_string(), &[]), well());
}

#[test]
fn every_address_has_to_answer() {
    let server = start(&[]);
    let (_socket, nobody) = nobody_listens();
    let (status, told) = probe(&server.address.to_string(), &[&nobody.to_string()]);
    assert_eq!(status, 1);
    assert!(told.contains(&nobody.to_string()), "{told}");
}

#[test]
fn a_port_at_which_nobody_listens_is_a_failure() {
    let (_socket, nobody) = nobody_listens();
    fails(nobody, "cannot connect");
}

#[test]
fn a_server_that_hangs_is_a_failure_after_two_seconds() {
    let (_listener, silent) = listen();
    fails(silent, "no answer within 2 s");
    let (half, address) = listen();
    thread::scope(|scope| {
        let answers = scope.spawn(|| {
            let mut client = accept(&half);
            client.write_all(b"\x05").unwrap();
            client
        });
        fails(address, "no answer within 2 s");
        // It has been open until now.
        drop(answers.join().unwrap());
    });
}

#[test]
fn what_is_no_socks_server_is_a_failure() {
    let answer = |answer: &'static [u8], reason| {
        let (listener, address): (TcpListener, _) = listen();
        thread::scope(|scope| {
            scope.spawn(|| accept(&listener).write_all(answer).unwrap());
            fails(address, reason);
        });
    };
    answer(b"HTTP/1.1 400 Bad Request\r\n\r\n", "no SOCKS5 server");
    answer(b"\x05\xff", "neither a password nor none");
    // It may have been closed before the greeting was there: the reason is then a reset.
    answer(b"", "--allow-from");
}

#[test]
fn a_server_that_does_not_serve_this_machine_says_so() {
    let server = start(&["--allow-from", "192.0.2.0/24"]);
    fails(server.address, "--allow-from");
}

#[test]
fn a_server_that_wants_a_header_from_this_machine_gets_one() {
    let options = ["--proxy-protocol", "127.0.0.0/8"];
    let server = start(&options);
    let listen = server.address.to_string();
    assert_eq!(probe(&listen, &options), well());
    assert_eq!(probe(&listen, &[]).0, 1);
}
