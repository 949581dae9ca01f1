//! The end of each session: it is counted, and has a line in the log. Of one client there are so many
//! lines, and a count of the others.

use std::sync::Arc;
use std::time::Duration;

use log::{Level, info, log, log_enabled, warn};

use super::line::Line;
use super::metrics::Metrics;
use super::outcome::Outcome;
use super::rate_limit::{LogRateLimit, Rate};
use crate::sessions::SessionState;
use crate::system::ip::ClientPrefix;

/// A browser that opens thirty tabs makes 1,000 connections. After that ten lines a second of 300 bytes
/// are 260 MB a day, and a client that makes 10,000 connections a second fills no disk.
const RATE: Rate<Kind> = Rate {
    burst: 1000,
    every: Duration::from_millis(100),
    summary_after: Duration::from_secs(10),
    summary: log_summary,
};

/// The log of sessions that have ended.
#[derive(Debug)]
pub struct SessionLog(Arc<LogRateLimit<Kind>>);

/// A client's lines. Wrong passwords are counted apart: nothing else that a client does can hide them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Kind {
    client: ClientPrefix,
    level: Level,
}

fn log_summary(kind: Option<Kind>, count: u64) {
    match kind {
        Some(Kind { client, level: Level::Warn }) => {
            warn!("{count} more lines of client={client}: wrong names or passwords");
        }
        Some(Kind { client, .. }) => info!("{count} more lines of client={client}"),
        None => info!("{count} more lines of other clients"),
    }
}

impl Default for SessionLog {
    fn default() -> Self {
        SessionLog(LogRateLimit::new(RATE))
    }
}

impl SessionLog {
    /// The entry of a session that has just begun: it is logged, and counted in `metrics`, when the
    /// session ends.
    pub fn entry<'a>(
        &'a self,
        session: &'a SessionState,
        metrics: &'a Metrics,
    ) -> SessionEntry<'a> {
        SessionEntry {
            log: self,
            metrics,
            session,
            outcome: Outcome::Failed,
            why: Some("internal error"),
        }
    }

    /// Logs how many lines were not logged, without waiting until that is due.
    pub fn summarize(&self) {
        self.0.summarize();
    }

    #[inline(never)]
    fn log(&self, session: &SessionState, outcome: Outcome, why: Option<&str>) {
        let level = outcome.level(session.request().is_some());
        let kind = Kind { client: session.peer().ip().into(), level: level.min(Level::Info) };
        if log_enabled!(level) && self.0.admits(kind) {
            log!(level, "{}", Line { session, outcome, why });
        }
    }
}

/// The entry of a session that has not ended yet. One that is dropped before it was written is that of
/// a session whose thread has panicked.
pub struct SessionEntry<'a> {
    log: &'a SessionLog,
    metrics: &'a Metrics,
    session: &'a SessionState,
    outcome: Outcome,
    why: Option<&'a str>,
}

impl<'a> SessionEntry<'a> {
    /// Counts and logs how the session has ended, and `why` where the outcome alone does not say it.
    pub fn write(mut self, outcome: Outcome, why: Option<&'a str>) {
        (self.outcome, self.why) = (outcome, why);
    }
}

impl Drop for SessionEntry<'_> {
    #[inline(never)]
    fn drop(&mut self) {
        let command = self.session.request().map(|(command, _)| *command);
        self.metrics.ended(command, self.outcome);
        self.log.log(self.session, self.outcome, self.why);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sessions::{Limits, Sessions};
    use crate::system::descriptors::Descriptors;
    use log::{LevelFilter, Log, Metadata, Record};
    use std::net::{TcpListener, TcpStream};
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::Mutex;

    /// What was logged in this test program.
    static LOGGED: Mutex<Vec<String>> = Mutex::new(Vec::new());

    struct Recorder;

    impl Log for Recorder {
        fn enabled(&self, _: &Metadata<'_>) -> bool {
            true
        }

        fn log(&self, record: &Record<'_>) {
            LOGGED.lock().unwrap().push(record.args().to_string());
        }

        fn flush(&self) {}
    }

    #[test]
    fn a_session_whose_thread_panics_has_failed() {
        log::set_boxed_logger(Box::new(Recorder)).unwrap();
        log::set_max_level(LevelFilter::Info);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let limits = Limits {
            sessions: 1,
            pairs: 8,
            per_client: 1,
            handshake: Duration::MAX,
            idle: Duration::MAX,
        };
        let sessions = Sessions::new(limits, Descriptors::new(100));
        let session = sessions.open("192.0.2.77:5000".parse().unwrap(), client, || ()).unwrap();
        let (log, metrics) = (SessionLog::default(), Metrics::default());
        catch_unwind(AssertUnwindSafe(|| {
            let _entry = log.entry(session.state(), &metrics);
            panic!("as this test wants it");
        }))
        .unwrap_err();
        log.entry(session.state(), &metrics).write(Outcome::Closed, None);
        let counted: Vec<_> = metrics.outcomes().filter(|(_, count)| *count > 0).collect();
        assert_eq!(counted, [("closed", 1), ("failed", 1)]);
        let logged = LOGGED.lock().unwrap();
        let of_client = logged.iter().filter(|line| line.starts_with("client=192.0.2.77:5000 "));
        let ends: Vec<_> = of_client.map(|line| line.split(" outcome=").nth(1).unwrap()).collect();
        assert_eq!(ends, ["failed why=\"internal error\"", "closed"]);
    }
}
