//! Descriptors: 64 of them, and none left for a while.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::ops::Range;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Signal};

use super::{
    Lowered, assert_calm, assert_echoes, assert_serves_with, client_of, count, of_process, rep_of,
    status_of, wait_until,
};
use crate::scratch::Program;
use crate::stage::{
    GREETING, accept, connect, echo, expect_reset, listen, pattern, reply, request, send, take,
    tunnel_from,
};

/// What each process has from its start on: standard streams, the log, the listener, signals.
const FIRST: u64 = 8;

/// Lets a process have no further descriptor.
fn none_left(id: Pid) -> Lowered {
    for descriptor in 0..FIRST {
        let link = of_process(id, &format!("fd/{descriptor}"));
        assert!(std::fs::read_link(&link).is_ok(), "{link} is free");
    }
    Lowered::to(FIRST, Resource::Nofile, id)
}

/// How many descriptors the program has without a client, once it has started.
fn at_rest(server: &Program, target: SocketAddr) -> usize {
    let _served = tunnel_from(Ipv4Addr::LOCALHOST, server.address, target);
    count(server.id(), "fd") - 2
}

#[test]
fn with_64_descriptors_all_places_are_used_and_the_others_wait() {
    let (server, target) = (Program::start_with_descriptors(64, &[]), echo());
    let before = at_rest(&server, target);
    assert_serves_with(20, &server, target, "64 descriptors");
    wait_until("descriptors are left behind", || count(server.id(), "fd") <= before);
}

#[test]
fn without_a_descriptor_clients_wait_and_are_served_once_there_are_some() {
    let mut server = Program::start(&["--status", "0"]);
    let status = status_of(&mut server);
    let (target, localhost) = (echo(), Ipv4Addr::LOCALHOST);
    let before = at_rest(&server, target);
    let mut tunnel = tunnel_from(localhost, server.address, target);
    let mut greeted = connect(server.address);
    greeted.write_all(GREETING).unwrap();
    assert_eq!(take(&mut greeted), *b"\x05\x00");
    let shortage = none_left(server.id());
    greeted.write_all(&request(target)).unwrap();
    assert_eq!(reply(&mut greeted).0, 0x01, "there is no socket for its target");
    let waiting: Vec<_> = (0..12).map(|_| client_of(localhost, server.address, target)).collect();
    let mut visitor = connect(status);
    write!(visitor, "GET /healthz HTTP/1.1\r\nHost: {status}\r\n\r\n").unwrap();
    server.log_line("cannot accept clients, trying again");
    assert_calm(server.id(), "no descriptor left");
    assert_echoes(&mut tunnel);
    drop(shortage);
    server.log_line("clients are accepted again");
    // Workers that wait for a client have a descriptor for it already, and no second one.
    let (good, bad): (Vec<u8>, Vec<u8>) =
        waiting.into_iter().map(|mut client| rep_of(&mut client)).partition(|rep| *rep == 0x00);
    assert!(good.len() >= 8 && bad.iter().all(|rep| *rep == 0x01), "{bad:?}");
    let mut answer = String::new();
    visitor.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert_echoes(&mut tunnel);
    drop((tunnel, greeted, visitor));
    wait_until("descriptors are left behind", || count(server.id(), "fd") <= before);
}

#[test]
fn a_shortage_that_comes_and_goes_is_told_once() {
    let mut server = Program::start(&[]);
    let (target, localhost) = (echo(), Ipv4Addr::LOCALHOST);
    let _tunnel = tunnel_from(localhost, server.address, target);
    let begin = Instant::now();
    for _ in 0..20 {
        let shortage = none_left(server.id());
        let waiting: Vec<_> =
            (0..6).map(|_| client_of(localhost, server.address, target)).collect();
        thread::sleep(Duration::from_millis(20));
        drop(shortage);
        for mut client in waiting {
            rep_of(&mut client);
        }
    }
    let seconds = usize::try_from(begin.elapsed().as_secs()).unwrap();
    server.log_line("clients are accepted again");
    let told = server.log_so_far().matches("cannot accept clients").count();
    assert!(told >= 1 && told <= 1 + seconds, "{told} in {seconds} s");
    server.signal(Signal::TERM);
    let log = server.rest_of_log();
    assert!(!log.contains("cannot accept clients"), "{log}");
}

/// How fast a slow reader takes what it gets, which takes longer than the idle limit.
const PIECE: usize = 20_000;
const PIECE_EVERY: Duration = Duration::from_millis(100);

#[test]
fn after_a_shortage_a_slow_reader_is_seen_to_read_and_not_cut_off_as_idle() {
    let server = Program::start(&["--idle-timeout", "3"]);
    let mut idle = tunnel_from(Ipv4Addr::LOCALHOST, server.address, echo());
    let shortage = none_left(server.id());
    expect_reset(&mut idle);
    drop(shortage);
    let (mut client, _target) = download(&server, 50);
    read_slowly(&mut client, 0..50);
}

/// The send queue is looked at when half of the limit is over.
#[test]
fn a_slow_reader_whose_queue_could_not_be_looked_at_is_looked_at_again() {
    let server = Program::start(&["--idle-timeout", "6"]);
    let (mut client, _target) = download(&server, 90);
    let shortage = none_left(server.id());
    read_slowly(&mut client, 0..42);
    drop(shortage);
    read_slowly(&mut client, 42..90);
}

/// A tunnel whose target has sent so many pieces, which are on their way to the client.
fn download(server: &Program, pieces: usize) -> (TcpStream, TcpStream) {
    let (listener, target) = listen();
    let client = tunnel_from(Ipv4Addr::LOCALHOST, server.address, target);
    let mut far = accept(&listener);
    send(&mut far, pattern(11, pieces * PIECE)).unwrap();
    (client, far)
}

fn read_slowly(client: &mut TcpStream, pieces: Range<usize>) {
    let mut due = pattern(11, pieces.end * PIECE);
    due.read_exact(&mut vec![0; pieces.start * PIECE]).unwrap();
    let (mut expected, mut found) = (vec![0; PIECE], vec![0; PIECE]);
    for _ in pieces {
        due.read_exact(&mut expected).unwrap();
        client.read_exact(&mut found).expect("the download is cut off");
        assert!(found == expected, "wrong bytes");
        thread::sleep(PIECE_EVERY);
    }
}
