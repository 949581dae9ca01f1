//! What clients, targets and the proxy's log say of the bytes that were moved. They have to agree.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Faults that are shown; further ones are only counted.
const MOST_SHOWN: usize = 20;

/// What sessions do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Short,
    Long,
    Upstream,
    Header,
    HalfClosed,
    Slow,
    /// By HTTP CONNECT.
    HttpConnect,
    /// Plain HTTP requests, of which heads count as well.
    PlainHttp,
    Datagrams,
    /// The client resets.
    Aborted,
    /// The target resets.
    Reset,
    /// The client's socket goes without a word.
    Vanished,
    WrongPassword,
}

pub(super) const KINDS: [Kind; 13] = [
    Kind::Short,
    Kind::Long,
    Kind::Upstream,
    Kind::Header,
    Kind::HalfClosed,
    Kind::Slow,
    Kind::HttpConnect,
    Kind::PlainHttp,
    Kind::Datagrams,
    Kind::Aborted,
    Kind::Reset,
    Kind::Vanished,
    Kind::WrongPassword,
];

impl Kind {
    /// Whether every byte arrives, so that all three books have to agree.
    pub(super) fn is_exact(self) -> bool {
        use Kind::{Aborted, Datagrams, PlainHttp, Reset, Vanished, WrongPassword};
        !matches!(self, PlainHttp | Datagrams | Aborted | Reset | Vanished | WrongPassword)
    }
}

/// Sessions of one kind, and the bytes from the client and to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sums {
    pub(super) sessions: u64,
    pub(super) up: u64,
    pub(super) down: u64,
}

impl Sums {
    fn add(&mut self, up: u64, down: u64) {
        self.sessions += 1;
        self.up += up;
        self.down += down;
    }
}

#[derive(Default)]
pub(super) struct Books {
    clients: [Mutex<Sums>; KINDS.len()],
    targets: [Mutex<Sums>; KINDS.len()],
    faults: Mutex<Vec<String>>,
}

impl Books {
    pub(super) fn client(&self, kind: Kind, up: u64, down: u64) {
        lock(&self.clients[kind as usize]).add(up, down);
    }

    pub(super) fn target(&self, kind: Kind, up: u64, down: u64) {
        lock(&self.targets[kind as usize]).add(up, down);
    }

    pub(super) fn sums(&self, kind: Kind) -> [Sums; 2] {
        [&self.clients, &self.targets].map(|book| *lock(&book[kind as usize]))
    }

    pub(super) fn fault(&self, told: String) {
        let mut faults = lock(&self.faults);
        if faults.len() < MOST_SHOWN {
            eprintln!("soak: {told}");
        }
        faults.push(told);
    }

    pub(super) fn faults(&self) -> usize {
        lock(&self.faults).len()
    }

    pub(super) fn sessions(&self) -> u64 {
        self.clients.iter().map(|sums| lock(sums).sessions).sum()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the log says of the sessions to each port.
pub(super) fn read_log(path: &Path) -> io::Result<HashMap<u16, Sums>> {
    let mut ports: HashMap<u16, Sums> = HashMap::new();
    for line in fs::read_to_string(path)?.lines() {
        if let Some((port, up, down)) = read_line(line) {
            ports.entry(port).or_default().add(up, down);
        }
    }
    Ok(ports)
}

fn read_line(line: &str) -> Option<(u16, u64, u64)> {
    let value =
        |name: &str| line.split(' ').find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
    if value("command")? != "CONNECT" {
        return None;
    }
    let (_, port) = value("dest")?.rsplit_once(':')?;
    Some((port.parse().ok()?, value("up")?.parse().ok()?, value("down")?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::read_line;

    #[test]
    fn a_line_of_the_log_is_understood() {
        let line = "2026-11-28 02:00:00.000 INFO client=127.0.0.2:5 user=bench command=CONNECT \
            dest=127.0.0.1:80 reached=127.0.0.1:80 up=12 down=345 seconds=0.001 outcome=closed";
        assert_eq!(read_line(line), Some((80, 12, 345)));
        assert_eq!(read_line("listening on 127.0.0.1:1080"), None);
    }
}
