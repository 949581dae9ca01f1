//! Networks whose clients need no password beside users who do.

use std::io::Write;
use std::net::{Ipv4Addr, TcpStream};

use crate::hashes::log_in;
use crate::scratch::{Program, Scratch, check};
use crate::stage::{connect_from, echo, reply, request, start, take};

const USERS: &[u8] = b"alice:open sesame\n";

/// One whom nobody asks for a password, and one who is asked.
const GUEST: Ipv4Addr = Ipv4Addr::new(127, 0, 7, 2);
const OTHER: Ipv4Addr = Ipv4Addr::LOCALHOST;
const GUESTS: &str = "127.0.7.0/24";

/// What the server answers to a greeting.
fn selected(client: &mut TcpStream, methods: &[u8]) -> u8 {
    let count = u8::try_from(methods.len()).unwrap();
    client.write_all(&[&[0x05, count], methods].concat()).unwrap();
    take::<2>(client)[1]
}

/// The first twelve bytes of the answer to an HTTP request.
fn http(from: Ipv4Addr, server: std::net::SocketAddr, login: &str) -> String {
    let (target, mut client) = (echo(), connect_from(from, server));
    write!(client, "CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{login}\r\n").unwrap();
    let told: [u8; 12] = take(&mut client);
    String::from_utf8(told.into()).unwrap()
}

#[test]
fn who_offers_no_authentication_is_served_there_and_nowhere_else() {
    let file = Scratch::new(USERS);
    let server = start(&["--users", file.path(), "--no-password-from", GUESTS]);
    let mut guest = connect_from(GUEST, server.address);
    assert_eq!(selected(&mut guest, &[0x00]), 0x00);
    guest.write_all(&request(echo())).unwrap();
    assert_eq!(reply(&mut guest).0, 0x00);
    for method in [0x00, 0x01] {
        assert_eq!(selected(&mut connect_from(OTHER, server.address), &[method]), 0xff);
    }
    assert_eq!(selected(&mut connect_from(GUEST, server.address), &[0x01]), 0xff);
}

#[test]
fn who_can_log_in_is_asked_and_a_wrong_password_is_refused_there_too() {
    let file = Scratch::new(USERS);
    let mut tabi = Program::start(&["--users", file.path(), "--no-password-from", GUESTS]);
    tabi.log_line("serving clients from 127.0.7.0/24 without a password, too (--no-password-from)");
    let mut client = connect_from(GUEST, tabi.address);
    assert_eq!(selected(&mut client, &[0x00, 0x02]), 0x02);
    assert_eq!(log_in(GUEST, tabi.address, "alice", "open"), Some(1));
    assert_eq!(log_in(GUEST, tabi.address, "mallory", "open sesame"), Some(1));
    client.write_all(b"\x01\x05alice\x0bopen sesame").unwrap();
    assert_eq!(take(&mut client), *b"\x01\x00");
    client.write_all(&request(echo())).unwrap();
    assert_eq!(reply(&mut client).0, 0x00);
    drop(client);
    tabi.log_line("user=alice protocol=socks5 command=CONNECT");
}

#[test]
fn a_name_without_a_password_as_java_sends_it_is_no_login() {
    let file = Scratch::new(USERS);
    let mut tabi = Program::start(&["--users", file.path(), "--no-password-from", GUESTS]);
    let mut client = connect_from(GUEST, tabi.address);
    assert_eq!(selected(&mut client, &[0x00, 0x02]), 0x02);
    client.write_all(b"\x01\x05alice\x00").unwrap();
    assert_eq!(take(&mut client), *b"\x01\x00");
    client.write_all(&request(echo())).unwrap();
    assert_eq!(reply(&mut client).0, 0x00);
    drop(client);
    tabi.log_line("user=- protocol=socks5 command=CONNECT");
    assert_eq!(log_in(OTHER, tabi.address, "alice", ""), Some(1));
}

