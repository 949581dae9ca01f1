//! What the figures were taken on.

use std::fs;
use std::io;
use std::thread;

/// One line: processor, cores, memory, kernel.
pub(crate) fn describe() -> String {
    let model = field("/proc/cpuinfo", "model name").unwrap_or_else(|| "processor unknown".into());
    let cores = thread::available_parallelism().map_or(0, usize::from);
    let memory = memory().map_or_else(
        |_| "memory unknown".into(),
        |octets| format!("{:.0} MiB", (octets / 1024.0 / 1024.0).floor()),
    );
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("{model}, {cores} cores, {memory}, Linux {}", kernel.trim())
}

/// The memory in octets that the kernel thinks new programs can have.
pub(crate) fn available() -> io::Result<f64> {
    kib("MemAvailable")
}

/// All the memory in octets.
pub(crate) fn memory() -> io::Result<f64> {
    kib("MemTotal")
}

fn kib(name: &str) -> io::Result<f64> {
    let kib = field("/proc/meminfo", name)
        .and_then(|text| text.split_whitespace().next()?.parse::<f64>().ok());
    Ok(1024.0 * kib.ok_or_else(|| io::Error::other(format!("/proc/meminfo has no {name}")))?)
}

fn field(path: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}
