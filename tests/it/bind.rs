//! BIND: who may come, who may not, and when the listener closes.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

use crate::scratch::{Program, Scratch};
use crate::stage::{
    GREETING, LONG, Running, at_end, connect, expect, listen, pattern, reply, request,
    request_by_name, reset, send, start, start_on, take,
};

const BIND: u8 = 0x02;

/// Asks for BIND with the octets of a CONNECT. Gives back the bound address and the client.
fn bind(server: &Running, connect_request: &[u8]) -> (SocketAddr, TcpStream) {
    bind_at(server.address, connect_request)
}

fn bind_at(server: SocketAddr, connect_request: &[u8]) -> (SocketAddr, TcpStream) {
    let mut client = greeted(server, connect_request);
    let (rep, bound) = reply(&mut client);
    assert_eq!(rep, 0x00);
    (bound, client)
}

fn greeted(server: SocketAddr, connect_request: &[u8]) -> TcpStream {
    let mut client = connect(server);
    let mut request = connect_request.to_vec();
    request[1] = BIND;
    client.write_all(&[GREETING, &request].concat()).unwrap();
    assert_eq!(take(&mut client), *b"\x05\x00");
    client
}

fn expecting(peer: &str) -> Vec<u8> {
    request(peer.parse().unwrap())
}

/// Connects from an address of our choice.
fn connect_from(local: &str, address: SocketAddr) -> TcpStream {
    let local: IpAddr = local.parse().unwrap();
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::new(local, 0).into()).unwrap();
    socket.connect_timeout(&address.into(), LONG).unwrap();
    socket.set_read_timeout(Some(LONG)).unwrap();
    socket.into()
}

