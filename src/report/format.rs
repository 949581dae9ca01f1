//! The format of a line in the log: where the log goes decides how its time and its level look.

use std::env;
use std::fmt;
use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::mem;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use log::kv::Value;
use log::{Level, LevelFilter, Log, Record};
use simplelog::{Config, ConfigBuilder, FormatItem, WriteLogger};
use time::macros::format_description;
use time::{OffsetDateTime, UtcOffset};

use super::json::Json;
use crate::system::sync::Mutex;

/// The longest message in bytes. A session's line has at most about 800: a name of 255 bytes, a user of
/// 128, a reason of 80, addresses and counts. A panic's message may be longer than anyone wants.
const MAX_MESSAGE: usize = 2048;

/// How a line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// RFC 3339 with milliseconds, level, message.
    Full,
    /// The time of the day, level, message.
    Terminal {
        /// The level is coloured.
        colours: bool,
    },
    /// The level as systemd reads it, message. The journal has the time.
    Journal,
    /// A JSON object, wherever it goes. simplelog has no part in it.
    Json,
}

impl Format {
    /// The format that suits standard error.
    pub(super) fn of(output: &File) -> Self {
        if output.is_terminal() {
            let is_set = |name| env::var_os(name).is_some_and(|value| !value.is_empty());
            let plain = is_set("NO_COLOR") || env::var_os("TERM").is_none_or(|term| term == "dumb");
            Format::Terminal { colours: !plain }
        } else if is_journal(output) {
            Format::Journal
        } else {
            Format::Full
        }
    }

    /// simplelog writes the time and the message, with the level in it.
    fn config(self) -> Config {
        let mut config = ConfigBuilder::new();
        config
            .set_max_level(LevelFilter::Off)
            .set_thread_level(LevelFilter::Off)
            .set_target_level(LevelFilter::Off)
            .set_location_level(LevelFilter::Off);
        let offset = local_offset();
        config.set_time_offset(offset);
        match self {
            Format::Journal | Format::Json => config.set_time_level(LevelFilter::Off),
            Format::Terminal { .. } => config.set_time_format_custom(SHORT),
            Format::Full if offset.is_utc() => config.set_time_format_custom(FULL_UTC),
            Format::Full => config.set_time_format_custom(FULL),
        };
        config.build()
    }

    /// The level as it stands before a message: for systemd by its number in syslog(3).
    fn level(self, level: Level) -> String {
        let (severity, colour) = match level {
            Level::Error => (3, 31),
            Level::Warn => (4, 33),
            Level::Info => (6, 34),
            Level::Debug | Level::Trace => (7, 36),
        };
        match self {
            Format::Journal => format!("<{severity}>"),
            Format::Terminal { colours: true } => format!("\x1b[{colour}m[{level:<5}]\x1b[0m "),
            Format::Full | Format::Terminal { .. } => format!("[{level:<5}] "),
            Format::Json => level.as_str().to_lowercase(),
        }
    }

    /// A line that simplelog has no part in: text has no time then. It takes no lock.
    pub(super) fn plain_line(self, level: Level, message: &str) -> String {
        let prefix = match self {
            Format::Journal => self.level(level),
            Format::Full | Format::Terminal { .. } => "tabi: ".into(),
            Format::Json => return json_line(level, format_args!("{message}"), None),
        };
        format!("{prefix}{}\n", single_line(format_args!("{message}")))
    }
}

/// Makes lines: simplelog, which writes into memory.
pub(super) struct Formatter {
    pub(super) format: Format,
    simplelog: Mutex<Box<WriteLogger<Buffer>>>,
    line: Buffer,
}

impl Formatter {
    /// To be called while this process has one thread: only then the local time can be had. Otherwise
    /// times are in UTC, and say so.
    pub(super) fn new(format: Format) -> Self {
        let line = Buffer::default();
        let simplelog = WriteLogger::new(LevelFilter::Trace, format.config(), line.clone());
        Formatter { format, simplelog: Mutex::new(simplelog), line }
    }

