//! What the page shows, as JSON.

use std::fmt::{self, Display, Write};
use std::time::{Duration, SystemTime};

use super::history::{History, INTERVAL};
use super::rates::{Rated, Rates};
use super::source::StatusSource;
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

/// Text in the making. What a name or an address may bring is escaped, and so is what would be
/// markup if somebody took it for that.
struct Json(String);

impl Json {
    fn object(&mut self, members: impl FnOnce(&mut Json)) {
        self.0.push('{');
        members(self);
        self.0.push('}');
    }

    fn list(&mut self, items: impl FnOnce(&mut Json)) {
        self.0.push('[');
        items(self);
        self.0.push(']');
    }

    /// Separates what comes from what is there already.
    fn item(&mut self) -> &mut Self {
        if !self.0.ends_with(['{', '[']) {
            self.0.push(',');
        }
        self
    }

    /// The name of a member, whose value comes next.
    fn key(&mut self, name: &str) -> &mut Self {
        self.item().write(format_args!("\"{name}\":"));
        self
    }

    /// A number, or true or false.
    fn number(&mut self, name: &str, value: impl Display) {
        self.key(name).write(value);
    }

    fn numbers(
        &mut self,
        name: &str,
        members: impl IntoIterator<Item = (&'static str, impl Display)>,
    ) {
        self.key(name).object(|json| {
            members.into_iter().for_each(|(name, value)| json.number(name, value));
        });
    }

    /// A text, or null.
    fn text(&mut self, name: &str, value: Option<impl Display>) {
        let Some(value) = value else { return self.number(name, "null") };
        self.key(name).0.push('"');
        write!(Escaped(&mut self.0), "{value}").expect("memory takes every text");
        self.0.push('"');
    }

    fn write(&mut self, value: impl Display) {
        write!(self.0, "{value}").expect("memory takes every text");
    }
}

/// Takes text, and writes it as the inside of a string.
struct Escaped<'a>(&'a mut String);

impl Write for Escaped<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for character in text.chars() {
            if character.is_control() || "\"\\<>&'\u{2028}\u{2029}".contains(character) {
                write!(self.0, "\\u{:04x}", u32::from(character))?;
            } else {
                self.0.push(character);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_client_chose_is_escaped() {
        let mut json = Json(String::new());
        json.object(|json| json.text("user", Some("<b>\"\\\n\x1b&'\u{2028}é")));
        let expected = r#"{"user":"\u003cb\u003e\u0022\u005c\u000a\u001b\u0026\u0027\u2028é"}"#;
        assert_eq!(json.0, expected);
    }

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
