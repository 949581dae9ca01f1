//! What the figures were taken on.

use std::fs;
use std::io;
use std::str::FromStr;
use std::thread;

/// One line: processor, cores, memory, kernel.
pub(crate) fn describe() -> String {
    let processor = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = field(&processor, "model name").unwrap_or("processor unknown");
    let cores = thread::available_parallelism().map_or(0, usize::from);
    let memory = memory().map_or_else(
        |_| "memory unknown".into(),
        |memory| format!("{:.0} MiB", (memory.total / 1024.0 / 1024.0).floor()),
    );
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("{model}, {cores} cores, {memory}, Linux {}", kernel.trim())
}

/// The machine's memory, in octets.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Memory {
    pub(crate) total: f64,
    /// What the kernel thinks new programs can have.
    pub(crate) available: f64,
    /// What the kernel holds for whoever asked it: stacks of threads, page tables, and its objects,
    /// sockets among them.
    pub(crate) kernel: f64,
}

pub(crate) fn memory() -> io::Result<Memory> {
    let text = fs::read_to_string("/proc/meminfo")?;
    let field = |name: &str| number(&text, name).map(|kib: f64| kib * 1024.0);
    Ok(Memory {
        total: field("MemTotal")?,
        available: field("MemAvailable")?,
        kernel: field("KernelStack")? + field("PageTables")? + field("Slab")?,
    })
}

/// What a file of /proc says of this: in a line of its own, behind a colon.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let line =
        text.lines().find_map(|line| line.strip_prefix(name)?.trim_start().strip_prefix(':'));
    line.map(str::trim)
}

/// The same, where it is a number; the unit behind it is left out.
pub(crate) fn number<T: FromStr>(text: &str, name: &str) -> io::Result<T> {
    let first = field(text, name).and_then(|value| value.split_whitespace().next()?.parse().ok());
    first.ok_or_else(|| io::Error::other(format!("/proc tells no {name}")))
}
