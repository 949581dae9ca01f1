//! What a proxy has used: processor time and resident memory, summed over its process tree.

use std::fs;
use std::io;
use std::time::Duration;

use nix::time::ClockId;
use nix::unistd::Pid;

use crate::machine::number;

/// The length of a tick in `/proc/PID/stat`, which is the same on every Linux that matters here.
const TICK: Duration = Duration::from_millis(10);

/// The processor time that a process, its descendants and the children they have buried have used.
///
/// The processor clock of a process is exact to the nanosecond and keeps the time of threads that
/// have ended. A child that has ended is known only to its parent, in ticks.
pub(crate) fn cpu(root: u32) -> io::Result<Duration> {
    let mut total = clock(root)?;
    for pid in tree(root)? {
        if pid != root {
            // A child may end between the listing and the reading of its clock.
            total += clock(pid).unwrap_or_default();
        }
        total += buried(pid).unwrap_or_default();
    }
    Ok(total)
}

fn clock(pid: u32) -> io::Result<Duration> {
    let pid = Pid::from_raw(i32::try_from(pid).map_err(io::Error::other)?);
    Ok(ClockId::pid_cpu_clock_id(pid)?.now()?.into())
}

fn buried(pid: u32) -> Option<Duration> {
    let fields = stat(pid)?;
    // Fields 16 and 17 of the file, counted from 1; the list here begins with field 3.
    let ticks = fields.get(13)?.parse::<u32>().ok()? + fields.get(14)?.parse::<u32>().ok()?;
    Some(TICK * ticks)
}

/// Whether a child has ended, buried or not.
pub(crate) fn has_ended(pid: u32) -> bool {
    stat(pid).is_none_or(|fields| fields.first().is_some_and(|state| state == "Z"))
}

/// The fields of `/proc/PID/stat` after the name, which may itself hold spaces and parentheses.
fn stat(pid: u32) -> Option<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = text.rsplit_once(") ")?;
    Some(rest.split_whitespace().map(str::to_owned).collect())
}

/// The process and all its descendants.
fn tree(root: u32) -> io::Result<Vec<u32>> {
    let mut parents = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        if let Some(parent) = stat(pid).and_then(|fields| fields.get(1)?.parse::<u32>().ok()) {
            parents.push((pid, parent));
        }
    }
    let mut tree = vec![root];
    let mut next = 0;
    while let Some(&pid) = tree.get(next) {
        tree.extend(parents.iter().filter(|(_, parent)| *parent == pid).map(|(child, _)| child));
        next += 1;
    }
    Ok(tree)
}

/// Resident memory in octets: of one process what it holds, of a tree the sum of the fair shares,
/// because forked processes hold most of their pages in common.
pub(crate) fn resident(root: u32) -> io::Result<f64> {
    let tree = tree(root)?;
    let field = if tree.len() == 1 { "Rss" } else { "Pss" };
    let mut total = 0.0;
    for pid in tree {
        let Ok(text) = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")) else {
            continue;
        };
        total += number::<f64>(&text, field)?;
    }
    Ok(total * 1024.0)
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::thread;
    use std::time::{Duration, Instant};

    use super::{cpu, has_ended, resident, tree};

    fn burn(time: Duration) {
        let begun = Instant::now();
        while begun.elapsed() < time {}
    }

    #[test]
    fn the_time_of_threads_that_have_ended_counts() {
        let me = std::process::id();
        let before = cpu(me).unwrap();
        let begin = Instant::now();
        // On a busy machine a thread waits for a processor for most of its time.
        while cpu(me).unwrap().saturating_sub(before) < Duration::from_millis(20) {
            assert!(begin.elapsed() < Duration::from_secs(20), "the time of threads is lost");
            thread::spawn(|| burn(Duration::from_millis(100))).join().unwrap();
        }
    }

    #[test]
    fn a_child_belongs_to_the_tree_and_is_known_to_have_ended() {
        let mut child = Command::new("sleep").arg("10").spawn().unwrap();
        assert!(tree(std::process::id()).unwrap().contains(&child.id()));
        assert!(!has_ended(child.id()));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(has_ended(child.id()));
    }

    #[test]
    fn resident_memory_is_what_a_process_holds() {
        let mut child = Command::new("sleep").arg("10").spawn().unwrap();
        let begin = Instant::now();
        let mut octets = 0.0;
        // At first it has hardly anything.
        while octets < 100e3 && begin.elapsed() < Duration::from_secs(20) {
            octets = resident(child.id()).unwrap();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        assert!((100e3..100e6).contains(&octets), "{octets}");
    }
}
