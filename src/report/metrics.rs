//! What is counted since the start, as numbers that Prometheus reads.
//!
//! Each place that knows of something tells [`Metrics`] so; what another part of the server knows
//! already (sessions, threads, descriptors) is not counted twice, but asked when somebody reads.
//! Every label has a fixed set of values, and each of them is printed from the start.

use std::fmt::{Display, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use portable_atomic::AtomicU64;
use strum::{IntoStaticStr, VariantArray};

use super::outcome::Outcome;
use crate::sessions::{AdmissionError, SessionState, Totals};
use crate::system::sync::Mutex;
use crate::wire::protocol::Protocol;
use crate::wire::request::Command;

/// The upper ends of the histogram's buckets, in milliseconds: from a target next door to the
/// default of `--connect-timeout`.
const BUCKETS: [u64; 12] = [1, 3, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000];

/// What a session can have been for: what the client has spoken, and what it has asked for, if it came so far.
const KINDS: [(Option<Protocol>, Option<Command>); 13] = [
    (None, None),
    (Some(Protocol::Socks5), None),
    (Some(Protocol::Socks5), Some(Command::Connect)),
    (Some(Protocol::Socks5), Some(Command::Bind)),
    (Some(Protocol::Socks5), Some(Command::UdpAssociate)),
    (Some(Protocol::Socks5), Some(Command::Resolve)),
    (Some(Protocol::Socks5), Some(Command::ResolvePtr)),
    (Some(Protocol::Socks4), None),
    (Some(Protocol::Socks4), Some(Command::Connect)),
    (Some(Protocol::Socks4), Some(Command::Bind)),
    (Some(Protocol::Http), None),
    (Some(Protocol::Http), Some(Command::Connect)),
    (Some(Protocol::Http), Some(Command::Http)),
];

/// The kind of reason why a client was turned away before it had a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "kebab-case")]
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

impl From<AdmissionError> for Rejection {
    fn from(error: AdmissionError) -> Self {
        match error {
            AdmissionError::PerClientLimit(_) => Rejection::PerClient,
            AdmissionError::FairShare(_)
            | AdmissionError::Descriptors(_)
            | AdmissionError::UdpPorts(_)
            | AdmissionError::NothingFree => Rejection::Share,
            AdmissionError::Stopped => Rejection::Stopped,
        }
    }
}

/// Numbers, each with its word.
pub type Counts = Vec<(&'static str, u64)>;

/// What is counted since the start. Everybody who counts shares one value.
#[derive(Debug)]
pub struct Metrics {
    started: Moment,
    accepted: AtomicU64,
    sessions: [[AtomicU64; Outcome::VARIANTS.len()]; KINDS.len()],
    rejected: [AtomicU64; Rejection::VARIANTS.len()],
    connect: Histogram,
    reload_success: AtomicBool,
    reload_time: Mutex<Moment>,
}

/// What others know, at the moment at which it is printed.
#[derive(Clone, Debug, Default)]
pub struct Gauges {
    /// All sessions.
    pub totals: Totals,
    /// Sessions of earlier processes, which finish beside this one.
    pub earlier: usize,
    /// Clients that have connected and wait for a place.
    pub waiting: usize,
    /// Sessions that there may be at once.
    pub max_connections: usize,
    /// Threads of this process, if the system tells.
    pub threads: Option<usize>,
    /// Open descriptors of this process, if the system tells.
    pub open_fds: Option<usize>,
    /// Descriptors that this process may have.
    pub max_fds: usize,
    /// Processor time that this process has had.
    pub processor_time: Duration,
    /// Memory of this process in bytes, if the system tells.
    pub resident_memory: Option<u64>,
    /// Names that were asked for.
    pub lookups: Counts,
    /// Datagrams that were dropped.
    pub dropped: Counts,
    /// Lines of the log that were lost.
    pub lines_lost: u64,
}

impl Default for Metrics {
    /// Nothing has been counted yet.
    fn default() -> Self {
        Metrics {
            started: Moment::now(),
            accepted: AtomicU64::default(),
            sessions: Default::default(),
            rejected: Default::default(),
            connect: Histogram::default(),
            reload_success: AtomicBool::new(true),
            reload_time: Mutex::new(Moment::now()),
        }
    }
}

impl Metrics {
    /// A client was accepted by the system, whatever becomes of it.
    pub fn accepted(&self) {
        add(&self.accepted, 1);
    }

    /// A client was turned away before it had a session, or, behind a load balancer, one of its
    /// own.
    pub fn rejected(&self, reason: Rejection) {
        add(&self.rejected[reason as usize], 1);
    }

    /// A session has ended. What it has moved is in the totals of all sessions.
    pub fn ended(&self, session: &SessionState, outcome: Outcome) {
        self.count((session.protocol(), session.request().map(|(command, _)| *command)), outcome);
    }

    fn count(&self, kind: (Option<Protocol>, Option<Command>), outcome: Outcome) {
        let index = KINDS.iter().position(|it| *it == kind).expect("all kinds are there");
        add(&self.sessions[index][outcome as usize], 1);
    }

    /// A CONNECT was answered with success so long after the request.
    pub fn connected(&self, after: Duration) {
        self.connect.add(after);
    }

    /// Users and rules were read again, or could not be.
    pub fn reloaded(&self, success: bool) {
        self.reload_success.store(success, Ordering::Relaxed);
        if success {
            *self.reload_time.lock() = Moment::now();
        }
    }

    /// When the server was started, in seconds since 1970.
    pub fn started(&self) -> u64 {
        self.started.since_1970(SystemTime::now())
    }

    /// For how long the server has been up.
    pub fn uptime(&self) -> Duration {
        self.started.at.elapsed()
    }

    /// The clients that were accepted.
    pub fn count_accepted(&self) -> u64 {
        get(&self.accepted)
    }

    /// How many sessions have ended in which way, whatever they were for.
    pub fn outcomes(&self) -> impl Iterator<Item = (&'static str, u64)> {
        Outcome::VARIANTS.iter().map(|outcome| {
            let of_commands = self.sessions.iter().map(|counts| &counts[*outcome as usize]);
            (outcome.into(), of_commands.map(get).sum())
        })
    }

    /// How many clients were turned away, for each reason.
    pub fn rejections(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let reasons = Rejection::VARIANTS.iter().zip(&self.rejected);
        reasons.map(|(reason, count)| (reason.into(), get(count)))
    }

    /// Everything, as Prometheus reads it (text format 0.0.4).
    pub fn text(&self, gauges: &Gauges) -> String {
        let mut text = Text(String::with_capacity(10 * 1024));
        let Totals { live, up, down, .. } = gauges.totals;
        let directions = |up, down| [("up", up), ("down", down)];
        text.head("tabi_build_info", "gauge", "The version of this server.");
        text.sample("tabi_build_info", &[("version", env!("CARGO_PKG_VERSION"))], 1);
        text.gauge("tabi_connections", "Live sessions.", live);
        let help = "Live sessions of earlier processes, after SIGUSR2.";
        text.gauge("tabi_connections_earlier", help, gauges.earlier);
        let help = "Sessions that there may be at once.";
        text.gauge("tabi_connections_max", help, gauges.max_connections);
        let help = "Clients that have connected and wait for a place.";
        text.gauge("tabi_clients_waiting", help, gauges.waiting);
        let help = "Clients accepted, turned away ones included.";
        text.counter("tabi_accepted_total", help, get(&self.accepted));
        self.print_sessions(&mut text);
        let help = "Clients turned away before they had a session.";
        text.counters("tabi_refused_total", help, "reason", self.rejections());
        let help = "Bytes of payload from clients (up) and to them (down).";
        let bytes = directions(up.bytes, down.bytes);
        text.counters("tabi_bytes_total", help, "direction", bytes);
        let help = "UDP datagrams from clients (up), to them (down).";
        let datagrams = directions(up.datagrams, down.datagrams);
        text.counters("tabi_datagrams_total", help, "direction", datagrams);
        let help = "UDP datagrams that were dropped.";
        let dropped = gauges.dropped.iter().copied();
        text.counters("tabi_datagrams_dropped_total", help, "reason", dropped);
        self.connect.print(&mut text);
        let lookups = gauges.lookups.iter().copied();
        text.counters("tabi_lookups_total", "Names looked up.", "result", lookups);
        let help = "Lines that the log could not take.";
        text.counter("tabi_log_lines_lost_total", help, gauges.lines_lost);
        let help = "Whether users and rules were read at the last attempt.";
        let success = self.reload_success.load(Ordering::Relaxed);
        text.gauge("tabi_reload_success", help, u8::from(success));
        let help = "When users and rules were last read, since 1970.";
        let reload_time = self.reload_time.lock().since_1970(SystemTime::now());
        text.gauge("tabi_reload_time_seconds", help, reload_time);
        self.print_process(&mut text, gauges);
        text.0
    }

    /// What Prometheus knows of every process, by the names that it has for that.
    fn print_process(&self, text: &mut Text, gauges: &Gauges) {
        let help = "Processor time of this process.";
        let seconds = gauges.processor_time.as_secs_f64();
        text.counter("process_cpu_seconds_total", help, seconds);
        if let Some(bytes) = gauges.resident_memory {
            text.gauge("process_resident_memory_bytes", "Memory of this process.", bytes);
        }
        if let Some(threads) = gauges.threads {
            text.gauge("process_threads", "Threads of this process.", threads);
        }
        if let Some(open) = gauges.open_fds {
            text.gauge("process_open_fds", "Open descriptors of this process.", open);
        }
        let help = "Descriptors that this process may have.";
        text.gauge("process_max_fds", help, gauges.max_fds);
        let help = "When this process was started, since 1970.";
        text.gauge("process_start_time_seconds", help, self.started());
    }

    #[inline(never)]
    fn print_sessions(&self, text: &mut Text) {
        let name = "tabi_sessions_total";
        text.head(name, "counter", "Sessions that have ended, by what they were for.");
        for ((protocol, command), counts) in KINDS.iter().zip(&self.sessions) {
            let protocol = protocol.map_or("-", Into::into);
            let command = command.map_or("-", Into::into);
            for (outcome, count) in Outcome::VARIANTS.iter().zip(counts) {
                let outcome = outcome.into();
                let labels = [("protocol", protocol), ("command", command), ("outcome", outcome)];
                text.sample(name, &labels, get(count));
            }
        }
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

    fn print(&self, text: &mut Text) {
        text.head("tabi_connect_seconds", "histogram", "From a request to its connection.");
        let ends = BUCKETS.map(|end| Duration::from_millis(end).as_secs_f64().to_string());
        let mut count = 0;
        for (bucket, end) in self.buckets.iter().zip(ends.iter().map(|end| &**end).chain(["+Inf"]))
        {
            count += get(bucket);
            text.sample("tabi_connect_seconds_bucket", &[("le", end)], count);
        }
        let sum = Duration::from_micros(get(&self.microseconds));
        text.sample("tabi_connect_seconds_sum", &[], sum.as_secs_f64());
        text.sample("tabi_connect_seconds_count", &[], count);
    }
}

/// The text that Prometheus reads. No label's value needs to be escaped.
struct Text(String);

impl Text {
    fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.head(name, "gauge", help);
        self.sample(name, &[], value);
    }

    fn counter(&mut self, name: &str, help: &str, value: impl Display) {
        self.head(name, "counter", help);
        self.sample(name, &[], value);
    }

    /// A counter for each value of `label`.
    fn counters(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        counts: impl IntoIterator<Item = (&'static str, u64)>,
    ) {
        self.head(name, "counter", help);
        for (value, count) in counts {
            self.sample(name, &[(label, value)], count);
        }
    }

    fn head(&mut self, name: &str, kind: &str, help: &str) {
        self.write(format_args!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        self.0.push_str(name);
        for (index, (label, value)) in labels.iter().enumerate() {
            let before = if index == 0 { '{' } else { ',' };
            self.write(format_args!("{before}{label}=\"{value}\""));
        }
        let end = if labels.is_empty() { "" } else { "}" };
        self.write(format_args!("{end} {value}\n"));
    }

    fn write(&mut self, text: std::fmt::Arguments<'_>) {
        self.0.write_fmt(text).expect("memory takes every text");
    }
}

/// A moment in this process's life. What time of day it was is known only now: a box without a clock of
/// its own starts in 1970, and its time is set later.
#[derive(Debug)]
struct Moment {
    at: Instant,
    /// What was last told, so that a moment does not move by the rounding of two clocks.
    told: AtomicU64,
}

impl Moment {
    fn now() -> Self {
        Moment { at: Instant::now(), told: AtomicU64::new(since_1970(SystemTime::now())) }
    }

    /// In seconds since 1970, where it is `now`.
    fn since_1970(&self, now: SystemTime) -> u64 {
        let since = since_1970(now).saturating_sub(self.at.elapsed().as_secs());
        if since.abs_diff(get(&self.told)) > 1 {
            self.told.store(since, Ordering::Relaxed);
        }
        get(&self.told)
    }
}

/// What a session was for: nothing yet, or a command.
fn add(counter: &AtomicU64, more: u64) {
    counter.fetch_add(more, Ordering::Relaxed);
}

fn get(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

/// Seconds since 1970.
pub(super) fn since_1970(time: SystemTime) -> u64 {
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
    fn what_happens_is_counted() {
        let metrics = Metrics::default();
        metrics.accepted();
        metrics.accepted();
        metrics.rejected(Rejection::Penalty);
        metrics.count((Some(Protocol::Socks5), Some(Command::Bind)), Outcome::TimedOut);
        metrics.count((None, None), Outcome::TimedOut);
        metrics.reloaded(false);
        let mut totals = Totals { opened: 9, live: 4, ..Totals::default() };
        (totals.up.bytes, totals.up.datagrams) = (5, 3);
        let gauges = Gauges {
            totals,
            max_connections: 12,
            threads: Some(6),
            waiting: 3,
            processor_time: Duration::from_millis(1500),
            resident_memory: Some(4096),
            lookups: vec![("found", 0), ("failed", 0), ("remembered", 1)],
            dropped: vec![("denied", 8)],
            lines_lost: 7,
            ..Gauges::default()
        };
        let text = metrics.text(&gauges);
        for (series, expected) in [
            ("tabi_accepted_total", "2"),
            ("tabi_refused_total{reason=\"penalty\"}", "1"),
            ("tabi_refused_total{reason=\"network\"}", "0"),
            (
                "tabi_sessions_total{protocol=\"socks5\",command=\"BIND\",outcome=\"timed-out\"}",
                "1",
            ),
            ("tabi_sessions_total{protocol=\"-\",command=\"-\",outcome=\"timed-out\"}", "1"),
            (
                "tabi_sessions_total{protocol=\"socks5\",command=\"CONNECT\",outcome=\"closed\"}",
                "0",
            ),
            ("tabi_lookups_total{result=\"remembered\"}", "1"),
            ("tabi_log_lines_lost_total", "7"),
            ("tabi_reload_success", "0"),
            ("tabi_bytes_total{direction=\"up\"}", "5"),
            ("tabi_datagrams_total{direction=\"up\"}", "3"),
            ("tabi_datagrams_total{direction=\"down\"}", "0"),
            ("tabi_connections", "4"),
            ("tabi_connections_max", "12"),
            ("tabi_clients_waiting", "3"),
            ("tabi_datagrams_dropped_total{reason=\"denied\"}", "8"),
            ("process_cpu_seconds_total", "1.5"),
            ("process_resident_memory_bytes", "4096"),
            ("process_threads", "6"),
        ] {
            assert_eq!(value(&text, series), expected, "{series}");
        }
        assert!(!text.contains("process_open_fds"), "what is not known is left out");
        assert!(metrics.outcomes().any(|count| count == ("timed-out", 2)));
        metrics.reloaded(true);
        assert_eq!(value(&metrics.text(&gauges), "tabi_reload_success"), "1");
    }

    #[test]
    fn a_clock_that_is_set_moves_what_was_told_and_rounding_does_not() {
        let moment = Moment::now();
        let now = SystemTime::now();
        let told = moment.since_1970(now);
        assert!(told.abs_diff(since_1970(now)) <= 1);
        let a_second_off = now + Duration::from_secs(1);
        assert_eq!(moment.since_1970(a_second_off), told);
        let years = Duration::from_secs(56 * 365 * 86_400);
        let set = moment.since_1970(now + years);
        assert!(set.abs_diff(told + years.as_secs()) <= 1, "{told} {set}");
        assert_eq!(moment.since_1970(now + years), set);
    }

    #[test]
    fn a_bucket_holds_all_that_was_not_longer() {
        let metrics = Metrics::default();
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
    fn each_kind_of_session_is_counted_under_its_own_words() {
        let metrics = Metrics::default();
        for kind in KINDS {
            metrics.count(kind, Outcome::Closed);
        }
        let text = metrics.text(&Gauges::default());
        for kind in KINDS {
            let protocol = kind.0.map_or("-".into(), |protocol| protocol.to_string());
            let command = kind.1.map_or("-".into(), |command| command.to_string());
            let labels =
                format!("protocol=\"{protocol}\",command=\"{command}\",outcome=\"closed\"");
            assert_eq!(value(&text, &format!("tabi_sessions_total{{{labels}}}")), "1");
        }
    }

    #[test]
    fn a_reason_for_a_rejection_is_one_word() {
        let reasons: Vec<_> = Metrics::default().rejections().map(|(reason, _)| reason).collect();
        assert_eq!(reasons, ["network", "penalty", "per-client", "share", "stopped"]);
    }
}
