//! The address space of this process, where there is a limit on them (`ulimit -v`).

use std::io;

use rustix::process::{Resource, getrlimit};

use super::usage;

/// Addresses that no new thread may take, in bytes: an allocation that is refused ends the process. The
/// threads that are there need some for their buffers, 16 KiB for each direction of a busy tunnel; 8 MiB
/// are those of 250 tunnels, whose stacks take 250 MiB.
const SPARE: u64 = 8 * 1024 * 1024;

/// Whether there are addresses for one more thread with a stack of so many bytes. The system would give
/// the last ones, too, but a thread that has a stack and finds nothing for what else it needs at once
/// ends the process.
///
/// # Errors
///
/// When there are too few.
pub fn room_for(stack: usize) -> io::Result<()> {
    let Some(limit) = getrlimit(Resource::As).current else { return Ok(()) };
    let taken = usage::address_space().unwrap_or(0);
    if taken.saturating_add(stack as u64).saturating_add(SPARE) > limit {
        let message =
            format!("its stack has no room in {} KiB of addresses (ulimit -v)", limit / 1024);
        return Err(io::Error::other(message));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_there_is_no_limit_there_is_room() {
        if getrlimit(Resource::As).current.is_none() {
            assert!(room_for(usize::MAX).is_ok());
        }
    }
}
