//! UDP ASSOCIATE: whose datagrams are taken, where they go, what comes back, and when it ends.

use std::collections::HashSet;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use crate::scratch::Scratch;
use crate::stage::{
    GREETING, LONG, Running, at_end, connect, pattern, reply, request, request_by_name, start,
    start_on, take,
};

mod advertise;
mod log;
mod names;
mod port;
mod reload;
mod replies;

const UDP_ASSOCIATE: u8 = 0x03;
const NOT_KNOWN_YET: &str = "0.0.0.0:0";

/// The most octets that a UDP datagram over IPv4 carries.
const MOST_OCTETS: usize = 65_507;

/// A client with its association.
struct Associated {
    control: TcpStream,
    /// Connected to the association.
    socket: UdpSocket,
    /// BND.ADDR and BND.PORT.
    bound: SocketAddr,
}

fn associate(server: &Running) -> Associated {
    associate_at(server.address)
}

fn associate_at(server: SocketAddr) -> Associated {
    associate_from(server, udp("127.0.0.1"), &request(NOT_KNOWN_YET.parse().unwrap()))
}

/// Asks for UDP ASSOCIATE with the octets of a CONNECT.
fn associate_from(server: SocketAddr, socket: UdpSocket, connect_request: &[u8]) -> Associated {
    let mut control = connect(server);
    let mut request = connect_request.to_vec();
    request[1] = UDP_ASSOCIATE;
    control.write_all(&[GREETING, &request].concat()).unwrap();
    assert_eq!(take(&mut control), *b"\x05\x00");
    let bound = bound(&mut control);
    socket.connect(bound).unwrap();
    Associated { control, socket, bound }
}

/// Reads a successful reply.
fn bound(control: &mut TcpStream) -> SocketAddr {
    let head: [u8; 4] = take(control);
    assert_eq!(head[..3], *b"\x05\x00\x00");
    let ip: IpAddr = match head[3] {
        1 => take::<4>(control).into(),
        _ => take::<16>(control).into(),
    };
    (ip, u16::from_be_bytes(take(control))).into()
}

impl Associated {
    fn send(&self, destination: SocketAddr, payload: &[u8]) {
        self.socket.send(&datagram(destination, payload)).unwrap();
    }

    /// The next datagram that comes: whence, and what.
    fn receive(&self) -> (SocketAddr, Vec<u8>) {
        let mut octets = vec![0; 65_535];
        let length = self.socket.recv(&mut octets).unwrap();
        octets.truncate(length);
        let (from, start) = match &octets[..] {
            [0, 0, 0, 1, ip @ ..] => {
                let ip: [u8; 4] = ip[..4].try_into().unwrap();
                (IpAddr::from(ip), 8)
            }
            [0, 0, 0, 4, ip @ ..] => {
                let ip: [u8; 16] = ip[..16].try_into().unwrap();
                (IpAddr::from(ip), 20)
            }
            other => panic!("{:02x?} is no header", &other[..4]),
        };
        let port = u16::from_be_bytes([octets[start], octets[start + 1]]);
        ((from, port).into(), octets.split_off(start + 2))
    }

    /// Sends one datagram to an echo and takes what comes next: exactly that.
    fn expect_echo(&self, target: SocketAddr, payload: &[u8]) {
        self.send(target, payload);
        assert_eq!(self.receive(), (target, payload.to_vec()));
    }

    /// Waits until the association has ended.
    fn expect_closed(&self) {
        let begin = Instant::now();
        loop {
            match self.socket.send(b"is it still there?") {
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => return,
                _ => assert!(begin.elapsed() < LONG, "the association is still there"),
            }
            thread::sleep(Duration::from_millis(5));
        }
    }
}

/// A socket of our own, whose waits are bounded.
fn udp(ip: &str) -> UdpSocket {
    let ip: IpAddr = ip.parse().unwrap();
    let socket = UdpSocket::bind((ip, 0)).unwrap();
    socket.set_read_timeout(Some(LONG)).unwrap();
    socket
}

/// A target that sends back what it gets.
fn echo(ip: &str) -> SocketAddr {
    let socket = udp(ip);
    socket.set_read_timeout(None).unwrap();
    let address = socket.local_addr().unwrap();
    thread::spawn(move || {
        let mut octets = vec![0; 65_535];
        while let Ok((length, from)) = socket.recv_from(&mut octets) {
            let _ = socket.send_to(&octets[..length], from);
        }
    });
    address
}

/// A datagram with its header: RSV and FRAG, and the address as in a request.
fn datagram(destination: SocketAddr, payload: &[u8]) -> Vec<u8> {
    [b"\0\0\0", &request(destination)[3..], payload].concat()
}

