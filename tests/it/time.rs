//! Every wait has a limit, and a server for which nothing is to be done waits without waking.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use crate::namespace::{ip, with_two_ways};
use crate::scratch::{Program, of_process};
use crate::stage::{
    GREETING, LONG, accept, at_end, black_hole, connect, echo, expect_reset, pair, pattern,
    request, reset, send, start, take, told, tunnel, tunnel_from,
};

#[test]
fn a_client_that_says_nothing_is_cut() {
    let server = start(&["--handshake-timeout", "0.3"]);
    let begin = Instant::now();
    let mut attacker = connect(server.address);
    assert!(at_end(&mut attacker));
    assert!(begin.elapsed() >= Duration::from_millis(250), "{:?}", begin.elapsed());
}

#[test]
fn a_client_that_drips_is_cut_by_the_one_deadline() {
    let server = start(&["--handshake-timeout", "0.5"]);
    let begin = Instant::now();
    let mut attacker = connect(server.address);
    attacker.write_all(b"\x05\xff").unwrap();
    for _ in 0..255 {
        if attacker.write_all(b"\x01").is_err() {
            break;
        }
        thread::sleep(Duration::from_millis(50));
        assert!(begin.elapsed() < Duration::from_secs(10), "it was let drip on");
    }
    assert!(begin.elapsed() >= Duration::from_millis(450), "{:?}", begin.elapsed());
}

#[test]
fn a_target_that_says_nothing_is_given_up() {
    let mut program = Program::start(&["--connect-timeout", "0.5"]);
    let (_waiting, _socket, target) = black_hole();
    let begin = Instant::now();
    assert_eq!(told(program.address, &request(target))[1], 0x06);
    let line = program.log_line("CONNECT");
    assert!(line.contains("outcome=timed-out why=\"the target has not answered\""), "{line}");
    assert!(begin.elapsed() >= Duration::from_millis(450), "{:?}", begin.elapsed());
}

#[test]
fn a_client_that_leaves_while_its_target_is_dialed_frees_its_slot() {
    let server = start(&["--connect-timeout", "600", "--max-connections", "1"]);
    let (_waiting, _socket, target) = black_hole();
    for leave in [drop, reset] {
        let mut client = connect(server.address);
        client.write_all(&[GREETING, &request(target)].concat()).unwrap();
        take::<2>(&mut client);
        leave(client);
        // It would wait for ten minutes otherwise.
        tunnel(&server, echo());
    }
}

#[test]
fn an_idle_session_is_ended() {
    let server = start(&["--idle-timeout", "0.4"]);
    let begin = Instant::now();
    let (mut client, mut target) = pair(&server);
    expect_reset(&mut client);
    expect_reset(&mut target);
    assert!(begin.elapsed() >= Duration::from_millis(350), "{:?}", begin.elapsed());
}

#[test]
fn octets_in_one_direction_keep_the_other_alive() {
    let server = start(&["--idle-timeout", "3"]);
    let (mut client, mut target) = pair(&server);
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(4) {
        client.write_all(b"tick").unwrap();
        assert_eq!(take(&mut target), *b"tick");
        thread::sleep(Duration::from_millis(100));
    }
    target.write_all(b"still here").unwrap();
    assert_eq!(take(&mut client), *b"still here");
}

#[test]
fn a_stalled_session_is_idle_too() {
    let server = start(&["--idle-timeout", "1"]);
    let (mut client, target) = pair(&server);
    client.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
    let endless = vec![0x55; 64 * 1024];
    let begin = Instant::now();
    loop {
        assert!(begin.elapsed() < LONG, "a stalled session lives on");
        match client.write(&endless) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(_) => break,
        }
    }
    drop(target);
}

/// What a slow reader of a download has to get, and how fast it takes it: for longer than the idle
/// limit.
const DOWNLOAD: usize = 2_000_000;
const PIECE: usize = 40_000;
const PIECE_EVERY: Duration = Duration::from_millis(100);

#[test]
fn a_slow_download_whose_target_is_done_arrives_whole() {
    let server = start(&["--idle-timeout", "3"]);
    let (mut client, mut target) = pair(&server);
    send(&mut target, pattern(11, DOWNLOAD)).unwrap();
    drop(target);
    read_slowly(&mut client);
    assert!(at_end(&mut client));
}

