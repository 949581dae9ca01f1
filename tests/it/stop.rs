//! The end of a server.

use std::io::Write;
use std::net::TcpStream;

use crate::stage::{LONG, connect, expect_reset, pair, start, take};

#[test]
fn live_sessions_finish_and_nobody_new_gets_in() {
    let mut server = start(&["--grace", "20"]);
    let (mut client, mut target) = pair(&server);
    server.stopper.stop();
    assert!(TcpStream::connect_timeout(&server.address, LONG).is_err());
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
