//! SIGUSR2: the program is started anew, and no client notices.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{self, UnixDatagram};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use std::{fs, thread};

use rustix::process::{Pid, Signal, kill_process};

use crate::manager::Manager;
use crate::namespace::alone;
use crate::scratch::{Program, Scratch, ended, heeding, of_process};
use crate::stage::{
    GREETING, LONG, accept, at_end_or_reset, connect, connect_from, echo, expect_reset, listen,
    reply, request, take, tunnel_from,
};

/// A process that has taken over. It is no child of this one.
pub struct Successor(Pid);

impl Successor {
    /// The one that a line of the log says serves clients now.
    pub fn named_in(line: &str) -> Self {
        let (_, rest) = line.split_once("process ").unwrap();
        let number = rest.split(' ').next().unwrap().parse().unwrap();
        Successor(Pid::from_raw(number).unwrap())
    }

    fn signal(&self, signal: Signal) {
        kill_process(self.0, signal).unwrap();
    }
}

impl Drop for Successor {
    fn drop(&mut self) {
        let _ = kill_process(self.0, Signal::KILL);
    }
}

/// Has the process started anew, and waits until the new one serves.
fn restart(process: Pid, program: &mut Program) -> Successor {
    kill_process(process, Signal::USR2).unwrap();
    Successor::named_in(&program.log_line(" serves clients now"))
}

/// Waits until the process is gone.
fn await_end(process: Pid) {
    let begin = Instant::now();
    while fs::metadata(of_process(process, "stat")).is_ok() {
        assert!(begin.elapsed() < LONG, "{process:?} goes on");
        thread::sleep(Duration::from_millis(20));
    }
}

fn ping(server: SocketAddr, target: SocketAddr) {
    let mut client = connect(server);
    client.write_all(&[GREETING, &request(target), b"ping"].concat()).unwrap();
    let octets: [u8; 16] = take(&mut client);
    assert_eq!([&octets[..4], &octets[12..]], [b"\x05\x00\x05\x00", b"ping"]);
}

/// Where the status page of a program is that has just been started.
fn status_of(program: &mut Program) -> SocketAddr {
    let line = program.log_line("status page at ");
    let (_, rest) = line.split_once("http://").unwrap();
    rest.split('/').next().unwrap().parse().unwrap()
}

/// Waits until the metrics at `status` have `part` in them.
fn await_shown(status: SocketAddr, part: &str) {
    let begin = Instant::now();
    let mut shown = String::new();
    while !shown.contains(part) {
        assert!(begin.elapsed() < LONG, "no {part} in\n{shown}");
        let mut page = connect(status);
        page.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        shown.clear();
        let _ = page.read_to_string(&mut shown);
    }
}

fn is_echoed(client: &mut TcpStream) {
    client.write_all(b"payload").unwrap();
    assert_eq!(take(client), *b"payload");
}

#[test]
fn ten_restarts_under_load_refuse_nobody_and_a_tunnel_lives_through_all_of_them() {
    let mut program = Program::heeding(&[]);
    let (address, target) = (program.address, echo());
    let mut tunnel = tunnel_from(Ipv4Addr::LOCALHOST, address, target);
    let (over, served) = (AtomicBool::new(false), AtomicUsize::new(0));
    let mut successors = Vec::<Successor>::new();
    thread::scope(|scope| {
        let client = || {
            while !over.load(Ordering::Relaxed) {
                ping(address, target);
                served.fetch_add(1, Ordering::Relaxed);
            }
        };
        for _ in 0..4 {
            scope.spawn(client);
        }
        for _ in 0..10 {
            let before = served.load(Ordering::Relaxed);
            let last = successors.last().map_or(program.id(), |last| last.0);
            successors.push(restart(last, &mut program));
            let begin = Instant::now();
            while served.load(Ordering::Relaxed) < before + 20 {
                assert!(begin.elapsed() < LONG, "clients are not served");
                thread::yield_now();
            }
            is_echoed(&mut tunnel);
        }
        over.store(true, Ordering::Relaxed);
    });
    drop(tunnel);
    assert_eq!(program.wait().code(), Some(0), "the first process ends with its tunnel");
}

