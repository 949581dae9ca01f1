//! The log: nobody waits for it, its form suits where it goes, and no client fills it.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::scratch::{Program, Scratch, ended, heeding, program};
use crate::stage::{
    GREETING, LONG, connect, connect_from, echo, reply, request, request_by_name, take,
};

/// A tunnel that is opened, used and closed again.
fn short_tunnel(program: &Program, target: SocketAddr) {
    drop(tunnel_to(program, target));
}

fn tunnel_to(program: &Program, target: SocketAddr) -> TcpStream {
    let mut client = connect(program.address);
    client.write_all(&[GREETING, &request(target), b"ping"].concat()).unwrap();
    assert_eq!(take(&mut client), *b"\x05\x00");
    assert_eq!(reply(&mut client).0, 0x00);
    assert_eq!(take(&mut client), *b"ping");
    client
}

#[test]
fn a_log_that_nobody_reads_stops_neither_sessions_nor_signals() {
    let target = echo();
    let mut program = Program::start(&["-v", "--grace", "600"]);
    for _ in 0..2000 {
        short_tunnel(&program, target);
    }
    let _live = connect(program.address);
    short_tunnel(&program, target);
    program.signal(Signal::TERM);
    let begin = Instant::now();
    while TcpStream::connect_timeout(&program.address, LONG).is_ok() {
        assert!(begin.elapsed() < LONG, "the first signal does not close the port");
    }
    let begin = Instant::now();
    program.signal(Signal::TERM);
    assert_eq!(program.wait().code(), Some(130));
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
}

#[test]
fn a_log_that_nobody_reads_does_not_hold_up_the_end() {
    let target = echo();
    let mut program = Program::start(&[]);
    for _ in 0..1000 {
        short_tunnel(&program, target);
    }
    program.signal(Signal::TERM);
    assert_eq!(program.wait().code(), Some(0));
}

#[test]
fn the_last_lines_are_written_before_the_end() {
    let mut program = Program::start(&[]);
    short_tunnel(&program, echo());
    program.signal(Signal::TERM);
    let log = program.rest_of_log();
    assert!(log.contains(" outcome=closed\n") && log.ends_with("stopped\n"), "{log}");
    assert_eq!(program.wait().code(), Some(0));
}

#[test]
fn a_time_zone_with_seconds_does_not_hang_the_start() {
    let mut command = program(&[]);
    command.env("TZ", "XXX-1:02:03");
    let mut program = Program::spawn(command);
    let line = program.log_line("serving clients");
    let time = line.split(' ').next().unwrap();
    assert!(time.ends_with("+01:02"), "{line}");
    short_tunnel(&program, echo());
}

#[test]
fn times_have_milliseconds() {
    let mut command = program(&[]);
    command.env("TZ", "UTC");
    let line = Program::spawn(command).log_line("serving clients");
    let (time, rest) = line.split_once(' ').unwrap();
    let zeroed = time.replace(|character: char| character.is_ascii_digit(), "0");
    assert_eq!(zeroed, "0000-00-00T00:00:00.000Z");
    assert!(rest.starts_with("[INFO ] serving clients from "), "{line}");
}

#[test]
fn systemd_gets_levels_and_no_times() {
    let (log, output) = UnixStream::pair().unwrap();
    log.set_read_timeout(Some(LONG)).unwrap();
    let output = File::from(OwnedFd::from(output));
    let metadata = output.metadata().unwrap();
    let mut child = program(&[])
        .env("JOURNAL_STREAM", format!("{}:{}", metadata.dev(), metadata.ino()))
        .stderr(Stdio::from(output))
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(log).read_line(&mut line).unwrap();
    child.kill().unwrap();
    ended(&mut child);
    assert!(line.starts_with("<6>listening on 127.0.0.1:"), "{line}");
}

#[test]
fn a_new_log_file_is_for_its_owner_alone_and_an_old_one_keeps_its_mode() {
    let file = Scratch::new(b"before\n");
    let mode = || fs::metadata(file.path()).unwrap().permissions().mode() & 0o777;
    for existing in [true, false] {
        if existing {
            file.set_mode(0o640);
        } else {
            fs::remove_file(file.path()).unwrap();
        }
        let mut child = program(&["--log-file", file.path()]).spawn().unwrap();
        let begin = Instant::now();
        while !fs::read_to_string(file.path()).is_ok_and(|log| log.contains("listening on")) {
            assert!(begin.elapsed() < LONG, "nothing is logged");
        }
        child.kill().unwrap();
        ended(&mut child);
        assert_eq!(mode(), if existing { 0o640 } else { 0o600 });
    }
}

