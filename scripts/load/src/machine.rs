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
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let kib = line.and_then(|rest| rest.split_whitespace().next()?.parse::<f64>().ok());
        let missing = || io::Error::other(format!("/proc/meminfo has no {name}"));
        kib.map(|kib| kib * 1024.0).ok_or_else(missing)
    };
    Ok(Memory {
        total: field("MemTotal")?,
        available: field("MemAvailable")?,
        kernel: field("KernelStack")? + field("PageTables")? + field("Slab")?,
    })
}

fn field(path: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}