#[test]
fn an_earlier_process_stays_until_its_last_session_has_ended_and_the_page_shows_how_many_are_left()
{
    let mut program = Program::heeding(&["--status", "0"]);
    let status = status_of(&mut program);
    let shown = |part: &str| await_shown(status, part);
    let target = echo();
    let tunnels = [(); 3].map(|()| tunnel_from(Ipv4Addr::LOCALHOST, program.address, target));
    let successor = restart(program.id(), &mut program);
    shown("tabi_connections_earlier 3\n");
    shown("tabi_connections 0\n");
    let [one, mut two, three] = tunnels;
    drop((one, three));
    shown("tabi_connections_earlier 1\n");
    is_echoed(&mut two);
    drop(two);
    shown("tabi_connections_earlier 0\n");
    assert_eq!(program.wait().code(), Some(0));
    ping(program.address, target);
    successor.signal(Signal::TERM);
    await_end(successor.0);
}

#[test]
fn places_are_those_of_all_processes() {
    let options = ["--max-connections", "2", "--max-per-client", "2"];
    let mut program = Program::heeding(&options);
    let target = echo();
    let one = tunnel_from(Ipv4Addr::LOCALHOST, program.address, target);
    let successor = restart(program.id(), &mut program);
    let _two = tunnel_from(Ipv4Addr::LOCALHOST, program.address, target);
    // The client has as many as it may.
    assert!(at_end_or_reset(&mut connect(program.address)));
    let other = Ipv4Addr::new(127, 0, 0, 2);
    let ask = [GREETING, &request(target), b"ping"].concat();
    let mut waiting = connect_from(other, program.address);
    waiting.write_all(&ask).unwrap();
    program.log_line("further clients wait");
    drop(one);
    assert_eq!(take::<16>(&mut waiting)[12..], *b"ping");
    drop(successor);
}

#[test]
fn who_waits_for_a_place_in_a_process_between_two_others_gets_one() {
    let mut program = Program::heeding(&["--max-connections", "1", "--status", "0"]);
    let status = status_of(&mut program);
    let target = echo();
    let tunnel = tunnel_from(Ipv4Addr::LOCALHOST, program.address, target);
    let second = restart(program.id(), &mut program);
    await_shown(status, "tabi_connections_earlier 1\n");
    let mut waiting = connect_from(Ipv4Addr::new(127, 0, 0, 2), program.address);
    waiting.write_all(&[GREETING, &request(target), b"ping"].concat()).unwrap();
    program.log_line("further clients wait");
    let _third = restart(second.0, &mut program);
    drop(tunnel);
    assert_eq!(take::<16>(&mut waiting)[12..], *b"ping");
}

/// Asks for an association from `ip`. Gives back REP, the bound address, and the client.
fn associate_from(ip: Ipv4Addr, server: SocketAddr) -> (u8, SocketAddr, TcpStream) {
    let mut client = connect_from(ip, server);
    client.write_all(&[GREETING, b"\x05\x03\x00\x01\0\0\0\0\0\0"].concat()).unwrap();
    assert_eq!(take(&mut client), *b"\x05\x00");
    let (rep, bound) = reply(&mut client);
    (rep, bound, client)
}

#[test]
fn udp_ports_are_those_of_all_processes_and_nobody_sends_there_through_another_association() {
    alone(|| {
        let mut program =
            Program::heeding(&["--udp-ports", "40000-40009", "--log-rate-limit", "1000"]);
        let [one, two] = [1, 2].map(|host| Ipv4Addr::new(127, 0, 0, host));
        let held = [(); 5].map(|()| associate_from(one, program.address));
        assert_eq!(held.each_ref().map(|(rep, ..)| *rep), [0x00; 5]);
        let _successor = restart(program.id(), &mut program);
        assert_eq!(associate_from(one, program.address).0, 0x01, "the other half is for others");
        let (rep, bound, client) = associate_from(two, program.address);
        assert_eq!(rep, 0x00);
        let socket = UdpSocket::bind((two, 0)).unwrap();
        let target = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        target.set_read_timeout(Some(LONG)).unwrap();
        let send = |socket: &UdpSocket, bound: SocketAddr, inner: u16| {
            for port in [inner, target.local_addr().unwrap().port()] {
                let header = [b"\0\0\0\x01\x7f\0\0\x01", &port.to_be_bytes()[..]].concat();
                socket.send_to(&[&header[..], b"payload"].concat(), bound).unwrap();
            }
            // What was sent before has been judged by now.
            assert_eq!(target.recv(&mut [0; 100]).unwrap(), b"payload".len());
        };
        send(&socket, bound, held[0].1.port());
        // Nor from the earlier process to the new one, which tells it where that is twice a second.
        let mut pause = Duration::from_millis(400);
        let is_denied = |(_, earlier, client): (u8, SocketAddr, TcpStream)| {
            send(&UdpSocket::bind((one, 0)).unwrap(), earlier, bound.port());
            drop(client);
            let is_denied = program.log_line(" command=UDP ").contains("denied=1");
            if !is_denied {
                thread::sleep(pause);
                pause *= 2;
            }
            is_denied
        };
        assert!(held.into_iter().any(is_denied));
        drop(client);
        program.log_line("denied=1");
    });
}

