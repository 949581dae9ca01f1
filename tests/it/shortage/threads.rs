//! Threads: few, none for a while, and too few to begin with.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Signal};

use super::{
    Killed, Lowered, assert_calm, assert_echoes, assert_serves_with, client_of, count, metric,
    rep_of, status_of, try_metric, wait_until,
};
use crate::restart::Successor;
use crate::scratch::{Program, ended, of_ordinary_user, of_process, program};
use crate::stage::{
    GREETING, LONG, at_end, connect, echo, reply, request_by_name, take, tunnel_from,
};

#[test]
fn with_40_threads_of_a_user_all_places_are_used_and_the_others_wait() {
    let Some(command) = of_ordinary_user(Some(40)) else { return };
    let mut server = Program::spawn(command);
    server.log_line("--max-connections is 10, not 4096: the user may have 40 threads (ulimit -u)");
    assert_serves_with(10, &server, echo(), "40 threads of a user");
}

#[test]
fn without_a_thread_clients_wait_and_are_served_once_there_are_some() {
    let Some(command) = of_ordinary_user(None) else { return };
    let mut server = Program::spawn(command);
    let id = server.id();
    assert_waits_for_threads(&mut server, || Lowered::to(1, Resource::Nproc, id));
}

/// Uses the program while it can create no thread, which is for as long as what `take_threads` gives
/// back is kept.
fn assert_waits_for_threads<T>(server: &mut Program, take_threads: impl FnOnce() -> T) {
    let (target, localhost) = (echo(), Ipv4Addr::LOCALHOST);
    let by_name = request_by_name(b"localhost", target.port());
    let mut tunnel = tunnel_from(localhost, server.address, target);
    let mut greeted = connect(server.address);
    greeted.write_all(GREETING).unwrap();
    assert_eq!(take(&mut greeted), *b"\x05\x00");
    let shortage = take_threads();
    greeted.write_all(&by_name).unwrap();
    assert_eq!(reply(&mut greeted).0, 0x04, "nobody can look the name up");
    drop(greeted);
    let waiting: Vec<_> = (0..12).map(|_| client_of(localhost, server.address, target)).collect();
    server.log_line("cannot create a thread for the next client; it waits");
    assert_calm(server.id(), "no thread left");
    assert_echoes(&mut tunnel);
    drop(shortage);
    for mut client in waiting {
        assert_eq!(rep_of(&mut client), 0x00);
    }
    let mut client = connect(server.address);
    client.write_all(&[GREETING, &by_name].concat()).unwrap();
    assert_eq!(take(&mut client), *b"\x05\x00");
    assert_eq!(reply(&mut client).0, 0x00, "the failure is not remembered");
    assert_echoes(&mut client);
    assert_echoes(&mut tunnel);
}

#[test]
fn without_a_thread_the_status_page_answers_all_the_same() {
    let Some(mut command) = of_ordinary_user(None) else { return };
    command.args(["--status", "0"]);
    let mut server = Program::spawn(command);
    let status = status_of(&mut server);
    let shortage = Lowered::to(1, Resource::Nproc, server.id());
    let mut silent = connect(status);
    for _ in 0..3 {
        wait_until("the page does not answer", || {
            let begin = Instant::now();
            let Err(error) = try_metric(status, "tabi_connections").map(|it| assert_eq!(it, 0))
            else {
                return true;
            };
            // Each visitor has a second in all, and a busy machine may take it up.
            assert!(begin.elapsed() >= Duration::from_secs(1), "{error}");
            false
        });
    }
    drop(shortage);
    assert_eq!(metric(status, "tabi_connections"), 0);
    assert!(at_end(&mut silent), "it was not quick");
}

/// Waits until there are so many threads. One that only tries whether there are any is there for a moment,
/// too.
fn wait_for_threads(id: Pid, all: usize) {
    let mut seen = 0;
    wait_until("there are fewer threads, or some that nobody needs", || {
        seen = if count(id, "task") == all { seen + 1 } else { 0 };
        seen == 20
    });
}

