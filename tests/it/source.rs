//! Where outgoing connections leave: local addresses and ports, interfaces, marks.

use std::fs;
use std::io::Write;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::mpsc::channel;
use std::thread;

use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
use socket2::{Domain, Socket, Type};
use tabi::cli;
use tabi::server::{Inherited, Notify, Server};

use crate::namespace::{alone, ip, with_two_ways};
use crate::stage::{
    GREETING, LONG, Running, accept, ask, connect, echo, reply, request, start_on, take,
};

const BIND: u8 = 0x02;
const UDP_ASSOCIATE: u8 = 0x03;

/// Connects from an address and a port of our choice.
fn connect_from(local: SocketAddr, address: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::for_address(local), Type::STREAM, None).unwrap();
    socket.bind(&local.into()).unwrap();
    socket.connect_timeout(&address.into(), LONG).unwrap();
    socket.set_read_timeout(Some(LONG)).unwrap();
    socket.into()
}

#[test]
fn with_a_source_64_ports_are_enough_for_200_tunnels_to_four_targets() {
    alone(|| {
        fs::write("/proc/sys/net/ipv4/ip_local_port_range", "40000 40063").unwrap();
        let server = start_on("127.0.0.1:1080", &["--source", "127.0.0.9"]);
        let targets = [1, 2, 3, 4].map(|host| SocketAddr::from(([127, 0, 0, host], 9000)));
        let _listeners = targets.map(|target| TcpListener::bind(target).unwrap());
        let mut tunnels = Vec::new();
        for number in 0..200_u16 {
            // Our own connections take none of the 64 ports.
            let local = SocketAddr::from(([127, 0, 0, 1], 50_000 + number));
            let mut client = connect_from(local, server.address);
            let target = targets[usize::from(number) % targets.len()];
            client.write_all(&[GREETING, &request(target)].concat()).unwrap();
            assert_eq!(take(&mut client), *b"\x05\x00");
            assert_eq!(reply(&mut client).0, 0x00, "tunnel {number}");
            tunnels.push(client);
        }
    });
}

