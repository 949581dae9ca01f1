//! What the contenders are made to do.
//!
//! A new work is a variant of [`Work`], with its lines in [`WORKS`], `suits` and `run`, and a file
//! below that answers with figures.

mod associations;
pub(crate) mod bulk;
pub(crate) mod connect;
pub(crate) mod datagrams;
mod download;
pub(crate) mod idle;
pub(crate) mod names;
pub(crate) mod ping;
pub(crate) mod requests;
mod stalled;
mod start;
pub(crate) mod whole;

use std::io;

use bulk::Way;

use crate::backend::Backend;
use crate::contender::{Contender, most_tunnels};
use crate::figure::Figure;
use crate::tunnel::By;
use crate::window::Timing;

/// One way of loading a proxy.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Work {
    Bulk(Way, usize),
    Ping(usize),
    Connect(By, usize),
    /// By SOCKS5, as a user with a password.
    ConnectAsUser(usize),
    Idle(usize),
    /// As many idle tunnels as there can be.
    MostIdle,
    WholeCost(usize),
    Stalled(usize),
    Start,
    Datagrams {
        associations: usize,
        size: usize,
    },
    Associations(usize),
    Names(Names),
    /// Plain HTTP, so many in a second.
    Requests(u32),
    /// So many octets of an HTTP origin.
    Download(By, usize),
}

/// How the targets of a work about names are asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Names {
    /// By their IPv4 address, to compare with.
    Address,
    /// One name of a host that is there in both families.
    One,
    /// Many names, of hosts with IPv4 alone.
    Four,
    /// Many names, of hosts whose IPv6 address leads nowhere.
    Dead,
}

/// How often each contender does a short work in each round.
pub(crate) const SHORT_LAPS: u32 = 3;

/// Every work with the name that the command line knows it by and what the table calls it.
pub(crate) const WORKS: [(&str, &str, Work); 29] = [
    ("bulk1down", "bulk down, 1 stream", Work::Bulk(Way::Down, 1)),
    ("bulk1up", "bulk up, 1 stream", Work::Bulk(Way::Up, 1)),
    ("bulk8down", "bulk down, 8 streams", Work::Bulk(Way::Down, 8)),
    ("bulk8up", "bulk up, 8 streams", Work::Bulk(Way::Up, 8)),
    ("ping1", "64-octet ping-pong, 1 tunnel", Work::Ping(1)),
    ("ping16", "64-octet ping-pong, 16 tunnels", Work::Ping(16)),
    ("conn1", "connection + 64 octets, 1 client", Work::Connect(By::Socks5, 1)),
    ("conn8", "connection + 64 octets, 8 clients", Work::Connect(By::Socks5, 8)),
    ("user8", "the same with a password", Work::ConnectAsUser(8)),
    ("httpconn1", "by HTTP CONNECT + 64 octets, 1 client", Work::Connect(By::HttpConnect, 1)),
    ("httpconn8", "by HTTP CONNECT + 64 octets, 8 clients", Work::Connect(By::HttpConnect, 8)),
    ("httpget", "1,000 HTTP requests a second for 1 KiB", Work::Requests(1000)),
    ("httpgibsocks", "1 GiB by SOCKS5", Work::Download(By::Socks5, GIB)),
    ("httpgibconnect", "1 GiB by HTTP CONNECT", Work::Download(By::HttpConnect, GIB)),
    ("httpgibplain", "1 GiB by plain HTTP", Work::Download(By::PlainHttp, GIB)),
    ("idle3000", "3,000 idle tunnels", Work::Idle(3000)),
    ("idlemost", "as many idle tunnels as go", Work::MostIdle),
    ("whole3000", "whole cost of an idle tunnel", Work::WholeCost(3000)),
    ("stalled", "64 sources, readers stalled", Work::Stalled(64)),
    ("start", "before the first client", Work::Start),
    ("udp1x64", "UDP, 64 octets, 1 association", udp(1, 64)),
    ("udp8x64", "UDP, 64 octets, 8 associations", udp(8, 64)),
    ("udp1x1400", "UDP, 1,400 octets, 1 association", udp(1, 1400)),
    ("udp8x1400", "UDP, 1,400 octets, 8 associations", udp(8, 1400)),
    ("udp1000", "1,000 UDP associations", Work::Associations(1000)),
    ("namesaddress", "200 by IPv4 address, 6 at a time", Work::Names(Names::Address)),
    ("namesone", "200 by one name, 6 at a time", Work::Names(Names::One)),
    ("namesfour", "100 names, IPv4 alone", Work::Names(Names::Four)),
    ("namesdead", "100 names, dead IPv6", Work::Names(Names::Dead)),
];

const GIB: usize = 1024 * 1024 * 1024;

const fn udp(associations: usize, size: usize) -> Work {
    Work::Datagrams { associations, size }
}

impl Work {
    /// The works that a word of the command line means: one by name, or all that begin with it.
    pub(crate) fn parse(word: &str) -> Result<Vec<Work>, String> {
        let named = |matches: &dyn Fn(&str) -> bool| -> Vec<Work> {
            WORKS.iter().filter(|(name, ..)| matches(name)).map(|(.., work)| *work).collect()
        };
        let exact = named(&|name| name == word);
        let found = if exact.is_empty() { named(&|name| name.starts_with(word)) } else { exact };
        if found.is_empty() {
            let known = WORKS.map(|(name, ..)| name).join(", ");
            return Err(format!("{word} is none of {known}"));
        }
        Ok(found)
    }

