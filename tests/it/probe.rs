//! `tabi --probe`, as a container's health check runs it.

use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use crate::namespace::{alone, ip};
use crate::scratch::{Scratch, bare};
use crate::stage::{
    LONG, accept, at_end_or_reset, connect, listen, nobody_listens, start, start_on, take,
};

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
    let without_socks5 = ["--protocols", "http,socks4"];
    for options in [&[][..], &["--users", users.path()], &without_socks5] {
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
fn a_server_that_does_not_serve_this_machine_answers_its_probe() {
    let users = Scratch::new(b"alice:open sesame\n");
    let others: &[&str] = &["--allow-from", "192.0.2.0/24"];
    let balancers = [others, &["--proxy-protocol", "127.0.0.0/8"]].concat();
    let of_users = [others, &["--users", users.path()]].concat();
    for options in [others, &balancers, &of_users] {
        let server = start(options);
        assert_eq!(probe(&server.address.to_string(), options), well(), "{options:?}");
    }
    let server = start_on("[::1]:0", others);
    assert_eq!(probe(&server.address.to_string(), others), well());
    alone(|| {
        if ip("addr add 192.168.77.1/24 dev lo\naddr add fd77::1/64 dev lo nodad") {
            for listen in ["192.168.77.1:1080", "[fd77::1]:1080"] {
                let _server = start_on(listen, others);
                // An IPv6 address has its route a moment after it was added.
                let begin = Instant::now();
                while TcpStream::connect(listen).is_err() {
                    assert!(begin.elapsed() < LONG, "{listen} does not come");
                    thread::yield_now();
                }
                assert_eq!(probe(listen, others), well());
            }
        }
    });
}

#[test]
fn wrong_passwords_of_others_on_this_machine_do_not_make_a_server_unwell() {
    let users = Scratch::new(b"alice:open sesame\n");
    let server = start(&["--users", users.path()]);
    let is_turned_away = |name: u8| {
        let mut guesser = connect(server.address);
        guesser.write_all(&[b"\x05\x01\x02\x01\x01", &[name][..], b"\x01x"].concat()).unwrap();
        assert_eq!(take(&mut guesser), *b"\x05\x02");
        at_end_or_reset(&mut guesser)
    };
    let penalty = (b'A'..=b'z').any(is_turned_away);
    assert!(penalty, "so many names are too many");
    assert_eq!(probe(&server.address.to_string(), &[]), well());
}

#[test]
fn a_server_that_wants_a_header_from_this_machine_gets_one() {
    let options = ["--proxy-protocol", "127.0.0.0/8"];
    let server = start(&options);
    let listen = server.address.to_string();
    assert_eq!(probe(&listen, &options), well());
    assert_eq!(probe(&listen, &[]).0, 1);
}
