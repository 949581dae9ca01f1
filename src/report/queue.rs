//! The queue before the log: whoever logs never waits for whoever reads the log.
//!
//! Lines are handed over whole, in memory. One thread writes them out and is the only one that waits
//! when a terminal is stopped, a pipe is full or a disk is slow. Lines for which there is no room are
//! dropped and counted, and the log says how many were lost as soon as it is read again.

use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::mem;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use portable_atomic::{AtomicU64, Ordering};
use rustix::event::{PollFd, PollFlags};

use crate::system::deadline::Deadline;
use crate::system::poll::poll;
use crate::system::sync::{Condvar, Mutex};

/// What waits to be written: 1 MiB is 5,000 lines of 200 bytes, which is what 10,000 sessions a second
/// log in half a second. 8,192 lines of 128 bytes, the shortest of a session, are 1 MiB too.
/// With the batch that is being written there are at most twice as many in memory.
const MAX_BYTES: usize = 1024 * 1024;
const MAX_LINES: usize = 8192;

/// After a batch the writer lets lines gather: a busy server then wakes it at most 100 times a second,
/// and not once for each line. A first line after a silence is written at once.
const GATHER: Duration = Duration::from_millis(10);

/// How often a writer for whom nobody reads looks whether it is to write elsewhere.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// What a buffer may keep when it has been written: 64 KiB is 10 ms of the busiest server, twice over.
const MAX_KEPT: usize = 64 * 1024;

/// Stack of the writer in bytes. It formats one line and makes system calls.
const STACK: usize = 128 * 1024;

/// Lines that the log of this process has lost: there is one, and the metrics show it.
pub(super) static LINES_LOST: AtomicU64 = AtomicU64::new(0);

/// How many lines the log of this process has lost since the start.
pub(super) fn lines_lost() -> u64 {
    LINES_LOST.load(Ordering::Relaxed)
}

/// Lines on their way to the log.
pub(super) struct Queue {
    /// Nothing that holds this lock formats, waits or makes a system call, so it is free soon, and a
    /// panic hook may take it.
    state: Mutex<State>,
    /// Signalled when there is something to write and the writer waits for it.
    filled: Condvar,
    /// Signalled when all is written.
    drained: Condvar,
    /// Lines that were lost since the start.
    lost: &'static AtomicU64,
}

#[derive(Default)]
struct State {
    waiting: Batch,
    /// Lines that were dropped since the writer took the last batch.
    dropped: u64,
    /// Where to write from the next batch on.
    redirected: Option<File>,
    /// The writer waits on `filled` for a first line.
    idle: bool,
    /// The writer has a batch that is not written yet.
    busy: bool,
    /// Somebody waits on `drained`: lines do not gather now.
    flushing: bool,
}

/// Whole lines, one behind the other.
#[derive(Default)]
struct Batch {
    bytes: Vec<u8>,
    lines: usize,
}

impl Queue {
    /// Starts the thread that writes to `output`. `lost` counts the lines that are lost, and `lost_line`
    /// makes the line, with its line feed, that says how many were.
    ///
    /// # Errors
    ///
    /// When the thread cannot be created.
    pub(super) fn start(
        output: File,
        lost: &'static AtomicU64,
        lost_line: impl Fn(u64) -> Vec<u8> + Send + 'static,
    ) -> io::Result<Arc<Self>> {
        let queue = Arc::new(Queue {
            state: Mutex::default(),
            filled: Condvar::default(),
            drained: Condvar::default(),
            lost,
        });
        let of_writer = Arc::clone(&queue);
        let output = Output { file: output, partial_line: false };
        let write = move || of_writer.write_out(output, &lost_line);
        thread::Builder::new().name("tabi log".into()).stack_size(STACK).spawn(write)?;
        Ok(queue)
    }

    /// Hands over a line, its line feed included. It is counted as lost when there is no room.
    pub(super) fn push(&self, line: &[u8]) {
        let mut state = self.state.lock();
        if state.waiting.lines >= MAX_LINES || state.waiting.bytes.len() + line.len() > MAX_BYTES {
            state.dropped += 1;
            self.lost.fetch_add(1, Ordering::Relaxed);
            return;
        }
        state.waiting.bytes.extend(line);
        state.waiting.lines += 1;
        let wakes = mem::take(&mut state.idle);
        drop(state);
        if wakes {
            self.filled.notify_one();
        }
    }

