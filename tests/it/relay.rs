//! Octets both ways, half-closes, resets, and slow readers.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use socket2::SockRef;

use crate::scratch::Program;
use crate::stage::{
    LONG, at_end, echo, expect, expect_reset, listen, pair, pattern, reset, send, start, take,
    tunnel, tunnel_from,
};

const MIB: usize = 1024 * 1024;

#[test]
fn a_half_close_leaves_the_other_direction_open() {
    let server = start(&[]);
    let (mut client, mut target) = pair(&server);
    thread::scope(|scope| {
        scope.spawn(|| {
            send(&mut client, pattern(1, 8 * MIB)).unwrap();
            client.shutdown(Shutdown::Write).unwrap();
            expect(&mut client, pattern(2, MIB));
            assert!(at_end(&mut client));
        });
        // The target answers only when it has seen the end of file.
        expect(&mut target, pattern(1, 8 * MIB));
        assert!(at_end(&mut target));
        send(&mut target, pattern(2, MIB)).unwrap();
        target.shutdown(Shutdown::Write).unwrap();
    });
}

#[test]
fn a_target_may_close_its_direction_first() {
    let server = start(&[]);
    let (mut client, mut target) = pair(&server);
    target.write_all(b"bye").unwrap();
    target.shutdown(Shutdown::Write).unwrap();
    assert_eq!(take(&mut client), *b"bye");
    assert!(at_end(&mut client));
    client.write_all(b"late").unwrap();
    assert_eq!(take(&mut target), *b"late");
    drop(client);
    assert!(at_end(&mut target));
}

#[test]
fn both_directions_at_once() {
    let server = start(&[]);
    let (client, target) = pair(&server);
    thread::scope(|scope| {
        for (side, seed, other) in [(&client, 3, 4), (&target, 4, 3)] {
            scope.spawn(move || {
                send(&mut &*side, pattern(seed, 32 * MIB)).unwrap();
                side.shutdown(Shutdown::Write).unwrap();
            });
            scope.spawn(move || {
                expect(&mut &*side, pattern(other, 32 * MIB));
                assert!(at_end(&mut &*side));
            });
        }
    });
}

#[test]
fn bulk_then_small_messages_then_bulk_again() {
    let server = start(&[]);
    let (mut client, mut target) = pair(&server);
    for round in 0..3 {
        thread::scope(|scope| {
            scope.spawn(|| send(&mut target, pattern(round, 3 * MIB + 1)).unwrap());
            expect(&mut client, pattern(round, 3 * MIB + 1));
        });
        for _ in 0..100 {
            client.write_all(b"ping").unwrap();
            assert_eq!(take(&mut target), *b"ping");
            target.write_all(b"pong").unwrap();
            assert_eq!(take(&mut client), *b"pong");
        }
    }
}

#[test]
fn two_hundred_sessions_at_once() {
    let server = start(&[]);
    let target = echo();
    thread::scope(|scope| {
        for seed in 0..200 {
            let server = &server;
            scope.spawn(move || {
                let client = tunnel(server, target);
                thread::scope(|scope| {
                    scope.spawn(|| {
                        send(&mut &client, pattern(seed, 300_000)).unwrap();
                        client.shutdown(Shutdown::Write).unwrap();
                    });
                    expect(&mut &client, pattern(seed, 300_000));
                    assert!(at_end(&mut &client));
                });
            });
        }
    });
}

#[test]
fn a_reset_of_the_client_becomes_a_reset_of_the_target() {
    let server = start(&[]);
    for octets in [0, 1, MIB] {
        let (mut client, mut target) = pair(&server);
        send(&mut client, pattern(5, octets)).unwrap();
        expect(&mut target, pattern(5, octets));
        reset(client);
        expect_reset(&mut target);
    }
}

#[test]
fn a_cut_download_does_not_look_complete() {
    let server = start(&[]);
    for octets in [0, 1, MIB] {
        let (mut client, mut target) = pair(&server);
        send(&mut target, pattern(6, octets)).unwrap();
        expect(&mut client, pattern(6, octets));
        reset(target);
        expect_reset(&mut client);
    }
}

/// The system tells of a reset only once, and here two threads are there to be told.
#[test]
fn a_reset_amid_both_directions_is_no_end_of_file() {
    let server = start(&[]);
    for _ in 0..400 {
        let (client, mut target) = pair(&server);
        thread::scope(|scope| {
            scope.spawn(|| exchange_until_reset(&client));
            target.read_exact(&mut vec![0; MIB]).unwrap();
            reset(target);
        });
    }
}

/// Writes and reads by turns on one thread, so that the first bad news of either is the news.
pub fn exchange_until_reset(mut client: &TcpStream) {
    client.set_nonblocking(true).unwrap();
    let mut octets = vec![0x55; 64 * 1024];
    let begin = Instant::now();
    loop {
        assert!(begin.elapsed() < LONG, "no reset has come");
        for outcome in [client.write(&octets.clone()), client.read(&mut octets)] {
            match outcome {
                Ok(0) => panic!("a clean end of file where a reset was due"),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return assert_eq!(error.kind(), ErrorKind::ConnectionReset),
            }
        }
    }
}

