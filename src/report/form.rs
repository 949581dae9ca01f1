//! The form of a line: how its time and its level look where the log goes.

use std::env;
use std::fs::File;
use std::io::IsTerminal;
use std::os::unix::fs::MetadataExt;

use log::{Level, LevelFilter};
use simplelog::{Config, ConfigBuilder, FormatItem, LevelPadding};
use time::UtcOffset;
use time::macros::format_description;

/// How a line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// RFC 3339 with milliseconds, level, message.
    Full,
    /// The time of the day, level, message.
    Terminal {
        /// The level is coloured.
        colours: bool,
    },
    /// The level as systemd reads it, message. The journal has the time.
    Journal,
}

impl Form {
    /// The form that suits standard error.
    pub(super) fn of(output: &File) -> Self {
        if output.is_terminal() {
            let is_set = |name| env::var_os(name).is_some_and(|value| !value.is_empty());
            let plain = is_set("NO_COLOR") || env::var_os("TERM").is_none_or(|term| term == "dumb");
            Form::Terminal { colours: !plain }
        } else if is_journal(output) {
            Form::Journal
        } else {
            Form::Full
        }
    }

    pub(super) fn config(self) -> Config {
        let mut config = ConfigBuilder::new();
        config
            .set_level_padding(LevelPadding::Right)
            .set_thread_level(LevelFilter::Off)
            .set_target_level(LevelFilter::Off)
            .set_location_level(LevelFilter::Off);
        let offset = local_offset();
        config.set_time_offset(offset);
        match self {
            Form::Full if offset.is_utc() => config.set_time_format_custom(FULL_UTC),
            Form::Full => config.set_time_format_custom(FULL),
            Form::Terminal { .. } => config.set_time_format_custom(SHORT),
            Form::Journal => config.set_time_level(LevelFilter::Off),
        };
        config.build()
    }

    /// What a line begins with that simplelog has not formatted.
    pub(super) fn prefix(self, level: Level) -> &'static str {
        match self {
            Form::Full | Form::Terminal { .. } => "tabi: ",
            Form::Journal => priority(level),
        }
    }

    /// The line with its level as this form has it. `None` where that is as simplelog writes it.
    pub(super) fn dress(self, line: &[u8]) -> Option<Vec<u8>> {
        let (time, level, message) = match self {
            Form::Full | Form::Terminal { colours: false } => return None,
            Form::Terminal { colours: true } => split(line, "hh:mm:ss ".len())?,
            Form::Journal => split(line, 0)?,
        };
        let level = match self {
            Form::Journal => priority(level).into(),
            Form::Full | Form::Terminal { .. } => {
                format!("{}[{level:<5}]{NO_COLOUR} ", colour(level))
            }
        };
        Some([time, level.as_bytes(), message].concat())
    }
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
    UtcOffset::current_local_offset()
        .and_then(|offset| {
            let (hours, minutes, _) = offset.as_hms();
            UtcOffset::from_hms(hours, minutes, 0).map_err(|_| time::error::IndeterminateOffset)
        })
        .unwrap_or(UtcOffset::UTC)
}

/// Splits a line of simplelog's into the time, which is so many bytes long, the level and the message.
fn split(line: &[u8], time: usize) -> Option<(&[u8], Level, &[u8])> {
    let (time, rest) = line.split_at_checked(time)?;
    let (level, message) = rest.split_at_checked("[LEVEL] ".len())?;
    let level = std::str::from_utf8(level.get(1..6)?).ok()?.trim_end().parse().ok()?;
    Some((time, level, message))
}

/// Whether systemd reads `output` as its journal: `JOURNAL_STREAM` names its device and its inode.
fn is_journal(output: &File) -> bool {
    let Ok(stream) = env::var("JOURNAL_STREAM") else { return false };
    let Ok(metadata) = output.metadata() else { return false };
    stream == format!("{}:{}", metadata.dev(), metadata.ino())
}

/// The level as systemd reads it at the beginning of a line: that of syslog(3).
fn priority(level: Level) -> &'static str {
    match level {
        Level::Error => "<3>",
        Level::Warn => "<4>",
        Level::Info => "<6>",
        Level::Debug | Level::Trace => "<7>",
    }
}

fn colour(level: Level) -> &'static str {
    match level {
        Level::Error => "\x1b[31m",
        Level::Warn => "\x1b[33m",
        Level::Info => "\x1b[34m",
        Level::Debug | Level::Trace => "\x1b[36m",
    }
}
const NO_COLOUR: &str = "\x1b[0m";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::logger::tests::logged;

    /// The text with each digit as a 0.
    fn zeroed(text: &str) -> String {
        text.chars().map(|it| if it.is_ascii_digit() { '0' } else { it }).collect()
    }

    #[test]
    fn a_line_in_a_file_has_milliseconds_and_an_offset() {
        let line = zeroed(&logged(Form::Full, Level::Warn, "all is well"));
        let (time, rest) = line.split_once(' ').unwrap();
        assert_eq!(rest, "[WARN ] all is well\n");
        let (time, offset) = time.split_at("0000-00-00T00:00:00.000".len());
        assert_eq!(time, "0000-00-00T00:00:00.000");
        assert!(["Z", "+00:00", "-00:00"].contains(&offset), "{offset}");
    }

    #[test]
    fn times_are_short_on_a_terminal_and_levels_coloured() {
        let plain = Form::Terminal { colours: false };
        assert_eq!(zeroed(&logged(plain, Level::Info, "hello")), "00:00:00 [INFO ] hello\n");
        let coloured = logged(Form::Terminal { colours: true }, Level::Error, "hello");
        assert_eq!(&coloured[9..], "\x1b[31m[ERROR]\x1b[0m hello\n");
    }

    #[test]
    fn systemd_reads_the_level_and_has_the_time_itself() {
        for (level, line) in [
            (Level::Error, "<3>hello\n"),
            (Level::Warn, "<4>hello\n"),
            (Level::Info, "<6>hello\n"),
            (Level::Debug, "<7>hello\n"),
        ] {
            assert_eq!(logged(Form::Journal, level, "hello"), line);
        }
    }
}
