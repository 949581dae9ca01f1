//! How much memory there is for this process, and whether it is short. Most of what a busy tunnel takes is
//! the kernel's: what waits in the queues of its sockets, and in its pipes.

use std::fs::read_to_string;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use super::groups::{self, number};

/// Memory is tight once there is less left than this part of it, and short at a half of that.
const TIGHT_PART: usize = 4;

/// What the latest look has found.
static IS_TIGHT: AtomicBool = AtomicBool::new(false);
static IS_SHORT: AtomicBool = AtomicBool::new(false);

/// What limits memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Limit {
    /// The machine has no more.
    Machine,
    /// This control group may have no more, whose use stands in these files.
    Group(GroupFiles),
}

/// The files of a control group about memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupFiles {
    usage: PathBuf,
    stat: PathBuf,
}

/// The memory that this process may have with all others that share it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Memory {
    /// In bytes.
    pub bytes: usize,
    /// What limits it.
    pub limit: Limit,
}

impl Memory {
    /// What there is. `None` where the system does not tell.
    pub fn of_this_machine() -> Option<Self> {
        let files = |limit: &'static str, usage: &'static str| {
            groups::of("memory").into_iter().filter_map(move |group| {
                let files =
                    GroupFiles { usage: group.join(usage), stat: group.join("memory.stat") };
                Some(Memory { bytes: number(&group.join(limit))?, limit: Limit::Group(files) })
            })
        };
        let machine = meminfo("MemTotal:").map(|bytes| Memory { bytes, limit: Limit::Machine });
        let groups = files("memory.max", "memory.current")
            .chain(files("memory.limit_in_bytes", "memory.usage_in_bytes"));
        machine.into_iter().chain(groups).min_by_key(|memory| memory.bytes)
    }

    /// Looks how much is left, for [`is_tight`] and [`is_short`].
    pub fn look(&self) {
        let left = self.left().unwrap_or(self.bytes);
        IS_TIGHT.store(left < self.bytes / TIGHT_PART, Ordering::Relaxed);
        IS_SHORT.store(left < self.bytes / TIGHT_PART / 2, Ordering::Relaxed);
    }

    fn left(&self) -> Option<usize> {
        match &self.limit {
            Limit::Machine => meminfo("MemAvailable:"),
            Limit::Group(GroupFiles { usage, stat }) => {
                // Pages of files that nobody has used of late are given up first.
                let stat = read_to_string(stat).unwrap_or_default();
                let files = value(&stat, "inactive_file ").unwrap_or(0);
                Some(self.bytes.saturating_sub(number(usage)?.saturating_sub(files)))
            }
        }
    }
}

/// Whether buffers and pipes are to be small.
pub fn is_tight() -> bool {
    IS_TIGHT.load(Ordering::Relaxed)
}

/// Whether a tunnel has to give way.
pub fn is_short() -> bool {
    IS_SHORT.load(Ordering::Relaxed)
}

/// A line of `/proc/meminfo`, in bytes.
fn meminfo(key: &str) -> Option<usize> {
    Some(value(&read_to_string("/proc/meminfo").ok()?, key)? * 1024)
}

/// The number behind `key`.
fn value(text: &str, key: &str) -> Option<usize> {
    let value = text.lines().find_map(|line| line.strip_prefix(key))?;
    value.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_behind_a_key_is_found() {
        let text = "MemTotal:       24683652 kB\nMemFree:         5113200 kB\ninactive_file 4096\n";
        assert_eq!(value(text, "MemTotal:"), Some(24_683_652));
        assert_eq!(value(text, "inactive_file "), Some(4096));
        assert_eq!(value(text, "MemAvailable:"), None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn there_is_some_left() {
        let memory = Memory::of_this_machine().unwrap();
        assert!(memory.left().unwrap() <= memory.bytes);
    }
}
