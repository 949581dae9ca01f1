//! What comes back.

use super::*;

#[test]
fn only_those_whom_the_client_has_sent_to_may_reply() {
    let server = start(&[]);
    let client = associate(&server);
    let target = udp("127.0.0.1");
    client.send(target.local_addr().unwrap(), b"question");
    let (_, outside) = receive_from(&target);
    let outside = SocketAddr::new(IpAddr::from([127, 0, 0, 1]), outside.port());
    udp("127.0.0.2").send_to(b"pending", outside).unwrap();
    target.send_to(b"answer", outside).unwrap();
    assert_eq!(client.receive(), (target.local_addr().unwrap(), b"answer".to_vec()));
}

#[test]
fn replies_from_another_port_of_the_server_arrive() {
    let server = start(&[]);
    let client = associate(&server);
    let (target, transfer) = (udp("127.0.0.1"), udp("127.0.0.1"));
    client.send(target.local_addr().unwrap(), b"read request");
    let (_, outside) = receive_from(&target);
    transfer.send_to(b"data 1", outside).unwrap();
    assert_eq!(client.receive(), (transfer.local_addr().unwrap(), b"data 1".to_vec()));
    client.send(transfer.local_addr().unwrap(), b"acknowledgment 1");
    assert_eq!(receive_from(&transfer), (b"acknowledgment 1".to_vec(), outside));
}

#[test]
fn the_biggest_datagrams_go_whole_or_not_at_all() {
    let server = start(&[]);
    let client = associate(&server);
    let echo = echo("127.0.0.1");
    let most = random(1, MOST_OCTETS - 10);
    for length in [most.len(), 1, most.len() - 1, 1400, most.len()] {
        client.expect_echo(echo, &most[..length]);
    }
    let target = udp("127.0.0.1");
    client.send(target.local_addr().unwrap(), b"question");
    let (_, outside) = receive_from(&target);
    for length in [MOST_OCTETS, MOST_OCTETS - 9] {
        target.send_to(&random(2, length), outside).unwrap();
    }
    target.send_to(b"it fits", outside).unwrap();
    assert_eq!(client.receive().1, b"it fits");
}

/// Where nobody sends from.
const NOBODY: &str = "127.0.0.9:9";

#[test]
fn a_closed_port_does_not_end_the_association() {
    let server = start(&[]);
    let client = associate(&server);
    // It hears another one alone: to everybody else its port is closed, and nobody gets that meanwhile.
    let deaf = udp("127.0.0.1");
    deaf.connect(NOBODY).unwrap();
    let closed = deaf.local_addr().unwrap();
    let target = udp("127.0.0.1");
    let address = target.local_addr().unwrap();
    for _ in 0..3 {
        client.send(closed, b"nobody is there");
        client.send(address, b"question");
        let (_, outside) = receive_from(&target);
        target.send_to(b"answer", outside).unwrap();
        assert_eq!(client.receive().1, b"answer");
    }
    // Now the client's own port is closed for a while.
    client.send(address, b"question");
    let (_, outside) = receive_from(&target);
    let Associated { control, socket, bound } = client;
    let local = socket.local_addr().unwrap();
    drop(socket);
    for _ in 0..3 {
        target.send_to(b"nobody is there", outside).unwrap();
    }
    let socket = UdpSocket::bind(local).unwrap();
    socket.set_read_timeout(Some(LONG)).unwrap();
    socket.connect(bound).unwrap();
    let client = Associated { control, socket, bound };
    client.send(address, b"again");
    assert_eq!(receive_from(&target).0, b"again");
}
