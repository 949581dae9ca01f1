//! What was cut off never looks whole, and nothing is cut for nothing.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use rustix::net::{SendFlags, send as send_with};
use rustix::process::Signal;
use socket2::SockRef;

use crate::namespace::alone;
use crate::scratch::{Program, program};
use crate::stage::{
    GREETING, LONG, accept, at_end, connect, expect, expect_reset, listen, pair, pattern, request,
    send, start, start_on, take, tunnel, tunnel_from,
};

const MIB: usize = 1024 * 1024;

/// A tunnel to a target at `ip`, the client's end first.
fn pair_at(ip: IpAddr, server: SocketAddr) -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind((ip, 0)).unwrap();
    let mut client = connect(server);
    let request = request(listener.local_addr().unwrap());
    client.write_all(&[GREETING, &request].concat()).unwrap();
    assert_eq!(take(&mut client), *b"\x05\x00");
    let [_, rep, _, atyp] = take(&mut client);
    assert_eq!(rep, 0x00);
    let mut bound = vec![0; if atyp == 0x01 { 6 } else { 18 }];
    client.read_exact(&mut bound).unwrap();
    (client, accept(&listener))
}

/// Sends much, an urgent octet, much again, and so on: the reader finds all of it in line.
fn send_urgently(from: &TcpStream, to: &TcpStream) {
    const MARKS: u64 = 6;
    thread::scope(|scope| {
        scope.spawn(move || {
            for mark in 0..MARKS {
                send(&mut &*from, pattern(mark, 2 * MIB)).unwrap();
                // The octets before the mark are under way when it comes.
                thread::sleep(Duration::from_millis(20));
                assert_eq!(send_with(from, b"!", SendFlags::OOB), Ok(1));
            }
            from.shutdown(Shutdown::Write).unwrap();
        });
        for mark in 0..MARKS {
            expect(&mut &*to, pattern(mark, 2 * MIB));
            assert_eq!(take(&mut &*to), *b"!");
        }
        assert!(at_end(&mut &*to));
    });
}

