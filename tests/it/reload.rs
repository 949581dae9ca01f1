//! SIGHUP: users, rules and the log file are opened anew, and nobody loses a connection.

use std::fs::{self, File, Permissions};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, openpt, ptsname, unlockpt};

use crate::scratch::{Program, Scratch, check, ended, heeding};
use crate::stage::{GREETING, LONG, connect, echo, reply, request, take, tunnel_from};

/// Exchanges a file as a whole, as an editor does.
fn replace(file: &Scratch, content: &[u8]) {
    let new = format!("{}.new", file.path());
    fs::write(&new, content).unwrap();
    fs::set_permissions(&new, Permissions::from_mode(0o600)).unwrap();
    fs::rename(&new, file.path()).unwrap();
}

fn reload(program: &mut Program) -> String {
    program.signal(Signal::HUP);
    program.log_line("reloaded: ")
}

/// REP for a request, and the client.
fn ask(server: SocketAddr, target: SocketAddr) -> (u8, TcpStream) {
    let mut client = connect(server);
    client.write_all(&[GREETING, &request(target)].concat()).unwrap();
    assert_eq!(take(&mut client), *b"\x05\x00");
    (reply(&mut client).0, client)
}

/// The status of an authentication.
fn log_in(server: SocketAddr, user: &[u8], password: &[u8]) -> u8 {
    let mut client = connect(server);
    let length = |field: &[u8]| [u8::try_from(field.len()).unwrap()];
    let credentials = [b"\x01", &length(user)[..], user, &length(password), password].concat();
    client.write_all(&[b"\x05\x01\x02", &credentials[..]].concat()).unwrap();
    let [_, _, _, status] = take(&mut client);
    status
}

/// What the metrics say of the last reload.
fn success(status: SocketAddr) -> char {
    let begin = Instant::now();
    loop {
        let mut visitor = connect(status);
        write!(visitor, "GET /metrics HTTP/1.1\r\nHost: {status}\r\n\r\n").unwrap();
        let mut answer = String::new();
        visitor.read_to_string(&mut answer).unwrap();
        if let Some((_, behind)) = answer.split_once("\ntabi_reload_success ") {
            return behind.chars().next().unwrap();
        }
        assert!(begin.elapsed() < LONG, "{answer}");
    }
}

/// The metrics that are shown may be half a second old.
fn await_success(status: SocketAddr, expected: char) {
    let begin = Instant::now();
    while success(status) != expected {
        assert!(begin.elapsed() < LONG, "tabi_reload_success is not {expected}");
        thread::yield_now();
    }
}

#[test]
fn new_rules_judge_new_requests_and_a_live_tunnel_goes_on() {
    let rules = Scratch::new(b"allow\n");
    let mut program = Program::heeding(&["--rules", rules.path()]);
    let target = echo();
    let mut tunnel = tunnel_from(Ipv4Addr::LOCALHOST, program.address, target);
    replace(&rules, b"deny to 127.0.0.0/8\ndeny user nobody\n");
    let line = reload(&mut program);
    assert!(line.contains("reloaded: 2 rules (--rules)"), "{line}");
    let doubt = program.log_line("there is no user nobody");
    assert!(doubt.contains(&format!("{}:2: ", rules.path())), "{doubt}");
    assert_eq!(ask(program.address, target).0, 0x02);
    tunnel.write_all(b"payload").unwrap();
    assert_eq!(take(&mut tunnel), *b"payload");
    replace(&rules, b"");
    reload(&mut program);
    assert_eq!(ask(program.address, target).0, 0x00);
}

#[test]
fn a_rules_file_that_others_can_change_is_a_doubt() {
    let rules = Scratch::new(b"allow\n");
    let doubt = format!("{}: others than its owner can change it (mode 0777)", rules.path());
    assert_eq!(check(&["--rules", rules.path()]), (0, String::new()));
    assert_eq!(check(&["--rules", "/dev/null"]), (0, String::new()));
    let mut program = Program::heeding(&["--rules", rules.path()]);
    rules.set_mode(0o777);
    reload(&mut program);
    assert!(program.log_line("WARN").contains(&doubt));
    let (status, told) = check(&["--rules", rules.path()]);
    assert!(status == 0 && told.contains(&doubt), "{told}");
    let mut program = Program::start(&["--rules", rules.path()]);
    assert!(program.log_line("WARN").contains(&doubt));
}