/// All of it is in the server's send queue, and from there it moves without the server.
#[test]
fn nobody_who_still_reads_is_cut_off_as_idle() {
    let server = start(&["--idle-timeout", "3"]);
    let (mut client, mut target) = pair(&server);
    send(&mut target, pattern(11, DOWNLOAD)).unwrap();
    read_slowly(&mut client);
    expect_reset(&mut client);
    expect_reset(&mut target);
}

fn read_slowly(reader: &mut TcpStream) {
    let mut expected = pattern(11, DOWNLOAD);
    let mut piece = vec![0; PIECE];
    for _ in 0..DOWNLOAD / PIECE {
        let mut due = vec![0; PIECE];
        expected.read_exact(&mut due).unwrap();
        reader.read_exact(&mut piece).expect("what was sent is cut off");
        assert!(piece == due, "wrong bytes");
        thread::sleep(PIECE_EVERY);
    }
}

/// The system tells of a connection that is bound to an interface only if it is asked for it with that.
#[test]
fn nobody_who_still_reads_beyond_an_interface_is_cut_off_as_idle() {
    let beyond: SocketAddr = "192.0.2.1:9000".parse().unwrap();
    let (listens, is_there) = channel();
    let target = move || {
        let listener = TcpListener::bind(beyond).unwrap();
        listens.send(()).unwrap();
        let mut upload = accept(&listener);
        read_slowly(&mut upload);
        expect_reset(&mut upload);
    };
    with_two_ways(target, move || {
        ip("route add default via 10.2.0.2 metric 9");
        is_there.recv().unwrap();
        let server = Program::start(&["--idle-timeout", "3", "--interface", "two0"]);
        let mut client = tunnel_from(Ipv4Addr::LOCALHOST, server.address, beyond);
        send(&mut client, pattern(11, DOWNLOAD)).unwrap();
        expect_reset(&mut client);
    });
}

/// The target has not concluded what it sends: the client must not take it for complete.
#[test]
fn a_slow_upload_whose_client_is_done_arrives_whole_and_the_answer_is_cut() {
    let server = start(&["--idle-timeout", "3"]);
    let (mut client, mut target) = pair(&server);
    send(&mut client, pattern(11, DOWNLOAD)).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    target.write_all(b"begin").unwrap();
    assert_eq!(take(&mut client), *b"begin");
    expect_reset(&mut client);
    // The session has ended, and megabytes are left.
    read_slowly(&mut target);
    assert!(at_end(&mut target));
}

/// An end of file would look as if the other side had concluded what it sends.
#[test]
fn who_writes_to_a_stalled_reader_sees_no_clean_end_of_file() {
    let server = start(&["--idle-timeout", "1"]);
    let (mut client, target) = pair(&server);
    client.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
    let endless = vec![0x55; 64 * 1024];
    let stalled = loop {
        if let Err(error) = client.write_all(&endless) {
            break error;
        }
    };
    // Where the machine is slow the reset comes while the client still writes, and is told only once.
    if stalled.kind() != ErrorKind::ConnectionReset {
        assert_eq!(stalled.kind(), ErrorKind::WouldBlock);
        expect_reset(&mut client);
    }
    drop(target);
}

#[test]
fn a_server_without_clients_sleeps() {
    let program = Program::start(&[]);
    // How often its threads have fallen asleep (`proc_pid_status(5)`).
    let sleeps = || -> Vec<String> {
        let threads = fs::read_dir(of_process(program.id(), "task")).unwrap();
        let statuses = threads
            .map(|thread| fs::read_to_string(thread.unwrap().path().join("status")).unwrap());
        let count = |status: String| {
            let count = status.lines().find(|line| line.starts_with("voluntary_ctxt_switches"));
            count.unwrap().to_owned()
        };
        statuses.map(count).collect()
    };
    let begin = Instant::now();
    loop {
        let before = sleeps();
        // What is measured, and not a wait for anything.
        thread::sleep(Duration::from_millis(2500));
        if sleeps() == before {
            return;
        }
        assert!(begin.elapsed() < LONG, "it wakes again and again");
    }
}
