//! What clients make this server say: a line at the end of each session, which is counted as well, a
//! line for each client that is turned away, and what `-v` shows beside these. There is no other way
//! to the log for anything that a client can repeat: of one client, and of all clients together, there
//! are so many lines, and a count of the others.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use log::{Level, debug, info, log, log_enabled, warn};

use super::json::{Json, Members};
use super::line::Line;
use super::metrics::Metrics;
use super::outcome::Outcome;
use super::rate_limit::{Rate, RateLimit};
use crate::sessions::{Ending, SessionState};
use crate::system::ip::ClientPrefix;

/// Lines that may come at once are those of so many seconds. A browser that opens thirty tabs makes 1,000
/// connections, which is as many at ten lines a second.
const BURST: Duration = Duration::from_secs(100);

/// Lines a second of all clients together, in those of one client: ten in all. At ten lines a second for
/// one client that is 100 of 300 bytes, and 2.6 GB a day. Nothing else that clients do hides who guesses
/// passwords.
const SESSIONS: u32 = 5;
const BAD_CREDENTIALS: u32 = 4;
const TURNED_AWAY: u32 = 1;

/// The log of what clients do.
#[derive(Debug)]
pub struct ClientLog {
    sessions: Arc<RateLimit>,
    bad_credentials: Arc<RateLimit>,
    turned_away: Arc<RateLimit>,
}

impl ClientLog {
    /// A log with so many lines a second for one client.
    pub fn new(each: u32) -> Self {
        let limit = |times, summary| {
            let all = each.saturating_mul(times);
            let summary_after = Duration::from_secs(10);
            RateLimit::new(Rate { each, all, burst: BURST, summary_after, summary })
        };
        ClientLog {
            sessions: limit(SESSIONS, |client, count| info!("{}", More { count, client, why: "" })),
            bad_credentials: limit(BAD_CREDENTIALS, |client, count| {
                warn!("{}", More { count, client, why: ": wrong names or passwords" });
            }),
            turned_away: limit(TURNED_AWAY, |client, count| {
                warn!("{}", More { count, client, why: ": turned away" });
            }),
        }
    }

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
            outcome: Ending::Fault.into(),
            why: Ending::Fault.why(),
        }
    }

    /// Logs that a client gets no session.
    pub fn turned_away(&self, client: SocketAddr, why: &str) {
        if self.turned_away.admits(client.ip().into()) {
            let members = Members(|json: &mut Json| {
                json.text("message", Some("turned away"));
                json.text("client", Some(client));
                json.text("why", Some(why));
            });
            warn!(json:% = members; "turned away client={client}: {why}");
        }
    }

    /// Logs what somebody wants to know who looks for a fault of this client's.
    pub fn detail(&self, client: SocketAddr, detail: fmt::Arguments<'_>) {
        if log_enabled!(Level::Debug) && self.sessions.admits(client.ip().into()) {
            debug!("client={client}: {detail}");
        }
    }

    /// Logs how many lines were not logged, without waiting until that is due.
    pub fn summarize(&self) {
        for limit in [&self.sessions, &self.bad_credentials, &self.turned_away] {
            limit.summarize();
        }
    }

    #[inline(never)]
    fn ended(&self, session: &SessionState, outcome: Outcome, why: Option<&str>) {
        let level = outcome.level(session.request().is_some());
        let is_guess = outcome == Outcome::BadCredentials;
        let limit = if is_guess { &self.bad_credentials } else { &self.sessions };
        if log_enabled!(level) && limit.admits(session.peer().ip().into()) {
            let line = Line { session, outcome, why };
            let members = Members(|json: &mut Json| line.members(json));
            log!(level, json:% = members; "{line}");
        }
    }
}

/// How many lines of a client, or of all that are not named, were not logged.
struct More {
    count: u64,
    client: Option<ClientPrefix>,
    why: &'static str,
}

impl fmt::Display for More {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let More { count, client, why } = self;
        match client {
            Some(client) => write!(f, "{count} more lines of client={client}{why}"),
            None => write!(f, "{count} more lines of other clients{why}"),
        }
    }
}

/// The entry of a session that has not ended yet. One that is dropped before it was written is that of
/// a session whose thread has panicked.
pub struct SessionEntry<'a> {
    log: &'a ClientLog,
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
        self.metrics.ended(self.session, self.outcome);
        self.log.ended(self.session, self.outcome, self.why);
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
        let limits = Limits::of_one(Duration::MAX, Duration::MAX);
        let sessions = Sessions::new(limits, Descriptors::new(100));
        let session =
            sessions.open("192.0.2.77:5000".parse().unwrap(), false, client, || ()).unwrap();
        let (log, metrics) = (ClientLog::new(10), Metrics::default());
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