    /// The whole line, with its line feed. The message is formatted before any lock is taken: it may
    /// panic. In JSON the record's [`Members`](super::json::Members) stand for it, if it has any.
    pub(super) fn line(&self, record: &Record<'_>) -> Vec<u8> {
        if self.format == Format::Json {
            let members = record.key_values().get("json".into());
            return json_line(record.level(), *record.args(), members).into();
        }
        let (level, message) = (self.format.level(record.level()), single_line(*record.args()));
        let simplelog = self.simplelog.lock();
        simplelog.log(&Record::builder().args(format_args!("{level}{message}")).build());
        mem::replace(&mut *self.line.0.lock(), Vec::with_capacity(256))
    }
}

/// A JSON object with a message, or with the members that stand for it.
fn json_line(level: Level, message: fmt::Arguments<'_>, members: Option<Value<'_>>) -> String {
    let mut json = Json(String::with_capacity(512));
    json.object(|json| {
        json.text("time", OffsetDateTime::now_utc().format(FULL_UTC).ok());
        json.text("level", Some(Format::Json.level(level)));
        match members {
            Some(members) => json.write(members),
            None => json.text("message", Some(single_line(message))),
        }
    });
    json.0.push('\n');
    json.0
}

/// What simplelog writes to, piece by piece.
#[derive(Clone, Default)]
struct Buffer(Arc<Mutex<Vec<u8>>>);

