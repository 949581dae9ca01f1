//! The logger: simplelog, which formats lines, in front of the queue that writes them.

use std::env;
use std::fmt::{self, Write as _};
use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal, Write, stderr};
use std::mem;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use log::{Level, LevelFilter, Log, Metadata, Record};
use rustix::fs::OFlags;
use simplelog::{Config, ConfigBuilder, FormatItem, LevelPadding, WriteLogger};
use time::UtcOffset;
use time::macros::format_description;

use super::queue::Queue;

/// The longest message in bytes. A session's line has at most about 800: a name of 255 bytes, a user of
/// 128, a reason of 80, addresses and counts. A panic's message may be longer than anyone wants.
const LONGEST: usize = 2048;

/// Where the log goes, and the means to have it written to the end.
pub struct Logger {
    queue: Arc<Queue>,
    form: Form,
    file: Option<PathBuf>,
}

impl Logger {
    /// Makes simplelog the logger of this process. It logs up to `level`, to the end of `file` or else
    /// to standard error. From here on no log call ever waits for whoever reads the log.
    ///
    /// To be called while this process has one thread: only then the local time can be had. Otherwise
    /// times are in UTC, and say so.
    ///
    /// # Errors
    ///
    /// When the file cannot be opened, the writer's thread cannot be created, or there is a logger.
    pub fn start(level: LevelFilter, file: Option<&Path>) -> Result<Self, String> {
        let (output, form) = match file {
            Some(path) => (open(path)?, Form::Full),
            None => standard_error().map_err(|error| format!("standard error: {error}"))?,
        };
        let config = form.config();
        let lost = LostLines::new(form, config.clone());
        let queue = Queue::start(output, move |count| lost.tell(count))
            .map_err(|error| format!("cannot create a thread for the log: {error}"))?;
        let taken = Arc::clone(&queue);
        let take = move |line: &[u8]| taken.push(line);
        let lines = Lines { text: Vec::new(), form, take };
        let simple = WriteLogger::new(level, config, lines);
        log::set_boxed_logger(Box::new(OneLine(simple))).map_err(|error| error.to_string())?;
        log::set_max_level(level);
        Ok(Logger { queue, form, file: file.map(Path::to_path_buf) })
    }

    /// Writes a line past simplelog, whatever state that is in: a panic is told so, and why the server
    /// cannot start. It takes no lock that anyone holds while formatting.
    pub fn say(&self, level: Level, text: &str) {
        let prefix = match self.form {
            Form::Full | Form::Terminal { .. } => "tabi: ",
            Form::Journal => priority(level),
        };
        self.queue.push(format!("{prefix}{}\n", single_line(format_args!("{text}"))).as_bytes());
    }

    /// Opens the log file anew, as is due after it was renamed. Without a file there is nothing to do.
    ///
    /// # Errors
    ///
    /// When it cannot be opened; the log goes on to where it went.
    pub fn reopen(&self) -> Result<(), String> {
        match &self.file {
            Some(path) => open(path).map(|file| self.queue.redirect(file)),
            None => Ok(()),
        }
    }

    /// How many lines were lost since the start, because nobody read them or they could not be written.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.queue.lost()
    }

    /// Waits until all lines are written, for at most `limit`.
    pub fn flush(&self, limit: Duration) {
        self.queue.flush(limit);
    }
}

/// Standard error without its lock, which is held for as long as a write takes.
fn standard_error() -> io::Result<(File, Form)> {
    let output = File::from(stderr().as_fd().try_clone_to_owned()?);
    let form = Form::of(&output);
    Ok((output, form))
}

