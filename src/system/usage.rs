//! What this process uses at present, as far as the system tells.

use std::fs;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// The threads of this process. `None` where the system does not tell.
pub fn threads() -> Option<usize> {
    status("Threads:")?.parse().ok()
}

/// The address space that this process has taken, in bytes. `None` where the system does not tell.
pub fn address_space() -> Option<u64> {
    bytes("VmSize:")
}

/// The memory that this process has, in bytes. `None` where the system does not tell.
pub fn resident_memory() -> Option<u64> {
    bytes("VmRSS:")
}

/// The processor time that all threads of this process have had.
pub fn processor_time() -> Duration {
    clock_gettime(ClockId::ProcessCPUTime).try_into().unwrap_or_default()
}

fn bytes(key: &str) -> Option<u64> {
    let kib: u64 = status(key)?.strip_suffix(" kB")?.parse().ok()?;
    Some(kib * 1024)
}

fn status(key: &str) -> Option<String> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let value = status.lines().find_map(|line| line.strip_prefix(key))?;
    Some(value.trim().into())
}

/// The open descriptors of this process. `None` where the system does not tell.
pub fn descriptors() -> Option<usize> {
    // From Linux 6.2 on, the size of the directory is their number. Counting takes a millisecond a
    // thousand, and needs one itself.
    let size = fs::metadata("/proc/self/fd").ok()?.len();
    match usize::try_from(size).ok()? {
        0 => fs::read_dir("/proc/self/fd").ok().map(|open| open.count().saturating_sub(1)),
        open => Some(open),
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;
    use std::thread;
    use std::time::Instant;

    // Other tests of this process start threads and open files, too, so only what must be is asked.
    #[test]
    fn threads_and_descriptors_are_counted() {
        let (end, ended) = channel::<()>();
        let files: Vec<_> = (0..50).map(|_| fs::File::open("/dev/null").unwrap()).collect();
        assert!(descriptors().unwrap() >= files.len());
        let waiting = thread::spawn(move || ended.recv());
        assert!(threads().unwrap() >= 2);
        let (resident, reserved) = (resident_memory().unwrap(), address_space().unwrap());
        assert!(1024 * 1024 < resident && resident < reserved, "{resident} of {reserved}");
        drop(end);
        let _ = waiting.join();
    }

    #[test]
    fn processor_time_passes_while_a_thread_works() {
        let (begin, before) = (Instant::now(), processor_time());
        while processor_time() < before + Duration::from_millis(20) {
            assert!(begin.elapsed() < Duration::from_secs(20), "{before:?}");
        }
    }
}
