//! Where outgoing connections leave: local addresses and ports, interfaces, marks.

use std::fs;
use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};

use socket2::{Domain, Socket, Type};

use crate::namespace::alone;
use crate::stage::{GREETING, LONG, reply, request, start_on, take};

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
