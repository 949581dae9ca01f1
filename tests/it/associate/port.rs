//! Whose datagrams are the client's.

use std::mem;
use std::thread;
use std::time::{Duration, Instant};

use super::*;
use crate::scratch::Program;

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

/// Sends a question until it has arrived, and says where it has come from.
fn ask_until_heard(client: &Associated, target: &UdpSocket) -> SocketAddr {
    target.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let (begin, mut octets) = (Instant::now(), [0; 100]);
    loop {
        assert!(begin.elapsed() < LONG, "it is not heard");
        // It may be told that an earlier one was refused.
        let _ = client.socket.send(&datagram(target.local_addr().unwrap(), b"question"));
        match target.recv_from(&mut octets) {
            Ok((length, outside)) if octets[..length] == *b"question" => return outside,
            _ => {}
        }
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
    let outside = ask_until_heard(&client, &target);
    target.send_to(b"answer", outside).unwrap();
    assert_eq!(client.receive(), (address, b"answer".to_vec()));
}

/// One that is silent for so long may lose its port to another.
const SILENT: Duration = Duration::from_secs(1);

/// Does `attempt` until it tells something: a busy machine may keep one silent that means to speak on.
fn unhindered(attempt: impl Fn() -> Option<()>) {
    assert!((0..5).any(|_| attempt().is_some()), "the machine is too busy");
}

#[test]
fn who_forges_the_first_datagrams_loses_the_association_where_nobody_is_at_its_port() {
    unhindered(forge);
}

fn forge() -> Option<()> {
    let server = start(&[]);
    let client = associate(&server);
    let (attacker, target) = (udp("127.0.0.1"), udp("127.0.0.1"));
    let address = target.local_addr().unwrap();
    let begin = Instant::now();
    attacker.send_to(&datagram(address, b"forged"), client.bound).unwrap();
    let (_, outside) = receive_from(&target);
    let mut latest = begin;
    // The kernel refuses what the client sends once the association keeps to the other port.
    while client.socket.send(&datagram(address, b"mine")).is_ok() {
        assert!(begin.elapsed() < LONG, "it keeps to no port");
        let earlier = mem::replace(&mut latest, Instant::now());
        attacker.send_to(&datagram(address, b"forged"), client.bound).unwrap();
        let heard = receive_from(&target).0;
        if earlier.elapsed() >= SILENT {
            return None;
        }
        assert_eq!(heard, b"forged");
        thread::sleep(Duration::from_millis(20));
    }
    assert!(begin.elapsed() > Duration::from_secs(2), "it may change in the first seconds");
    drop(attacker);
    target.send_to(b"answer", outside).unwrap();
    let outside = ask_until_heard(&client, &target);
    target.send_to(b"answer", outside).unwrap();
    assert_eq!(client.receive(), (address, b"answer".to_vec()));
    Some(())
}

#[test]
fn a_port_in_use_is_not_taken_and_after_the_first_seconds_it_is_the_only_one() {
    unhindered(spray);
}

fn spray() -> Option<()> {
    let server = start(&[]);
    let client = associate(&server);
    let target = udp("127.0.0.1");
    let address = target.local_addr().unwrap();
    let attackers: Vec<UdpSocket> = (0..20).map(|_| udp("127.0.0.1")).collect();
    let begin = Instant::now();
    client.send(address, b"mine");
    assert_eq!(receive_from(&target).0, b"mine");
    let (mut latest, mut refused) = (begin, 0);
    while refused < 2 * attackers.len() {
        assert!(begin.elapsed() < LONG, "the port does not settle");
        for attacker in &attackers {
            let sent = attacker.connect(client.bound).and_then(|()| {
                attacker.send(&datagram(address, b"from elsewhere"))?;
                attacker.send(&datagram(address, b"from elsewhere"))
            });
            refused += usize::from(sent.is_err());
        }
        let earlier = mem::replace(&mut latest, Instant::now());
        client.send(address, b"mine");
        let heard = receive_from(&target).0;
        if earlier.elapsed() >= SILENT {
            return None;
        }
        assert_eq!(heard, b"mine");
        thread::sleep(Duration::from_millis(20));
    }
    assert!(begin.elapsed() > Duration::from_secs(2), "it may still move in the first seconds");
    Some(())
}

#[test]
fn nobody_speaks_for_a_client_through_an_association_of_its_own() {
    let mut program = Program::start(&[]);
    let client = associate_at(program.address);
    let target = udp("127.0.0.1");
    let address = target.local_addr().unwrap();
    let fed = datagram(address, b"fed");
    let attacker = associate_at(program.address);
    let mut mapped = b"\0\0\0\x04".to_vec();
    mapped.extend([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 127, 0, 0, 1]);
    mapped.extend(client.bound.port().to_be_bytes());
    mapped.extend(&fed);
    let by_name = datagram_by_name(b"localhost", client.bound.port(), &fed);
    for way in [&datagram(client.bound, &fed), &mapped, &by_name] {
        for _ in 0..2 {
            attacker.socket.send(way).unwrap();
        }
    }
    // It was open while no association had that port.
    let before = echo("127.0.0.1");
    attacker.expect_echo(before, b"behind them");
    drop(attacker);
    let line = program.log_line("command=UDP");
    let why = format!(" why=\"{} is the port of an association\"\n", client.bound);
    assert!(line.contains(" up=11 down=11 ") && line.ends_with(&why), "{line}");
    client.send(address, b"mine");
    assert_eq!(receive_from(&target).0, b"mine");
}

#[test]
fn a_port_is_closed_to_those_who_could_send_there_before_it_was_an_associations() {
    let server = start(&[]);
    let (attacker, target) = (associate(&server), udp("127.0.0.1"));
    let address = target.local_addr().unwrap();
    // The port of a server of the same number is open until an association has it.
    let victim = udp("127.0.0.1");
    let port = victim.local_addr().unwrap();
    attacker.send(port, b"still open");
    assert_eq!(receive_from(&victim).0, b"still open");
    drop(victim);
    let ports = port.port().to_string();
    let second = start(&["--udp-ports", &ports]);
    let client = associate(&second);
    assert_eq!(client.bound.port(), port.port());
    attacker.send(client.bound, &datagram(address, b"fed"));
    attacker.expect_echo(echo("127.0.0.1"), b"behind it");
    client.send(address, b"mine");
    assert_eq!(receive_from(&target).0, b"mine");
}
