//! How many connections this machine has room for.
//!
//! A connection takes two descriptors, two threads and memory. A thread takes a stack in the address space
//! and a number of memory mappings, and its number counts against the limits on threads. Each of
//! these is asked here, once, at the start.

use std::path::Path;

use rustix::process::{Resource, getrlimit};

use super::descriptors::Descriptors;
use super::groups::{self, number};
use super::memory::{Limit, Memory};
use super::pool::STACK;
use super::shares::{LOOKUPS, VISITORS};

/// Threads of a connection: one for each direction. A worker that waits for a client has both already.
const THREADS: usize = 2;

/// Memory mappings of a thread: its stack, the alternate stack for signals that std gives it, and a
/// guard page before each.
const MAPPINGS_OF_A_THREAD: usize = 4;

/// Mappings that do not belong to connections: the program, its libraries, the allocator's.
const SPARE_MAPPINGS: usize = 1000;

/// Threads that belong neither to connections nor to workers that wait for one: lookups, visitors of the
/// status page, and main, signals, watch, log and the page itself.
pub const SPARE_THREADS: usize = LOOKUPS.all + VISITORS.all + 8;

/// Of 32 bits of addresses user space has 2 GiB on some systems; half of that is for stacks.
const STACK_ADDRESSES: Option<usize> =
    if usize::BITS > 32 { None } else { Some(1024 * 1024 * 1024) };

/// Memory of a tunnel in bytes, with what the kernel keeps for it, and the part of all memory that
/// tunnels may have.
const MEMORY: usize = 80 * 1024;
const MEMORY_PART: usize = 2;

/// What a machine has room for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// Connections at once, at least one.
    pub connections: usize,
    /// What there would have to be more of, and how to get it.
    pub limited_by: String,
}

impl Capacity {
    /// What this machine has room for beside so many workers that wait for a client.
    pub fn of_this_machine(descriptors: &Descriptors, waiting: usize) -> Self {
        let of_descriptors = format!("there are {} descriptors (ulimit -n)", descriptors.limit());
        let limits = [
            Some((descriptors.tunnels(), of_descriptors)),
            mappings(waiting),
            threads_of_user(waiting),
            threads_of_groups(waiting),
            memory(),
            STACK_ADDRESSES.map(|bytes| {
                let most = (bytes / (THREADS * STACK)).saturating_sub(waiting);
                (most, "a thread's stack takes addresses, of 32 bits".into())
            }),
        ];
        let least = limits.into_iter().flatten().min_by_key(|(most, _)| *most);
        let (connections, limited_by) = least.unwrap_or_default();
        Capacity { connections: connections.max(1), limited_by }
    }
}

/// Connections that there are mappings for. Linux alone has a limit on mappings.
fn mappings(waiting: usize) -> Option<(usize, String)> {
    let limit = number(Path::new("/proc/sys/vm/max_map_count"))?;
    let most = limit.saturating_sub(SPARE_MAPPINGS) / (THREADS * MAPPINGS_OF_A_THREAD);
    let most = most.saturating_sub(waiting);
    Some((most, format!("there are {limit} memory mappings (sysctl vm.max_map_count)")))
}

/// Connections that the user of this process may have threads for. The limit counts the threads of all
/// the user's processes, and none of root's.
fn threads_of_user(waiting: usize) -> Option<(usize, String)> {
    if rustix::process::geteuid().is_root() {
        return None;
    }
    let limit = usize::try_from(getrlimit(Resource::Nproc).current?).ok()?;
    Some((connections_of(limit, waiting), format!("the user may have {limit} threads (ulimit -u)")))
}

/// Connections that the control groups of this process may have threads for.
fn threads_of_groups(waiting: usize) -> Option<(usize, String)> {
    let groups = groups::of("pids");
    let limits = groups.iter().filter_map(|group| number(&group.join("pids.max")));
    let limit = limits.min()?;
    let text = format!("the control group may have {limit} threads (pids.max, TasksMax)");
    Some((connections_of(limit, waiting), text))
}

/// Connections that there is memory for.
fn memory() -> Option<(usize, String)> {
    let Memory { bytes, limit } = Memory::of_this_machine()?;
    let mib = bytes / (1024 * 1024);
    let text = match limit {
        Limit::Machine => format!("there are {mib} MiB of memory"),
        Limit::Group(_) => {
            format!("the control group may have {mib} MiB of memory (memory.max, MemoryMax)")
        }
    };
    Some((bytes / MEMORY_PART / MEMORY, text))
}

/// A small limit is not all spent on what is set aside.
fn connections_of(threads: usize, waiting: usize) -> usize {
    threads.saturating_sub((SPARE_THREADS + THREADS * waiting).min(threads / 2)) / THREADS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_always_room_for_one_and_never_for_more_than_descriptors_allow() {
        for (descriptors, most) in [(0, 1), (64, 20), (1024, 398)] {
            let capacity = Capacity::of_this_machine(&Descriptors::new(descriptors), 4);
            assert_eq!(capacity.connections, most, "{capacity:?}");
            assert!(capacity.limited_by.contains("ulimit -n"), "{capacity:?}");
        }
    }

    #[test]
    fn few_threads_are_enough_for_few_connections() {
        assert_eq!([40, 192, 1096].map(|it| connections_of(it, 4)), [10, 48, 500]);
    }

    #[test]
    fn workers_of_every_listener_are_set_aside() {
        assert_eq!([4, 8, 40].map(|waiting| connections_of(1096, waiting)), [500, 496, 464]);
    }
}
