//! What is left of a session: threads and descriptors of the program, entries of its registry, and
//! lines in its log.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Pid;

use crate::scratch::of_process;
use crate::stage::{LONG, connect};

/// How often to look.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// What has not changed for so many looks is at rest: 500 ms.
const LOOKS_AT_REST: u32 = 50;

/// What a program holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Held {
    /// How many threads there are of each name.
    threads: BTreeMap<String, usize>,
    /// Without the one by which it asks about send queues: that is made once, when it is needed.
    descriptors: usize,
}

impl Held {
    pub(super) fn by(process: Pid) -> Self {
        let mut threads = BTreeMap::new();
        for task in fs::read_dir(of_process(process, "task")).unwrap().flatten() {
            // It may have ended meanwhile.
            if let Ok(name) = fs::read_to_string(task.path().join("comm")) {
                *threads.entry(name.trim().to_owned()).or_default() += 1;
            }
        }
        let asks = sock_diag(process);
        let mut descriptors = 0;
        let mut asking = 0;
        for descriptor in fs::read_dir(of_process(process, "fd")).unwrap().flatten() {
            // It may have been closed meanwhile.
            let target = fs::read_link(descriptor.path()).unwrap_or_default();
            let asks = asks.contains(&target);
            *(if asks { &mut asking } else { &mut descriptors }) += 1;
        }
        assert!(asking <= 1, "{asking} sockets ask about send queues");
        Held { threads, descriptors }
    }

    /// What it holds when it has come to rest.
    pub(super) fn at_rest(process: Pid) -> Self {
        let (begin, mut held, mut looks) = (Instant::now(), Held::by(process), 0);
        while looks < LOOKS_AT_REST && begin.elapsed() < LONG {
            thread::sleep(LOOK_EVERY);
            let now = Held::by(process);
            looks = if now == held { looks + 1 } else { 0 };
            held = now;
        }
        held
    }

    /// Waits until `process` holds no more than this.
    pub(super) fn await_return(&self, process: Pid) {
        let begin = Instant::now();
        loop {
            let now = Held::by(process);
            let is_more = |(name, count): (&String, &usize)| self.threads.get(name) < Some(count);
            if now.descriptors <= self.descriptors && !now.threads.iter().any(is_more) {
                return;
            }
            assert!(begin.elapsed() < LONG, "left: {now:?}; before: {self:?}");
            thread::sleep(LOOK_EVERY);
        }
    }
}

/// The netlink sockets in the network of `process` by which somebody asks about sockets, named as its
/// descriptors are.
fn sock_diag(process: Pid) -> Vec<PathBuf> {
    const SOCK_DIAG: &str = "4";
    let table = fs::read_to_string(of_process(process, "net/netlink")).unwrap_or_default();
    let rows = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let asking = rows.filter(|row| row.get(1) == Some(&SOCK_DIAG));
    asking.filter_map(|row| Some(format!("socket:[{}]", row.last()?).into())).collect()
}

/// Waits until what the status page shows has `part` in it.
pub(super) fn await_shown(page: SocketAddr, part: &str) {
    let begin = Instant::now();
    loop {
        let mut visitor = connect(page);
        let head = format!("GET /sessions HTTP/1.1\r\nHost: {page}\r\n\r\n");
        visitor.write_all(head.as_bytes()).unwrap();
        let mut answer = String::new();
        visitor.read_to_string(&mut answer).unwrap();
        if answer.contains(part) {
            return;
        }
        let body = answer.split("\r\n\r\n").nth(1).unwrap_or_default();
        assert!(begin.elapsed() < LONG, "no {part} in {body:.600}");
        thread::sleep(LOOK_EVERY);
    }
}

/// The outcomes in the lines that tell of the end of a session of `client`.
pub(super) fn outcomes(log: &str, client: SocketAddr) -> Vec<&str> {
    let of_client = format!(" client={client} ");
    let lines = log.lines().filter(|line| line.contains(&of_client));
    let ends = lines.filter_map(|line| line.split_once(" outcome=")?.1.split(' ').next());
    ends.collect()
}
