//! The log of ended sessions: one line each, so many of one client, and a count of the others.

use std::time::{Duration, Instant};

use log::{Level, info, log, log_enabled, warn};

use super::Outcome;
use super::line::Line;
use super::quota::{Allowance, Quota};
use crate::sessions::{Account, Group};

/// A browser that opens thirty tabs makes 1,000 connections. After that ten lines a second of 300 bytes
/// are 260 MB a day, and a client that makes 10,000 connections a second fills no disk.
const ALLOWANCE: Allowance = Allowance {
    burst: 1000,
    every: Duration::from_millis(100),
    told_after: Duration::from_secs(10),
};

/// Where every session says how it ended.
#[derive(Debug)]
pub struct Ends {
    quota: Quota<Kind>,
}

/// A client's lines. Wrong passwords are counted apart: nothing else that a client does can hide them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Kind {
    client: Group,
    level: Level,
}

impl Default for Ends {
    fn default() -> Self {
        Ends { quota: Quota::new(ALLOWANCE) }
    }
}

impl Ends {
    /// Logs how a session has ended, and `why` where the outcome alone does not say it.
    #[inline(never)]
    pub fn log(&self, account: &Account, outcome: Outcome, why: Option<&str>) {
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
}
