//! Sockets that a service manager hands over, and what it is told.

use std::fs;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{self, UnixDatagram};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use socket2::{Domain, Socket, Type};

use crate::manager::Manager;
use crate::scratch::{Program, Scratch, heeding};
use crate::stage::{
    GREETING, LONG, connect, echo, listen, nobody_listens, request, take, tunnel_from,
};

/// The program, to be started with a descriptor as a service manager hands it over.
fn with_descriptor(descriptor: OwnedFd, options: &[&str]) -> Command {
    let plain = heeding(options);
    let mut command = Command::new("/bin/sh");
    let hand_over = "exec 3<&0 </dev/null; export LISTEN_FDS=1 LISTEN_PID=$$; exec \"$0\" \"$@\"";
    command.arg("-c").arg(hand_over);
    command.arg(plain.get_program()).args(plain.get_args());
    command.stdin(Stdio::from(descriptor)).stdout(Stdio::null());
    command
}

fn start_with(held: &TcpListener, options: &[&str]) -> Program {
    Program::spawn(with_descriptor(held.try_clone().unwrap().into(), options))
}

/// What a client at `server` gets back from the echo at `target`.
fn ping(server: SocketAddr, target: SocketAddr) {
    let mut client = connect(server);
    client.write_all(&[GREETING, &request(target), b"ping"].concat()).unwrap();
    let octets: [u8; 16] = take(&mut client);
    assert_eq!([&octets[..4], &octets[12..]], [b"\x05\x00\x05\x00", b"ping"]);
}

#[test]
fn a_socket_that_was_handed_over_is_used_instead_of_listen() {
    let (held, address) = listen();
    // As a service manager may leave it: this must not make the program spin.
    held.set_nonblocking(true).unwrap();
    let mut program = start_with(&held, &[]);
    assert_eq!(program.address, address);
    assert!(program.log_so_far().contains("(handed over, instead of LISTEN)"));
    ping(address, echo());
    program.signal(Signal::TERM);
    program.log_line("stopped");
    assert_eq!(program.wait().code(), Some(0));
}

#[test]
fn who_comes_between_two_servers_waits_for_the_second() {
    let (held, address) = listen();
    let target = echo();
    let mut program = start_with(&held, &[]);
    ping(address, target);
    program.signal(Signal::TERM);
    program.log_line("stopped");
    assert_eq!(program.wait().code(), Some(0));
    let mut between = connect(address);
    between.write_all(&[GREETING, &request(target), b"ping"].concat()).unwrap();
    let _second = start_with(&held, &[]);
    assert_eq!(take::<16>(&mut between)[12..], *b"ping");
}

#[test]
fn clients_of_one_address_that_have_waited_together_are_all_served() {
    let (held, address) = listen();
    let target = echo();
    let waiting: Vec<_> = (0..40)
        .map(|_| {
            let mut client = connect(address);
            client.write_all(&[GREETING, &request(target), b"ping"].concat()).unwrap();
            client
        })
        .collect();
    let _program = start_with(&held, &["--max-per-client", "4"]);
    // Each gives its place to the next.
    thread::scope(|scope| {
        for mut client in waiting {
            scope.spawn(move || assert_eq!(take::<16>(&mut client)[12..], *b"ping"));
        }
    });
}

#[test]
fn who_was_accepted_and_waits_for_room_is_served_before_the_end() {
    let (held, address) = listen();
    let target = echo();
    let mut program = start_with(&held, &["--max-connections", "1", "--grace", "20"]);
    let live = tunnel_from(Ipv4Addr::LOCALHOST, address, target);
    let mut waiting = connect(address);
    waiting.write_all(&[GREETING, &request(target), b"ping"].concat()).unwrap();
    program.log_line("further clients wait");
    program.signal(Signal::TERM);
    program.log_line("stopping; 2 sessions");
    drop(live);
    assert_eq!(take::<16>(&mut waiting)[12..], *b"ping");
    drop(waiting);
    program.log_line("stopped");
    assert_eq!(program.wait().code(), Some(0));
}

