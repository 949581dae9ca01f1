//! The logger: a formatter, in front of the queue that writes its lines.

use std::fs::{File, OpenOptions};
use std::io::{self, stderr};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use log::{Level, LevelFilter, Log, Metadata, Record};
use rustix::fs::OFlags;
use rustix::io::Errno;

use super::format::{Format, Formatter};
use super::queue::{LINES_LOST, Queue};

/// Where the log goes, and the means to have it written to the end.
#[derive(Clone)]
pub struct Logger {
    queue: Arc<Queue>,
    formatter: Arc<Formatter>,
    file: Option<PathBuf>,
}

impl Logger {
    /// Makes itself the logger of this process. It logs up to `level`, to the end of `file` or else
    /// to standard error; each line is a JSON object where `is_json`. From here on no log call ever waits
    /// for whoever reads the log.
    ///
    /// To be called while this process has one thread: only then the local time can be had.
    pub fn start(level: LevelFilter, file: Option<&Path>, is_json: bool) -> Result<Self, String> {
        let (output, suiting) = match file {
            Some(path) => (open(path)?, Format::Full),
            None => standard_error().map_err(|error| format!("standard error: {error}"))?,
        };
        let formatter = Arc::new(Formatter::new(if is_json { Format::Json } else { suiting }));
        let of_writer = Arc::clone(&formatter);
        let queue = Queue::start(output, &LINES_LOST, move |lost| warning(&of_writer, lost))
            .map_err(|error| format!("cannot create a thread for the log: {error}"))?;
        let logger = Logger { queue, formatter, file: file.map(Path::to_path_buf) };
        log::set_boxed_logger(Box::new(logger.clone())).map_err(|error| error.to_string())?;
        log::set_max_level(level);
        Ok(logger)
    }

    /// Writes a line without the formatter, whatever state that is in: a panic's message, and why the
    /// server cannot start.
    pub fn say(&self, level: Level, text: &str) {
        self.queue.push(self.formatter.format.plain_line(level, text).as_bytes());
    }

    /// Opens the log file anew, as is due after it was renamed. Where that fails the log goes on to
    /// where it went. Without a file there is nothing to do.
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

impl Log for Logger {
    /// `log` itself has compared the level with the highest one.
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        self.queue.push(&self.formatter.line(record));
    }

    fn flush(&self) {}
}

/// Standard error without its lock, which is held for as long as a write takes.
fn standard_error() -> io::Result<(File, Format)> {
    let output = File::from(stderr().as_fd().try_clone_to_owned()?);
    let format = Format::of(&output);
    Ok((output, format))
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

/// The line that says how many lines were lost.
fn warning(formatter: &Formatter, lost: u64) -> Vec<u8> {
    let lost = thousands(lost);
    let text = format!("{lost} lines lost: nobody read the log, or it could not be written");
    formatter.line(&Record::builder().level(Level::Warn).args(format_args!("{text}")).build())
}

/// A number with a comma before each three digits.
fn thousands(number: u64) -> String {
    match number {
        0..1000 => number.to_string(),
        _ => format!("{},{:03}", thousands(number / 1000), number % 1000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_lost_lines_is_a_warning() {
        let formatter = Formatter::new(Format::Journal);
        for (count, text) in
            [(7, "7"), (1234, "1,234"), (100_000, "100,000"), (1 << 20, "1,048,576")]
        {
            let line = String::from_utf8(warning(&formatter, count)).unwrap();
            assert!(line.starts_with(&format!("<4>{text} lines lost: ")), "{line}");
            assert!(line.ends_with('\n') && line.lines().count() == 1, "{line}");
        }
        let line = warning(&Formatter::new(Format::Json), 1234);
        let line = String::from_utf8(line).unwrap();
        assert!(line.contains(r#","level":"warn","message":"1,234 lines lost: "#), "{line}");
        assert!(line.ends_with("\"}\n"), "{line}");
    }
}