fn datagram_by_name(name: &[u8], port: u16, payload: &[u8]) -> Vec<u8> {
    [b"\0\0\0", &request_by_name(name, port)[3..], payload].concat()
}

fn receive_from(socket: &UdpSocket) -> (Vec<u8>, SocketAddr) {
    let mut octets = vec![0; 65_535];
    let (length, from) = socket.recv_from(&mut octets).unwrap();
    octets.truncate(length);
    (octets, from)
}

fn random(seed: u64, length: usize) -> Vec<u8> {
    let mut octets = Vec::new();
    pattern(seed, length).read_to_end(&mut octets).unwrap();
    octets
}

fn has_ipv6() -> bool {
    TcpListener::bind("[::1]:0").is_ok()
}

#[test]
fn datagrams_go_there_and_back() {
    let server = start(&[]);
    let client = associate(&server);
    assert_eq!(client.bound.ip(), server.address.ip());
    let targets = [echo("127.0.0.1"), echo("127.0.0.2")];
    for round in 0..10 {
        for target in targets {
            client.expect_echo(target, format!("round {round}").as_bytes());
        }
    }
    client.expect_echo(targets[0], b"");
    client.expect_echo(targets[0], b"and after an empty one");
}

#[test]
fn ipv6_datagrams_and_replies_arrive() {
    if !has_ipv6() {
        return;
    }
    let (ipv4, ipv6) = (echo("127.0.0.1"), echo("::1"));
    let server = start(&[]);
    let client = associate(&server);
    client.expect_echo(ipv6, b"to IPv6 from IPv4");
    let server = start_on("[::1]:0", &[]);
    let client = associate_from(server.address, udp("::1"), &request("[::]:0".parse().unwrap()));
    assert_eq!(client.bound.ip(), server.address.ip());
    client.expect_echo(ipv4, b"to IPv4 from IPv6");
    client.expect_echo(ipv6, b"to IPv6 from IPv6");
    client.expect_echo(ipv4, b"to IPv4 again");
}

#[test]
fn the_bound_address_is_never_a_mapped_one() {
    if !has_ipv6() {
        return;
    }
    let mut server = start_on("[::]:0", &[]);
    server.address.set_ip(IpAddr::from([127, 0, 0, 1]));
    let client = associate(&server);
    assert_eq!(client.bound.ip(), IpAddr::from([127, 0, 0, 1]));
    client.expect_echo(echo("127.0.0.1"), b"payload");
}

#[test]
fn sixteen_in_flight_come_back_as_they_went() {
    let server = start(&[]);
    thread::scope(|scope| {
        for seed in 0..8 {
            let (client, target) = (associate(&server), echo("127.0.0.1"));
            scope.spawn(move || {
                for window in 0..50 {
                    let sent: HashSet<Vec<u8>> = (0..16)
                        .map(|number| random(seed * 10_000 + window * 100 + number, 1400))
                        .collect();
                    for payload in &sent {
                        client.send(target, payload);
                    }
                    let back: HashSet<Vec<u8>> = (0..16).map(|_| client.receive().1).collect();
                    assert!(back == sent, "window {window}");
                }
            });
        }
    });
}

#[test]
fn fragments_and_malformed_datagrams_are_dropped() {
    let server = start(&[]);
    let client = associate(&server);
    let target = echo("127.0.0.1");
    let whole = datagram(target, b"payload");
    for frag in [0x01, 0x7f, 0x80, 0xff] {
        let mut fragment = whole.clone();
        fragment[2] = frag;
        client.socket.send(&fragment).unwrap();
    }
    for length in 0..10 {
        client.socket.send(&whole[..length]).unwrap();
    }
    client.socket.send(b"\0\0\0\x09\x7f\0\0\x01\0\x09payload").unwrap();
    client.socket.send(b"\0\0\0\x03\0\0\x09payload").unwrap();
    client.expect_echo(target, b"the first that is right");
}

#[test]
fn the_association_ends_with_its_connection() {
    let server = start(&[]);
    let mut client = associate(&server);
    let target = echo("127.0.0.1");
    client.expect_echo(target, b"payload");
    // What is said there does not matter.
    client.control.write_all(&random(1, 5000)).unwrap();
    client.expect_echo(target, b"payload");
    client.control.shutdown(std::net::Shutdown::Write).unwrap();
    client.expect_closed();
    assert!(at_end(&mut client.control));
}

