//! What the log tells of an association.

use super::*;
use crate::scratch::Program;

#[test]
fn a_dropped_datagram_leaves_a_debug_line_once_for_each_reason() {
    let mut program = Program::start(&["-v"]);
    let client = associate_at(program.address);
    let target = udp("127.0.0.1");
    let mut fragment = datagram(target.local_addr().unwrap(), b"payload");
    fragment[2] = 1;
    for _ in 0..3 {
        client.socket.send(&fragment).unwrap();
    }
    for _ in 0..3 {
        client.socket.send(b"\0\0\0\x09").unwrap();
    }
    client.send(target.local_addr().unwrap(), b"question");
    let (_, outside) = receive_from(&target);
    let outside = SocketAddr::new(IpAddr::from([127, 0, 0, 1]), outside.port());
    udp("127.0.0.2").send_to(b"pending", outside).unwrap();
    for reason in ["a fragment", "no SOCKS5 header", "nothing was sent to that address"] {
        let line = program.log_line("dropped a datagram");
        assert!(line.contains(reason), "{line}");
    }
}

#[test]
fn the_line_of_a_udp_session_says_where_its_datagrams_went() {
    let mut program = Program::start(&[]);
    let client = associate_at(program.address);
    let targets = [echo("127.0.0.1"), echo("127.0.0.1")];
    for round in 0..3 {
        for target in targets {
            client.expect_echo(target, &[round]);
        }
    }
    drop(client);
    let line = program.log_line("command=UDP");
    let told = format!(" dest={} destinations=2 reached=- up=6 down=6 ", targets[0]);
    assert!(line.contains(&told), "{line}");
}
