//! New connections, each with one message and its echo, as fast as they will open.

use std::io::{self, Read, Write};
use std::net::Ipv4Addr;
use std::time::Instant;

use crate::backend::Backend;
use crate::contender::Running;
use crate::figure::{Better, Figure, Measure, of_client, of_proxy, percentile};
use crate::socks;
use crate::window::{self, Timing};

pub(crate) const RATE: Measure = of_client("conn/s", Better::Higher);
const MEDIAN: Measure = of_client("p50 µs", Better::Lower);
const TAIL: Measure = of_client("p99 µs", Better::Lower);
const CPU: Measure = of_proxy("proxy CPU µs/conn");

/// Clients come from this many addresses in turn, and go to all addresses of the back end, so that
/// ports of connections closed a moment ago are not in the way.
const ADDRESSES: [u8; 4] = [101, 102, 103, 104];

pub(crate) fn run(
    proxy: &Running,
    backend: &Backend,
    timing: Timing,
    clients: usize,
) -> io::Result<Vec<Figure>> {
    let outcome = window::run(proxy, clients, timing, true, |number, window| {
        let mut times = Vec::with_capacity(1 << 16);
        let mut message = [0x5a; 64];
        // Clients start apart on the back end's addresses.
        let mut turn = number * 8;
        window.ready();
        while !window.is_over() {
            let begun = Instant::now();
            let client = Ipv4Addr::new(127, 0, 0, ADDRESSES[turn % ADDRESSES.len()]);
            let mut stream = socks::tunnel_from(client, proxy.address, backend.echo(turn))?;
            stream.write_all(&message)?;
            stream.read_exact(&mut message)?;
            if window.counts() {
                times.push(u32::try_from(begun.elapsed().as_nanos()).unwrap_or(u32::MAX));
            }
            turn += 1;
        }
        Ok(times)
    })?;
    let mut times = outcome.clients.concat();
    times.sort_unstable();
    #[expect(clippy::cast_precision_loss, reason = "far fewer connections than 2^53")]
    let connections = times.len() as f64;
    Ok(vec![
        (RATE, connections / outcome.seconds),
        (MEDIAN, percentile(&times, 0.5)),
        (TAIL, percentile(&times, 0.99)),
        (CPU, outcome.cpu * 1e6 / connections),
    ])
}