#[test]
fn a_bad_file_changes_nothing_and_is_told_with_its_line() {
    let (rules, users) = (Scratch::new(b"deny port 9\n"), Scratch::new(b"alice:old\n"));
    let files = ["--rules", rules.path(), "--users", users.path()];
    let mut program = Program::heeding(&[&files[..], &["--status", "0"]].concat());
    let status = program.log_line("status page at http://");
    let status = status.split(['/', ' ']).find_map(|word| word.parse().ok()).unwrap();
    assert_eq!(success(status), '1');
    // The users are good, and are not taken over all the same.
    replace(&users, b"alice:new\n");
    replace(&rules, b"allow\n\npermit\n");
    program.signal(Signal::HUP);
    let told = program.log_line("cannot reload");
    assert!(told.contains("ERROR"), "{told}");
    assert!(told.contains(&format!("--rules {}:3: 'permit': expected", rules.path())), "{told}");
    program.log_line("nothing has changed");
    await_success(status, '0');
    assert_eq!(log_in(program.address, b"alice", b"old"), 0x00);
    assert_eq!(log_in(program.address, b"alice", b"new"), 0x01);
    // Both are bad: both are told.
    replace(&users, b"alice\n");
    program.signal(Signal::HUP);
    program.log_line(&format!("--rules {}:3: ", rules.path()));
    program.log_line(&format!("--users {}:1: ", users.path()));
    replace(&users, b"alice:new\nbob:b\n");
    replace(&rules, b"allow\n");
    let line = reload(&mut program);
    assert!(line.contains("reloaded: 1 rule (--rules), 2 users (--users)"), "{line}");
    await_success(status, '1');
    assert_eq!(log_in(program.address, b"alice", b"new"), 0x00);
    assert_eq!(log_in(program.address, b"alice", b"old"), 0x01);
}

#[test]
fn a_users_file_that_others_can_read_is_not_taken_over() {
    let users = Scratch::new(b"alice:old\n");
    let mut program = Program::heeding(&["--users", users.path()]);
    replace(&users, b"alice:new\n");
    users.set_mode(0o644);
    program.signal(Signal::HUP);
    let told = program.log_line("cannot reload --users");
    assert!(told.contains("chmod 600"), "{told}");
    assert_eq!(log_in(program.address, b"alice", b"old"), 0x00);
}

#[test]
fn an_upstream_that_is_the_server_itself_is_not_taken_over() {
    let rules = Scratch::new(b"");
    let mut program = Program::heeding(&["--rules", rules.path()]);
    replace(&rules, format!("allow\nvia socks5://{}\n", program.address).as_bytes());
    program.signal(Signal::HUP);
    let told = program.log_line("cannot reload --rules");
    assert!(told.contains(&format!("{}:2: ", rules.path())), "{told}");
    assert!(told.contains("is this server itself"), "{told}");
    assert_eq!(ask(program.address, echo()).0, 0x00);
}

#[test]
fn rules_from_a_pipe_are_not_read_a_second_time() {
    let mut command = Command::new("/bin/sh");
    let plain = heeding(&["--rules", "/dev/fd/3"]);
    command.arg("-c").arg("exec \"$0\" \"$@\" 3<&0 </dev/null");
    command.arg(plain.get_program()).args(plain.get_args());
    let mut pipe = Command::new("/bin/echo")
        .arg("deny to 127.0.0.0/8")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    command.stdin(Stdio::from(OwnedFd::from(pipe.stdout.take().unwrap()))).stdout(Stdio::null());
    let mut program = Program::spawn(command);
    pipe.wait().unwrap();
    let target = echo();
    assert_eq!(ask(program.address, target).0, 0x02);
    program.signal(Signal::HUP);
    let told = program.log_line("cannot reload --rules /dev/fd/3");
    assert!(told.contains("no regular file"), "{told}");
    assert_eq!(ask(program.address, target).0, 0x02, "though the pipe is empty now");
}

#[test]
fn after_a_rotation_the_log_goes_on_in_a_new_file() {
    let log = Scratch::new(b"");
    let mut child = heeding(&["--log-file", log.path()]).spawn().unwrap();
    let listening = await_line(log.path(), "listening on ");
    let address = listening.split_whitespace().find_map(|word| word.parse().ok()).unwrap();
    let target = echo();
    assert_eq!(ask(address, target).0, 0x00);
    await_line(log.path(), "outcome=closed");
    let rotated = Scratch::new(b"");
    fs::rename(log.path(), rotated.path()).unwrap();
    let id = Pid::from_child(&child);
    kill_process(id, Signal::HUP).unwrap();
    await_line(log.path(), "reloaded: ");
    assert_eq!(ask(address, target).0, 0x00);
    await_line(log.path(), "outcome=closed");
    let earlier = fs::read_to_string(rotated.path()).unwrap();
    assert!(earlier.contains("listening on ") && !earlier.contains("reloaded"), "{earlier}");
    // A log that cannot be opened is told in the one that is there.
    fs::rename(log.path(), rotated.path()).unwrap();
    fs::create_dir(log.path()).unwrap();
    kill_process(id, Signal::HUP).unwrap();
    await_line(rotated.path(), "cannot open the log anew");
    fs::remove_dir(log.path()).unwrap();
    kill_process(id, Signal::TERM).unwrap();
    assert_eq!(ended(&mut child).code(), Some(0));
}

