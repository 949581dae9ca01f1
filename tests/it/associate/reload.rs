//! Rules, and addresses of this machine, that change while an association lives.

use super::*;
use crate::namespace::{alone, ip};
use crate::scratch::{Program, bare};
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
    fs::write(rules.path(), b"").unwrap();
    program.signal(Signal::HUP);
    program.log_line("reloaded: ");
    client.expect_echo(closed, b"open again");
    client.socket.send(&by_name).unwrap();
    assert_eq!(client.receive(), (closed, b"by name".to_vec()));
    drop(client);
    let told = program.log_line("command=UDP");
    assert!(told.contains(" denied=1 ") && told.contains(":1: this rule denies"), "{told}");
}

#[test]
fn each_destination_is_judged_by_the_addresses_of_now() {
    alone(|| {
        if !ip("addr add 192.168.77.1/24 dev lo") {
            return;
        }
        let rules = Scratch::new(b"deny to self port 9\n");
        let mut command = bare();
        command.args(["192.168.77.1:1080", "--rules", rules.path()]);
        let mut program = Program::spawn(command);
        let nobody = request(NOT_KNOWN_YET.parse().unwrap());
        let client = associate_from(program.address, udp("192.168.77.1"), &nobody);
        let open = echo("192.168.77.1");
        for (address, port) in [("10.96.0.5", 1080), ("10.96.0.6", 9)] {
            let closed = format!("{address}:{port}").parse().unwrap();
            // It is judged, and somebody else's: there is only no way to it.
            client.send(closed, b"first");
            client.expect_echo(open, b"known");
            assert!(ip(&format!("addr add {address}/32 dev lo")));
            let target = UdpSocket::bind(closed).unwrap();
            client.send(closed, b"never");
            client.expect_echo(open, b"this goes on");
            target.set_nonblocking(true).unwrap();
            assert!(target.recv(&mut [0; 16]).is_err(), "it has come to {closed}");
        }
        drop(client);
        assert!(program.log_line("command=UDP").contains(" denied=2 "));
    });
}
