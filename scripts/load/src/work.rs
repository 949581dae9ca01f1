//! What the contenders are made to do.

mod bulk;
mod connect;
mod ping;

use std::io;

use crate::backend::Backend;
use crate::contender::Running;
use crate::figure::Figure;
use crate::window::Timing;

/// One way of loading a proxy.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Work {
    BulkDown(usize),
    BulkUp(usize),
    Ping(usize),
    Connect(usize),
}

/// Every work with the name that the command line knows it by and what the table calls it.
pub(crate) const WORKS: [(&str, &str, Work); 8] = [
    ("bulk1down", "bulk down, 1 stream", Work::BulkDown(1)),
    ("bulk1up", "bulk up, 1 stream", Work::BulkUp(1)),
    ("bulk8down", "bulk down, 8 streams", Work::BulkDown(8)),
    ("bulk8up", "bulk up, 8 streams", Work::BulkUp(8)),
    ("ping1", "64-octet ping-pong, 1 tunnel", Work::Ping(1)),
    ("ping16", "64-octet ping-pong, 16 tunnels", Work::Ping(16)),
    (
        "conn1",
        "new connection + 64 octets, 1 client",
        Work::Connect(1),
    ),
    (
        "conn8",
        "new connection + 64 octets, 8 clients",
        Work::Connect(8),
    ),
];

impl Work {
    /// The works that a word of the command line means: one by name, or all that begin with it.
    pub(crate) fn parse(word: &str) -> Result<Vec<Work>, String> {
        let named = |matches: &dyn Fn(&str) -> bool| -> Vec<Work> {
            WORKS
                .iter()
                .filter(|(name, ..)| matches(name))
                .map(|(.., work)| *work)
                .collect()
        };
        let exact = named(&|name| name == word);
        let found = if exact.is_empty() {
            named(&|name| name.starts_with(word))
        } else {
            exact
        };
        if found.is_empty() {
            let known = WORKS.map(|(name, ..)| name).join(", ");
            return Err(format!("{word} is none of {known}"));
        }
        Ok(found)
    }

    /// What the table calls it.
    pub(crate) fn title(self) -> &'static str {
        WORKS
            .iter()
            .find(|(.., work)| *work == self)
            .map_or("", |(_, title, _)| title)
    }

    /// Loads the proxy once.
    pub(crate) fn run(
        self,
        proxy: &Running,
        backend: &Backend,
        timing: Timing,
    ) -> io::Result<Vec<Figure>> {
        match self {
            Work::BulkDown(streams) => bulk::down(proxy, backend, timing, streams),
            Work::BulkUp(streams) => bulk::up(proxy, backend, timing, streams),
            Work::Ping(tunnels) => ping::run(proxy, backend, timing, tunnels),
            Work::Connect(clients) => connect::run(proxy, backend, timing, clients),
        }
    }
}