/// Waits until the file has a line with `part` in it.
pub fn await_line(path: &str, part: &str) -> String {
    let begin = Instant::now();
    loop {
        let text = fs::read_to_string(path).unwrap_or_default();
        let line = text.split_inclusive('\n').find(|line| line.contains(part));
        if let Some(line) = line.filter(|line| line.ends_with('\n')) {
            return line.into();
        }
        assert!(begin.elapsed() < LONG, "no {part} in\n{text}");
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_program_whose_terminal_is_gone_ends() {
    let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    unlockpt(&terminal).unwrap();
    let name = ptsname(&terminal, Vec::new()).unwrap().into_string().unwrap();
    let far = File::options().read(true).write(true).open(Path::new(&name)).unwrap();
    let mut child = heeding(&[]).stderr(Stdio::from(far)).spawn().unwrap();
    let mut lines = BufReader::new(File::from(terminal)).lines();
    while !lines.next().unwrap().unwrap().contains("serving clients") {}
    // It reads its files again while the terminal is there.
    let id = Pid::from_child(&child);
    let mut reloads = 0;
    let begin = Instant::now();
    while reloads == 0 {
        // The first one may come before the program heeds it, and would end it.
        let heeds = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
        let heeds = heeds.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap();
        if u64::from_str_radix(heeds.trim(), 16).unwrap() & 1 != 0 {
            kill_process(id, Signal::HUP).unwrap();
            while !lines.next().unwrap().unwrap().contains("reloaded: ") {}
            reloads += 1;
        }
        assert!(begin.elapsed() < LONG, "it does not heed the signal");
    }
    drop(lines);
    kill_process(id, Signal::HUP).unwrap();
    assert_eq!(ended(&mut child).code(), Some(0));
}

#[test]
fn no_session_fails_while_rules_and_users_are_reloaded_all_the_time() {
    const TIME: Duration = Duration::from_secs(3);
    // So many have to be served, and so many files taken over and refused.
    const LEAST: [usize; 3] = [20, 10, 5];
    // Whatever of the two is in force, the first address is open and the second is not. With a part
    // of either file, or some of each, this would not be so.
    // All are of one length: one that is shorter than the latest may be half written, and is waited for.
    let open_by_list = b"allow to 127.0.0.1\nallow to 127.0.0.3\ndeny #\n".as_slice();
    let closed_by_list = b"deny to 127.0.0.2\nallow to 127.0.0.0/8\ndeny#\n".as_slice();
    let bad = b"allow to 127.0.0.2\npermit # it is not a rule\n".as_slice();
    assert!([closed_by_list, bad].iter().all(|file| file.len() == open_by_list.len()));
    let rules = Scratch::new(open_by_list);
    let mut program = Program::heeding(&["--rules", rules.path()]);
    let log = program.take_log();
    let (target, address) = (echo(), program.address);
    let closed = SocketAddr::new([127, 0, 0, 2].into(), target.port());
    let (over, served) = (AtomicBool::new(false), AtomicUsize::new(0));
    let (taken, refused) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let numbers = || [&served, &taken, &refused].map(|it| it.load(Ordering::Relaxed));
    let are_enough = || numbers().iter().zip(LEAST).all(|(it, least)| *it > least);
    thread::scope(|scope| {
        scope.spawn(|| {
            for line in log.lines().map(Result::unwrap) {
                taken.fetch_add(line.contains("reloaded: 3 rules").into(), Ordering::Relaxed);
                refused.fetch_add(line.contains("cannot reload").into(), Ordering::Relaxed);
            }
        });
        let clients = [(); 4].map(|()| {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    let mut client = tunnel_from(Ipv4Addr::LOCALHOST, address, target);
                    client.write_all(b"ping").unwrap();
                    assert_eq!(take(&mut client), *b"ping");
                    assert_eq!(ask(address, closed).0, 0x02);
                    served.fetch_add(1, Ordering::Relaxed);
                }
            })
        });
        let begin = Instant::now();
        let mut round = 0;
        while begin.elapsed() < TIME || !are_enough() && begin.elapsed() < LONG {
            let contents = [closed_by_list, bad, open_by_list];
            replace(&rules, contents[round % 3]);
            program.signal(Signal::HUP);
            round += 1;
            // Not for synchronisation: a hundred reloads a second are enough.
            thread::sleep(Duration::from_millis(10));
        }
        over.store(true, Ordering::Relaxed);
        let clients = clients.map(ScopedJoinHandle::join);
        program.signal(Signal::TERM);
        clients.into_iter().for_each(Result::unwrap);
    });
    let [served, good, bad] = numbers();
    assert!(are_enough(), "{served} served, {good} good reloads, {bad} bad ones");
    assert_eq!(program.wait().code(), Some(0));
}
