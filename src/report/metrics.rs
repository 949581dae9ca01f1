//! What is counted since the start, as numbers that Prometheus reads.
//!
//! Each place that knows of something tells [`Metrics`] so; what another part of the server knows
//! already (sessions, threads, descriptors) is not counted twice, but asked when somebody reads.
//! Every label has a fixed set of values, and each of them is printed from the start.

use std::fmt::{Display, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use portable_atomic::AtomicU64;

use super::Outcome;
use crate::sessions::{AdmissionError, Totals};
use crate::socks5::Command;

/// The upper ends of the histogram's buckets, in milliseconds: from a target next door to the
/// default of `--connect-timeout`.
const BUCKETS: [u64; 12] = [1, 3, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000];

/// The kind of reason why a client was turned away before it had a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejection {
    /// It is in no network that is served (`--allow-from`).
    Network,
    /// It has sent too many wrong passwords.
    Penalty,
    /// It has as many sessions as it may (`--max-per-client`).
    PerClient,
    /// It has as many sessions as there are places left, which are for others.
    Share,
    /// The server stops.
    Stopped,
}

impl Rejection {
    /// Every reason.
    pub const ALL: [Rejection; 5] = [
        Rejection::Network,
        Rejection::Penalty,
        Rejection::PerClient,
        Rejection::Share,
        Rejection::Stopped,
    ];

    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Rejection::Network => "network",
            Rejection::Penalty => "penalty",
            Rejection::PerClient => "per-client",
            Rejection::Share => "share",
            Rejection::Stopped => "stopped",
        }
    }
}

/// How many names were asked for, by what came of it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Lookups {
    /// Looked up, with an address.
    pub found: u64,
    /// Looked up, with none, or without an answer.
    pub failed: u64,
    /// Still known from an earlier lookup.
    pub remembered: u64,
}

impl Lookups {
    /// Each number with its word.
    pub fn counts(self) -> [(&'static str, u64); 3] {
        [("found", self.found), ("failed", self.failed), ("remembered", self.remembered)]
    }
}

impl From<AdmissionError> for Rejection {
    fn from(too_many: AdmissionError) -> Self {
        match too_many {
            AdmissionError::PerClientLimit(_) => Rejection::PerClient,
            AdmissionError::FairShare(_) => Rejection::Share,
            AdmissionError::Stopped => Rejection::Stopped,
        }
    }
}

/// What a session was for: nothing yet, or a command.
const COMMANDS: [Option<Command>; 6] = [
    None,
    Some(Command::Connect),
    Some(Command::Bind),
    Some(Command::UdpAssociate),
    Some(Command::Resolve),
    Some(Command::ResolvePtr),
];

/// Where it stands among these.
fn place(command: Option<Command>) -> usize {
    match command {
        None => 0,
        Some(Command::Connect) => 1,
        Some(Command::Bind) => 2,
        Some(Command::UdpAssociate) => 3,
        Some(Command::Resolve) => 4,
        Some(Command::ResolvePtr) => 5,
    }
}

/// The word for it, the same as in the log.
fn word(command: Option<Command>) -> String {
    command.map_or_else(|| "-".into(), |command| command.to_string())
}

/// What is counted since the start. Everybody who counts shares one value.
#[derive(Debug)]
pub struct Metrics {
    started: SystemTime,
    accepted: AtomicU64,
    sessions: [[AtomicU64; Outcome::ALL.len()]; COMMANDS.len()],
    refused: [AtomicU64; Rejection::ALL.len()],
    connect: Histogram,
    reload_success: AtomicBool,
    /// In seconds since 1970.
    reload_time: AtomicU64,
}

/// What others know, at the moment at which it is printed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Gauges {
    /// All sessions.
    pub totals: Totals,
    /// Sessions that there may be at once.
    pub max_connections: usize,
    /// Threads of this process, if the system tells.
    pub threads: Option<usize>,
    /// Open descriptors of this process, if the system tells.
    pub open_fds: Option<usize>,
    /// Descriptors that this process may have.
    pub max_fds: usize,
    /// Resolver that were asked for.
    pub lookups: Lookups,
    /// Lines of the log that were lost.
    pub lines_lost: u64,
}

