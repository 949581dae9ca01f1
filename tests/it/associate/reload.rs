//! Rules that change while an association lives.

use super::*;
use crate::scratch::Program;
use rustix::process::Signal;
use std::fs;

#[test]
fn each_destination_is_judged_by_the_new_rules() {
    let rules = Scratch::new(b"");
    let mut program = Program::heeding(&["--rules", rules.path()]);
    let client = associate_at(program.address);
    let (closed, open) = (echo("127.0.0.3"), echo("127.0.0.1"));
    let by_name = datagram_by_name(b"127.3", closed.port(), b"by name");
    for _ in 0..2 {
        client.socket.send(&by_name).unwrap();
        assert_eq!(client.receive(), (closed, b"by name".to_vec()));
    }
    // The way of the latest datagram is kept in a place of its own.
    for way in [b"first".as_slice(), b"known"] {
        client.expect_echo(open, way);
        client.expect_echo(closed, way);
    }
    fs::write(rules.path(), b"deny command udp to 127.0.0.3\n").unwrap();
    program.signal(Signal::HUP);
    program.log_line("reloaded: ");
    client.send(closed, b"never");
    client.socket.send(&by_name).unwrap();
    client.expect_echo(open, b"this goes on");
    let told = program.log_line("denied client=");
    assert!(told.contains(":1: this rule denies"), "{told}");
    fs::write(rules.path(), b"").unwrap();
    program.signal(Signal::HUP);
    program.log_line("reloaded: ");
    client.expect_echo(closed, b"open again");
    client.socket.send(&by_name).unwrap();
    assert_eq!(client.receive(), (closed, b"by name".to_vec()));
}