    /// Waits until all lines are written, for at most `limit`. Says whether they are.
    pub(super) fn flush(&self, limit: Duration) -> bool {
        let deadline = Deadline::after(limit);
        let mut state = self.state.lock();
        state.flushing = true;
        self.filled.notify_one();
        while !state.is_drained() {
            let Some(left) = deadline.left() else { break };
            state = self.drained.wait(state, Some(left));
        }
        state.flushing = false;
        state.is_drained()
    }

    /// Writes to `output` from the next line on.
    pub(super) fn redirect(&self, output: File) {
        let earlier = self.state.lock().redirected.replace(output);
        drop(earlier);
    }

    fn write_out(&self, mut output: Output, lost_line: &dyn Fn(u64) -> Vec<u8>) {
        let mut batch = Batch::default();
        // Lines that could not be written before this batch.
        let mut unwritten = 0;
        let is_left = || self.state.lock().redirected.is_some();
        loop {
            let (dropped, redirected) = self.next(&mut batch);
            if let Some(file) = redirected {
                output = Output { file, partial_line: false };
            }
            if unwritten > 0 && output.write(&lost_line(unwritten), &is_left).is_empty() {
                unwritten = 0;
            }
            let mut rest = output.write(&batch.bytes, &is_left);
            // Where nothing is left of the batch, the next one begins there.
            let left_for = if rest.is_empty() { None } else { self.redirected() };
            if let Some(file) = left_for {
                output = Output { file, partial_line: false };
                rest = output.write(rest, &is_left);
            }
            let failed = count(rest);
            unwritten += failed;
            // These would have come behind the lines of this batch.
            if dropped > 0
                && (failed > 0 || !output.write(&lost_line(dropped), &is_left).is_empty())
            {
                unwritten += dropped;
            }
            batch.clear();
            self.written(failed);
        }
    }

    /// Waits for lines and takes them all, with the number of those lost behind them.
    fn next(&self, batch: &mut Batch) -> (u64, Option<File>) {
        let mut state = self.state.lock();
        if !state.flushing && !state.idle {
            state = self.filled.wait(state, Some(GATHER));
        }
        while state.waiting.lines == 0 {
            state.idle = true;
            state = self.filled.wait(state, None);
        }
        state.idle = false;
        state.busy = true;
        mem::swap(&mut state.waiting, batch);
        (mem::take(&mut state.dropped), state.redirected.take())
    }

    fn redirected(&self) -> Option<File> {
        self.state.lock().redirected.take()
    }

    /// Notes that a batch is over, and how many of its lines could not be written.
    fn written(&self, failed: u64) {
        self.lost.fetch_add(failed, Ordering::Relaxed);
        self.state.lock().busy = false;
        self.drained.notify_all();
    }
}

impl State {
    fn is_drained(&self) -> bool {
        !self.busy && self.waiting.lines == 0
    }
}

impl Batch {
    fn clear(&mut self) {
        self.bytes.clear();
        self.bytes.shrink_to(MAX_KEPT);
        self.lines = 0;
    }
}

/// Where the log is written to.
struct Output {
    file: File,
    /// The last write stopped within a line.
    partial_line: bool,
}

impl Output {
    /// Writes whole lines. Gives back those that could not be written.
    fn write<'a>(&mut self, lines: &'a [u8], is_left: &dyn Fn() -> bool) -> &'a [u8] {
        if self.partial_line && self.write_all(b"\n", is_left) == 0 {
            return lines;
        }
        let written = &lines[..self.write_all(lines, is_left)];
        self.partial_line = written.last().is_some_and(|last| *last != b'\n');
        let whole = written.iter().rposition(|byte| *byte == b'\n').map_or(0, |feed| feed + 1);
        &lines[whole..]
    }

    /// Writes for as long as it can be done, and where nobody reads until this output is left for
    /// another. Says how many bytes were written.
    fn write_all(&mut self, bytes: &[u8], is_left: &dyn Fn() -> bool) -> usize {
        let mut written = 0;
        while written < bytes.len() {
            match self.file.write(&bytes[written..]) {
                Ok(0) => break,
                Ok(more) => written += more,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock && is_left() => break,
                // A pipe, or standard error that is shared with a program that wants it not to block.
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    let _ = poll(&mut [PollFd::new(&self.file, PollFlags::OUT)], LOOK_AGAIN);
                }
                Err(_) => break,
            }
        }
        written
    }
}

