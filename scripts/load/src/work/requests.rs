//! HTTP requests at a steady rate, each on a connection of its own: what one costs.

use std::io;
use std::net::Ipv4Addr;
use std::time::Duration;

use super::connect::ADDRESSES;
use crate::backend::Backend;
use crate::contender::Running;
use crate::figure::{Better, Figure, Measure, of_client, of_proxy};
use crate::sockets::PATIENCE;
use crate::window::{self, Timing};
use crate::{http, tunnel};

const RATE: Measure = of_client("requests/s", Better::Higher);
const MEDIAN: Measure = of_client("p50 µs", Better::Lower);
const TAIL: Measure = of_client("p99 µs", Better::Lower);
pub(crate) const CPU: Measure = of_proxy("proxy CPU µs/request");

/// As many may be under way at once.
const CLIENTS: u32 = 16;

/// Octets of an answer.
const LENGTH: usize = 1024;

pub(crate) fn run(
    proxy: &Running,
    backend: &Backend,
    timing: Timing,
    per_second: u32,
) -> io::Result<Vec<Figure>> {
    let every = Duration::from_secs(1) * CLIENTS / per_second;
    let repeated = window::repeat(proxy, CLIENTS as usize, timing, true, every, |number| {
        let mut turn = number;
        Ok(move || {
            let client = Ipv4Addr::new(127, 0, 0, ADDRESSES[turn % ADDRESSES.len()]);
            let target = backend.origin(turn);
            turn += 1;
            let mut stream = tunnel::open_from(client, proxy.address, target.into(), PATIENCE)?;
            http::get(proxy.address, &mut stream, target, LENGTH, |_| {})?;
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
