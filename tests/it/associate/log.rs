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
        let line = program.log_line(": dropped a datagram, ");
        assert!(line.contains(" client=127.0.0.1:"), "{line}");
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

#[test]
fn the_line_of_a_udp_session_says_what_was_denied() {
    let rules = Scratch::new(b"deny command udp to 127.0.0.3\n");
    let mut program = Program::start(&["--rules", rules.path()]);
    let client = associate_at(program.address);
    for port in [7, 9, 7, 9] {
        client.send(SocketAddr::from(([127, 0, 0, 3], port)), b"denied");
    }
    client.expect_echo(echo("127.0.0.1"), b"permitted");
    drop(client);
    let line = program.log_line("client=");
    let told = " dest=127.0.0.3:7 destinations=3 denied=2 reached=- ";
    assert!(line.contains(" command=UDP ") && line.contains(told), "{line}");
    let why = format!("why=\"{}:1: this rule denies 127.0.0.3:7\"\n", rules.path());
    assert!(line.ends_with(&format!(" outcome=closed {why}")), "{line}");
}

#[test]
fn denied_datagrams_of_many_associations_do_not_fill_the_log() {
    let rules = Scratch::new(b"deny command udp to 127.0.0.3\n");
    for verbose in [false, true] {
        let options = ["--rules", rules.path(), "--log-rate-limit", "1", "-v"];
        let mut program = Program::start(&options[..if verbose { 5 } else { 4 }]);
        let mut log = program.take_log();
        let reader = thread::spawn(move || {
            let mut text = String::new();
            log.read_to_string(&mut text).unwrap();
            text
        });
        let begin = Instant::now();
        for _ in 0..150 {
            let client = associate_at(program.address);
            for port in [7, 9] {
                client.send(SocketAddr::from(([127, 0, 0, 3], port)), b"denied");
            }
            client.expect_echo(echo("127.0.0.1"), b"permitted");
        }
        program.signal(rustix::process::Signal::TERM);
        let log = reader.join().unwrap();
        let seconds = usize::try_from(begin.elapsed().as_secs()).unwrap();
        let lines = log.lines().filter(|line| line.contains(" client=127.0.0.1:")).count();
        assert!(lines >= 100 && lines <= 100 + seconds + 2, "{lines} in {seconds} s");
    }
}
