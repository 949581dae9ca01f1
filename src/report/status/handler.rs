//! Who answers: what is shown, made once however many ask for it at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::StatusSource;
use super::answer::{Answer, Kind};
use super::history::History;
use super::json;
use super::request::{self, Wanted};
use crate::report::{Gauges, lines_lost};
use crate::system::usage;

/// How long what was made for one visitor is good enough for the next.
const KEEP: Duration = Duration::from_millis(500);

/// What is shown, and what of it was made a moment ago.
pub(super) struct StatusHandler {
    shown: StatusSource,
    draining: Arc<AtomicBool>,
    machine: String,
    history: History,
    sessions: Kept,
    metrics: Kept,
}

#[derive(Default)]
struct Kept(Option<(Instant, Arc<str>)>);

impl StatusHandler {
    pub(super) fn new(shown: StatusSource, draining: Arc<AtomicBool>) -> Self {
        let machine = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let history = History::new(Instant::now(), sums(&shown));
        let (sessions, metrics) = Default::default();
        StatusHandler { shown, draining, machine, history, sessions, metrics }
    }

    /// The answer to the request that begins with `head`, once that is complete.
    pub(super) fn answer(&mut self, head: &[u8], now: Instant) -> Option<Answer> {
        Some(match request::read(head, &self.machine)? {
            Ok(request) => {
                let answer = self.find(request.wanted, now);
                if request.head_only { answer.head_only() } else { answer }
            }
            Err(refusal) => Answer::refused(refusal),
        })
    }

    fn find(&mut self, wanted: Wanted, now: Instant) -> Answer {
        let StatusHandler { shown, history, .. } = self;
        let draining = self.draining.load(Ordering::Relaxed);
        match wanted {
            Wanted::Page => Answer::page(),
            Wanted::Sessions => {
                let make = || json::write(shown, &gauges(shown), history, draining);
                Answer::new("200 OK", Kind::Json, self.sessions.get(now, make))
            }
            Wanted::Metrics => {
                let make = || shown.metrics.text(&gauges(shown));
                Answer::new("200 OK", Kind::Metrics, self.metrics.get(now, make))
            }
            Wanted::Health if draining => {
                Answer::new("503 Service Unavailable", Kind::Plain, "draining\n".into())
            }
            Wanted::Health => Answer::new("200 OK", Kind::Plain, "ok\n".into()),
        }
    }

    /// Does what is due, and says when it has to be called again.
    pub(super) fn tick(&mut self, now: Instant) -> Instant {
        if now >= self.history.next() {
            self.history.note(now, sums(&self.shown));
        }
        self.sessions.forget(now);
        self.metrics.forget(now);
        self.history.next()
    }
}

impl Kept {
    fn get(&mut self, now: Instant, make: impl FnOnce() -> String) -> Arc<str> {
        self.forget(now);
        let (_, kept) = self.0.get_or_insert_with(|| (now, make().into()));
        Arc::clone(kept)
    }

    fn forget(&mut self, now: Instant) {
        self.0.take_if(|(made, _)| now.saturating_duration_since(*made) >= KEEP);
    }
}

fn sums(shown: &StatusSource) -> [u64; 2] {
    let totals = shown.sessions.totals();
    [totals.up.bytes, totals.down.bytes]
}

fn gauges(shown: &StatusSource) -> Gauges {
    Gauges {
        totals: shown.sessions.totals(),
        max_connections: shown.sessions.max(),
        threads: usage::threads(),
        open_fds: usage::descriptors(),
        max_fds: shown.max_fds,
        lookups: (shown.lookups)(),
        lines_lost: lines_lost(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_costly_is_made_once_for_all_who_ask_at_a_time() {
        let (mut kept, now) = (Kept::default(), Instant::now());
        let mut made = 0;
        let mut ask = |after: Duration| {
            kept.get(now + after, || {
                made += 1;
                made.to_string()
            })
            .to_string()
        };
        assert_eq!(ask(Duration::ZERO), "1");
        assert_eq!(ask(KEEP / 2), "1");
        assert_eq!(ask(KEEP), "2");
        assert_eq!(ask(KEEP), "2");
    }
}
