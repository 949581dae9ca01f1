//! The end of each session: it is counted, and has a line in the log. Of one client there are so many
//! lines, and a count of the others.

use std::time::{Duration, Instant};

use log::{Level, info, log, log_enabled, warn};

use super::line::Line;
use super::rate_limit::{LogDecision, LogRateLimit};
use super::{Metrics, Outcome};
use crate::sessions::SessionState;
use crate::system::ip::ClientPrefix;

/// A browser that opens thirty tabs makes 1,000 connections. After that ten lines a second of 300 bytes
/// are 260 MB a day, and a client that makes 10,000 connections a second fills no disk.
const ALLOWANCE: LogDecision = LogDecision {
    burst: 1000,
    every: Duration::from_millis(100),
    told_after: Duration::from_secs(10),
};

/// Where every session says how it ended.
#[derive(Debug)]
pub struct SessionLog {
    quota: LogRateLimit<Kind>,
}

/// A client's lines. Wrong passwords are counted apart: nothing else that a client does can hide them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Kind {
    client: ClientPrefix,
    level: Level,
}

impl Default for SessionLog {
    fn default() -> Self {
        SessionLog { quota: LogRateLimit::new(ALLOWANCE) }
    }
}

impl SessionLog {
    /// Waits for the end of a session that has just begun, to log it and to count it in `metrics`.
    pub fn begin<'a>(&'a self, account: &'a SessionState, metrics: &'a Metrics) -> End<'a> {
        End { ends: self, metrics, account, is_told: false }
    }

    /// Logs how many lines were not logged of those clients that have many, when it is time to. Says
    /// when to call it again, if there is something to tell then.
    pub fn tell_hidden(&self, now: Instant) -> Option<Duration> {
        self.tell(now);
        self.quota.has_hidden().then_some(Duration::from_secs(1))
    }

    /// Logs how many lines were not logged, now that no session follows.
    pub fn tell_rest(&self) {
        self.tell(Instant::now() + ALLOWANCE.told_after);
    }

    fn tell(&self, now: Instant) {
        for (kind, count) in self.quota.hidden(now) {
            match kind {
                Some(Kind { client, level: Level::Warn }) => {
                    warn!("{count} more lines of client={client}: wrong names or passwords");
                }
                Some(Kind { client, .. }) => info!("{count} more lines of client={client}"),
                None => info!("{count} more lines of other clients"),
            }
        }
    }

    #[inline(never)]
    fn log(&self, account: &SessionState, outcome: Outcome, why: Option<&str>) {
        let level = outcome.level(account.request().is_some());
        if !log_enabled!(level) {
            return;
        }
        let now = Instant::now();
        self.tell(now);
        let kind = Kind { client: account.peer().ip().into(), level: level.min(Level::Info) };
        if self.quota.take(kind, now) {
            log!(level, "{}", Line { account, outcome, why });
        }
    }
}

/// A session on its way to its end. One whose thread panics is told of when this is dropped.
pub struct End<'a> {
    ends: &'a SessionLog,
    metrics: &'a Metrics,
    account: &'a SessionState,
    is_told: bool,
}

impl End<'_> {
    /// Counts and logs how the session has ended, and `why` where the outcome alone does not say it.
    #[inline(never)]
    pub fn tell(mut self, outcome: Outcome, why: Option<&str>) {
        self.is_told = true;
        self.note(outcome, why);
    }

    fn note(&self, outcome: Outcome, why: Option<&str>) {
        self.metrics.ended(self.account.request().map(|(command, _)| *command), outcome);
        self.ends.log(self.account, outcome, why);
    }
}

impl Drop for End<'_> {
    fn drop(&mut self) {
        if !self.is_told {
            self.note(Outcome::Failed, Some("a fault in tabi"));
        }
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

    struct Kept;

    impl Log for Kept {
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
        log::set_boxed_logger(Box::new(Kept)).unwrap();
        log::set_max_level(LevelFilter::Info);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let limits =
            Limits { sessions: 1, per_client: 1, handshake: Duration::MAX, idle: Duration::MAX };
        let sessions = Sessions::new(limits, Descriptors::new(100));
        let session = sessions.open("192.0.2.77:5000".parse().unwrap(), client, || ()).unwrap();
        let (ends, metrics) = (SessionLog::default(), Metrics::new());
        catch_unwind(AssertUnwindSafe(|| {
            let _end = ends.begin(session.state(), &metrics);
            panic!("as this test wants it");
        }))
        .unwrap_err();
        ends.begin(session.state(), &metrics).tell(Outcome::Closed, None);
        let counted: Vec<_> = metrics.outcomes().filter(|(_, count)| *count > 0).collect();
        assert_eq!(counted, [("closed", 1), ("failed", 1)]);
        let logged = LOGGED.lock().unwrap();
        let of_client = logged.iter().filter(|line| line.starts_with("client=192.0.2.77:5000 "));
        let ends: Vec<_> = of_client.map(|line| line.split(" outcome=").nth(1).unwrap()).collect();
        assert_eq!(ends, ["failed why=\"a fault in tabi\"", "closed"]);
    }
}
