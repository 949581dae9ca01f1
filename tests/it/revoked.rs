//! Users who are removed, or get another password, while they are connected: what they have begun ends,
//! and what they ask for is judged by the files of now.

use std::fs;
use std::io::Write;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::thread;

use rustix::process::Signal;

use crate::scratch::{Program, Scratch};
use crate::stage::{
    accept, at_end, black_hole, connect, expect_reset, listen, nobody_listens, pattern, reply,
    request, send, take,
};

const CONNECT: u8 = 0x01;
const BIND: u8 = 0x02;
const UDP_ASSOCIATE: u8 = 0x03;
const RESOLVE: u8 = 0xf0;

const GONE: &str = "outcome=denied why=\"the user is gone (--users)\"";
const CHANGED: &str = "outcome=denied why=\"the user's password has changed (--users)\"";

/// A client that has logged in, and asks for nothing yet.
fn log_in(server: SocketAddr, user: &str) -> TcpStream {
    let mut client = connect(server);
    let length = u8::try_from(user.len()).unwrap();
    client
        .write_all(&[b"\x05\x01\x02\x01", &[length][..], user.as_bytes(), b"\x01x"].concat())
        .unwrap();
    assert_eq!(take(&mut client), *b"\x05\x02\x01\x00");
    client
}

/// The same, and asks.
fn asking(server: SocketAddr, user: &str, command: u8, destination: SocketAddr) -> TcpStream {
    let mut client = log_in(server, user);
    ask(&mut client, command, destination);
    client
}

fn ask(client: &mut TcpStream, command: u8, destination: SocketAddr) {
    let mut request = request(destination);
    request[1] = command;
    client.write_all(&request).unwrap();
}

/// The end of this client's session, as its line in the log has it.
fn end_of(program: &mut Program, client: &TcpStream) -> String {
    let start = format!("client={} ", client.local_addr().unwrap());
    let known = program.log_so_far().lines().find(|line| line.contains(&start)).map(String::from);
    let line = known.unwrap_or_else(|| program.log_line(&start));
    line.trim_end().split_at(line.find("outcome=").unwrap()).1.into()
}

/// Alice stays, bob goes, and carol has another password.
fn change(users: &Scratch, program: &mut Program) {
    let begun = "# the household, in another order\ncarol:y\nalice:x\n";
    fs::write(users.path(), begun).unwrap();
    program.signal(Signal::HUP);
    program.log_line("reloaded: 2 users (--users)");
}

fn started() -> (Scratch, Program) {
    let users = Scratch::new(b"alice:x\nbob:x\ncarol:x\n");
    let program = Program::heeding(&["--users", users.path()]);
    (users, program)
}

#[test]
fn a_removed_users_tunnels_end_and_the_others_go_on() {
    let (users, mut program) = started();
    let (listener, target) = listen();
    let tunnels = ["alice", "bob", "carol"].map(|user| {
        let mut client = asking(program.address, user, CONNECT, target);
        assert_eq!(reply(&mut client).0, 0x00);
        (client, accept(&listener))
    });
    change(&users, &mut program);
    let [(mut alice, mut far), rest @ ..] = tunnels;
    for ((mut client, mut target), why) in rest.into_iter().zip([GONE, CHANGED]) {
        expect_reset(&mut client);
        expect_reset(&mut target);
        assert_eq!(end_of(&mut program, &client), why);
    }
    alice.write_all(b"payload").unwrap();
    assert_eq!(take(&mut far), *b"payload");
    assert!(program.log_so_far().contains("2 sessions ended whose users are gone or have another"));
}

#[test]
fn a_removed_users_upload_to_one_who_does_not_read_ends() {
    let (users, mut program) = started();
    let (listener, target) = listen();
    let mut bob = asking(program.address, "bob", CONNECT, target);
    assert_eq!(reply(&mut bob).0, 0x00);
    let mut far = accept(&listener);
    let mut writer = bob.try_clone().unwrap();
    let upload = thread::spawn(move || send(&mut writer, pattern(1, usize::MAX)));
    take::<1>(&mut far);
    change(&users, &mut program);
    expect_reset(&mut far);
    upload.join().unwrap().expect_err("nobody takes it any more");
    assert_eq!(end_of(&mut program, &bob), GONE);
}

