//! The whole cost of an idle tunnel: what the machine has less of, in the proxy and in the kernel.

use std::io;
use std::thread;
use std::time::{Duration, Instant};

use super::idle;
use crate::backend::Backend;
use crate::contender::{Contender, Running};
use crate::figure::{Better, Figure, Measure, of_client, of_proxy};
use crate::machine;

pub(crate) const PER_TUNNEL: Measure = of_proxy("MemAvailable, KiB/tunnel");
const WITHOUT: Measure = of_client("without the proxy, KiB/tunnel", Better::Lower);

/// The memory stands still when it changes by less than this, in octets, between two looks.
const STILL: f64 = 256.0 * 1024.0;
const LOOKS: Duration = Duration::from_millis(100);

/// So long is waited for that, lest other programs of the machine keep this one for ever.
const PATIENCE: Duration = Duration::from_secs(3);

/// Opens so many tunnels straight to their targets, then through the proxy. What they cost without
/// it, the ends of client and target, is not the proxy's and is left out of its figure.
///
/// The figure is the machine's: threads with their stacks in the kernel, sockets, page tables,
/// processes that were forked, whoever they belong to. Only a machine at rest gives it well.
pub(crate) fn run(
    contender: &Contender,
    backend: &Backend,
    tunnels: usize,
) -> io::Result<Vec<Figure>> {
    let nobody = Running::none();
    // What the back end and the kernel keep after the first time is taken before it counts.
    cost(&nobody, backend, tunnels)?;
    let without = cost(&nobody, backend, tunnels)?;
    if !contender.is_proxy() {
        return Ok(vec![(WITHOUT, without)]);
    }
    let with = cost(&contender.start()?, backend, tunnels)?;
    Ok(vec![(PER_TUNNEL, with - without), (WITHOUT, without)])
}

/// What the machine has less of while the tunnels are open, in KiB for each.
#[expect(clippy::cast_precision_loss, reason = "far fewer tunnels than 2^53")]
fn cost(proxy: &Running, backend: &Backend, tunnels: usize) -> io::Result<f64> {
    let before = at_rest()?;
    let open = idle::open_all(proxy, backend, tunnels)?;
    let after = at_rest()?;
    drop(open);
    Ok((before - after) / 1024.0 / tunnels as f64)
}

/// The available memory once it stands still.
fn at_rest() -> io::Result<f64> {
    let deadline = Instant::now() + PATIENCE;
    let mut last = machine::available()?;
    loop {
        thread::sleep(LOOKS);
        let now = machine::available()?;
        if (now - last).abs() < STILL || Instant::now() > deadline {
            return Ok(now);
        }
        last = now;
    }
}
