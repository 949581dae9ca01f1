//! What the page shows, as JSON.

use std::fmt::Display;
use std::time::{Duration, SystemTime};

use super::history::{History, INTERVAL};
use super::rates::{Rated, Rates};
use super::source::StatusSource;
use crate::report::json::Json;
use crate::report::line::{Or, destination};
use crate::report::metrics::since_1970;
use crate::sessions::SessionState;

/// Bytes of one session, more than most take.
const A_SESSION: usize = 256;

/// Writes all that is shown.
pub(super) fn write(
    source: &StatusSource,
    history: &History,
    rates: &Rates,
    draining: bool,
) -> String {
    let gauges = source.gauges();
    let (metrics, totals) = (&source.metrics, gauges.totals);
    let mut json = Json(String::with_capacity(8 * 1024 + totals.live * A_SESSION));
    json.object(|json| {
        json.text("version", Some(env!("CARGO_PKG_VERSION")));
        json.number("now", since_1970(SystemTime::now()));
        json.number("started", metrics.started());
        json.number("uptime", metrics.uptime().as_secs());
        json.number("draining", draining);
        json.number("earlier", gauges.earlier);
        json.number("accepted", metrics.count_accepted());
        json.number("opened", totals.opened);
        json.numbers("slots", usage(Some(totals.live), gauges.max_connections));
        json.numbers("threads", usage(gauges.threads, source.max_threads));
        json.numbers("descriptors", usage(gauges.open_fds, gauges.max_fds));
        json.numbers("bytes", [("up", totals.up.bytes), ("down", totals.down.bytes)]);
        json.numbers("datagrams", [("up", totals.up.datagrams), ("down", totals.down.datagrams)]);
        json.numbers("outcomes", metrics.outcomes());
        json.numbers("refused", metrics.rejections());
        json.numbers("lookups", gauges.lookups);
        json.key("history").object(|json| {
            json.number("seconds", INTERVAL.as_secs());
            for (direction, name) in ["up", "down"].into_iter().enumerate() {
                json.key(name).list(|json| {
                    history.seconds.iter().for_each(|bytes| json.item().write(bytes[direction]));
                });
            }
        });
        json.key("clients")
            .list(|json| rates.clients.iter().for_each(|it| rated(json, it, (None, None))));
        json.key("users").list(|json| {
            rates.users.iter().for_each(|it| rated(json, it, (source.limits_of)(&it.who)));
        });
        json.key("sessions").list(|json| {
            source.sessions.each(|number, state, idle| session(json.item(), number, state, idle));
        });
    });
    json.0.push('\n');
    json.0
}

/// A client or a user, what it moves, and what it may have at the most.
fn rated(
    json: &mut Json,
    Rated { who, account, rates }: &Rated<impl Display>,
    (connections, rate): (Option<usize>, Option<u64>),
) {
    json.item().object(|json| {
        json.text("name", Some(who));
        json.number("sessions", account.live);
        json.numbers("bytes", [("up", account.up), ("down", account.down)]);
        json.numbers("rate", [("up", rates[0]), ("down", rates[1])]);
        json.number("max", Or(connections, "null"));
        json.number("max-rate", Or(rate, "null"));
    });
}

fn session(json: &mut Json, number: u64, session: &SessionState, idle: Duration) {
    json.object(|json| {
        json.number("id", number);
        json.text("client", Some(session.peer()));
        json.text("user", session.user());
        json.text("command", session.request().map(|(command, _)| command));
        json.text("destination", destination(session));
        json.number("destinations", session.destinations().map_or(1, |(_, count)| count));
        json.text("reached", session.reached());
        json.text("via", session.via());
        json.number("up", session.client().sent());
        json.number("down", session.target().sent());
        json.number("age", session.opened.elapsed().as_secs());
        json.number("idle", idle.as_secs());
    });
}

/// How much is used of something, and the limit, where there is one.
fn usage(used: Option<usize>, max: usize) -> [(&'static str, Or<usize>); 2] {
    [("used", Or(used, "null")), ("max", Or((max < usize::MAX).then_some(max), "null"))]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_and_items_are_separated() {
        let mut json = Json(String::new());
        json.object(|json| {
            json.numbers("a", usage(None, usize::MAX));
            json.numbers("b", usage(Some(1), 2));
            json.numbers("c", [("d", 1), ("e", 2)]);
            json.key("f").list(|json| {
                json.item().write(1);
                json.item().write(2);
            });
            json.text("g", None::<&str>);
        });
        let expected = "{\"a\":{\"used\":null,\"max\":null},\"b\":{\"used\":1,\"max\":2},\
                        \"c\":{\"d\":1,\"e\":2},\"f\":[1,2],\"g\":null}";
        assert_eq!(json.0, expected);
    }
}
