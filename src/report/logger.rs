//! The logger: simplelog, which formats lines, in front of the queue that writes them.

use std::fmt::{self, Write as _};
use std::fs::{File, OpenOptions};
use std::io::{self, Write, stderr};
use std::mem;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use log::{Level, LevelFilter, Log, Metadata, Record};
use rustix::fs::OFlags;
use rustix::io::Errno;
use simplelog::{Config, WriteLogger};

use super::form::Form;
use super::queue::{LINES_LOST, Queue};

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
        let queue = Queue::start(output, &LINES_LOST, move |count| lost.tell(count))
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
        let prefix = self.form.prefix(level);
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
        .map_err(|error| {
            let is_unread = error.raw_os_error() == Some(Errno::NXIO.raw_os_error());
            let hint = if is_unread { "; it is a pipe that nobody reads" } else { "" };
            format!("--log-file {}: {error}{hint}", path.display())
        })
}

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
pub(super) mod tests {
    use super::*;

    /// What is logged in this form.
    pub(in crate::report) fn logged(form: Form, level: Level, message: &str) -> String {
        let line = Arc::<Mutex<Vec<u8>>>::default();
        let text = Arc::clone(&line);
        let take = move |made: &[u8]| text.lock().unwrap().extend(made);
        let lines = Lines { text: Vec::new(), form, take };
        let logger = OneLine(WriteLogger::new(LevelFilter::Trace, form.config(), lines));
        logger.log(&Record::builder().level(level).args(format_args!("{message}")).build());
        let made = line.lock().unwrap().clone();
        String::from_utf8(made).unwrap()
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
