//! Small messages to and fro: what a proxy adds to the time of an answer.

use std::io::{self, Read, Write};
use std::time::Duration;

use crate::backend::Backend;
use crate::contender::Running;
use crate::figure::{Better, Figure, Measure, of_client, of_proxy};
use crate::tunnel;
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
    let repeated = window::repeat(proxy, tunnels, timing, false, Duration::ZERO, |number| {
        let mut stream = tunnel::open(proxy.address, backend.echo(number))?;
        stream.set_nodelay(true)?;
        let mut message = [0x5a; 64];
        Ok(move || {
            stream.write_all(&message)?;
            stream.read_exact(&mut message)
        })
    })?;
    Ok(vec![
        (MEDIAN, repeated.percentile(0.5)),
        (TAIL, repeated.percentile(0.99)),
        (CPU, repeated.cpu()),
    ])
}