impl Write for Buffer {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        self.0.lock().extend(piece);
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The message without control characters, which are escaped, and cut at [`MAX_MESSAGE`] bytes.
fn single_line(message: fmt::Arguments<'_>) -> String {
    let mut line = String::with_capacity(256);
    for character in message.to_string().chars() {
        if line.len() >= MAX_MESSAGE {
            line.push_str("...");
            break;
        }
        if character.is_control() {
            line.extend(character.escape_default());
        } else {
            line.push(character);
        }
    }
    line
}

/// RFC 3339 with milliseconds. simplelog's own RFC 3339 has nine digits, and panics where the local
/// time is not whole minutes ahead of UTC.
const FULL: &[FormatItem<'static>] = format_description!(
    "[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]\
     [offset_hour sign:mandatory]:[offset_minute]"
);
const FULL_UTC: &[FormatItem<'static>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");
const SHORT: &[FormatItem<'static>] = format_description!("[hour]:[minute]:[second]");

/// How far the local time is ahead of UTC now, in whole minutes.
fn local_offset() -> UtcOffset {
    let offset = UtcOffset::current_local_offset().unwrap_or(UtcOffset::UTC);
    UtcOffset::from_whole_seconds(offset.whole_seconds() / 60 * 60).unwrap_or(UtcOffset::UTC)
}

/// Whether systemd reads `output` as its journal: `JOURNAL_STREAM` names its device and its inode.
fn is_journal(output: &File) -> bool {
    let Ok(stream) = env::var("JOURNAL_STREAM") else { return false };
    let Ok(metadata) = output.metadata() else { return false };
    stream == format!("{}:{}", metadata.dev(), metadata.ino())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::json::Members;

    /// What is logged in this format.
    fn logged(format: Format, level: Level, message: &str) -> String {
        line(&Formatter::new(format), level, format_args!("{message}"))
    }

    fn line(formatter: &Formatter, level: Level, message: fmt::Arguments<'_>) -> String {
        let record = Record::builder().level(level).args(message).build();
        String::from_utf8(formatter.line(&record)).unwrap()
    }

    /// The text with each digit as a 0.
    fn zeroed(text: &str) -> String {
        text.chars().map(|it| if it.is_ascii_digit() { '0' } else { it }).collect()
    }

    #[test]
    fn a_line_in_a_file_has_milliseconds_and_an_offset() {
        let line = zeroed(&logged(Format::Full, Level::Warn, "all is well"));
        let (time, rest) = line.split_once(' ').unwrap();
        assert_eq!(rest, "[WARN ] all is well\n");
        let (time, offset) = time.split_at("0000-00-00T00:00:00.000".len());
        assert_eq!(time, "0000-00-00T00:00:00.000");
        assert!(["Z", "+00:00", "-00:00"].contains(&offset), "{offset}");
    }

    #[test]
    fn times_are_short_on_a_terminal_and_levels_coloured() {
        let plain = Format::Terminal { colours: false };
        assert_eq!(zeroed(&logged(plain, Level::Info, "hello")), "00:00:00 [INFO ] hello\n");
        for (level, text) in [
            (Level::Error, "\x1b[31m[ERROR]\x1b[0m hello\n"),
            (Level::Warn, "\x1b[33m[WARN ]\x1b[0m hello\n"),
            (Level::Info, "\x1b[34m[INFO ]\x1b[0m hello\n"),
            (Level::Debug, "\x1b[36m[DEBUG]\x1b[0m hello\n"),
        ] {
            assert_eq!(&logged(Format::Terminal { colours: true }, level, "hello")[9..], text);
        }
    }

    #[test]
    fn systemd_reads_the_level_and_has_the_time_itself() {
        for (level, line) in [
            (Level::Error, "<3>hello\n"),
            (Level::Warn, "<4>hello\n"),
            (Level::Info, "<6>hello\n"),
            (Level::Debug, "<7>hello\n"),
        ] {
            assert_eq!(logged(Format::Journal, level, "hello"), line);
            assert_eq!(Format::Journal.plain_line(level, "hello"), line);
        }
        assert_eq!(Format::Full.plain_line(Level::Error, "a\nb"), "tabi: a\\nb\n");
    }

    #[test]
    fn in_json_a_line_is_an_object_with_a_time_in_utc() {
        for (level, message, end) in [
            (Level::Warn, "hello", r#""level":"warn","message":"hello"}"#),
            (Level::Error, "a\nb", r#""level":"error","message":"a\u005cnb"}"#),
            (Level::Info, "\"é\u{2028}", r#""level":"info","message":"\u0022é\u2028"}"#),
        ] {
            let expected = format!("{{\"time\":\"0000-00-00T00:00:00.000Z\",{end}\n");
            for line in
                [logged(Format::Json, level, message), Format::Json.plain_line(level, message)]
            {
                let (time, rest) = line.split_at(expected.find("\",").unwrap());
                assert_eq!(zeroed(time) + rest, expected);
            }
        }
    }

    #[test]
    fn members_of_a_record_stand_in_json_for_its_message() {
        let formatter = Formatter::new(Format::Json);
        let members = Members(|json: &mut Json| json.number("up", 7));
        let members = [("json", Value::from_display(&members))];
        let mut record = Record::builder();
        record.level(Level::Debug).key_values(&members);
        let line = formatter.line(&record.args(format_args!("up=7")).build());
        let line = String::from_utf8(line).unwrap();
        assert!(line.ends_with("Z\",\"level\":\"debug\",\"up\":7}\n"), "{line}");
    }

    #[test]
    fn a_message_is_one_line_of_a_bounded_length() {
        let line = logged(Format::Journal, Level::Info, "a\nb\x1b[31mc\u{85}d \\ é");
        assert_eq!(line, "<6>a\\nb\\u{1b}[31mc\\u{85}d \\ é\n");
        let line = logged(Format::Journal, Level::Info, &"é\n".repeat(MAX_MESSAGE));
        assert!(line.len() < MAX_MESSAGE + 20 && line.ends_with("...\n"), "{}", line.len());
    }

    #[test]
    fn a_message_that_panics_does_not_end_the_log() {
        struct Faulty;
        impl fmt::Display for Faulty {
            fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
                panic!("as this test wants it")
            }
        }
        let formatter = Formatter::new(Format::Journal);
        let format = || line(&formatter, Level::Info, format_args!("{Faulty}"));
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(format)).unwrap_err();
        assert_eq!(line(&formatter, Level::Info, format_args!("and on")), "<6>and on\n");
    }
}