#[test]
fn a_log_file_that_is_a_pipe_nobody_reads_does_not_hang_the_start() {
    let file = Scratch::new(b"");
    fs::remove_file(file.path()).unwrap();
    let made = Command::new("mkfifo").arg(file.path()).status().unwrap();
    assert!(made.success());
    let mut child = program(&["--log-file", file.path()]).stderr(Stdio::piped()).spawn().unwrap();
    assert_eq!(ended(&mut child).code(), Some(1));
    let mut told = String::new();
    child.stderr.take().unwrap().read_to_string(&mut told).unwrap();
    assert!(told.contains(file.path()) && told.contains("nobody reads"), "{told}");
}

#[test]
fn a_pipe_that_nobody_reads_any_more_is_left_when_the_log_is_opened_anew() {
    let file = Scratch::new(b"");
    fs::remove_file(file.path()).unwrap();
    assert!(Command::new("mkfifo").arg(file.path()).status().unwrap().success());
    // It is opened for both, so as not to wait for the other.
    let pipe = File::options().read(true).write(true).open(file.path()).unwrap();
    let mut child = heeding(&["--log-file", file.path()]).spawn().unwrap();
    let mut first = BufReader::new(&pipe);
    let mut line = String::new();
    while !line.contains("outcome=bad-request") {
        line.clear();
        first.read_line(&mut line).unwrap();
        if line.contains("listening on ") {
            let address = line.split_whitespace().find_map(|word| word.parse().ok()).unwrap();
            // A pipe has room for some 500 of their lines.
            for _ in 0..900 {
                let mut client = connect(address);
                client.write_all(b"\x05\x00").unwrap();
                let _: [u8; 2] = take(&mut client);
            }
        }
    }
    fs::remove_file(file.path()).unwrap();
    kill_process(Pid::from_child(&child), Signal::HUP).unwrap();
    let begin = Instant::now();
    while !fs::read_to_string(file.path()).is_ok_and(|log| log.contains("reloaded")) {
        assert!(begin.elapsed() < LONG, "the pipe is not left");
    }
    child.kill().unwrap();
    ended(&mut child);
}

#[test]
fn check_with_a_broken_standard_output_ends_with_a_status() {
    let full = File::options().write(true).open("/dev/full").unwrap();
    let output = program(&["--check"]).stdout(full).output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(output.stderr.is_empty(), "{output:?}");
}

#[test]
fn signals_that_were_ignored_at_the_start_stay_ignored() {
    let mut command = Command::new("sh");
    command.args(["-c", "trap '' HUP INT; exec \"$0\" 127.0.0.1:0", env!("CARGO_BIN_EXE_tabi")]);
    let mut program = Program::spawn(command);
    program.signal(Signal::HUP);
    program.signal(Signal::INT);
    short_tunnel(&program, echo());
    program.signal(Signal::HUP);
    program.signal(Signal::TERM);
    let log = program.rest_of_log();
    assert!(log.contains("stopped\n") && !log.contains("reloaded"), "{log}");
    assert_eq!(program.wait().code(), Some(0));
}

#[test]
fn each_signal_that_was_not_ignored_lets_the_server_finish() {
    for signal in [Signal::INT, Signal::TERM] {
        let mut program = Program::heeding(&[]);
        short_tunnel(&program, echo());
        program.signal(signal);
        assert_eq!(program.wait().code(), Some(0), "{signal:?}");
    }
}

#[test]
fn any_second_signal_ends_the_server_at_once() {
    for (first, second) in
        [(Signal::INT, Signal::INT), (Signal::INT, Signal::TERM), (Signal::TERM, Signal::INT)]
    {
        let mut program = Program::heeding(&["--grace", "600"]);
        let _live = tunnel_to(&program, echo());
        program.signal(first);
        program.log_line("stopping; ");
        program.signal(second);
        assert_eq!(program.wait().code(), Some(130), "{first:?} {second:?}");
    }
}

/// The line of a session in which the client says this, and that ends with it.
fn line_of(program: &mut Program, said: &[u8]) -> String {
    let mut client = connect(program.address);
    client.write_all(said).unwrap();
    let from = client.local_addr().unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    program.log_line(&format!("client={from} "))
}

