//! The end of a server.

use std::io::Write;
use std::net::{Ipv4Addr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::scratch::Program;
use crate::stage::{
    GREETING, LONG, Running, accept, at_end_or_reset, connect, echo, expect_reset, listen, pair,
    request, start, take, tunnel_from,
};

/// Waits until nobody can connect any more: a moment after the stop, where the system does not let an
/// ordinary user close a port to those alone who are new.
fn await_refusal(server: &Running) {
    let begin = Instant::now();
    while TcpStream::connect_timeout(&server.address, LONG).is_ok() {
        assert!(begin.elapsed() < LONG, "clients still get in");
        // Few of those who get in: they have to wait for a place like all others.
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn live_sessions_finish_and_nobody_new_gets_in() {
    let mut server = start(&["--grace", "20"]);
    let (mut client, mut target) = pair(&server);
    server.stopper.stop();
    await_refusal(&server);
    client.write_all(b"payload").unwrap();
    assert_eq!(take(&mut target), *b"payload");
    assert!(server.runs());
    drop((client, target));
    server.join();
}

#[test]
fn sessions_that_do_not_finish_are_ended_when_the_grace_is_over() {
    let mut server = start(&["--grace", "0.3"]);
    let (mut client, mut target) = pair(&server);
    let _silent = connect(server.address);
    server.stopper.stop();
    expect_reset(&mut client);
    expect_reset(&mut target);
    server.join();
}

#[test]
fn a_server_that_nobody_uses_stops_at_once() {
    let mut server = start(&["--grace", "600"]);
    server.stopper.stop();
    server.join();
}

#[test]
fn a_full_server_stops_too() {
    let mut server = start(&["--max-connections", "1", "--grace", "0.2"]);
    let _pair = pair(&server);
    let _waiting = connect(server.address);
    server.stopper.stop();
    server.join();
}

#[test]
fn clients_that_have_connected_before_a_stop_are_served() {
    let mut server = start(&["--max-connections", "1", "--grace", "20"]);
    let (client, target) = pair(&server);
    let ask = [GREETING, &request(echo()), b"payload"].concat();
    // More than the workers that wait for a client take: the others are in the backlog.
    let waiting: Vec<_> = (0..20)
        .map(|_| {
            let mut waiting = connect(server.address);
            waiting.write_all(&ask).unwrap();
            waiting
        })
        .collect();
    server.stopper.stop();
    await_refusal(&server);
    drop((client, target));
    // Whoever gets the place leaves it to the next.
    thread::scope(|scope| {
        for mut waiting in waiting {
            scope.spawn(move || {
                assert_eq!(take::<19>(&mut waiting)[12..], *b"payload");
            });
        }
    });
    server.join();
}

#[test]
fn clients_in_the_backlog_wait_there_while_descriptors_are_short() {
    let options = ["--max-connections", "6", "--grace", "20"];
    let mut server = Program::start_with_descriptors(40, &options);
    let target = echo();
    let ask = [GREETING, &request(target), b"payload"].concat();
    let places: Vec<_> =
        (0..6).map(|_| tunnel_from(Ipv4Addr::LOCALHOST, server.address, target)).collect();
    let waiting: Vec<_> = (0..40)
        .map(|_| {
            let mut waiting = connect(server.address);
            waiting.write_all(&ask).unwrap();
            waiting
        })
        .collect();
    server.signal(Signal::TERM);
    server.log_line("stopping");
    drop(places);
    thread::scope(|scope| {
        for mut waiting in waiting {
            scope.spawn(move || {
                assert_eq!(take::<19>(&mut waiting)[12..], *b"payload");
            });
        }
    });
    server.log_line("stopped");
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn clients_without_a_place_are_closed_when_the_grace_is_over() {
    let mut server = Program::start(&["--max-connections", "1", "--grace", "0.5"]);
    let (listener, target) = listen();
    let _client = tunnel_from(Ipv4Addr::LOCALHOST, server.address, target);
    let _target = accept(&listener);
    let mut waiting: Vec<_> = (0..8).map(|_| connect(server.address)).collect();
    server.signal(Signal::TERM);
    for waiting in &mut waiting {
        assert!(at_end_or_reset(waiting));
    }
    server.log_line("had no place within the grace");
    server.log_line("stopped");
    assert_eq!(server.wait().code(), Some(0));
}
