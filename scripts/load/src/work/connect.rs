//! New connections, each with one message and its echo, as fast as they will open.

use std::io::{self, Read, Write};
use std::net::Ipv4Addr;
use std::time::Duration;

use crate::backend::Backend;
use crate::contender::Running;
use crate::figure::{Better, Figure, Measure, of_client, of_proxy};
use crate::sockets::PATIENCE;
use crate::tunnel;
use crate::window::{self, Timing};

pub(crate) const RATE: Measure = of_client("conn/s", Better::Higher);
const MEDIAN: Measure = of_client("p50 µs", Better::Lower);
const TAIL: Measure = of_client("p99 µs", Better::Lower);
const CPU: Measure = of_proxy("proxy CPU µs/conn");

/// Clients come from this many addresses in turn, and go to all addresses of the back end, so that
/// ports of connections closed a moment ago are not in the way.
pub(super) const ADDRESSES: [u8; 4] = [101, 102, 103, 104];

pub(crate) fn run(
    proxy: &Running,
    backend: &Backend,
    timing: Timing,
    clients: usize,
) -> io::Result<Vec<Figure>> {
    let repeated = window::repeat(proxy, clients, timing, true, Duration::ZERO, |number| {
        let mut message = [0x5a; 64];
        // Clients start apart on the back end's addresses.
        let mut turn = number * 8;
        Ok(move || {
            let client = Ipv4Addr::new(127, 0, 0, ADDRESSES[turn % ADDRESSES.len()]);
            let target = backend.echo(turn).into();
            let mut stream = tunnel::open_from(client, proxy.address, target, PATIENCE)?;
            turn += 1;
            stream.write_all(&message)?;
            stream.read_exact(&mut message)?;
            Ok(stream)
        })
    })?;
    Ok(vec![
        (RATE, repeated.rate()),
        (MEDIAN, repeated.percentile(0.5)),
        (TAIL, repeated.percentile(0.99)),
        (CPU, repeated.cpu()),
    ])
}