#[test]
fn a_client_that_is_gone_is_told_to_the_target_that_sends() {
    let server = start(&[]);
    let (client, mut target) = pair(&server);
    drop(client);
    let endless = vec![0x55; 64 * 1024];
    let begin = Instant::now();
    while target.write_all(&endless).is_ok() {
        assert!(begin.elapsed() < LONG, "the target sends and nobody is there");
    }
}

#[test]
fn a_stalled_reader_stops_the_writer_and_loses_nothing() {
    let server = start(&[]);
    let (mut client, mut target) = pair(&server);
    client.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
    let mut written = 0;
    let mut octets = pattern(7, 1024 * MIB);
    let mut chunk = vec![0; 64 * 1024];
    loop {
        octets.read_exact(&mut chunk).unwrap();
        let mut rest = &chunk[..];
        while let Ok(length @ 1..) = client.write(rest) {
            rest = &rest[length..];
        }
        written += chunk.len() - rest.len();
        if !rest.is_empty() {
            break;
        }
        assert!(written < 256 * MIB, "the writer was never stopped");
    }
    client.shutdown(Shutdown::Write).unwrap();
    expect(&mut target, pattern(7, written));
    assert!(at_end(&mut target));
}

/// While the reader is stalled, no thread reads from the client, and yet its reset is noticed.
#[test]
fn a_reset_behind_a_stalled_reader_is_passed_on() {
    // The watch looks eight times as often.
    let server = start(&["--handshake-timeout", "4"]);
    let (mut client, mut target) = pair(&server);
    client.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
    let endless = vec![0x55; 64 * 1024];
    while client.write_all(&endless).is_ok() {}
    reset(client);
    // Reading would free the stalled thread; the target's own error does not need it.
    await_error(&target);
    let error = target.write(b"x").unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset));
}

/// Nobody reads from a side that has ended, and yet its reset is noticed.
#[test]
fn a_reset_after_a_half_close_is_passed_on_to_a_silent_target() {
    let server = start(&[]);
    let (client, mut target) = pair(&server);
    client.shutdown(Shutdown::Write).unwrap();
    assert!(at_end(&mut target));
    reset(client);
    await_error(&target);
}

#[test]
fn a_reset_after_a_half_close_is_passed_on_to_a_silent_client() {
    let server = start(&[]);
    let (mut client, target) = pair(&server);
    target.shutdown(Shutdown::Write).unwrap();
    assert!(at_end(&mut client));
    reset(target);
    await_error(&client);
}

/// Waits for the news that `stream` is reset, without asking it for bytes.
fn await_error(stream: &TcpStream) {
    let begin = Instant::now();
    while SockRef::from(stream).take_error().unwrap().is_none() {
        assert!(begin.elapsed() < LONG, "the reset was not passed on");
        thread::sleep(Duration::from_millis(20));
    }
}

/// With so few descriptors there are no pipes, as there are none for an ordinary user who has used up
/// what the system grants.
#[test]
fn tunnels_that_were_busy_give_their_memory_back() {
    const CLIENTS: u8 = 20;
    const TUNNELS: usize = 280;
    const EACH: usize = 640 * 1024;
    // A buffer is as large as that or larger. What the program takes before it is busy differs from
    // build to build, and what stays at the ends of the C library's heaps with how its threads are run.
    const MOST_MORE_KIB: usize = TUNNELS * 16;
    let program = Program::start_with_descriptors(800, &[]);
    let source = source_of(EACH);
    // One client would not be given so many.
    let clients = (1..=CLIENTS).cycle().take(TUNNELS);
    let tunnels: Vec<TcpStream> = clients
        .map(|client| tunnel_from(Ipv4Addr::new(127, 0, 0, client), program.address, source))
        .collect();
    let before = program.resident_kib();
    for mut stream in &tunnels {
        stream.write_all(b"go").unwrap();
    }
    let mut octets = vec![0; EACH];
    for mut stream in &tunnels {
        stream.read_exact(&mut octets).unwrap();
    }
    let begin = Instant::now();
    while program.resident_kib() > before + MOST_MORE_KIB {
        assert!(begin.elapsed() < LONG, "{} KiB stay of {before}", program.resident_kib());
        thread::sleep(Duration::from_millis(100));
    }
}

/// A target that sends so many octets for each two that it gets.
fn source_of(length: usize) -> SocketAddr {
    let (listener, address) = listen();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            thread::spawn(move || {
                while stream.read_exact(&mut [0; 2]).is_ok() {
                    let _ = send(&mut stream, pattern(12, length));
                }
            });
        }
    });
    address
}

#[test]
fn urgent_data_stays_in_line() {
    let server = start(&[]);
    let (mut client, mut target) = pair(&server);
    client.write_all(b"ab").unwrap();
    SockRef::from(&client).send_out_of_band(b"!").unwrap();
    client.write_all(b"cd").unwrap();
    assert_eq!(take(&mut target), *b"ab!cd");
}
