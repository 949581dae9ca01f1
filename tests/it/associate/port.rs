//! Whose datagrams are the client's.

use std::thread;
use std::time::{Duration, Instant};

use super::*;

#[test]
fn a_stranger_is_not_heard() {
    let server = start(&[]);
    let client = associate(&server);
    let (attacker, target) = (udp("127.0.0.2"), udp("127.0.0.1"));
    let address = target.local_addr().unwrap();
    attacker.send_to(&datagram(address, b"before"), client.bound).unwrap();
    client.send(address, b"mine");
    assert_eq!(receive_from(&target).0, b"mine");
    // From here on the attacker is told that nobody is there.
    let _ = attacker.send_to(&datagram(address, b"after"), client.bound);
    client.send(address, b"mine, too");
    assert_eq!(receive_from(&target).0, b"mine, too");
}

#[test]
fn an_announced_port_is_the_only_one() {
    let server = start(&[]);
    let (attacker, target) = (udp("127.0.0.1"), udp("127.0.0.1"));
    let address = target.local_addr().unwrap();
    for ip in ["127.0.0.1", "0.0.0.0"] {
        let socket = udp("127.0.0.1");
        let ip: IpAddr = ip.parse().unwrap();
        let announced = (ip, socket.local_addr().unwrap().port()).into();
        let client = associate_from(server.address, socket, &request(announced));
        attacker.send_to(&datagram(address, b"first, from elsewhere"), client.bound).unwrap();
        client.send(address, b"mine");
        assert_eq!(receive_from(&target).0, b"mine");
    }
}

#[test]
fn what_a_client_behind_address_translation_announces_does_not_count() {
    let server = start(&[]);
    let target = echo("127.0.0.1");
    for announced in [request("192.168.7.7:5000".parse().unwrap()), request_by_name(b"0", 0)] {
        let client = associate_from(server.address, udp("127.0.0.1"), &announced);
        client.expect_echo(target, b"payload");
    }
}

#[test]
fn who_forges_the_first_datagram_does_not_keep_the_association() {
    let server = start(&[]);
    let client = associate(&server);
    // It has the client's address, as one that forges it would have.
    let (attacker, target) = (udp("127.0.0.1"), udp("127.0.0.1"));
    let address = target.local_addr().unwrap();
    attacker.send_to(&datagram(address, b"forged"), client.bound).unwrap();
    assert_eq!(receive_from(&target).0, b"forged");
    client.send(address, b"question");
    let (question, outside) = receive_from(&target);
    assert_eq!(question, b"question");
    target.send_to(b"answer", outside).unwrap();
    assert_eq!(client.receive(), (address, b"answer".to_vec()));
}

#[test]
fn after_the_first_seconds_its_port_is_the_only_one() {
    let server = start(&[]);
    let client = associate(&server);
    let (attacker, target) = (udp("127.0.0.1"), udp("127.0.0.1"));
    let address = target.local_addr().unwrap();
    client.send(address, b"first");
    assert_eq!(receive_from(&target).0, b"first");
    let begin = Instant::now();
    let mut unheard = 0;
    while unheard < 10 {
        assert!(begin.elapsed() < LONG, "the port does not settle");
        let _ = attacker.send_to(&datagram(address, b"from elsewhere"), client.bound);
        client.send(address, b"mine");
        match receive_from(&target).0.as_slice() {
            b"mine" => unheard += 1,
            other => {
                assert_eq!((other, unheard), (b"from elsewhere".as_slice(), 0));
                assert_eq!(receive_from(&target).0, b"mine");
                thread::sleep(Duration::from_millis(20));
            }
        }
    }
    assert!(begin.elapsed() > Duration::from_secs(2), "it may still move in the first seconds");
}