#[test]
fn a_shortage_of_threads_that_comes_and_goes_leaves_none_behind() {
    let Some(command) = of_ordinary_user(None) else { return };
    let mut server = Program::spawn(command);
    let (id, target) = (server.id(), echo());
    let mut tunnels = vec![tunnel_from(Ipv4Addr::LOCALHOST, server.address, target)];
    let first = count(id, "task");
    for round in 1..=6 {
        // One of the two threads that the next client needs is to be had, and the other is not.
        let one_more = u64::try_from(first + 2 * (round - 1) + 1).unwrap();
        let shortage = Lowered::to(one_more, Resource::Nproc, id);
        tunnels.push(tunnel_from(Ipv4Addr::LOCALHOST, server.address, target));
        server.log_line("cannot create a thread for the next client; it waits");
        drop(shortage);
        wait_for_threads(id, first + 2 * round);
        server.log_line("threads are created again");
    }
    tunnels.iter_mut().for_each(assert_echoes);
}

#[test]
fn a_shortage_of_threads_is_told_once_and_a_second_one_again() {
    const TOLD: &str = "cannot create a thread for the next client; it waits";
    let Some(command) = of_ordinary_user(None) else { return };
    let mut server = Program::spawn(command);
    let (id, address, target) = (server.id(), server.address, echo());
    let tunnel = || tunnel_from(Ipv4Addr::LOCALHOST, address, target);
    let take_threads = || Lowered::to(count(id, "task") as u64, Resource::Nproc, id);
    let first = tunnel();
    let threads = take_threads();
    let mut tunnels = vec![tunnel()];
    server.log_line(TOLD);
    // Its worker waits for the next client from now on: no thread has to be made for that.
    drop(first);
    server.log_line("outcome=closed");
    tunnels.push(tunnel());
    tunnels.remove(0);
    server.log_line("outcome=closed");
    let before = count(id, "task");
    drop(threads);
    wait_for_threads(id, before + 2);
    server.log_line("threads are created again");
    let threads = take_threads();
    // A worker waits, and there is another one; nobody comes after that.
    tunnels.extend([tunnel(), tunnel()]);
    drop(threads);
    tunnels.iter_mut().for_each(assert_echoes);
    server.signal(Signal::TERM);
    drop(tunnels);
    assert_eq!(server.rest_of_log().matches(TOLD).count(), 1);
}

#[test]
fn a_process_that_is_started_anew_and_lacks_a_thread_changes_nothing() {
    let Some(mut command) = of_ordinary_user(None) else { return };
    command.args(["--status", "0"]);
    let mut program = Program::spawn(command);
    let (id, address, target) = (program.id(), program.address, echo());
    // It keeps the threads that it has.
    let mut earlier = tunnel_from(Ipv4Addr::LOCALHOST, address, target);
    let threads = count(id, "task");
    let user = fs::metadata(of_process(id, "")).unwrap().uid();
    let is_of_user = |file: &fs::DirEntry| file.metadata().is_ok_and(|it| it.uid() == user);
    let processes = || fs::read_dir("/proc").unwrap().flatten().filter(is_of_user).count();
    // The first ones are for its log and its signals. One more each time, until there are enough.
    for more in threads / 2..=100 {
        let shortage = Lowered::to((threads + more) as u64, Resource::Nproc, id);
        wait_until("one that failed is still there", || processes() == 1);
        program.signal(Signal::USR2);
        let mut told = String::new();
        while !told.contains("cannot restart") && !told.contains(" serves clients now") {
            told = program.log_line("\n");
        }
        drop(shortage);
        let successor = told.contains(" serves clients now").then(|| Successor::named_in(&told));
        assert_echoes(&mut tunnel_from(Ipv4Addr::LOCALHOST, address, target));
        if successor.is_some() {
            assert_echoes(&mut earlier);
            return;
        }
    }
    panic!("it does not come up:\n{}", program.log_so_far());
}