#[test]
fn socks4_is_served_there_and_http_without_being_asked_for_a_login() {
    let file = Scratch::new(USERS);
    let server = start(&["--users", file.path(), "--no-password-from", GUESTS]);
    let target = echo();
    for (from, status) in [(GUEST, 0x5a), (OTHER, 0x5b)] {
        let mut client = connect_from(from, server.address);
        let [high, low] = target.port().to_be_bytes();
        client.write_all(&[4, 1, high, low, 127, 0, 0, 1, b'm', b'e', 0]).unwrap();
        assert_eq!(take::<8>(&mut client)[1], status, "{from}");
    }
    let [right, wrong, none] = ["YWxpY2U6b3BlbiBzZXNhbWU=", "YWxpY2U6b3Blbg==", "YWxpY2U6"]
        .map(|login| format!("Proxy-Authorization: Basic {login}\r\n"));
    for (from, login, told) in [
        (GUEST, "", "200"),
        (GUEST, &*right, "200"),
        (GUEST, &*none, "200"),
        (GUEST, &*wrong, "407"),
        (OTHER, "", "407"),
        (OTHER, &*right, "200"),
        (OTHER, &*none, "407"),
    ] {
        assert_eq!(http(from, server.address, login), format!("HTTP/1.1 {told}"), "{from} {login}");
    }
}

#[test]
fn behind_a_load_balancer_it_is_the_true_client_that_counts() {
    let file = Scratch::new(USERS);
    let options = ["--no-password-from", "192.168.7.0/24", "--proxy-protocol", "127.0.0.1"];
    let server = start(&[&["--users", file.path()], &options[..]].concat());
    for (client, method) in [("192.168.7.9", 0x00), ("192.168.8.9", 0xff)] {
        let mut balancer = connect_from(OTHER, server.address);
        write!(balancer, "PROXY TCP4 {client} 192.0.2.1 50001 1080\r\n").unwrap();
        assert_eq!(selected(&mut balancer, &[0x00]), method, "{client}");
    }
}

#[test]
fn it_means_nothing_without_users_or_for_clients_that_are_not_served() {
    let file = Scratch::new(USERS);
    let users = ["--users", file.path()];
    let (status, told) = check(&["--no-password-from", GUESTS]);
    assert_eq!(status, 2);
    assert!(told.contains("--users"), "{told}");
    for (options, bad) in [
        (&["--no-password-from", "203.0.113.0/24"][..], "203.0.113.0/24"),
        (&["--no-password-from", "192.168.0.0/15"], "192.168.0.0/15"),
        (&["--no-password-from", "10.0.0.0/8", "--allow-from", "10.1.0.0/16"], "10.0.0.0/8"),
    ] {
        let (status, told) = check(&[&users[..], options].concat());
        assert_eq!(status, 2);
        assert!(told.contains(&format!("--no-password-from {bad}: expected")), "{told}");
    }
    let named = ["--no-password-from", "10.1.7.0/24,203.0.113.9", "--allow-from"];
    let options = [&users[..], &named, &["10.1.0.0/16", "--allow-from", "203.0.113.0/24"]].concat();
    let (status, told) = check(&options);
    assert_eq!(status, 0, "{told}");
    assert!(told.contains("serving clients from 10.1.7.0/24, 203.0.113.9/32 without"), "{told}");
}

#[test]
fn it_holds_after_a_reload() {
    let file = Scratch::new(USERS);
    let mut tabi = Program::heeding(&["--users", file.path(), "--no-password-from", GUESTS]);
    std::fs::write(file.path(), b"bob:another\n").unwrap();
    tabi.signal(rustix::process::Signal::HUP);
    tabi.log_line("reloaded: 1 user");
    for (from, method) in [(GUEST, 0x00), (OTHER, 0xff)] {
        assert_eq!(selected(&mut connect_from(from, tabi.address), &[0x00]), method);
    }
    assert_eq!(log_in(GUEST, tabi.address, "alice", "open sesame"), Some(1));
    assert_eq!(log_in(GUEST, tabi.address, "bob", "another"), Some(0));
}
