//! The ports on which clients send datagrams.

use std::collections::HashSet;
use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::mpsc::channel;
use std::thread;

use crate::namespace::{alone, with_two_ways};
use crate::scratch::Program;
use crate::stage::{GREETING, LONG, at_end, connect, reply, request, start_on, take};

/// Asks for an association. Gives back REP, the bound address, and the client.
fn associate(server: SocketAddr) -> (u8, SocketAddr, TcpStream) {
    let mut client = connect(server);
    client.write_all(&[GREETING, b"\x05\x03\x00\x01\0\0\0\0\0\0"].concat()).unwrap();
    assert_eq!(take(&mut client), *b"\x05\x00");
    let (rep, bound) = reply(&mut client);
    (rep, bound, client)
}

#[test]
fn associations_have_the_ports_of_the_range_and_no_others() {
    alone(|| {
        let mut server = Program::start(&["--udp-ports", "40000-40002"]);
        let mut taken: Vec<_> = (0..3).map(|_| associate(server.address)).collect();
        let ports: HashSet<u16> = taken.iter().map(|(_, bound, _)| bound.port()).collect();
        assert_eq!(ports, HashSet::from([40000, 40001, 40002]));
        let (rep, _, mut client) = associate(server.address);
        assert_eq!(rep, 0x01);
        assert!(at_end(&mut client));
        server.log_line("all --udp-ports are in use");
        server.log_line("outcome=failed");
        let (_, freed, client) = taken.remove(1);
        drop(client);
        server.log_line("outcome=closed");
        let (rep, bound, _client) = associate(server.address);
        assert_eq!((rep, bound.port()), (0x00, freed.port()));
    });
}

#[test]
fn the_port_is_not_to_be_guessed() {
    alone(|| {
        let server = start_on("127.0.0.1:1080", &["--udp-ports", "40000-40999"]);
        let taken: Vec<_> = (0..8).map(|_| associate(server.address)).collect();
        let ports: HashSet<u16> = taken.iter().map(|(_, bound, _)| bound.port()).collect();
        let in_order = (40000..40008).collect();
        assert!(ports.iter().all(|port| (40000..41000).contains(port)), "{ports:?}");
        assert_ne!(ports, in_order);
    });
}

/// Passes on what comes to `here`, as the port mapping of a container does.
fn map_tcp(here: &str, there: &'static str) {
    let listener = TcpListener::bind(here).unwrap();
    thread::spawn(move || {
        let (outer, _) = listener.accept().unwrap();
        let inner = TcpStream::connect(there).unwrap();
        thread::scope(|scope| {
            scope.spawn(|| io::copy(&mut &outer, &mut &inner));
            let _ = io::copy(&mut &inner, &mut &outer);
        });
    });
}

fn map_udp(here: &str, there: &str) {
    let outer = UdpSocket::bind(here).unwrap();
    let inner = UdpSocket::bind("10.1.0.1:0").unwrap();
    inner.connect(there).unwrap();
    thread::spawn(move || {
        let mut octets = [0; 2048];
        let (length, client) = outer.recv_from(&mut octets).unwrap();
        inner.send(&octets[..length]).unwrap();
        let length = inner.recv(&mut octets).unwrap();
        outer.send_to(&octets[..length], client).unwrap();
    });
}

#[test]
fn an_association_works_through_the_port_mapping_of_a_container() {
    let ((started, is_started), (over, is_over)) = (channel(), channel::<()>());
    let container = move || {
        let options = ["--udp-advertise", "10.1.0.1", "--udp-ports", "40000-40001"];
        let _server = start_on("10.1.0.2:1080", &options);
        started.send(()).unwrap();
        let _ = is_over.recv();
    };
    with_two_ways(container, move || {
        is_started.recv_timeout(LONG).unwrap();
        map_tcp("10.1.0.1:1080", "10.1.0.2:1080");
        for port in [40000, 40001] {
            map_udp(&format!("10.1.0.1:{port}"), &format!("10.1.0.2:{port}"));
        }
        let (rep, bound, _client) = associate("10.1.0.1:1080".parse().unwrap());
        assert_eq!((rep, bound.ip().to_string()), (0x00, "10.1.0.1".into()));
        let (socket, target) = (UdpSocket::bind("10.1.0.1:0"), UdpSocket::bind("10.1.0.1:0"));
        let (socket, target) = (socket.unwrap(), target.unwrap());
        socket.set_read_timeout(Some(LONG)).unwrap();
        target.set_read_timeout(Some(LONG)).unwrap();
        let header = [&[0, 0, 0], &request(target.local_addr().unwrap())[3..]].concat();
        socket.send_to(&[&header[..], b"question"].concat(), bound).unwrap();
        let mut octets = [0; 64];
        let (length, from) = target.recv_from(&mut octets).unwrap();
        assert_eq!(&octets[..length], b"question");
        target.send_to(b"answer", from).unwrap();
        let (length, from) = socket.recv_from(&mut octets).unwrap();
        assert_eq!((&octets[..length], from), (&[&header[..], b"answer"].concat()[..], bound));
        drop(over);
    });
}