#[test]
fn too_few_threads_to_begin_with_are_told_in_one_line() {
    let mut served = 0;
    for limit in 1..=12 {
        let Some(mut command) = of_ordinary_user(Some(limit)) else { return };
        let mut program = Killed::spawn(command.stderr(Stdio::piped()));
        let mut log = BufReader::new(program.0.stderr.take().unwrap());
        let mut told = String::new();
        while !told.contains("listening on ") && log.read_line(&mut told).unwrap() > 0 {}
        let address = told.split_whitespace().find_map(|word| word.parse().ok());
        if address.is_some_and(greets) {
            served += 1;
            continue;
        }
        assert_eq!(ended(&mut program.0).code(), Some(1), "{limit} threads: {told}");
        log.read_to_string(&mut told).unwrap();
        let last = told.lines().last().unwrap();
        let why = ["Resource temporarily unavailable", "the system refuses another thread"];
        assert!(why.iter().any(|why| last.contains(why)), "{limit} threads: {told}");
        assert!(!told.contains("panicked"), "{limit} threads: {told}");
    }
    assert!(served > 0, "twelve threads are enough for one client");
}

/// Whether the server greets a client back.
fn greets(server: SocketAddr) -> bool {
    let Ok(mut client) = TcpStream::connect(server) else { return false };
    client.set_read_timeout(Some(LONG)).unwrap();
    client.write_all(GREETING).is_ok() && matches!(client.read(&mut [0]), Ok(1))
}

/// A control group whose members may have so many threads, or bytes, and that is gone with its test.
pub struct Group(PathBuf);

impl Group {
    /// `None` where no such group can be made.
    fn of_threads(limit: usize) -> Option<Self> {
        Self::of([("pids", "pids.max"), ("", "pids.max")], limit)
    }

    /// The same with so many bytes.
    pub fn of_memory(limit: usize) -> Option<Self> {
        Self::of([("memory", "memory.limit_in_bytes"), ("", "memory.max")], limit)
    }

    /// Version 1 has a tree for each of what it counts, version 2 has one for all.
    fn of(limits: [(&str, &str); 2], limit: usize) -> Option<Self> {
        let name = format!("tabi-it-{}-{limit}", std::process::id());
        let made = limits.into_iter().find_map(|(tree, file)| {
            let group = Group(Path::new("/sys/fs/cgroup").join(tree).join(&name));
            fs::create_dir(&group.0).ok()?;
            fs::write(group.0.join(file), limit.to_string()).ok()?;
            Some(group)
        });
        if made.is_none() {
            eprintln!("no such control group can be made here: nothing is tested");
        }
        made
    }

    fn limit(&self, threads: &str) {
        fs::write(self.0.join("pids.max"), threads).unwrap();
    }

    /// The program as a member.
    pub fn program(&self) -> Command {
        let plain = program(&[]);
        let mut command = Command::new("/bin/sh");
        command.arg("-c").arg("echo $$ >\"$0/cgroup.procs\" && exec \"$@\"").arg(&self.0);
        command.arg(plain.get_program()).args(plain.get_args()).stdout(Stdio::null());
        command
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Its members have just ended.
        let begin = Instant::now();
        while fs::remove_dir(&self.0).is_err() && begin.elapsed() < LONG {
            thread::sleep(Duration::from_millis(20));
        }
    }
}

#[test]
fn in_a_control_group_of_40_threads_all_places_are_used_and_the_others_wait() {
    let Some(group) = Group::of_threads(40) else { return };
    let mut server = Program::spawn(group.program());
    server.log_line("--max-connections is 10, not 4096: the control group may have 40 threads");
    assert_serves_with(10, &server, echo(), "40 threads of a control group");
}

#[test]
fn in_a_control_group_without_a_thread_left_clients_wait() {
    let Some(group) = Group::of_threads(1000) else { return };
    let mut server = Program::spawn(group.program());
    assert_waits_for_threads(&mut server, || {
        group.limit("1");
        Raised(&group)
    });
}

/// Gives a group threads again when it is dropped.
struct Raised<'a>(&'a Group);

impl Drop for Raised<'_> {
    fn drop(&mut self) {
        self.0.limit("1000");
    }
}
