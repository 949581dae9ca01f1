//! Who answers: what is shown, made once however many ask for it at a time.

use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::history::History;
use super::json;
use super::rates::Rates;
use super::request::{self, Resource};
use super::response::{JSON, METRICS, PLAIN, Response};
use super::source::StatusSource;
use crate::system::sync::Mutex;

/// How long what was made for one visitor is good enough for the next.
const MAX_AGE: Duration = Duration::from_millis(500);

/// What is shown, and what of it was made a moment ago.
pub(super) struct StatusHandler {
    source: StatusSource,
    draining: AtomicBool,
    /// Names by which visitors may come.
    names: Vec<String>,
    history: Mutex<History>,
    rates: Mutex<Rates>,
    sessions: Cache,
    metrics: Cache,
}

#[derive(Default)]
struct Cache(Mutex<Option<(Instant, Arc<str>)>>);

impl StatusHandler {
    pub(super) fn new(source: StatusSource) -> Self {
        let hostname = rustix::system::uname().nodename().to_string_lossy().into_owned();
        StatusHandler {
            draining: AtomicBool::new(false),
            names: request::names(&hostname, &source.hosts),
            history: Mutex::new(History::new(Instant::now(), source.bytes())),
            rates: Mutex::new(Rates::new(Instant::now())),
            sessions: Cache::default(),
            metrics: Cache::default(),
            source,
        }
    }

    /// From now on the state of health is that of a server that drains.
    pub(super) fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Whether the visitor at `peer`, the far end of `stream`, gets to see anything.
    pub(super) fn admits(&self, stream: &TcpStream, peer: SocketAddr) -> bool {
        (self.source.admits)(stream, peer)
    }

    /// The response to the request that begins with `head`, once that is complete.
    pub(super) fn respond(&self, head: &[u8]) -> Option<Response> {
        Some(match request::read(head, &self.names)? {
            Ok(request) => {
                let response = self.get(request.resource);
                if request.head_only { response.head_only() } else { response }
            }
            Err(error) => error.into(),
        })
    }

    fn get(&self, resource: Resource) -> Response {
        let StatusHandler { source, .. } = self;
        let draining = self.draining.load(Ordering::Relaxed);
        match resource {
            Resource::Page => Response::page(),
            Resource::Sessions => {
                let make =
                    || json::write(source, &self.history.lock(), &self.rates.lock(), draining);
                Response::ok(JSON, self.sessions.get(Instant::now(), make))
            }
            Resource::Metrics => {
                let make = || source.metrics.text(&source.gauges());
                Response::ok(METRICS, self.metrics.get(Instant::now(), make))
            }
            Resource::Health if draining => {
                Response::new("503 Service Unavailable", PLAIN, "draining\n".into())
            }
            Resource::Health => Response::ok(PLAIN, "ok\n".into()),
        }
    }

    /// Does what is due, and says when it has to be called again.
    pub(super) fn tick(&self, now: Instant) -> Instant {
        self.sessions.forget(now);
        self.metrics.forget(now);
        let mut history = self.history.lock();
        if now >= history.next() {
            history.note(now, self.source.bytes());
            self.rates.lock().note(now, self.source.sessions.accounts());
        }
        history.next()
    }
}

impl Cache {
    /// What was made a moment ago, or is made now. Who asks meanwhile waits for it.
    fn get(&self, now: Instant, make: impl FnOnce() -> String) -> Arc<str> {
        self.forget(now);
        let mut cached = self.0.lock();
        let (_, text) = cached.get_or_insert_with(|| (now, make().into()));
        Arc::clone(text)
    }

    fn forget(&self, now: Instant) {
        self.0.lock().take_if(|(made, _)| now.saturating_duration_since(*made) >= MAX_AGE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_costly_is_made_once_for_all_who_ask_at_a_time() {
        let (cache, now) = (Cache::default(), Instant::now());
        let mut made = 0;
        let mut ask = |after: Duration| {
            cache
                .get(now + after, || {
                    made += 1;
                    made.to_string()
                })
                .to_string()
        };
        assert_eq!(ask(Duration::ZERO), "1");
        assert_eq!(ask(MAX_AGE / 2), "1");
        assert_eq!(ask(MAX_AGE), "2");
        assert_eq!(ask(MAX_AGE), "2");
    }
}