#[test]
fn a_log_that_was_renamed_is_left_by_an_earlier_process_too() {
    let log = Scratch::new(b"");
    let rules = Scratch::new(b"");
    let mut command = heeding(&["--log-file", log.path(), "--rules", rules.path()]);
    let mut child = command.stderr(Stdio::null()).spawn().unwrap();
    let line = crate::reload::await_line(log.path(), "listening on ");
    let address = line.split_whitespace().find_map(|word| word.parse().ok()).unwrap();
    let target = echo();
    let tunnel = tunnel_from(Ipv4Addr::LOCALHOST, address, target);
    kill_process(Pid::from_child(&child), Signal::USR2).unwrap();
    let line = crate::reload::await_line(log.path(), " serves clients now");
    let successor = Successor::named_in(&line);
    let renamed = format!("{}.1", log.path());
    fs::rename(log.path(), &renamed).unwrap();
    successor.signal(Signal::HUP);
    // Of both processes.
    let begin = Instant::now();
    while fs::read_to_string(log.path()).unwrap_or_default().matches("reloaded: ").count() < 2 {
        assert!(begin.elapsed() < LONG, "the earlier process does not write here");
        thread::sleep(Duration::from_millis(5));
    }
    drop(tunnel);
    crate::reload::await_line(log.path(), "outcome=closed");
    assert_eq!(ended(&mut child).code(), Some(0));
    fs::remove_file(renamed).unwrap();
}

#[test]
fn a_new_process_that_does_not_come_up_changes_nothing_and_the_log_says_why() {
    let users = Scratch::new(b"alice:secret\n");
    let mut program = Program::heeding(&["--users", users.path()]);
    fs::write(users.path(), b"alice\n").unwrap();
    program.signal(Signal::USR2);
    let line = program.log_line("cannot restart");
    assert!(line.contains(&format!("{}:1", users.path())), "{line}");
    assert!(line.contains("--users: ") && line.ends_with("nothing has changed\n"), "{line}");
    assert!(fs::metadata(of_process(program.id(), "stat")).is_ok());
    let mut client = connect(program.address);
    client.write_all(b"\x05\x01\x02\x01\x05alice\x06secret").unwrap();
    assert_eq!(take(&mut client), *b"\x05\x02\x01\x00");
    // And the next one is tried.
    fs::write(users.path(), b"bob:secret\n").unwrap();
    let _successor = restart(program.id(), &mut program);
    let mut client = connect(program.address);
    client.write_all(b"\x05\x01\x02\x01\x03bob\x06secret").unwrap();
    assert_eq!(take(&mut client), *b"\x05\x02\x01\x00");
}

#[test]
fn a_program_that_is_gone_is_named() {
    let copy = Scratch::new(&fs::read(env!("CARGO_BIN_EXE_tabi")).unwrap());
    copy.set_mode(0o700);
    let mut command = Command::new("env");
    command.args(["--default-signal=HUP,INT,TERM,USR2", copy.path(), "127.0.0.1:0"]);
    command.stdout(Stdio::null());
    let mut program = Program::spawn(command);
    ping(program.address, echo());
    fs::remove_file(copy.path()).unwrap();
    program.signal(Signal::USR2);
    let line = program.log_line("cannot restart");
    assert!(line.contains(&format!("cannot start {}", copy.path())), "{line}");
    ping(program.address, echo());
}