    /// What the table calls it.
    pub(crate) fn title(self) -> &'static str {
        WORKS.iter().find(|(.., work)| *work == self).map_or("", |(_, title, _)| title)
    }

    /// What the proxy is spoken to.
    fn by(self) -> By {
        match self {
            Work::Connect(by, _) | Work::Download(by, _) => by,
            Work::Requests(_) => By::PlainHttp,
            _ => By::Socks5,
        }
    }

    /// The same by SOCKS5, where that can be.
    pub(crate) fn by_socks(self) -> Work {
        match self {
            Work::Connect(_, clients) => Work::Connect(By::Socks5, clients),
            Work::Download(_, length) => Work::Download(By::Socks5, length),
            work => work,
        }
    }

    /// Whether there is anything to measure: not every proxy has UDP, and none is no process.
    pub(crate) fn suits(self, contender: &Contender) -> bool {
        let is_fit = match self {
            Work::Datagrams { .. } | Work::Associations(_) => contender.udp,
            Work::ConnectAsUser(_) => contender.has_users(),
            Work::Start | Work::Stalled(_) | Work::WholeCost(_) => contender.is_proxy(),
            Work::Names(names) => contender.is_proxy() || names == Names::Address,
            Work::Bulk(..)
            | Work::Ping(_)
            | Work::Connect(..)
            | Work::Idle(_)
            | Work::MostIdle
            | Work::Requests(_)
            | Work::Download(..) => true,
        };
        let needs_none = matches!(self, Work::Start);
        is_fit && (needs_none || contender.speaks.contains(&self.by()))
    }

    /// Whether it takes a private network.
    pub(crate) fn needs_room(self) -> bool {
        matches!(self, Work::Names(_))
    }

    /// How often each contender does it in each round. What disturbs short works is over soon, so
    /// that taking turns more often tells more than working longer.
    pub(crate) fn laps(self) -> u32 {
        if self.is_short() { SHORT_LAPS } else { 1 }
    }

    fn is_short(self) -> bool {
        matches!(
            self,
            Work::Ping(_) | Work::Connect(..) | Work::ConnectAsUser(_) | Work::Requests(_)
        )
    }

    /// Starts the contender and loads it once. A fresh process each time: no work finds the memory
    /// or the threads of the one before it.
    pub(crate) fn run(
        self,
        contender: &Contender,
        backend: &Backend,
        timing: Timing,
    ) -> io::Result<Vec<Figure>> {
        let proxy = || contender.by(self.by()).start();
        let timing = if self.is_short() { timing.short() } else { timing };
        match self {
            Work::Start => start::run(contender),
            Work::Bulk(way, streams) => bulk::run(&proxy()?, backend, timing, way, streams),
            Work::Ping(tunnels) => ping::run(&proxy()?, backend, timing, tunnels),
            Work::Connect(_, clients) => connect::run(&proxy()?, backend, timing, clients),
            Work::ConnectAsUser(clients) => {
                connect::run(&contender.with_users().start()?, backend, timing, clients)
            }
            Work::Idle(tunnels) => idle::run(&proxy()?, backend, tunnels, true),
            Work::MostIdle => idle::run(&proxy()?, backend, most_tunnels()?, false),
            Work::WholeCost(tunnels) => whole::run(contender, backend, tunnels),
            Work::Stalled(tunnels) => stalled::run(&proxy()?, backend, tunnels),
            Work::Names(names) => names::run(contender, names),
            Work::Requests(per_second) => requests::run(&proxy()?, backend, timing, per_second),
            Work::Download(_, length) => download::run(&proxy()?, backend, length),
            Work::Associations(count) => associations::run(&proxy()?, backend, count),
            Work::Datagrams { associations, size } => {
                datagrams::run(&proxy()?, backend, timing, associations, size)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{WORKS, Work};
    use crate::contender::Contender;

    fn suits(label: &str, name: &str) -> bool {
        let contender = Contender::parse(label, Path::new("")).unwrap();
        Work::parse(name).unwrap()[0].suits(&contender)
    }

    #[test]
    fn nobody_is_asked_for_what_it_does_not_speak() {
        for (label, socks, connect, plain) in [
            ("direct", true, false, true),
            ("tabi", true, true, true),
            ("microsocks", true, false, false),
            ("tinyproxy", false, true, true),
            ("privoxy", false, true, true),
            ("goproxy", false, true, true),
        ] {
            assert_eq!(suits(label, "conn8"), socks, "{label}");
            assert_eq!(suits(label, "httpconn8"), connect, "{label}");
            assert_eq!(suits(label, "httpget"), plain, "{label}");
        }
        assert!(!suits("tinyproxy", "udp1x64") && suits("dante", "udp1x64"));
        assert!(suits("tinyproxy", "start") && !suits("tinyproxy", "idle3000"));
    }

    #[test]
    fn what_a_work_is_set_beside_is_measured_as_often() {
        for (name, _, work) in WORKS {
            let beside = work.by_socks();
            assert!(beside == work || WORKS.iter().any(|(.., other)| *other == beside), "{name}");
            assert_eq!(work.laps(), beside.laps(), "{name}");
        }
    }
}
