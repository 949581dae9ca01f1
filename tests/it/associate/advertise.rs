//! Which address clients are told, where they come by way of somebody else: a load balancer on this
//! machine, or the port mapping of a container.

use std::sync::mpsc::{Receiver, Sender, channel};

use super::*;
use crate::namespace::{ip, with_two_ways};
use crate::scratch::check;

/// The client's port.
const PORT: u16 = 50_001;

/// An association that a load balancer on this machine asks for in the name of a client.
struct Behind {
    client: IpAddr,
    /// Where the client's datagrams reach this machine.
    to: SocketAddr,
}

/// Asks for an association as a load balancer does; `port` is the one that the client announces.
fn ask_for(server: SocketAddr, client: &str, port: u16) -> (TcpStream, SocketAddr) {
    let family = if client.contains(':') { 6 } else { 4 };
    let here = if family == 6 { "::1" } else { "127.0.0.1" };
    let header = format!("PROXY TCP{family} {client} {here} 50000 1080\r\n").into_bytes();
    let mut control = connect(server);
    let mut asked = request(([0, 0, 0, 0], port).into());
    asked[1] = UDP_ASSOCIATE;
    control.write_all(&[&header, GREETING, &asked].concat()).unwrap();
    assert_eq!(take(&mut control), *b"\x05\x00");
    let bound = bound(&mut control);
    (control, bound)
}

/// Sends and receives for each client, and tells when it is done.
fn be_clients(asked: &Receiver<Behind>, done: &Sender<()>) {
    if !ip("addr add 10.1.0.3/24 dev one1
            addr add fd77::2/64 dev one1 nodad
            addr add fd77::3/64 dev one1 nodad")
    {
        return;
    }
    let target = udp("192.0.2.1");
    for Behind { client, to } in asked {
        let stranger = udp(if client.is_ipv4() { "10.1.0.3" } else { "fd77::3" });
        let client = UdpSocket::bind((client, PORT)).unwrap();
        client.set_read_timeout(Some(LONG)).unwrap();
        // What comes from elsewhere is not received.
        client.connect(to).unwrap();
        for question in [b"one", b"two"] {
            let destination = target.local_addr().unwrap();
            stranger.send_to(&datagram(destination, b"stolen"), to).unwrap();
            client.send(&datagram(destination, question)).unwrap();
            let (heard, from) = receive_from(&target);
            assert_eq!(heard, question);
            stranger.send_to(&datagram(destination, b"stolen"), to).unwrap();
            target.send_to(b"answer", from).unwrap();
            let mut octets = [0; 64];
            let length = client.recv(&mut octets).unwrap();
            assert_eq!(octets[..length], datagram(destination, b"answer"));
        }
        done.send(()).unwrap();
    }
}

#[test]
fn a_client_behind_a_local_end_reaches_what_it_is_told_and_is_answered_from_there() {
    let ((asked_to, asked), (done_to, done)) = (channel(), channel());
    with_two_ways(
        move || be_clients(&asked, &done_to),
        move || {
            ip("addr add 10.1.0.9/24 dev one0
            addr add fd77::1/64 dev one0 nodad
            addr add fd77::9/64 dev one0 nodad");
            // Of the last address of each family this machine knows nothing: somebody maps its ports.
            for (client, advertised, reached) in [
                ("10.1.0.2", "10.1.0.1", "10.1.0.1"),
                ("10.1.0.2", "10.1.0.9", "10.1.0.9"),
                ("10.1.0.2", "198.51.100.7", "10.1.0.1"),
                ("10.1.0.2", "198.51.100.7", "10.1.0.9"),
                ("fd77::2", "fd77::1", "fd77::1"),
                ("fd77::2", "fd77::9", "fd77::9"),
                ("fd77::2", "2001:db8::7", "fd77::1"),
                ("fd77::2", "2001:db8::7", "fd77::9"),
            ] {
                for port in [0, PORT] {
                    let options = ["--proxy-protocol", "127.0.0.1", "--udp-advertise", advertised];
                    let server = start_on("127.0.0.1:0", &options);
                    let (_control, bound) = ask_for(server.address, client, port);
                    assert_eq!(bound.ip().to_string(), advertised);
                    let to = SocketAddr::new(reached.parse().unwrap(), bound.port());
                    asked_to.send(Behind { client: client.parse().unwrap(), to }).unwrap();
                    done.recv_timeout(LONG).expect(reached);
                }
            }
            drop(asked_to);
        },
    );
}

#[test]
fn a_client_is_told_the_address_of_its_own_family() {
    let both = ["--udp-advertise", "198.51.100.7", "--udp-advertise", "2001:db8::7"];
    let options = [&["--proxy-protocol", "127.0.0.1"], &both[..]].concat();
    let server = start(&options);
    for (client, expected) in [("10.1.0.2", "198.51.100.7"), ("fd77::2", "2001:db8::7")] {
        assert_eq!(ask_for(server.address, client, 0).1.ip().to_string(), expected);
    }
    // There is none for this family: the client is told the address that it has reached.
    let server = start(&[&options[..2], &both[2..]].concat());
    assert_eq!(ask_for(server.address, "10.1.0.2", 0).1.ip().to_string(), "127.0.0.1");
}

#[test]
fn two_addresses_of_one_family_are_refused() {
    for (first, second) in [("192.0.2.1", "192.0.2.2"), ("2001:db8::1", "2001:db8::2")] {
        let (status, told) = check(&["--udp-advertise", first, "--udp-advertise", second]);
        assert_eq!(status, 2);
        let expected =
            format!("--udp-advertise {first} and --udp-advertise {second} are of one family");
        assert!(told.contains(&expected), "{told}");
    }
}