fn count(lines: &[u8]) -> u64 {
    let feeds = lines.split(|byte| *byte == b'\n').count() - 1;
    u64::try_from(feeds).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader};
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;
    use std::sync::OnceLock;

    /// Far longer than a test takes.
    const LONG: Duration = Duration::from_secs(20);

    /// A count of a test's own.
    fn none_lost() -> &'static AtomicU64 {
        Box::leak(Box::<AtomicU64>::default())
    }

    fn lost(queue: &Queue) -> u64 {
        queue.lost.load(Ordering::Relaxed)
    }

    fn queue() -> (Arc<Queue>, BufReader<UnixStream>) {
        let (reader, output) = UnixStream::pair().unwrap();
        reader.set_read_timeout(Some(LONG)).unwrap();
        let output = File::from(OwnedFd::from(output));
        let lost_line = |lost| format!("{lost} lost\n").into_bytes();
        let queue = Queue::start(output, none_lost(), lost_line).unwrap();
        (queue, BufReader::new(reader))
    }

    fn line(reader: &mut BufReader<UnixStream>) -> String {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        line
    }

    #[test]
    fn lines_are_written_in_their_order() {
        let (queue, mut reader) = queue();
        for number in 0..100 {
            queue.push(format!("{number}\n").as_bytes());
        }
        assert!(queue.flush(LONG));
        for number in 0..100 {
            assert_eq!(line(&mut reader), format!("{number}\n"));
        }
        queue.push(b"after a silence\n");
        assert_eq!(line(&mut reader), "after a silence\n");
        assert_eq!(lost(&queue), 0);
    }

    #[test]
    fn nobody_waits_for_a_log_that_is_not_read_and_it_says_how_many_lines_were_lost() {
        const LINES: u64 = 50_000;
        let (queue, mut reader) = queue();
        for number in 0..LINES {
            queue.push(format!("{number:0199}\n").as_bytes());
        }
        assert!(!queue.flush(Duration::from_millis(1)), "nobody reads");
        let lost = lost(&queue);
        assert!(lost > LINES / 2, "{lost}");
        assert!(queue.state.lock().waiting.bytes.len() <= MAX_BYTES);
        let (mut read, mut said) = (0, 0);
        while read + said < LINES {
            let line = line(&mut reader);
            if let Some(lost) = line.strip_suffix(" lost\n") {
                said += lost.parse::<u64>().unwrap();
            } else {
                assert_eq!(line.trim_end().parse(), Ok(read + said), "{line}");
                read += 1;
            }
        }
        assert_eq!(said, lost);
        assert!(queue.flush(LONG));
    }

    #[test]
    fn short_lines_are_limited_by_their_number() {
        let (queue, _reader) = queue();
        for _ in 0..1_000_000 {
            queue.push(b"\n");
            assert!(queue.state.lock().waiting.lines <= MAX_LINES);
        }
    }

    #[test]
    fn lines_that_cannot_be_written_are_counted_before_the_next_that_can() {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let lost_line = |lost| format!("{lost} lost\n").into_bytes();
        let queue = Queue::start(full, none_lost(), lost_line).unwrap();
        queue.push(b"one\n");
        assert!(queue.flush(LONG));
        queue.push(b"two\n");
        queue.push(b"three\n");
        assert!(queue.flush(LONG));
        assert_eq!(lost(&queue), 3);
        let (reader, output) = UnixStream::pair().unwrap();
        reader.set_read_timeout(Some(LONG)).unwrap();
        queue.redirect(File::from(OwnedFd::from(output)));
        queue.push(b"four\n");
        let mut reader = BufReader::new(reader);
        assert_eq!([line(&mut reader), line(&mut reader)], ["3 lost\n", "four\n"]);
        assert_eq!(lost(&queue), 3);
    }

    #[test]
    fn a_line_of_which_a_part_was_written_is_ended_before_the_next() {
        let (mut reader, output) = UnixStream::pair().unwrap();
        let mut output = Output { file: File::from(OwnedFd::from(output)), partial_line: true };
        assert_eq!(output.write(b"whole\n", &|| false), b"");
        drop(output);
        let mut written = String::new();
        io::Read::read_to_string(&mut reader, &mut written).unwrap();
        assert_eq!(written, "\nwhole\n");
    }

    #[test]
    fn an_output_that_nobody_reads_is_left_and_what_it_did_not_take_is_not_lost() {
        let (mut unread, output) = UnixStream::pair().unwrap();
        output.set_nonblocking(true).unwrap();
        let output = File::from(OwnedFd::from(output));
        let queue = Queue::start(output, none_lost(), |_| Vec::new()).unwrap();
        for number in 0..5000 {
            queue.push(format!("{number:0199}\n").as_bytes());
        }
        // The first of them have been written there.
        poll(&mut [PollFd::new(&unread, PollFlags::IN)], LONG).unwrap();
        assert!(!queue.flush(Duration::from_millis(1)), "nobody reads");
        let (reader, output) = UnixStream::pair().unwrap();
        reader.set_read_timeout(Some(LONG)).unwrap();
        queue.redirect(File::from(OwnedFd::from(output)));
        queue.push(b"last\n");
        let elsewhere = BufReader::new(reader).lines().map(Result::unwrap);
        let elsewhere: Vec<_> = elsewhere.take_while(|line| line != "last").collect();
        let mut earlier = String::new();
        io::Read::read_to_string(&mut unread, &mut earlier).unwrap();
        let whole = earlier.rfind('\n').unwrap() + 1;
        let all = earlier[..whole].lines().chain(elsewhere.iter().map(String::as_str));
        assert!(
            all.map(|line| line.parse::<u32>().unwrap()).eq(0..5000),
            "each line once, in order"
        );
        assert_eq!(lost(&queue), 0);
    }

    #[test]
    fn an_output_that_comes_while_a_batch_is_written_to_another_is_not_forgotten() {
        let [(first, to_first), (second, to_second)] = [(); 2].map(|()| {
            let (reader, output) = UnixStream::pair().unwrap();
            reader.set_read_timeout(Some(LONG)).unwrap();
            (BufReader::new(reader), File::from(OwnedFd::from(output)))
        });
        let queue_of_writer = Arc::new(OnceLock::<Arc<Queue>>::new());
        let queue = Arc::clone(&queue_of_writer);
        // Asked for when the lines that could not be written are counted, before those of a batch.
        let lost_line = move |_| {
            queue.get().unwrap().redirect(to_second.try_clone().unwrap());
            Vec::new()
        };
        let full = File::options().write(true).open("/dev/full").unwrap();
        let queue = Queue::start(full, none_lost(), lost_line).unwrap();
        assert!(queue_of_writer.set(Arc::clone(&queue)).is_ok());
        queue.push(b"lost\n");
        assert!(queue.flush(LONG));
        queue.redirect(to_first);
        for (reader, line) in [(first, "first"), (second, "second")] {
            queue.push(format!("{line}\n").as_bytes());
            assert_eq!(reader.lines().next().unwrap().unwrap(), line);
            assert!(queue.flush(LONG));
        }
    }

    #[test]
    fn an_output_that_does_not_block_is_waited_for() {
        let (reader, output) = UnixStream::pair().unwrap();
        output.set_nonblocking(true).unwrap();
        let output = File::from(OwnedFd::from(output));
        let queue = Queue::start(output, none_lost(), |_| Vec::new()).unwrap();
        for _ in 0..5000 {
            queue.push(&[[b'a'; 199].as_slice(), b"\n"].concat());
        }
        assert!(!queue.flush(Duration::from_millis(1)), "nobody reads");
        reader.set_read_timeout(Some(LONG)).unwrap();
        for line in BufReader::new(reader).lines().take(5000) {
            assert_eq!(line.unwrap().len(), 199);
        }
        assert_eq!(lost(&queue), 0);
    }
}
