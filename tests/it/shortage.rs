//! Out of things: nobody loses a tunnel where something is used up, nothing spins, and everybody is
//! served once there is enough again.
//!
//! | what there is too little of | the tests |
//! |---|---|
//! | descriptors: `ulimit -n 64`, and none left for a while | `descriptors` |
//! | threads: `ulimit -u`, `pids.max`, and none left for a while | `threads` |
//! | room on the disk with the log | `disk` |
//! | addresses: `ulimit -v` | `memory` |
//! | standard streams | `streams` |
//! | files of users and rules | `files` |
//!
//! Each shortage is of one process that a test has started. A stop with few descriptors is in `stop`, and
//! a log that nobody reads in `log`.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::process::{Child, Command};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Gid, Pid, Resource, Rlimit, Uid, geteuid, getrlimit, prlimit};
use rustix::thread::{set_thread_res_gid, set_thread_res_uid};

use crate::scratch::{Program, of_process};
use crate::stage::{GREETING, LONG, connect, connect_from, request, take, tunnel_from};

mod descriptors;
mod disk;
mod files;
mod memory;
mod streams;
mod threads;

/// How long a program is watched that has nothing to do, and what part of a core it may take then.
const WATCHED: Duration = Duration::from_secs(2);
const MOST_OF_A_CORE: f64 = 0.2;

/// Fails if the program is busy while nothing can be done.
fn assert_calm(id: Pid, shortage: &str) {
    let (begin, before) = (Instant::now(), processor_time(id));
    // What is measured, and not a wait for anything.
    thread::sleep(WATCHED);
    let used = processor_time(id).saturating_sub(before);
    let part = used.as_secs_f64() / begin.elapsed().as_secs_f64();
    println!("{shortage}: {:.1} % of a core", 100.0 * part);
    assert!(part < MOST_OF_A_CORE, "{shortage}: it takes {:.0} % of a core", 100.0 * part);
}

/// The processor time that all threads of the process have had: the fields `utime` and `stime` of
/// `proc_pid_stat(5)`, in hundredths of a second.
fn processor_time(id: Pid) -> Duration {
    let stat = fs::read_to_string(of_process(id, "stat")).unwrap();
    let (_, fields) = stat.rsplit_once(") ").unwrap();
    let times = fields.split(' ').skip(11).take(2);
    Duration::from_millis(10 * times.map(|time| time.parse::<u64>().unwrap()).sum::<u64>())
}

/// How many descriptors (`fd`) or threads (`task`) the process has.
fn count(id: Pid, what: &str) -> usize {
    fs::read_dir(of_process(id, what)).unwrap().count()
}

/// Waits until `is_so`.
fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !is_so() {
        assert!(begin.elapsed() < LONG, "{what}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// A limit of a running process that is lower than it was, for as long as this is kept.
struct Lowered {
    id: Pid,
    resource: Resource,
    before: Rlimit,
}

impl Lowered {
    fn to(limit: u64, resource: Resource, id: Pid) -> Self {
        let new = Rlimit { current: Some(limit), maximum: getrlimit(resource).maximum };
        Lowered { id, resource, before: set_limit(id, resource, new).unwrap() }
    }
}

impl Drop for Lowered {
    fn drop(&mut self) {
        let _ = set_limit(self.id, self.resource, self.before);
    }
}

/// Sets a limit of a process as the user to whom it belongs: in some containers root may not do that
/// for others. Says what it was.
fn set_limit(id: Pid, resource: Resource, new: Rlimit) -> rustix::io::Result<Rlimit> {
    let owner = fs::metadata(of_process(id, "")).unwrap();
    let (user, group) = (Uid::from_raw(owner.uid()), Gid::from_raw(owner.gid()));
    let set = move || {
        if user != geteuid() {
            set_thread_res_gid(group, group, group)?;
            set_thread_res_uid(user, user, user)?;
        }
        prlimit(Some(id), resource, new)
    };
    // This thread alone is another user then.
    thread::spawn(set).join().unwrap()
}

/// A process that is killed when this is dropped.
struct Killed(Child);

impl Killed {
    fn spawn(command: &mut Command) -> Self {
        Killed(command.spawn().unwrap())
    }

    fn id(&self) -> Pid {
        Pid::from_child(&self.0)
    }
}

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Sends something through a tunnel to an echo, and gets it back.
fn assert_echoes(tunnel: &mut TcpStream) {
    tunnel.write_all(b"still here").unwrap();
    assert_eq!(take(tunnel), *b"still here");
}

/// A client at `ip` that has sent all that it has to say for a tunnel to `target`, an echo.
fn client_of(ip: Ipv4Addr, server: SocketAddr, target: SocketAddr) -> TcpStream {
    let mut client = connect_from(ip, server);
    client.write_all(&[GREETING, &request(target), b"payload"].concat()).unwrap();
    client
}

/// REP that such a client gets; its echo comes behind it.
fn rep_of(client: &mut TcpStream) -> u8 {
    let [version, method, _, rep, ..] = take::<12>(client);
    assert_eq!([version, method], *b"\x05\x00");
    if rep == 0x00 {
        assert_eq!(take(client), *b"payload");
    }
    rep
}

/// Where the status page of the program is.
fn status_of(program: &mut Program) -> SocketAddr {
    let line = program.log_line("status page at http://");
    line.split(['/', ' ']).find_map(|word| word.parse().ok()).unwrap()
}

/// What the metrics say of this series now.
fn metric(status: SocketAddr, series: &str) -> u64 {
    try_metric(status, series).unwrap()
}

fn try_metric(status: SocketAddr, series: &str) -> io::Result<u64> {
    let mut visitor = connect(status);
    write!(visitor, "GET /metrics HTTP/1.1\r\nHost: {status}\r\n\r\n")?;
    let mut answer = String::new();
    visitor.read_to_string(&mut answer)?;
    let value = answer.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    Ok(value.unwrap_or_else(|| panic!("no {series} in\n{answer}")).parse().unwrap())
}

/// A server with so few places: all of them are used, the others wait, and in the end get theirs.
fn assert_serves_with(places: u8, server: &Program, target: SocketAddr, shortage: &str) {
    let client = |host: u8| Ipv4Addr::new(127, 0, 0, host);
    let others = places + 1..=2 * places;
    for round in 0..2 {
        let tunnel = |host| tunnel_from(client(host), server.address, target);
        let mut tunnels: Vec<_> = (1..=places).map(tunnel).collect();
        let waiting = others.clone().map(|host| client_of(client(host), server.address, target));
        let waiting: Vec<_> = waiting.collect();
        if round == 0 {
            assert_calm(server.id(), shortage);
        }
        tunnels.iter_mut().for_each(assert_echoes);
        drop(tunnels);
        for mut client in waiting {
            assert_eq!(rep_of(&mut client), 0x00);
        }
    }
}