#[test]
fn what_means_nothing_is_taken_slowly() {
    let server = start(&[]);
    let mut client = associate(&server);
    let target = echo("127.0.0.1");
    client.control.set_write_timeout(Some(Duration::from_millis(200))).unwrap();
    let junk = vec![0; 64 * 1024];
    let (begin, mut taken) = (Instant::now(), 0);
    while begin.elapsed() < Duration::from_secs(1) {
        taken += client.control.write(&junk).unwrap_or(0);
        client.expect_echo(target, b"payload");
    }
    // What both kernels have room for, and some.
    assert!(taken < 32 << 20, "{taken} bytes");
    crate::stage::reset(client.control);
    let begin = Instant::now();
    while client.socket.send(b"is it still there?").is_ok() {
        assert!(begin.elapsed() < LONG, "the association is still there");
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn an_idle_association_ends() {
    let server = start(&["--idle-timeout", "3"]);
    let mut client = associate(&server);
    let target = echo("127.0.0.1");
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(4) {
        client.expect_echo(target, b"not idle");
        thread::sleep(Duration::from_millis(20));
    }
    assert!(at_end(&mut client.control));
    client.expect_closed();
}

#[test]
fn a_stop_of_the_server_ends_the_association() {
    let mut server = start(&[]);
    let mut client = associate(&server);
    client.expect_echo(echo("127.0.0.1"), b"payload");
    server.stopper.stop();
    server.join();
    assert!(at_end(&mut client.control));
    client.expect_closed();
}

#[test]
fn the_source_address_is_what_targets_see() {
    let server = start(&["--source", "127.0.0.9"]);
    let client = associate(&server);
    assert_eq!(client.bound.ip(), server.address.ip());
    let target = udp("127.0.0.1");
    client.send(target.local_addr().unwrap(), b"question");
    assert_eq!(receive_from(&target).1.ip(), IpAddr::from([127, 0, 0, 9]));
    if has_ipv6() {
        client
            .expect_echo(echo("::1"), b"the other family has the address that the system chooses");
    }
    client.expect_echo(echo("127.0.0.1"), b"payload");
}

#[test]
fn an_advertised_address_is_what_clients_see() {
    let server = start(&["--udp-advertise", "127.0.0.1"]);
    let client = associate(&server);
    client.expect_echo(echo("127.0.0.1"), b"payload");
    let server = start(&["--udp-advertise", "192.0.2.1"]);
    assert_eq!(ask_only(&server), (0x00, IpAddr::from([192, 0, 2, 1])));
}

/// Asks for UDP ASSOCIATE and gives back REP and BND.ADDR.
fn ask_only(server: &Running) -> (u8, IpAddr) {
    let mut control = connect(server.address);
    let mut request = request(NOT_KNOWN_YET.parse().unwrap());
    request[1] = UDP_ASSOCIATE;
    control.write_all(&[GREETING, &request].concat()).unwrap();
    assert_eq!(take(&mut control), *b"\x05\x00");
    let (rep, bound) = reply(&mut control);
    (rep, bound.ip())
}

#[test]
fn rules_judge_every_destination() {
    let (closed, open) = (udp("127.0.0.1"), echo("127.0.0.1"));
    let address = closed.local_addr().unwrap();
    let rules = format!("deny command udp port {}\ndeny to *.example\n", address.port());
    let file = Scratch::new(rules.as_bytes());
    let server = start(&["--rules", file.path()]);
    let client = associate(&server);
    for _ in 0..3 {
        client.send(address, b"denied");
        client.socket.send(&datagram_by_name(b"a.example", 9, b"denied")).unwrap();
        client.socket.send(&datagram_by_name(b"127.1", address.port(), b"denied")).unwrap();
        client.expect_echo(open, b"permitted");
    }
    // What is behind it in the queue shows that nothing has come before.
    udp("127.0.0.1").send_to(b"ours", address).unwrap();
    assert_eq!(receive_from(&closed).0, b"ours");
}

#[test]
fn udp_may_be_denied_altogether() {
    let file = Scratch::new(b"deny command udp\n");
    let server = start(&["--rules", file.path()]);
    assert_eq!(ask_only(&server).0, 0x02);
}

#[test]
fn a_source_that_is_not_here_is_a_failure() {
    let server = start(&["--source", "192.0.2.1"]);
    assert_eq!(ask_only(&server).0, 0x01);
}

#[test]
fn two_hundred_associations_at_once() {
    let server = start(&[]);
    let target = echo("127.0.0.1");
    let clients: Vec<Associated> = (0..200).map(|_| associate(&server)).collect();
    for (number, client) in clients.iter().enumerate() {
        client.send(target, format!("{number}").as_bytes());
    }
    for (number, client) in clients.iter().enumerate() {
        assert_eq!(client.receive(), (target, format!("{number}").into_bytes()));
    }
}
