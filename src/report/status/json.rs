//! What the page shows, as JSON.

use std::fmt::{Arguments, Display, Write};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::StatusSource;
use super::history::{self, History};
use crate::report::Gauges;
use crate::sessions::SessionState;
use crate::socks5::Command;

/// Bytes of one session, more than most take.
const A_SESSION: usize = 256;

/// Writes all that is shown.
pub(super) fn write(
    shown: &StatusSource,
    gauges: &Gauges,
    history: &History,
    draining: bool,
) -> String {
    let totals = gauges.totals;
    let metrics = &shown.metrics;
    let mut json = Json(String::with_capacity(8 * 1024 + totals.live * A_SESSION));
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    json.object(|json| {
        json.text("version", env!("CARGO_PKG_VERSION"));
        json.number("now", since_1970.as_secs());
        json.number("started", metrics.started());
        json.number("draining", draining);
        json.number("accepted", metrics.count_accepted());
        json.number("opened", totals.opened);
        json.used("slots", Some(totals.live), gauges.max_connections);
        json.used("threads", gauges.threads, shown.max_threads);
        json.used("descriptors", gauges.open_fds, gauges.max_fds);
        json.numbers("bytes", [("up", totals.up.bytes), ("down", totals.down.bytes)]);
        json.numbers("datagrams", [("up", totals.up.datagrams), ("down", totals.down.datagrams)]);
        json.numbers("outcomes", metrics.outcomes());
        json.numbers("refused", metrics.refusals());
        json.numbers("lookups", gauges.lookups.counts());
        json.key("history");
        json.object(|json| {
            json.number("seconds", history::EVERY.as_secs());
            for (way, name) in ["up", "down"].into_iter().enumerate() {
                json.key(name);
                json.list(|json| {
                    for second in &history.seconds {
                        json.item(format_args!("{}", second[way]));
                    }
                });
            }
        });
        json.key("sessions");
        json.list(|json| {
            shown.sessions.each(|number, account, idle| {
                json.comma();
                json.object(|json| session(json, number, account, idle));
            });
        });
    });
    json.0.push('\n');
    json.0
}

fn session(json: &mut Json, number: u64, account: &SessionState, idle: Duration) {
    let request = account.request();
    // The destination of a UDP request is where the client sends from. What matters is to whom it has
    // sent datagrams: to the first, and to how many in all.
    let sent_to = account.destinations();
    let asked = request.filter(|(command, _)| *command != Command::UdpAssociate);
    let destination = asked.map(|(_, to)| to).or(sent_to.map(|(first, _)| first));
    json.number("id", number);
    json.text("client", account.peer());
    json.text_or_null("user", account.user());
    json.text_or_null("command", request.map(|(command, _)| command));
    json.text_or_null("destination", destination);
    json.number("destinations", sent_to.map_or(1, |(_, count)| count));
    json.text_or_null("reached", account.reached());
    json.text_or_null("via", account.via());
    json.number("up", account.client().sent());
    json.number("down", account.target().sent());
    json.number("age", account.opened.elapsed().as_secs());
    json.number("idle", idle.as_secs());
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

    /// Parts what comes from what is there already.
    fn comma(&mut self) {
        if !self.0.ends_with(['{', '[', ':']) {
            self.0.push(',');
        }
    }

    /// The name of a member, whose value comes next.
    fn key(&mut self, name: &'static str) {
        self.comma();
        self.quoted(name);
        self.0.push(':');
    }

    fn item(&mut self, item: Arguments<'_>) {
        self.comma();
        self.write(item);
    }

    /// A number, or true or false.
    fn number(&mut self, name: &'static str, value: impl Display) {
        self.key(name);
        self.write(format_args!("{value}"));
    }

    fn text(&mut self, name: &'static str, value: impl Display) {
        self.key(name);
        self.quoted(value);
    }

    fn text_or_null(&mut self, name: &'static str, value: Option<impl Display>) {
        match value {
            Some(value) => self.text(name, value),
            None => self.number(name, "null"),
        }
    }

    fn numbers(
        &mut self,
        name: &'static str,
        members: impl IntoIterator<Item = (&'static str, u64)>,
    ) {
        self.key(name);
        self.object(|json| {
            members.into_iter().for_each(|(name, value)| json.number(name, value));
        });
    }

    /// `max` is null where there is no limit.
    fn used(&mut self, name: &'static str, used: Option<usize>, max: usize) {
        self.key(name);
        self.object(|json| {
            let number = |json: &mut Json, name, value: Option<usize>| match value {
                Some(value) => json.number(name, value),
                None => json.number(name, "null"),
            };
            number(json, "used", used);
            number(json, "max", (max < usize::MAX).then_some(max));
        });
    }

    fn quoted(&mut self, value: impl Display) {
        self.0.push('"');
        write!(Escaped(&mut self.0), "{value}").expect("memory takes every text");
        self.0.push('"');
    }

    fn write(&mut self, text: Arguments<'_>) {
        self.0.write_fmt(text).expect("memory takes every text");
    }
}

/// Takes text, and writes it as the inside of a string.
struct Escaped<'a>(&'a mut String);

impl Write for Escaped<'_> {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        for character in text.chars() {
            match character {
                '"'
                | '\\'
                | '<'
                | '>'
                | '&'
                | '\''
                | '\0'..='\x1f'
                | '\x7f'..='\u{9f}'
                | '\u{2028}'
                | '\u{2029}' => write!(self.0, "\\u{:04x}", u32::from(character))?,
                plain => self.0.push(plain),
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
        json.object(|json| json.text("user", "<b>\"\\\n\x1b&'\u{2028}é"));
        let expected = r#"{"user":"\u003cb\u003e\u0022\u005c\u000a\u001b\u0026\u0027\u2028é"}"#;
        assert_eq!(json.0, expected);
    }

    #[test]
    fn members_and_items_are_parted() {
        let mut json = Json(String::new());
        json.object(|json| {
            json.used("a", None, usize::MAX);
            json.used("b", Some(1), 2);
            json.numbers("c", [("d", 1), ("e", 2)]);
            json.key("f");
            json.list(|json| {
                json.item(format_args!("1"));
                json.item(format_args!("2"));
            });
            json.text_or_null("g", None::<&str>);
        });
        let expected = "{\"a\":{\"used\":null,\"max\":null},\"b\":{\"used\":1,\"max\":2},\
                        \"c\":{\"d\":1,\"e\":2},\"f\":[1,2],\"g\":null}";
        assert_eq!(json.0, expected);
    }
}
