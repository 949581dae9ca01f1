//! The limit on mappings of memory, which is what stops a process on Linux from having ever more
//! threads, and how a session's threads can do with half as many.
//!
//! A thread has a stack and its guard, and std adds an alternate signal stack with a guard of its
//! own, on which it reports a stack overflow. It does so only in a process that has found SIGSEGV
//! and SIGBUS as they usually are when it started. One that found them ignored does not, and a
//! stack overflow still ends it: the kernel does not let a fault be ignored. As the two can only
//! be ignored by `unsafe` means once a program runs, it has itself started anew by a shell.

use std::env::{self, args_os, current_exe};
use std::fs::read_to_string;
use std::process::Command;

/// Mappings that do not belong to the threads of sessions.
const SPARE: usize = 1000;

/// Mappings of a session's two threads.
const USUAL: usize = 8;
const LEAN: usize = 4;

/// Set in a process that was started anew, so that it never is twice.
const STARTED_ANEW: &str = "TABI_LEAN_THREADS";

/// The bits of SIGBUS and SIGSEGV in a mask of signals.
const FAULTS: u64 = 1 << (7 - 1) | 1 << (11 - 1);

/// For how many sessions there are mappings.
#[must_use]
pub fn tunnels() -> usize {
    room_for(if are_lean() { LEAN } else { USUAL })
}

/// What starts this program anew with leaner threads, if `wanted` sessions need them.
#[must_use]
pub fn leaner(wanted: usize) -> Option<Command> {
    if wanted <= tunnels() || are_lean() || env::var_os(STARTED_ANEW).is_some() {
        return None;
    }
    let program = current_exe().ok().filter(|program| program.is_file())?;
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", r#"trap '' SEGV BUS; exec "$0" "$@""#]).arg(program);
    shell.args(args_os().skip(1)).env(STARTED_ANEW, "1");
    Some(shell)
}

fn room_for(mappings: usize) -> usize {
    let limit = read_to_string("/proc/sys/vm/max_map_count").ok();
    let limit: Option<usize> = limit.and_then(|limit| limit.trim().parse().ok());
    limit.map_or(usize::MAX, |limit| limit.saturating_sub(SPARE) / mappings)
}

fn are_lean() -> bool {
    let status = read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    ignored
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .is_some_and(|mask| mask & FAULTS == FAULTS)
}