impl Metrics {
    /// Nothing has been counted yet.
    pub fn new() -> Self {
        let started = SystemTime::now();
        Metrics {
            started,
            accepted: AtomicU64::default(),
            sessions: Default::default(),
            refused: Default::default(),
            connect: Histogram::default(),
            reload_success: AtomicBool::new(true),
            reload_time: AtomicU64::new(since_1970(started)),
        }
    }

    /// A client was accepted by the system, whatever becomes of it.
    pub fn accepted(&self) {
        add(&self.accepted, 1);
    }

    /// A client was turned away before it had a session, or, behind a load balancer, one of its
    /// own.
    pub fn refused(&self, reason: Rejection) {
        add(&self.refused[reason as usize], 1);
    }

    /// A session has ended. What it has moved is not told: [`Totals`] knows it.
    pub fn ended(&self, command: Option<Command>, outcome: Outcome) {
        add(&self.sessions[place(command)][outcome as usize], 1);
    }

    /// A CONNECT was answered with success so long after the request.
    pub fn connected(&self, after: Duration) {
        self.connect.add(after);
    }

    /// Users and rules were read again, or could not be.
    pub fn reloaded(&self, success: bool) {
        self.reload_success.store(success, Ordering::Relaxed);
        if success {
            self.reload_time.store(since_1970(SystemTime::now()), Ordering::Relaxed);
        }
    }

    /// When the server was started, in seconds since 1970.
    pub fn started(&self) -> u64 {
        since_1970(self.started)
    }

