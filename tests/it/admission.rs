//! Who gets in, and who waits.

use std::io::{ErrorKind, Read, Write};
use std::sync::mpsc::channel;
use std::time::Duration;

use crate::namespace::with_two_ways;
use crate::scratch::{Program, Scratch, program_on};
use crate::stage::{
    GREETING, LONG, ask, at_end_or_reset, black_hole, connect, echo, request, reset, start, take,
    tunnel,
};

#[test]
fn at_the_limit_the_next_client_waits_until_a_slot_is_free() {
    let server = start(&["--max-connections", "2"]);
    let target = echo();
    let first = tunnel(&server, target);
    let _second = tunnel(&server, target);
    let mut third = connect(server.address);
    third.write_all(&[GREETING, &request(target), b"payload"].concat()).unwrap();
    third.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    assert_eq!(third.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
    drop(first);
    third.set_read_timeout(Some(LONG)).unwrap();
    assert_eq!(take(&mut third), *b"\x05\x00");
    take::<10>(&mut third);
    assert_eq!(take(&mut third), *b"payload");
}

#[test]
fn one_client_does_not_take_every_slot() {
    let server = start(&["--max-per-client", "2"]);
    let target = echo();
    let first = tunnel(&server, target);
    let _second = tunnel(&server, target);
    let mut attacker = connect(server.address);
    // It is closed, by a reset if the greeting was faster than the refusal.
    let _ = attacker.write_all(GREETING);
    assert!(!matches!(attacker.read(&mut [0]), Ok(1..)));
    drop(first);
    // The slot is free a moment after the client's end of file.
    let begin = std::time::Instant::now();
    loop {
        let mut client = connect(server.address);
        let _ = client.write_all(GREETING);
        if let Ok(1..) = client.read(&mut [0]) {
            break;
        }
        assert!(begin.elapsed() < LONG, "the slot did not become free");
    }
}

#[test]
fn a_client_in_no_served_network_never_gets_a_greeting() {
    let (server_to, server) = channel();
    let stranger = move || {
        let mut stranger = connect(server.recv_timeout(LONG).unwrap());
        let _ = stranger.write_all(GREETING);
        assert!(!matches!(stranger.read(&mut [0]), Ok(1..)));
    };
    with_two_ways(stranger, move || {
        let mut program =
            Program::spawn(program_on("10.1.0.1:0", &["--allow-from", "192.0.2.0/24"]));
        server_to.send(program.address).unwrap();
        assert!(program.log_line("turned away").contains("client=10.1.0.2:"));
    });
}

/// It may be a probe, which has no more to say.
#[test]
fn a_client_on_this_machine_that_is_not_served_has_its_greeting_answered_and_nothing_else() {
    let mut program = Program::start(&["--allow-from", "192.0.2.0/24"]);
    let mut stranger = connect(program.address);
    stranger.write_all(GREETING).unwrap();
    assert_eq!(take(&mut stranger), *b"\x05\x00");
    stranger.write_all(&request(echo())).unwrap();
    assert!(at_end_or_reset(&mut stranger));
    let line = program.log_line("outcome=denied");
    assert!(line.contains("command=- ") && line.contains("(--allow-from)"), "{line}");
}

#[test]
fn a_client_on_this_machine_that_is_not_served_cannot_log_in() {
    let users = Scratch::new(b"alice:open sesame\n");
    let server = start(&["--allow-from", "192.0.2.0/24", "--users", users.path()]);
    for password in [b"\x0bopen sesame".as_slice(), b"\x04open"] {
        let mut stranger = connect(server.address);
        stranger.write_all(b"\x05\x01\x02").unwrap();
        assert_eq!(take(&mut stranger), *b"\x05\x02");
        stranger.write_all(&[b"\x01\x05alice", password].concat()).unwrap();
        assert!(at_end_or_reset(&mut stranger), "no answer tells which password is right");
    }
}

#[test]
fn a_client_in_a_served_network_does() {
    let server = start(&["--allow-from", "127.0.0.1"]);
    assert_eq!(ask(&server, &request(echo())).0, 0x00);
}

#[test]
fn silent_clients_do_not_keep_a_full_server_from_others() {
    let server = start(&["--max-connections", "3"]);
    let target = echo();
    let _tunnel = tunnel(&server, target);
    let mut silent = [(); 2].map(|()| connect(server.address));
    assert_eq!(ask(&server, &request(target)).0, 0x00);
    assert!(at_end_or_reset(&mut silent[0]), "the oldest one makes room");
}

#[test]
fn a_client_that_resets_gives_its_place_back_though_it_has_sent_bytes_early() {
    let server = start(&["--max-connections", "1", "--connect-timeout", "600"]);
    let (_waiting, _socket, silent) = black_hole();
    let mut first = connect(server.address);
    first.write_all(&[GREETING, &request(silent), b"early"].concat()).unwrap();
    assert_eq!(take(&mut first), *b"\x05\x00");
    reset(first);
    assert_eq!(ask(&server, &request(echo())).0, 0x00);
}

#[test]
fn with_64_descriptors_it_serves_more_than_one_client() {
    let server = Program::start_with_descriptors(64, &[]);
    let target = echo();
    let mut tunnels: Vec<_> = (0..8)
        .map(|_| {
            let mut client = connect(server.address);
            client.write_all(&[GREETING, &request(target)].concat()).unwrap();
            assert_eq!(take::<12>(&mut client)[..4], *b"\x05\x00\x05\x00");
            client
        })
        .collect();
    for tunnel in &mut tunnels {
        tunnel.write_all(b"payload").unwrap();
        assert_eq!(take(tunnel), *b"payload");
    }
}
