//! Small messages to and fro: what a proxy adds to the time of an answer.

use std::io::{self, Read, Write};
use std::time::Instant;

use crate::backend::Backend;
use crate::contender::Running;
use crate::figure::{Better, Figure, Measure, of_client, of_proxy, percentile};
use crate::socks;
use crate::window::{self, Timing};

pub(crate) const MEDIAN: Measure = of_client("p50 µs", Better::Lower);
const TAIL: Measure = of_client("p99 µs", Better::Lower);
const CPU: Measure = of_proxy("proxy CPU µs/echo");

pub(crate) fn run(
    proxy: &Running,
    backend: &Backend,
    timing: Timing,
    tunnels: usize,
) -> io::Result<Vec<Figure>> {
    let outcome = window::run(proxy, tunnels, timing, false, |number, window| {
        let mut stream = socks::tunnel(proxy.address, backend.echo(number))?;
        stream.set_nodelay(true)?;
        let mut message = [0x5a; 64];
        let mut times = Vec::with_capacity(1 << 18);
        window.ready();
        while !window.is_over() {
            let begun = Instant::now();
            stream.write_all(&message)?;
            stream.read_exact(&mut message)?;
            if window.counts() {
                times.push(u32::try_from(begun.elapsed().as_nanos()).unwrap_or(u32::MAX));
            }
        }
        Ok(times)
    })?;
    let mut times = outcome.clients.concat();
    times.sort_unstable();
    #[expect(clippy::cast_precision_loss, reason = "far fewer echoes than 2^53")]
    let echoes = times.len() as f64;
    Ok(vec![
        (MEDIAN, percentile(&times, 0.5)),
        (TAIL, percentile(&times, 0.99)),
        (CPU, outcome.cpu * 1e6 / echoes),
    ])
}