/// Where a target at 192.0.2.1 sees connections and datagrams come from, beyond two ways.
fn seen_from(options: &[&str], command: u8) -> Option<IpAddr> {
    let beyond: SocketAddr = "192.0.2.1:9000".parse().unwrap();
    let ((told, seen), (over, is_over)) = (channel(), channel::<()>());
    let (listens, is_there) = channel();
    let target = move || {
        if command == UDP_ASSOCIATE {
            let socket = UdpSocket::bind(beyond).unwrap();
            socket.set_read_timeout(Some(LONG)).unwrap();
            listens.send(()).unwrap();
            told.send(socket.recv_from(&mut [0; 16]).unwrap().1.ip()).unwrap();
        } else {
            let listener = TcpListener::bind(beyond).unwrap();
            listens.send(()).unwrap();
            if command == BIND {
                // It is the peer that connects; the listener only keeps the ways up.
                let _ = is_over.recv();
                return;
            }
            told.send(accept(&listener).peer_addr().unwrap().ip()).unwrap();
        }
    };
    with_two_ways(target, move || {
        ip("route add default via 10.2.0.2 metric 9
            route add default via 10.2.0.2 table 42
            rule add fwmark 42 table 42");
        is_there.recv().unwrap();
        let server = start_on("127.0.0.1:1080", options);
        let mut asked = request(beyond);
        asked[1] = command;
        let mut client = connect(server.address);
        client.write_all(&[GREETING, &asked].concat()).unwrap();
        assert_eq!(take(&mut client), *b"\x05\x00");
        let (rep, bound) = reply(&mut client);
        assert_eq!(rep, 0x00);
        if command == BIND {
            drop(over);
            return bound.ip();
        }
        if command == UDP_ASSOCIATE {
            let datagram = [&[0, 0, 0], &request(beyond)[3..], b"payload"].concat();
            UdpSocket::bind("127.0.0.1:0").unwrap().send_to(&datagram, bound).unwrap();
        }
        seen.recv_timeout(LONG).unwrap()
    })
}

#[test]
fn the_mark_or_the_interface_chooses_between_two_routes() {
    for command in [0x01, BIND, UDP_ASSOCIATE] {
        for (options, way) in [
            (&[][..], "10.1.0.1"),
            (&["--mark", "42"], "10.2.0.1"),
            (&["--interface", "two0"], "10.2.0.1"),
        ] {
            let Some(from) = seen_from(options, command) else { return };
            assert_eq!(from.to_string(), way, "{options:?} CMD {command}");
        }
    }
}

#[test]
fn what_is_for_this_machine_leaves_by_no_interface() {
    let (over, is_over) = channel::<()>();
    with_two_ways(
        move || assert!(is_over.recv().is_err()),
        move || {
            if !ip("route add local 10.99.0.0/16 dev lo") {
                return;
            }
            let server = start_on("127.0.0.1:1080", &["--interface", "two0"]);
            for own in ["127.0.0.1", "10.1.0.1", "10.2.0.1", "10.99.3.4"] {
                let own = SocketAddr::new(own.parse().unwrap(), 9000);
                let listener = TcpListener::bind(own).unwrap();
                assert_eq!(ask(&server, &request(own)).0, 0x00, "CONNECT to {own}");
                drop(listener);

                let target = UdpSocket::bind(own).unwrap();
                target.set_read_timeout(Some(LONG)).unwrap();
                let (_client, bound) =
                    ask_for(&server, UDP_ASSOCIATE, "0.0.0.0:0".parse().unwrap());
                let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
                socket.set_read_timeout(Some(LONG)).unwrap();
                let datagram = [&[0, 0, 0], &request(own)[3..], b"payload"].concat();
                socket.send_to(&datagram, bound).unwrap();
                let mut octets = [0; 64];
                let (length, from) = target.recv_from(&mut octets).unwrap();
                assert_eq!(octets[..length], *b"payload", "UDP to {own}");
                target.send_to(b"answer", from).unwrap();
                let length = socket.recv(&mut octets).unwrap();
                assert_eq!(
                    octets[..length],
                    [&datagram[..10], b"answer"].concat(),
                    "UDP from {own}"
                );

                let (mut client, bound) = ask_for(&server, BIND, own);
                // The port of before is not free yet.
                let _peer = connect_from(SocketAddr::new(own.ip(), 0), bound);
                assert_eq!(reply(&mut client).0, 0x00, "BIND for {own}");
            }
            drop(over);
        },
    );
}

/// Sends a request, and gives back the client and the bound address.
fn ask_for(server: &Running, command: u8, destination: SocketAddr) -> (TcpStream, SocketAddr) {
    let mut asked = request(destination);
    asked[1] = command;
    let mut client = connect(server.address);
    client.write_all(&[GREETING, &asked].concat()).unwrap();
    assert_eq!(take(&mut client), *b"\x05\x00");
    let (rep, bound) = reply(&mut client);
    assert_eq!(rep, 0x00);
    (client, bound)
}

#[test]
fn an_interface_that_comes_back_is_used_again() {
    let (over, is_over) = channel::<()>();
    let (listens, is_there) = channel();
    let beyond: SocketAddr = "192.0.2.1:9000".parse().unwrap();
    let target = move || {
        let _listener = TcpListener::bind(beyond).unwrap();
        listens.send(()).unwrap();
        let _ = is_over.recv();
    };
    with_two_ways(target, move || {
        is_there.recv().unwrap();
        ip("route add default via 10.2.0.2 metric 9");
        let server = start_on("127.0.0.1:1080", &["--interface", "two0"]);
        assert_eq!(ask(&server, &request(beyond)).0, 0x00);
        ip("link set two0 down");
        assert_eq!(ask(&server, &request(beyond)).0, 0x03, "not by the other way");
        ip("link set two0 up
            route add default via 10.2.0.2 metric 9");
        assert_eq!(ask(&server, &request(beyond)).0, 0x00);
        ip("link set two0 name gone0");
        assert_eq!(ask(&server, &request(beyond)).0, 0x01, "there is no such interface");
        drop(over);
    });
}

#[test]
fn the_same_address_at_which_the_client_has_reached_the_server() {
    alone(|| {
        if !ip("addr add 10.9.0.1/32 dev lo
                addr add 10.9.0.2/32 dev lo
                addr add 10.9.0.5/32 dev lo")
        {
            return;
        }
        let listener = TcpListener::bind("10.9.0.5:9000").unwrap();
        let target = listener.local_addr().unwrap();
        // Through the first, IPv4 clients come as IPv4-mapped ones.
        for listen in ["[::]:1080", "0.0.0.0:1081"] {
            let server = start_on(listen, &["--source", "same"]);
            for (reached, seen) in [
                ("10.9.0.1", "10.9.0.1"),
                ("10.9.0.2", "10.9.0.2"),
                // From there nothing reaches another machine, so the system chooses.
                ("127.0.0.1", "10.9.0.5"),
            ] {
                let address = SocketAddr::new(reached.parse().unwrap(), server.address.port());
                let (rep, _client) = ask_at(address, &request(target));
                assert_eq!(rep, 0x00);
                let from = accept(&listener).peer_addr().unwrap();
                assert_eq!(from.ip().to_string(), seen, "{listen} {reached}");
            }
        }
    });
}

fn ask_at(address: SocketAddr, request: &[u8]) -> (u8, TcpStream) {
    let mut client = connect(address);
    client.write_all(&[GREETING, request].concat()).unwrap();
    assert_eq!(take(&mut client), *b"\x05\x00");
    (reply(&mut client).0, client)
}

#[test]
fn without_the_capability_the_start_says_which_one_is_missing() {
    let told = thread::scope(|scope| {
        let bind = || {
            let mut sets = capabilities(None).unwrap();
            sets.effective -= CapabilitySet::NET_ADMIN | CapabilitySet::NET_RAW;
            set_capabilities(None, sets).unwrap();
            let arguments = cli::parse(["tabi", "127.0.0.1:0", "--mark", "42"]).unwrap();
            Server::bind(arguments.config, Inherited::default(), Notify::default())
                .map(drop)
                .unwrap_err()
                .to_string()
        };
        scope.spawn(bind).join().unwrap()
    });
    assert!(told.contains("--mark 42") && told.contains("CAP_NET_ADMIN"), "{told}");
}

#[test]
fn a_missing_interface_is_no_reason_not_to_start() {
    let server = start_on("127.0.0.1:0", &["--interface", "tabi-none0"]);
    // Nothing is sent there.
    assert_eq!(ask(&server, &request(([192, 0, 2, 1], 80).into())).0, 0x01);
    assert_eq!(ask(&server, &request(echo())).0, 0x00, "this machine itself can be reached");
}