#[test]
fn ten_restarts_under_load_lose_no_connection() {
    let (held, address) = listen();
    let target = echo();
    let (over, served) = (AtomicBool::new(false), AtomicUsize::new(0));
    let mut logged = 0;
    thread::scope(|scope| {
        let client = || {
            while !over.load(Ordering::Relaxed) {
                ping(address, target);
                served.fetch_add(1, Ordering::Relaxed);
            }
        };
        let clients = [(); 8].map(|()| scope.spawn(client));
        for _ in 0..10 {
            let mut program = start_with(&held, &["--grace", "20"]);
            let mark = served.load(Ordering::Relaxed) + 20;
            let begin = Instant::now();
            while served.load(Ordering::Relaxed) < mark {
                assert!(begin.elapsed() < LONG, "clients are not served");
                thread::yield_now();
            }
            program.signal(Signal::TERM);
            let log = program.rest_of_log();
            assert_eq!(program.wait().code(), Some(0));
            for line in log.lines().filter(|line| line.contains("outcome=")) {
                assert!(line.contains("outcome=closed"), "{line}");
                logged += 1;
            }
        }
        // Somebody has to serve those who have come meanwhile.
        let _last = start_with(&held, &[]);
        over.store(true, Ordering::Relaxed);
        for client in clients {
            client.join().unwrap();
        }
    });
    assert!(logged >= 200 && served.load(Ordering::Relaxed) >= logged, "{logged} were logged");
}

#[test]
fn what_is_no_socket_that_listens_is_refused_and_the_error_says_what_it_is() {
    let file = Scratch::new(b"");
    let named = format!("it is {}", file.path());
    let (_listener, address) = listen();
    let (unix, of_unix) = net::UnixStream::pair().unwrap();
    let datagrams = UnixDatagram::unbound().unwrap();
    let seqpacket = Socket::new(Domain::UNIX, Type::SEQPACKET, None).unwrap();
    let udp = UdpSocket::bind("[::1]:0").or_else(|_| UdpSocket::bind("127.0.0.1:0")).unwrap();
    for (wrong, why) in [
        (fs::File::open(file.path()).unwrap().into(), named.as_str()),
        (unix.into(), "it is a Unix socket"),
        (datagrams.into(), "it is a Unix socket"),
        (seqpacket.into(), "it is a socket of another kind"),
        (udp.into(), "it is a UDP socket"),
        (connect(address).into(), "it is a connection (Accept=no is for tabi)"),
        (nobody_listens().0.into(), "it does not listen"),
    ] {
        let output = with_descriptor(wrong, &[]).output().unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{told}");
        let expected = "LISTEN_FDS: descriptor 3 is no TCP socket that listens: ";
        assert!(told.contains(&format!("{expected}{why}\n")), "{told}");
    }
    drop(of_unix);
}

#[test]
fn the_service_manager_is_told_how_the_server_is() {
    let name = format!("tabi-it-{}-manager", std::process::id());
    let path = std::env::temp_dir().join(&name);
    let by_name = net::SocketAddr::from_abstract_name(&name).unwrap();
    for (named, socket) in [
        (path.to_str().unwrap().to_owned(), UnixDatagram::bind(&path).unwrap()),
        (format!("@{name}"), UnixDatagram::bind_addr(&by_name).unwrap()),
    ] {
        let manager = Manager::at(socket);
        let environment = [("NOTIFY_SOCKET", named.as_str()), ("WATCHDOG_USEC", "200000")];
        let mut command = heeding(&["--grace", "0"]);
        command.envs(environment);
        let started = Instant::now();
        let mut program = Program::spawn(command);
        assert_eq!(manager.told(), "READY=1");
        // Nobody is there, and nothing else has to be done.
        for _ in 0..3 {
            assert_eq!(manager.heard(), "WATCHDOG=1");
        }
        let _silent = connect(program.address);
        let begin = Instant::now();
        for _ in 0..10 {
            assert_eq!(manager.heard(), "WATCHDOG=1");
        }
        // Ten times a tenth of a second; the watch alone would look once a second.
        assert!(begin.elapsed() < Duration::from_secs(6), "{:?}", begin.elapsed());
        // Some may have been under way for a while: of all since the start none came too soon.
        let beats = 13 + manager.beats();
        assert!(started.elapsed() > beats * Duration::from_millis(80), "{beats}");
        program.signal(Signal::HUP);
        let reloading = manager.told();
        assert!(reloading.starts_with("RELOADING=1\nMONOTONIC_USEC="), "{reloading}");
        assert_eq!(manager.told(), "READY=1");
        program.signal(Signal::TERM);
        assert_eq!(manager.told(), "STOPPING=1");
        program.log_line("stopped");
    }
    fs::remove_file(path).unwrap();
}
