//! Many UDP associations at once, each of which echoes.

use std::io;
use std::thread;
use std::time::{Duration, Instant};

use crate::association::Association;
use crate::backend::Backend;
use crate::contender::Running;
use crate::figure::{Better, Figure, Measure, of_client, of_proxy, real};

const TIME: Measure = of_client("time to open, s", Better::Lower);
const CPU: Measure = of_proxy("proxy CPU µs/association");
const RESIDENT: Measure = of_proxy("resident MiB");
const PER_ASSOCIATION: Measure = of_proxy("resident KiB/association");

/// Octets in a datagram.
const SIZE: usize = 64;

/// Opens them one after another, each with an echo, and has every one echo again at the end.
pub(crate) fn run(
    proxy: &Running,
    backend: &Backend,
    associations: usize,
) -> io::Result<Vec<Figure>> {
    let (resident, cpu) = (proxy.resident()?, proxy.cpu()?);
    let begun = Instant::now();
    let mut open = Vec::new();
    for _ in 0..associations {
        let association = Association::open(proxy, backend.datagrams(), SIZE)
            .and_then(|association| association.echo_once().map(|()| association))
            .map_err(|error| {
                let count = open.len();
                io::Error::other(format!("{count} of {associations} associations, then: {error}"))
            })?;
        open.push(association);
    }
    let time = begun.elapsed();
    thread::sleep(Duration::from_millis(500));
    let (resident_then, cpu_then) = (proxy.resident()?, proxy.cpu()?);
    for association in &open {
        association.echo_once()?;
    }
    let count = real(associations);
    Ok(vec![
        (TIME, time.as_secs_f64()),
        (CPU, cpu_then.saturating_sub(cpu).as_secs_f64() * 1e6 / count),
        (RESIDENT, resident_then / 1024.0 / 1024.0),
        (PER_ASSOCIATION, (resident_then - resident) / 1024.0 / count),
    ])
}