#[test]
fn sigterm_gives_the_sessions_of_an_earlier_process_the_grace() {
    let mut program = Program::heeding(&["--grace", "0.3"]);
    let (listener, target) = listen();
    let mut client = tunnel_from(Ipv4Addr::LOCALHOST, program.address, target);
    let mut far = accept(&listener);
    let successor = restart(program.id(), &mut program);
    ping(program.address, echo());
    program.signal(Signal::TERM);
    expect_reset(&mut client);
    expect_reset(&mut far);
    assert_eq!(program.wait().code(), Some(0));
    ping(program.address, echo());
    drop(successor);
}

#[test]
fn a_new_process_that_is_killed_leaves_no_port_at_which_nobody_answers() {
    let mut program = Program::heeding(&[]);
    let mut tunnel = tunnel_from(Ipv4Addr::LOCALHOST, program.address, echo());
    drop(restart(program.id(), &mut program));
    let begin = Instant::now();
    while TcpStream::connect_timeout(&program.address, LONG).is_ok() {
        assert!(begin.elapsed() < LONG, "clients wait there");
        thread::sleep(Duration::from_millis(20));
    }
    is_echoed(&mut tunnel);
}

#[test]
fn a_reload_reaches_the_sessions_of_an_earlier_process() {
    let users = Scratch::new(b"alice:secret\nbob:secret\n");
    let mut program = Program::heeding(&["--users", users.path()]);
    let ask = [b"\x05\x01\x02\x01\x05alice\x06secret", &request(echo())[..]].concat();
    let mut client = connect(program.address);
    client.write_all(&ask).unwrap();
    let octets: [u8; 14] = take(&mut client);
    assert_eq!(octets[..6], *b"\x05\x02\x01\x00\x05\x00");
    let successor = restart(program.id(), &mut program);
    is_echoed(&mut client);
    fs::write(users.path(), b"bob:secret\n").unwrap();
    successor.signal(Signal::HUP);
    // Of the new process, and of the one before.
    program.log_line("reloaded: 1 user");
    program.log_line("reloaded: 1 user");
    assert!(at_end_or_reset(&mut client), "its user is gone");
}

#[test]
fn the_service_manager_is_told_which_process_is_the_main_one() {
    let name = format!("tabi-it-{}-restart", std::process::id());
    let by_name = net::SocketAddr::from_abstract_name(&name).unwrap();
    let manager = Manager::at(UnixDatagram::bind_addr(&by_name).unwrap());
    let mut command = heeding(&[]);
    command.envs([("NOTIFY_SOCKET", format!("@{name}")), ("WATCHDOG_USEC", "200000".into())]);
    let mut program = Program::spawn(command);
    assert_eq!(manager.told(), "READY=1");
    let successor = restart(program.id(), &mut program);
    assert_eq!(manager.told(), format!("MAINPID={}", successor.0.as_raw_nonzero()));
    assert_eq!(manager.told(), "READY=1");
    // The new one is the one that is watched.
    assert_eq!(program.wait().code(), Some(0));
    manager.beats();
    assert_eq!(manager.heard(), "WATCHDOG=1");
    successor.signal(Signal::TERM);
    assert_eq!(manager.told(), "STOPPING=1");
}

#[test]
fn in_a_container_whose_first_process_it_is_a_restart_is_refused() {
    let mut command = Command::new("unshare");
    command.args(["--pid", "--fork", "--kill-child", env!("CARGO_BIN_EXE_tabi"), "127.0.0.1:0"]);
    if !Command::new("unshare").args(["--pid", "--fork", "true"]).status().unwrap().success() {
        eprintln!("no process namespace can be made here");
        return;
    }
    command.stdout(Stdio::null());
    let mut program = Program::spawn(command);
    ping(program.address, echo());
    let children =
        of_process(program.id(), &format!("task/{}/children", program.id().as_raw_nonzero()));
    let first = fs::read_to_string(children).unwrap().trim().parse().unwrap();
    kill_process(Pid::from_raw(first).unwrap(), Signal::USR2).unwrap();
    let line = program.log_line("cannot restart");
    assert!(line.contains("this is process 1"), "{line}");
    ping(program.address, echo());
}
