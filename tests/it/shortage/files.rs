//! Files of users and rules that are gone.

use std::fs;
use std::io::Write;
use std::net::{SocketAddr, TcpStream};

use rustix::process::Signal;

use super::{assert_calm, assert_echoes};
use crate::scratch::{Program, Scratch, check};
use crate::stage::{connect, echo, reply, request, take};

#[test]
fn a_file_that_is_not_there_at_the_start_is_named() {
    for option in ["--users", "--rules"] {
        let (status, told) = check(&[option, "/nowhere/file"]);
        assert_eq!(status, 2);
        assert!(told.contains(option) && told.contains("/nowhere/file: No such file"), "{told}");
    }
}

/// The status of an authentication as alice, and the client.
fn log_in(server: SocketAddr, password: &str) -> (u8, TcpStream) {
    let mut client = connect(server);
    let length = u8::try_from(password.len()).unwrap();
    let credentials = [b"\x05\x01\x02\x01\x05alice", &[length][..], password.as_bytes()].concat();
    client.write_all(&credentials).unwrap();
    let [_, _, _, status] = take(&mut client);
    (status, client)
}

/// REP for a tunnel of alice to `target`, and the client.
fn ask(server: SocketAddr, target: SocketAddr) -> (u8, TcpStream) {
    let (status, mut client) = log_in(server, "open sesame");
    assert_eq!(status, 0x00);
    client.write_all(&request(target)).unwrap();
    (reply(&mut client).0, client)
}

#[test]
fn files_that_are_gone_at_a_reload_stay_in_force() {
    let (users, rules) = (Scratch::new(b"alice:open sesame\n"), Scratch::new(b"deny port 9\n"));
    let files = ["--users", users.path(), "--rules", rules.path()];
    let mut program = Program::heeding(&files);
    let target = echo();
    let (rep, mut tunnel) = ask(program.address, target);
    assert_eq!(rep, 0x00);
    for file in [&users, &rules] {
        fs::rename(file.path(), format!("{}.gone", file.path())).unwrap();
    }
    program.signal(Signal::HUP);
    for file in [&rules, &users] {
        program.log_line(&format!("{}: No such file", file.path()));
    }
    program.log_line("nothing has changed");
    assert_calm(program.id(), "no files");
    assert_echoes(&mut tunnel);
    assert_eq!(log_in(program.address, "guess").0, 0x01);
    assert_eq!(ask(program.address, target).0, 0x00);
    assert_eq!(ask(program.address, ([127, 0, 0, 1], 9).into()).0, 0x02);
    for file in [&users, &rules] {
        fs::rename(format!("{}.gone", file.path()), file.path()).unwrap();
    }
    program.signal(Signal::HUP);
    program.log_line("reloaded: 1 rule (--rules), 1 user (--users)");
    assert_echoes(&mut tunnel);
    assert_eq!(ask(program.address, target).0, 0x00);
}
