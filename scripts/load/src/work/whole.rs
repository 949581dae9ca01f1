//! The whole cost of an idle tunnel: what the machine has less of, in the proxy and in the kernel.

use std::io;
use std::thread;
use std::time::{Duration, Instant};

use super::idle;
use crate::backend::Backend;
use crate::contender::{Contender, Running};
use crate::figure::{Figure, Measure, of_proxy, real};
use crate::machine::{self, Memory};

pub(crate) const COUNTED: Measure = of_proxy("resident + kernel, KiB/tunnel");
const AVAILABLE: Measure = of_proxy("less MemAvailable, KiB/tunnel");

/// The memory stands still when it changes by less than this, in octets, between two looks.
const STILL: f64 = 256.0 * 1024.0;
const LOOKS: Duration = Duration::from_millis(100);

/// So long is waited for that, lest other programs of the machine keep this one for ever.
const PATIENCE: Duration = Duration::from_secs(3);

/// What tunnels cost without the proxy may differ by so many KiB between before and after. If it
/// does so more, other programs have taken or given back memory meanwhile.
const QUIET: f64 = 1.0;

/// Opens so many tunnels straight to their targets, then through the proxy, then straight again.
/// What they cost without it, the ends of client and target, is left out of the proxy's figures.
///
/// `MemAvailable` is what a program that starts next can have. The kernel counts as available what
/// it could reclaim, some of it sockets' memory that it cannot; and what any program takes or gives
/// back moves it. The other figure counts up what the proxy's processes hold and what the kernel
/// holds in stacks, page tables and objects, and stands on a busy machine, too.
pub(crate) fn run(
    contender: &Contender,
    backend: &Backend,
    tunnels: usize,
) -> io::Result<Vec<Figure>> {
    let nobody = Running::none();
    // What the back end and the kernel keep after the first time is taken before it counts.
    cost(&nobody, backend, tunnels)?;
    let before = cost(&nobody, backend, tunnels)?;
    let with = cost(&contender.start()?, backend, tunnels)?;
    let after = cost(&nobody, backend, tunnels)?;
    let without = f64::midpoint(before.counted, after.counted);
    let mut figures = vec![(COUNTED, with.counted - without)];
    let all_still = before.still && with.still && after.still;
    if all_still && (before.available - after.available).abs() < QUIET {
        let without = f64::midpoint(before.available, after.available);
        figures.push((AVAILABLE, with.available - without));
    } else {
        eprint!("  MemAvailable is moved by other programs;");
    }
    Ok(figures)
}

/// What one tunnel costs, in KiB.
struct Cost {
    available: f64,
    /// Resident in the proxy, and in the kernel.
    counted: f64,
    /// Whether the memory came to rest before and after.
    still: bool,
}

/// What the machine has less of while the tunnels are open.
fn cost(proxy: &Running, backend: &Backend, tunnels: usize) -> io::Result<Cost> {
    let (before, still_before) = at_rest()?;
    let resident_before = proxy.resident()?;
    let open = idle::open(proxy, backend, tunnels, true)?.tunnels;
    let (after, still_after) = at_rest()?;
    let resident = proxy.resident()? - resident_before;
    drop(open);
    let per_tunnel = |octets: f64| octets / 1024.0 / real(tunnels);
    Ok(Cost {
        available: per_tunnel(before.available - after.available),
        counted: per_tunnel(resident + after.kernel - before.kernel),
        still: still_before && still_after,
    })
}

/// The memory once it stands still, and whether it does.
fn at_rest() -> io::Result<(Memory, bool)> {
    let deadline = Instant::now() + PATIENCE;
    let mut last = machine::memory()?;
    loop {
        thread::sleep(LOOKS);
        let now = machine::memory()?;
        let still = (now.available - last.available).abs() < STILL
            && (now.kernel - last.kernel).abs() < STILL;
        if still || Instant::now() > deadline {
            return Ok((now, still));
        }
        last = now;
    }
}
