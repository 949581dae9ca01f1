//! The log: many who log, one who writes.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread::{end, spawn, yield_now};
use std::time::{Duration, FOREVER, stand_still};

use rustix::fs::{MemfdFlags, memfd_create};

use super::queue::Queue;

/// More than half of what may wait: there is room for one, and not for two.
const LONG_LINE: usize = 600 * 1024;

/// A log that is written to memory, and what ends its writer, which tabi never does.
struct Log {
    queue: Arc<Queue>,
    file: File,
    over: Arc<AtomicBool>,
}

impl Log {
    fn start() -> Self {
        let file = File::from(memfd_create("log", MemfdFlags::CLOEXEC).unwrap());
        let over = Arc::new(AtomicBool::new(false));
        let is_over = Arc::clone(&over);
        let tell_lost = move |lost| {
            if is_over.load(SeqCst) {
                end();
            }
            format!("{lost} lost\n").into_bytes()
        };
        let queue = Queue::start(file.try_clone().unwrap(), tell_lost).unwrap();
        Log { queue, file, over }
    }

    /// What is written: the lines, and how many it says were lost.
    fn written(&self) -> (Vec<String>, u64) {
        let mut bytes = vec![0; usize::try_from(self.file.metadata().unwrap().len()).unwrap()];
        self.file.read_exact_at(&mut bytes, 0).unwrap();
        let (mut lines, mut lost) = (Vec::new(), 0);
        for line in String::from_utf8(bytes).unwrap().lines() {
            match line.strip_suffix(" lost") {
                Some(count) => lost += count.parse::<u64>().unwrap(),
                None => lines.push(line.trim_end_matches('-').to_owned()),
            }
        }
        (lines, lost)
    }

    fn end(&self) {
        self.over.store(true, SeqCst);
        // It is lost for certain, and the next line takes that to the writer.
        self.queue.push(&vec![b'-'; 2 * LONG_LINE]);
        self.queue.push(b"\n");
        self.queue.flush(Duration::ZERO);
    }
}

/// Two threads log, and there is not always room. Lines come in their order, whole, or are counted;
/// when the log is flushed it has told of each that was lost.
pub fn each_line_is_written_or_counted() {
    stand_still(false);
    let log = Log::start();
    let writers = ["a", "b"].map(|name| {
        let queue = Arc::clone(&log.queue);
        spawn(move || {
            queue.push(format!("{name}0\n").as_bytes());
            queue.push(format!("{name}1{}\n", "-".repeat(LONG_LINE)).as_bytes());
            queue.push(format!("{name}2\n").as_bytes());
        })
    });
    for writer in writers {
        writer.join().unwrap();
    }
    assert!(log.queue.flush(FOREVER));
    let (lines, lost) = log.written();
    assert_eq!((lines.len() as u64 + lost, lost), (6, log.queue.lost()));
    for name in ["a", "b"] {
        let its: Vec<_> = lines.iter().filter(|line| line.starts_with(name)).collect();
        assert!(its.is_sorted(), "{its:?}");
    }
    log.end();
}

/// Lines come after a silence and after one another, and nobody asks for a flush.
pub fn lines_are_written_unasked() {
    stand_still(false);
    let log = Log::start();
    let other = spawn({
        let queue = Arc::clone(&log.queue);
        move || queue.push(b"b0\n")
    });
    for written in [3, 6] {
        log.queue.push(b"a0\n");
        while log.file.metadata().unwrap().len() < written {
            yield_now();
        }
    }
    other.join().unwrap();
    while log.file.metadata().unwrap().len() < 9 {
        yield_now();
    }
    log.end();
}

/// Time stands still, so nothing but a signal wakes the writer, or the one who waits for it.
pub fn a_flush_does_not_wait() {
    stand_still(true);
    let log = Log::start();
    let other = spawn({
        let queue = Arc::clone(&log.queue);
        move || queue.push(b"b0\n")
    });
    for line in ["a0\n", "a1\n"] {
        log.queue.push(line.as_bytes());
        assert!(log.queue.flush(FOREVER));
    }
    other.join().unwrap();
    assert!(log.queue.flush(FOREVER));
    assert_eq!(log.written().0.len(), 3);
    stand_still(false);
    log.end();
}