#[test]
fn urgent_data_amid_bulk_ends_no_session() {
    for ip in [IpAddr::V4(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()] {
        let server = start_on(&SocketAddr::new(ip, 0).to_string(), &[]);
        let (client, target) = pair_at(ip, server.address);
        send_urgently(&target, &client);
        send_urgently(&client, &target);
    }
}

#[test]
fn urgent_data_amid_bulk_passes_two_servers() {
    let far = start(&[]);
    let url = format!("socks5h://{}", far.address);
    let mut command = program(&[]);
    command.env("TABI_UPSTREAM", url);
    let near = Program::spawn(command);
    let (client, target) = pair_at(Ipv4Addr::LOCALHOST.into(), near.address);
    send_urgently(&target, &client);
    send_urgently(&client, &target);
}

#[test]
fn many_urgent_marks_in_a_row_end_no_session() {
    let server = start(&[]);
    let (client, target) = pair(&server);
    thread::scope(|scope| {
        scope.spawn(|| {
            send(&mut &target, pattern(1, 2 * MIB)).unwrap();
            for _ in 0..100 {
                assert_eq!(send_with(&target, b"!", SendFlags::OOB), Ok(1));
            }
            send(&mut &target, pattern(2, 2 * MIB)).unwrap();
            target.shutdown(Shutdown::Write).unwrap();
        });
        expect(&mut &client, pattern(1, 2 * MIB));
        assert_eq!(take::<100>(&mut &client), [b'!'; 100]);
        expect(&mut &client, pattern(2, 2 * MIB));
        assert!(at_end(&mut &client));
    });
}

/// Ends the program while a tunnel is live, after `before`, and gives back the tunnel's ends.
fn ended_by(
    end: impl FnOnce(&mut Program),
    before: impl FnOnce(&mut TcpStream, &mut TcpStream),
) -> (TcpStream, TcpStream) {
    let mut server = Program::heeding(&["--grace", "60"]);
    let (listener, address) = listen();
    let mut client = tunnel_from(Ipv4Addr::LOCALHOST, server.address, address);
    let mut target = accept(&listener);
    before(&mut client, &mut target);
    end(&mut server);
    server.wait();
    (client, target)
}

fn kill(server: &mut Program) {
    server.signal(Signal::KILL);
}

fn stop_twice(server: &mut Program) {
    server.signal(Signal::TERM);
    server.log_line("to finish");
    server.signal(Signal::TERM);
}

#[test]
fn a_download_does_not_look_complete_when_the_server_dies() {
    let part = |client: &mut TcpStream, target: &mut TcpStream| {
        target.write_all(b"a part").unwrap();
        assert_eq!(take(client), *b"a part");
        client.write_all(b"and one up").unwrap();
        assert_eq!(take(target), *b"and one up");
    };
    let bulk = |client: &mut TcpStream, target: &mut TcpStream| {
        thread::scope(|scope| {
            scope.spawn(|| send(target, pattern(1, 3 * MIB)).unwrap());
            expect(client, pattern(1, 3 * MIB));
        });
    };
    for (mut client, mut target) in [
        ended_by(kill, |_, _| ()),
        ended_by(kill, part),
        ended_by(kill, bulk),
        ended_by(stop_twice, part),
    ] {
        expect_reset(&mut client);
        expect_reset(&mut target);
    }
}

#[test]
fn what_was_complete_stays_complete_when_the_server_dies() {
    // More than the client's kernel takes: the rest is in the server's send queue.
    let (mut client, mut target) = ended_by(kill, |client, target| {
        send(target, pattern(1, MIB)).unwrap();
        target.shutdown(Shutdown::Write).unwrap();
        await_end_passed_on(client);
    });
    expect(&mut client, pattern(1, MIB));
    assert!(at_end(&mut client), "the download was complete");
    expect_reset(&mut target);
}

/// Waits until the server has concluded what it sends to the client, which need not have read it.
fn await_end_passed_on(client: &TcpStream) {
    // As `proc_net_tcp(5)` writes them.
    const FIN_WAIT: [&str; 2] = ["04", "05"];
    let hex = |address: io::Result<SocketAddr>| match address.unwrap() {
        SocketAddr::V4(it) => {
            format!("{:08X}:{:04X}", u32::from_ne_bytes(it.ip().octets()), it.port())
        }
        SocketAddr::V6(it) => panic!("{it} is in another table"),
    };
    let ends = [hex(client.peer_addr()), hex(client.local_addr())];
    let has_ended = |line: &str| {
        let fields: Vec<_> = line.split_whitespace().collect();
        fields.get(1..4).is_some_and(|it| it[..2] == ends && FIN_WAIT.contains(&it[2]))
    };
    let begin = Instant::now();
    while !fs::read_to_string("/proc/net/tcp").unwrap().lines().any(has_ended) {
        assert!(begin.elapsed() < LONG, "the end of file is not passed on");
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_target_that_speaks_before_it_reads_is_heard() {
    alone(|| {
        fs::write("/proc/sys/net/ipv4/tcp_wmem", "4096 4096 4096").unwrap();
        let server = start(&[]);
        let (listener, address) = listen();
        SockRef::from(&listener).set_recv_buffer_size(1).unwrap();
        let client = tunnel(&server, address);
        let target = accept(&listener);
        thread::scope(|scope| {
            // More than the target's system and the server's take while nobody reads.
            scope.spawn(|| send(&mut &client, pattern(1, 64 * 1024)).unwrap());
            thread::sleep(Duration::from_millis(200));
            (&target).write_all(b"hello").unwrap();
            assert_eq!(take(&mut &client), *b"hello");
            expect(&mut &target, pattern(1, 64 * 1024));
        });
    });
}

/// The program, which finds that these system calls fail.
#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
mod denied {
    use super::*;
    use rustix::io::Errno;
    use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, apply_filter};

    #[cfg(target_arch = "x86_64")]
    const SPLICE: i64 = 275;
    #[cfg(target_arch = "aarch64")]
    const SPLICE: i64 = 76;

    fn without(call: i64, errno: Errno, mut command: Command) -> Program {
        let spawn = move || {
            let errno = u32::try_from(errno.raw_os_error()).unwrap();
            let filter = SeccompFilter::new(
                [(call, Vec::new())].into(),
                SeccompAction::Allow,
                SeccompAction::Errno(errno),
                std::env::consts::ARCH.try_into().unwrap(),
            );
            let program: BpfProgram = filter.unwrap().try_into().unwrap();
            // For this thread alone, and for what it starts.
            apply_filter(&program).unwrap();
            command.stdin(std::process::Stdio::null());
            Program::spawn(command)
        };
        thread::spawn(spawn).join().unwrap()
    }

    #[test]
    fn a_download_is_whole_where_the_system_refuses_to_splice() {
        for errno in [Errno::NOSYS, Errno::PERM, Errno::INVAL] {
            let mut server = without(SPLICE, errno, program(&[]));
            for seed in 0..2 {
                let (client, target) = pair_at(Ipv4Addr::LOCALHOST.into(), server.address);
                for (from, to) in [(&target, &client), (&client, &target)] {
                    thread::scope(|scope| {
                        scope.spawn(move || {
                            send(&mut &*from, pattern(seed, 5 * MIB)).unwrap();
                            from.shutdown(Shutdown::Write).unwrap();
                        });
                        expect(&mut &*to, pattern(seed, 5 * MIB));
                        assert!(at_end(&mut &*to));
                    });
                }
            }
            server.signal(Signal::TERM);
            let log = server.rest_of_log();
            assert_eq!(log.matches("outcome=closed").count(), 2, "{log}");
            assert_eq!(log.matches("cannot splice").count(), 1, "{log}");
        }
    }
}
