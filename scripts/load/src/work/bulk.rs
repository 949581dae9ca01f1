//! As many octets as will go, one way.

use std::io::{self, Read, Write};

use crate::backend::{BLOCK, Backend};
use crate::contender::Running;
use crate::figure::{Better, Figure, Measure, of_client, of_proxy};
use crate::socks;
use crate::window::{self, Outcome, Timing};

pub(crate) const THROUGHPUT: Measure = of_client("GB/s", Better::Higher);
pub(crate) const CPU: Measure = of_proxy("proxy CPU s/GB");

pub(crate) fn down(
    proxy: &Running,
    backend: &Backend,
    timing: Timing,
    streams: usize,
) -> io::Result<Vec<Figure>> {
    let outcome = window::run(proxy, streams, timing, false, |_, window| {
        let mut stream = socks::tunnel(proxy.address, backend.source())?;
        let mut block = vec![0; BLOCK];
        stream.read_exact(&mut block[..1])?;
        window.ready();
        let mut octets = 0;
        while !window.is_over() {
            let length = stream.read(&mut block)?;
            if length == 0 {
                return Err(io::Error::other("the stream ended early"));
            }
            octets += if window.counts() { length as u64 } else { 0 };
        }
        Ok(octets)
    })?;
    Ok(figures(&outcome))
}

pub(crate) fn up(
    proxy: &Running,
    backend: &Backend,
    timing: Timing,
    streams: usize,
) -> io::Result<Vec<Figure>> {
    let outcome = window::run(proxy, streams, timing, false, |_, window| {
        let mut stream = socks::tunnel(proxy.address, backend.sink())?;
        stream.set_write_timeout(Some(socks::PATIENCE))?;
        let block = vec![0x5a; BLOCK];
        window.ready();
        let mut octets = 0;
        while !window.is_over() {
            let length = stream.write(&block)?;
            octets += if window.counts() { length as u64 } else { 0 };
        }
        Ok(octets)
    })?;
    Ok(figures(&outcome))
}

fn figures(outcome: &Outcome<u64>) -> Vec<Figure> {
    #[expect(clippy::cast_precision_loss, reason = "far fewer octets than 2^53")]
    let gigabytes = outcome.clients.iter().sum::<u64>() as f64 / 1e9;
    vec![(THROUGHPUT, gigabytes / outcome.seconds), (CPU, outcome.cpu / gigabytes)]
}