/// Opens a log file. A new one is for its owner alone, as it tells who goes where; the mode of an
/// existing one is its owner's choice. A pipe that nobody reads is an error and no endless wait.
fn open(path: &Path) -> Result<File, String> {
    let no_wait = i32::try_from(OFlags::NONBLOCK.bits()).expect("flags of open(2) are an int");
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .custom_flags(no_wait)
        .open(path)
        .map_err(|error| format!("--log-file {}: {error}", path.display()))
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

/// How a line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
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
    fn of(output: &File) -> Self {
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

    fn config(self) -> Config {
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

    /// The line with its level as this form has it. `None` where that is as simplelog writes it.
    fn dress(self, line: &[u8]) -> Option<Vec<u8>> {
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

/// Has each message formatted before simplelog takes its lock, so that a panic in between leaves the
/// lock as it was, and makes one line of it.
struct OneLine<L>(Box<L>);

impl<L: Log> Log for OneLine<L> {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.0.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            let message = single_line(*record.args());
            let mut single = Record::builder();
            single.metadata(record.metadata().clone());
            self.0.log(&single.args(format_args!("{message}")).build());
        }
    }

    fn flush(&self) {}
}

/// The message without control characters, which are escaped, and cut at [`LONGEST`] bytes.
fn single_line(message: fmt::Arguments<'_>) -> String {
    struct Single(String);

    impl fmt::Write for Single {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            for character in text.chars() {
                if self.0.len() >= LONGEST {
                    self.0.push_str("...");
                    return Err(fmt::Error);
                }
                if character.is_control() {
                    self.0.extend(character.escape_default());
                } else {
                    self.0.push(character);
                }
            }
            Ok(())
        }
    }

    let mut single = Single(String::with_capacity(256));
    // An error means that it is long enough.
    let _ = single.write_fmt(message);
    single.0
}

/// What simplelog writes to, piece by piece: gathers a line, dresses it, and hands it over.
struct Lines<T> {
    text: Vec<u8>,
    form: Form,
    take: T,
}

impl<T: FnMut(&[u8])> Write for Lines<T> {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        self.text.extend(piece);
        if piece.ends_with(b"\n") {
            match self.form.dress(&self.text) {
                Some(dressed) => (self.take)(&dressed),
                None => (self.take)(&self.text),
            }
            self.text.clear();
        }
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Makes the line that says how many were lost.
struct LostLines {
    simple: Box<dyn Log>,
    line: Arc<Mutex<Vec<u8>>>,
}

impl LostLines {
    fn new(form: Form, config: Config) -> Self {
        let line = Arc::<Mutex<Vec<u8>>>::default();
        let text = Arc::clone(&line);
        let take = move |made: &[u8]| {
            text.lock().unwrap_or_else(PoisonError::into_inner).extend(made);
        };
        let lines = Lines { text: Vec::new(), form, take };
        LostLines { simple: WriteLogger::new(LevelFilter::Warn, config, lines), line }
    }

    fn tell(&self, lost: u64) -> Vec<u8> {
        let lost = thousands(lost);
        let mut record = Record::builder();
        record.level(Level::Warn);
        let why = "nobody read the log, or it could not be written";
        self.simple.log(&record.args(format_args!("{lost} lines lost: {why}")).build());
        mem::take(&mut *self.line.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A number with a comma before each three digits.
fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (index, digit) in digits.char_indices() {
        if index > 0 && (digits.len() - index) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is logged in this form.
    fn logged(form: Form, level: Level, message: &str) -> String {
        let line = Arc::<Mutex<Vec<u8>>>::default();
        let text = Arc::clone(&line);
        let take = move |made: &[u8]| text.lock().unwrap().extend(made);
        let lines = Lines { text: Vec::new(), form, take };
        let logger = OneLine(WriteLogger::new(LevelFilter::Trace, form.config(), lines));
        logger.log(&Record::builder().level(level).args(format_args!("{message}")).build());
        let made = line.lock().unwrap().clone();
        String::from_utf8(made).unwrap()
    }

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

    #[test]
    fn a_message_is_one_line_of_a_bounded_length() {
        let line = logged(Form::Journal, Level::Info, "a\nb\x1b[31mc\u{85}d \\ é");
        assert_eq!(line, "<6>a\\nb\\u{1b}[31mc\\u{85}d \\ é\n");
        let line = logged(Form::Journal, Level::Info, &"é\n".repeat(LONGEST));
        assert!(line.len() < LONGEST + 20 && line.ends_with("...\n"), "{}", line.len());
    }

    #[test]
    fn a_message_that_panics_does_not_end_the_log() {
        struct Faulty;
        impl fmt::Display for Faulty {
            fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
                panic!("as this test wants it")
            }
        }
        let line = Arc::<Mutex<Vec<u8>>>::default();
        let text = Arc::clone(&line);
        let take = move |made: &[u8]| text.lock().unwrap().extend(made);
        let form = Form::Journal;
        let lines = Lines { text: Vec::new(), form, take };
        let logger = OneLine(WriteLogger::new(LevelFilter::Trace, form.config(), lines));
        let log = |what: &dyn fmt::Display| {
            logger.log(&Record::builder().args(format_args!("{what}")).build());
        };
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| log(&Faulty))).unwrap_err();
        log(&"and on");
        assert_eq!(*line.lock().unwrap(), b"<6>and on\n");
    }

    #[test]
    fn lost_lines_are_told_as_a_warning() {
        let lost = LostLines::new(Form::Journal, Form::Journal.config());
        for (count, text) in
            [(7, "7"), (1234, "1,234"), (100_000, "100,000"), (1 << 20, "1,048,576")]
        {
            let line = String::from_utf8(lost.tell(count)).unwrap();
            assert!(line.starts_with(&format!("<4>{text} lines lost: ")), "{line}");
            assert!(line.ends_with('\n') && line.lines().count() == 1, "{line}");
        }
    }
}