#[test]
fn a_name_of_255_control_bytes_makes_a_short_line_and_is_escaped_once() {
    let mut program = Program::start(&[]);
    let line = line_of(&mut program, &[GREETING, &request_by_name(&[0x01; 255], 80)].concat());
    assert!(line.contains(r#" why="no host is named '\x01\x01\x01"#), "{line}");
    assert!(line.ends_with("...\"\n") && line.len() < 300, "{line}");
}

#[test]
fn a_client_without_credentials_reads_of_users() {
    let file = Scratch::new(b"alice:open sesame");
    let mut program = Program::start(&["--users", file.path()]);
    let line = line_of(&mut program, GREETING);
    let why = " outcome=bad-request why=\"the client offers no name and password (--users)\"\n";
    assert!(line.ends_with(why), "{line}");
}

#[test]
fn a_client_that_floods_the_log_is_counted_and_hides_no_wrong_password() {
    let file = Scratch::new(b"alice:open sesame");
    let mut program = Program::start(&["--users", file.path()]);
    let reader = read_on(&mut program);
    let begin = Instant::now();
    for _ in 0..3000 {
        let mut client = connect(program.address);
        client.write_all(GREETING).unwrap();
        assert_eq!(take(&mut client), *b"\x05\xff");
    }
    let mut client = connect(program.address);
    client.write_all(b"\x05\x01\x02\x01\x05alice\x05guess").unwrap();
    assert_eq!(take(&mut client), *b"\x05\x02\x01\x01");
    drop(client);
    program.signal(Signal::TERM);
    let log = reader.join().unwrap();
    let seconds = usize::try_from(begin.elapsed().as_secs()).unwrap();
    let logged = log.matches("outcome=bad-request").count();
    assert!(logged >= 1000 && logged <= 1000 + 10 * (seconds + 1), "{logged} in {seconds} s");
    let told = log.lines().filter_map(|line| line.strip_suffix(" more lines of client=127.0.0.1"));
    let hidden: usize =
        told.map(|it| it.rsplit(' ').next().unwrap().parse::<usize>().unwrap()).sum();
    assert_eq!(logged + hidden, 3000);
    assert_eq!(log.matches("outcome=bad-credentials").count(), 1);
}

/// Reads the rest of the log elsewhere until the program ends.
fn read_on(program: &mut Program) -> JoinHandle<String> {
    let mut log = program.take_log();
    std::thread::spawn(move || {
        let mut text = String::new();
        log.read_to_string(&mut text).unwrap();
        text
    })
}

#[test]
fn all_clients_together_fill_no_log_and_hide_nobody_who_comes_new() {
    let file = Scratch::new(b"alice:open sesame");
    // 100 lines of one client at once, and 500 of all, half of them for those who come new.
    let mut program = Program::start(&["--users", file.path(), "--log-rate-limit", "1"]);
    let reader = read_on(&mut program);
    let begin = Instant::now();
    for host in 1..=10 {
        for _ in 0..100 {
            let mut client = connect_from([127, 0, 0, host].into(), program.address);
            client.write_all(GREETING).unwrap();
            assert_eq!(take(&mut client), *b"\x05\xff");
        }
    }
    let mut late = connect_from([127, 0, 0, 11].into(), program.address);
    late.write_all(b"\x05\x00").unwrap();
    let _: [u8; 2] = take(&mut late);
    drop(late);
    program.signal(Signal::TERM);
    let log = reader.join().unwrap();
    let seconds = usize::try_from(begin.elapsed().as_secs()).unwrap();
    let logged = log.matches(" outcome=bad-request ").count();
    assert!(logged >= 250 && logged <= 250 + 10 + 5 * (seconds + 2), "{logged} in {seconds} s");
    assert!(log.contains(" client=127.0.0.11:"), "{log}");
}

#[test]
fn the_lines_of_one_client_can_be_more() {
    let mut program = Program::start(&["--log-rate-limit", "100"]);
    let reader = read_on(&mut program);
    for _ in 0..2000 {
        let mut client = connect(program.address);
        client.write_all(b"\x05\x00").unwrap();
        let _: [u8; 2] = take(&mut client);
    }
    program.signal(Signal::TERM);
    assert_eq!(reader.join().unwrap().matches(" outcome=bad-request ").count(), 2000);
}