    /// The clients that were accepted.
    pub fn count_accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }

    /// How many sessions have ended in which way, whatever they were for.
    pub fn outcomes(&self) -> impl Iterator<Item = (&'static str, u64)> {
        Outcome::ALL.into_iter().map(|outcome| {
            let of_commands = self.sessions.iter().map(|counts| &counts[outcome as usize]);
            (outcome.word(), of_commands.map(get).sum())
        })
    }

    /// How many clients were turned away, for each reason.
    pub fn refusals(&self) -> impl Iterator<Item = (&'static str, u64)> {
        Rejection::ALL
            .into_iter()
            .map(|reason| (reason.word(), get(&self.refused[reason as usize])))
    }

    /// Everything, as Prometheus reads it (text format 0.0.4).
    pub fn text(&self, gauges: &Gauges) -> String {
        let mut page = Page(String::with_capacity(10 * 1024));
        let Gauges { totals, .. } = gauges;
        page.gauge("tabi_build_info", "The version of this server.");
        page.line("tabi_build_info", &[("version", env!("CARGO_PKG_VERSION"))], 1);
        page.gauge("tabi_start_time_seconds", "When the server was started, since 1970.");
        page.line("tabi_start_time_seconds", &[], self.started());
        page.gauge("tabi_connections", "Live sessions.");
        page.line("tabi_connections", &[], totals.live);
        page.gauge("tabi_connections_max", "Sessions that there may be at once.");
        page.line("tabi_connections_max", &[], gauges.max_connections);
        page.counter("tabi_accepted_total", "Clients accepted, turned away ones included.");
        page.line("tabi_accepted_total", &[], get(&self.accepted));
        self.print_sessions(&mut page);
        page.counter("tabi_refused_total", "Clients turned away before they had a session.");
        self.refusals().for_each(|(word, count)| {
            page.line("tabi_refused_total", &[("reason", word)], count);
        });
        page.counter("tabi_bytes_total", "Bytes of payload from clients (up) and to them (down).");
        page.both_ways("tabi_bytes_total", totals.up.bytes, totals.down.bytes);
        page.counter("tabi_datagrams_total", "UDP datagrams from clients (up), to them (down).");
        page.both_ways("tabi_datagrams_total", totals.up.datagrams, totals.down.datagrams);
        self.connect.print(&mut page);
        page.counter("tabi_lookups_total", "Resolver looked up.");
        gauges.lookups.counts().into_iter().for_each(|(word, count)| {
            page.line("tabi_lookups_total", &[("result", word)], count);
        });
        if let Some(threads) = gauges.threads {
            page.gauge("tabi_threads", "Threads of this process.");
            page.line("tabi_threads", &[], threads);
        }
        if let Some(open) = gauges.open_fds {
            page.gauge("tabi_open_fds", "Open descriptors of this process.");
            page.line("tabi_open_fds", &[], open);
        }
        page.gauge("tabi_max_fds", "Descriptors that this process may have.");
        page.line("tabi_max_fds", &[], gauges.max_fds);
        self.print_log_and_reload(&mut page, gauges.lines_lost);
        page.0
    }

    #[inline(never)]
    fn print_sessions(&self, page: &mut Page) {
        page.counter("tabi_sessions_total", "Sessions that have ended, by what they were for.");
        for (command, counts) in COMMANDS.into_iter().zip(&self.sessions) {
            let command = word(command);
            for (outcome, count) in Outcome::ALL.into_iter().zip(counts) {
                let labels = [("command", command.as_str()), ("outcome", outcome.word())];
                page.line("tabi_sessions_total", &labels, get(count));
            }
        }
    }

    fn print_log_and_reload(&self, page: &mut Page, lines_lost: u64) {
        page.counter("tabi_log_lines_lost_total", "Lines that the log could not take.");
        page.line("tabi_log_lines_lost_total", &[], lines_lost);
        page.gauge("tabi_reload_success", "Whether users and rules were read at the last attempt.");
        let success = self.reload_success.load(Ordering::Relaxed);
        page.line("tabi_reload_success", &[], u8::from(success));
        page.gauge("tabi_reload_time_seconds", "When users and rules were last read, since 1970.");
        page.line("tabi_reload_time_seconds", &[], get(&self.reload_time));
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

/// Times, by how long they were.
#[derive(Debug, Default)]
struct Histogram {
    /// The last one has no upper end.
    buckets: [AtomicU64; BUCKETS.len() + 1],
    microseconds: AtomicU64,
}

impl Histogram {
    fn add(&self, time: Duration) {
        let bucket = BUCKETS.iter().position(|end| time <= Duration::from_millis(*end));
        add(&self.buckets[bucket.unwrap_or(BUCKETS.len())], 1);
        add(&self.microseconds, u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
    }

    fn print(&self, page: &mut Page) {
        page.head("tabi_connect_seconds", "histogram", "From a CONNECT to its successful reply.");
        let mut count = 0;
        for (bucket, end) in self.buckets.iter().zip(BUCKETS.map(Some).into_iter().chain([None])) {
            count += get(bucket);
            let end = end.map_or_else(
                || "+Inf".into(),
                |end| Duration::from_millis(end).as_secs_f64().to_string(),
            );
            page.line("tabi_connect_seconds_bucket", &[("le", &end)], count);
        }
        let sum = Duration::from_micros(get(&self.microseconds));
        page.line("tabi_connect_seconds_sum", &[], sum.as_secs_f64());
        page.line("tabi_connect_seconds_count", &[], count);
    }
}

/// The text that Prometheus reads. No label's value needs to be escaped.
struct Page(String);

impl Page {
    fn gauge(&mut self, name: &str, help: &str) {
        self.head(name, "gauge", help);
    }

    fn counter(&mut self, name: &str, help: &str) {
        self.head(name, "counter", help);
    }

    fn head(&mut self, name: &str, kind: &str, help: &str) {
        self.write(format_args!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
    }

    fn both_ways(&mut self, name: &str, up: u64, down: u64) {
        self.line(name, &[("direction", "up")], up);
        self.line(name, &[("direction", "down")], down);
    }

    fn line(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        self.0.push_str(name);
        for (index, (label, value)) in labels.iter().enumerate() {
            let before = if index == 0 { '{' } else { ',' };
            self.write(format_args!("{before}{label}=\"{value}\""));
        }
        if !labels.is_empty() {
            self.0.push('}');
        }
        self.write(format_args!(" {value}\n"));
    }

    fn write(&mut self, text: std::fmt::Arguments<'_>) {
        self.0.write_fmt(text).expect("memory takes every text");
    }
}

fn add(counter: &AtomicU64, more: u64) {
    counter.fetch_add(more, Ordering::Relaxed);
}

fn get(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

fn since_1970(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &str, series: &str) -> String {
        let mut lines = text.lines().filter_map(|line| line.strip_prefix(&format!("{series} ")));
        let value = lines.next().unwrap_or_else(|| panic!("no {series} in\n{text}"));
        assert!(lines.next().is_none(), "{series} is there twice");
        value.into()
    }

    #[test]
    fn what_is_told_is_counted() {
        let metrics = Metrics::new();
        metrics.accepted();
        metrics.accepted();
        metrics.refused(Rejection::Penalty);
        metrics.ended(Some(Command::Bind), Outcome::TimedOut);
        metrics.ended(None, Outcome::TimedOut);
        metrics.reloaded(false);
        let mut totals = Totals { opened: 9, live: 4, ..Totals::default() };
        (totals.up.bytes, totals.up.datagrams) = (5, 3);
        let gauges = Gauges {
            totals,
            max_connections: 12,
            threads: Some(6),
            lookups: Lookups { remembered: 1, ..Lookups::default() },
            lines_lost: 7,
            ..Gauges::default()
        };
        let text = metrics.text(&gauges);
        for (series, expected) in [
            ("tabi_accepted_total", "2"),
            ("tabi_refused_total{reason=\"penalty\"}", "1"),
            ("tabi_refused_total{reason=\"network\"}", "0"),
            ("tabi_sessions_total{command=\"BIND\",outcome=\"timed-out\"}", "1"),
            ("tabi_sessions_total{command=\"-\",outcome=\"timed-out\"}", "1"),
            ("tabi_sessions_total{command=\"CONNECT\",outcome=\"closed\"}", "0"),
            ("tabi_lookups_total{result=\"remembered\"}", "1"),
            ("tabi_log_lines_lost_total", "7"),
            ("tabi_reload_success", "0"),
            ("tabi_bytes_total{direction=\"up\"}", "5"),
            ("tabi_datagrams_total{direction=\"up\"}", "3"),
            ("tabi_datagrams_total{direction=\"down\"}", "0"),
            ("tabi_connections", "4"),
            ("tabi_connections_max", "12"),
            ("tabi_threads", "6"),
        ] {
            assert_eq!(value(&text, series), expected, "{series}");
        }
        assert!(!text.contains("tabi_open_fds"), "what is not known is not told");
        assert!(metrics.outcomes().any(|count| count == ("timed-out", 2)));
        metrics.reloaded(true);
        assert_eq!(value(&metrics.text(&gauges), "tabi_reload_success"), "1");
    }

    #[test]
    fn a_bucket_holds_all_that_was_not_longer() {
        let metrics = Metrics::new();
        for milliseconds in [0, 1, 2, 700, 20_000] {
            metrics.connected(Duration::from_millis(milliseconds));
        }
        let text = metrics.text(&Gauges::default());
        for (end, expected) in
            [("0.001", "2"), ("0.003", "3"), ("0.5", "3"), ("1", "4"), ("10", "4"), ("+Inf", "5")]
        {
            let series = format!("tabi_connect_seconds_bucket{{le=\"{end}\"}}");
            assert_eq!(value(&text, &series), expected, "{end}");
        }
        assert_eq!(value(&text, "tabi_connect_seconds_sum"), "20.703");
        assert_eq!(value(&text, "tabi_connect_seconds_count"), "5");
    }

    #[test]
    fn every_word_stands_at_its_own_number() {
        assert!(Rejection::ALL.iter().enumerate().all(|(index, reason)| *reason as usize == index));
        assert!(Outcome::ALL.iter().enumerate().all(|(index, end)| *end as usize == index));
        assert!(COMMANDS.iter().enumerate().all(|(index, command)| place(*command) == index));
    }
}