#[test]
fn what_a_removed_user_waits_for_ends() {
    let (users, mut program) = started();
    let (_waiting, _socket, silent) = black_hole();
    let dialing = asking(program.address, "bob", CONNECT, silent);
    let any = SocketAddr::from(([0; 4], 0));
    let [bind, mut associated] = [BIND, UDP_ASSOCIATE].map(|command| {
        let mut client = asking(program.address, "bob", command, any);
        let (rep, bound) = reply(&mut client);
        assert_eq!(rep, 0x00);
        (client, bound)
    });
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(associated.1).unwrap();
    // The one that dials is there once the log of a later one would be.
    let (_kept, refusing) = nobody_listens();
    let mut later = asking(program.address, "alice", CONNECT, refusing);
    assert_eq!(reply(&mut later).0, 0x05);
    change(&users, &mut program);
    assert!(at_end(&mut associated.0));
    for mut client in [dialing, bind.0, associated.0] {
        assert!(at_end(&mut client));
        assert_eq!(end_of(&mut program, &client), GONE);
    }
    socket.send(b"is it still there?").unwrap();
    assert!(TcpStream::connect(bind.1).is_err(), "the listener is closed");
}

#[test]
fn a_login_from_before_is_good_for_nothing_when_its_user_is_gone() {
    let (users, mut program) = started();
    let (_listener, target) = listen();
    let commands = [CONNECT, BIND, UDP_ASSOCIATE, RESOLVE];
    let log_in = |user: &'static str| log_in(program.address, user);
    let clients = ["bob", "carol", "alice"].map(|user| commands.map(|_| log_in(user)));
    change(&users, &mut program);
    for (clients, why) in clients.into_iter().zip([Some(GONE), Some(CHANGED), None]) {
        for (mut client, command) in clients.into_iter().zip(commands) {
            ask(&mut client, command, target);
            let rep = reply(&mut client).0;
            assert_eq!(rep, if why.is_some() { 0x02 } else { 0x00 }, "{command}");
            if let Some(why) = why {
                assert_eq!(end_of(&mut program, &client), why);
            }
        }
    }
}

#[test]
fn a_failed_login_is_still_that_after_a_reload() {
    let (users, mut program) = started();
    let mut mallory = connect(program.address);
    mallory.write_all(b"\x05\x01\x02\x01\x03bob\x01y").unwrap();
    assert_eq!(take(&mut mallory), *b"\x05\x02\x01\x01");
    change(&users, &mut program);
    mallory.shutdown(Shutdown::Write).unwrap();
    assert_eq!(end_of(&mut program, &mallory), "outcome=bad-credentials");
}

#[test]
fn rules_that_are_all_gone_are_a_doubt() {
    let rules = Scratch::new(b"deny port 9\ndeny port 10\n");
    let mut program = Program::heeding(&["--rules", rules.path()]);
    fs::write(rules.path(), "").unwrap();
    program.signal(Signal::HUP);
    program.log_line("reloaded: 0 rules (--rules)");
    let doubt = program.log_line("no rule is left of 2 rules");
    assert!(doubt.contains("WARN") && doubt.contains(rules.path()), "{doubt}");
    program.signal(Signal::HUP);
    program.log_line("reloaded: 0 rules (--rules)");
    fs::write(rules.path(), "allow\n").unwrap();
    program.signal(Signal::HUP);
    program.log_line("reloaded: 1 rule (--rules)");
    assert_eq!(program.log_so_far().matches("no rule is left").count(), 1);
}

#[test]
fn what_a_client_of_socks4_calls_itself_is_nobodys_login() {
    let users = Scratch::new(b"alice:x\n");
    let options = ["--users", users.path(), "--no-password-from", "127.0.0.0/8"];
    let mut program = Program::heeding(&options);
    let (listener, target) = listen();
    let mut client = connect(program.address);
    let port = target.port().to_be_bytes();
    client.write_all(&[b"\x04\x01", &port[..], b"\x7f\0\0\x01mallory\0"].concat()).unwrap();
    let mut far = accept(&listener);
    assert_eq!(take::<8>(&mut client)[..2], [0x00, 0x5a]);
    program.signal(Signal::HUP);
    program.log_line("reloaded: 1 user (--users)");
    client.write_all(b"payload").unwrap();
    assert_eq!(take(&mut far), *b"payload");
}