/// Waits until nobody listens at `address` any more.
fn expect_closed(address: SocketAddr) {
    let begin = Instant::now();
    while TcpStream::connect_timeout(&address, LONG).is_ok() {
        assert!(begin.elapsed() < LONG, "the listener stays open");
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn the_expected_peer_comes() {
    let server = start(&[]);
    // Its port is another one than was announced.
    let (bound, mut client) = bind(&server, &expecting("127.0.0.1:9"));
    assert_eq!(bound.ip(), IpAddr::from([127, 0, 0, 1]));
    let mut peer = connect(bound);
    assert_eq!(reply(&mut client), (0x00, peer.local_addr().unwrap()));
    send(&mut peer, pattern(1, 300_000)).unwrap();
    peer.shutdown(Shutdown::Write).unwrap();
    expect(&mut client, pattern(1, 300_000));
    assert!(at_end(&mut client));
    send(&mut client, pattern(2, 300_000)).unwrap();
    drop(client);
    expect(&mut peer, pattern(2, 300_000));
    assert!(at_end(&mut peer));
    expect_closed(bound);
}

#[test]
fn anyone_else_is_closed_and_the_wait_goes_on() {
    let server = start(&[]);
    let (bound, mut client) = bind(&server, &expecting("127.0.0.2:9"));
    for _ in 0..3 {
        let mut attacker = connect_from("127.0.0.3", bound);
        let _ = attacker.write_all(b"let me in");
        assert!(!matches!(attacker.read(&mut [0]), Ok(1..)));
    }
    let mut peer = connect_from("127.0.0.2", bound);
    assert_eq!(reply(&mut client), (0x00, peer.local_addr().unwrap()));
    peer.write_all(b"payload").unwrap();
    assert_eq!(take(&mut client), *b"payload");
}

#[test]
fn one_peer_is_all() {
    let server = start(&[]);
    let (bound, mut client) = bind(&server, &expecting("127.0.0.1:9"));
    let _peer = connect(bound);
    assert_eq!(reply(&mut client).0, 0x00);
    let error = TcpStream::connect_timeout(&bound, LONG).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
}

#[test]
fn nobody_in_particular_means_anyone() {
    let server = start(&[]);
    let unspecified = [expecting("0.0.0.0:0"), expecting("[::]:9"), request_by_name(b"0", 0)];
    for octets in unspecified {
        let (bound, mut client) = bind(&server, &octets);
        assert_eq!(bound.ip(), server.address.ip(), "that of the control connection");
        let peer = connect_from("127.0.0.4", bound);
        assert_eq!(reply(&mut client), (0x00, peer.local_addr().unwrap()));
    }
}

#[test]
fn a_name_is_looked_up() {
    let server = start(&[]);
    let (bound, mut client) = bind(&server, &request_by_name(b"127.5", 9));
    let mut attacker = connect_from("127.0.0.1", bound);
    assert!(!matches!(attacker.read(&mut [0]), Ok(1..)));
    let peer = connect_from("127.0.0.5", bound);
    assert_eq!(reply(&mut client), (0x00, peer.local_addr().unwrap()));
    let mut client = greeted(server.address, &request_by_name(b"tabi.invalid", 9));
    assert_eq!(reply(&mut client).0, 0x04);
}

#[test]
fn ipv6_peers_come_too() {
    if TcpListener::bind("[::1]:0").is_err() {
        eprintln!("this machine has no IPv6");
        return;
    }
    for listen in ["127.0.0.1:0", "[::1]:0"] {
        let server = start_on(listen, &[]);
        let mut client = greeted(server.address, &expecting("[::1]:9"));
        let bound = reply_by_ipv6(&mut client);
        let peer = connect(bound);
        assert_eq!(reply_by_ipv6(&mut client), peer.local_addr().unwrap());
    }
}

fn reply_by_ipv6(client: &mut TcpStream) -> SocketAddr {
    let address = reply_of_either_family(client);
    assert!(address.is_ipv6(), "{address}");
    address
}

fn reply_of_either_family(client: &mut TcpStream) -> SocketAddr {
    let [version, rep, _, atyp] = take(client);
    assert_eq!((version, rep), (0x05, 0x00));
    let ip: IpAddr = match atyp {
        0x01 => take::<4>(client).into(),
        _ => Ipv6Addr::from(take::<16>(client)).into(),
    };
    (ip, u16::from_be_bytes(take(client))).into()
}

#[test]
fn the_source_address_is_where_the_peer_connects_to() {
    let server = start(&["--source", "127.0.0.9"]);
    for peer in ["127.0.0.1:9", "0.0.0.0:0"] {
        let (bound, mut client) = bind(&server, &expecting(peer));
        assert_eq!(bound.ip(), IpAddr::from([127, 0, 0, 9]));
        let _peer = connect(bound);
        assert_eq!(reply(&mut client).0, 0x00);
    }
}

#[test]
fn what_the_client_sends_early_reaches_the_peer() {
    let server = start(&[]);
    let request = [&expecting("127.0.0.1:9"), b"early ".as_slice()].concat();
    let (bound, mut client) = bind(&server, &request);
    client.write_all(b"later").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let mut peer = connect(bound);
    assert_eq!(take(&mut peer), *b"early later");
    assert!(at_end(&mut peer));
    assert_eq!(reply(&mut client).0, 0x00);
}

#[test]
fn when_nobody_comes_the_second_reply_says_so() {
    let mut program = Program::start(&["--connect-timeout", "0.2"]);
    let (bound, mut client) = bind_at(program.address, &expecting("127.0.0.1:9"));
    assert_eq!(reply(&mut client).0, 0x06);
    let line = program.log_line("command=BIND");
    assert!(line.contains("outcome=timed-out why=\"no peer has come\""), "{line}");
    expect_closed(bound);
}

#[test]
fn wrong_peers_do_not_make_the_wait_longer() {
    let server = start(&["--connect-timeout", "0.2"]);
    let (bound, mut client) = bind(&server, &expecting("127.0.0.2:9"));
    let begin = Instant::now();
    while TcpStream::connect_timeout(&bound, LONG).is_ok() {
        assert!(begin.elapsed() < LONG, "the attacker holds the listener open");
    }
    assert_eq!(reply(&mut client).0, 0x06);
}

#[test]
fn the_listener_closes_when_the_client_leaves() {
    let server = start(&["--connect-timeout", "3600"]);
    let (bound, client) = bind(&server, &expecting("127.0.0.2:9"));
    drop(client);
    expect_closed(bound);
    let (bound, client) = bind(&server, &expecting("127.0.0.2:9"));
    reset(client);
    expect_closed(bound);
    let early = [&expecting("127.0.0.2:9"), b"early".as_slice()].concat();
    let (bound, mut client) = bind(&server, &early);
    client.write_all(b"and unread").unwrap();
    reset(client);
    expect_closed(bound);
}

#[test]
fn a_stop_of_the_server_ends_the_wait() {
    let mut server = start(&["--connect-timeout", "3600"]);
    let (bound, mut client) = bind(&server, &expecting("127.0.0.2:9"));
    server.stopper.stop();
    server.join();
    assert!(at_end(&mut client));
    expect_closed(bound);
}

#[test]
fn an_address_that_is_not_here_has_no_listener() {
    // The port is one of ours, so that nothing is sent where it does not belong.
    let (_listener, address) = listen();
    let server = start(&["--source", "192.0.2.1"]);
    let mut client = greeted(server.address, &request(address));
    assert_eq!(reply(&mut client).0, 0x01);
}

#[test]
fn rules_judge_the_peer_that_is_expected_and_the_one_that_comes() {
    let file = Scratch::new(b"deny command bind to 127.0.0.2\n");
    let server = start(&["--rules", file.path()]);
    let mut client = greeted(server.address, &expecting("127.0.0.2:9"));
    assert_eq!(reply(&mut client).0, 0x02);
    let (bound, mut client) = bind(&server, &expecting("0.0.0.0:0"));
    let mut attacker = connect_from("127.0.0.2", bound);
    assert!(!matches!(attacker.read(&mut [0]), Ok(1..)));
    let peer = connect_from("127.0.0.3", bound);
    assert_eq!(reply(&mut client), (0x00, peer.local_addr().unwrap()));
}

#[test]
fn a_peer_that_is_permitted_by_name_may_come() {
    let file = Scratch::new(b"allow command bind to localhost\ndeny command bind\n");
    let server = start(&["--rules", file.path()]);
    let mut client = greeted(server.address, &request_by_name(b"localhost", 9));
    let bound = reply_of_either_family(&mut client);
    let peer = connect(bound);
    assert_eq!(reply_of_either_family(&mut client), peer.local_addr().unwrap());
    let mut client = greeted(server.address, &expecting("127.0.0.1:9"));
    assert_eq!(reply(&mut client).0, 0x02);
}
