//! As many octets as will go, one way.

use std::io::{self, Read, Write};

use crate::backend::Backend;
use crate::contender::Running;
use crate::digest::BLOCK;
use crate::figure::{Better, Figure, Measure, of_client, of_proxy, real};
use crate::tunnel;
use crate::window::{self, Timing};

pub(crate) const THROUGHPUT: Measure = of_client("GB/s", Better::Higher);
pub(crate) const CPU: Measure = of_proxy("proxy CPU s/GB");

/// Which way the octets go, as the client sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Way {
    Down,
    Up,
}

pub(crate) fn run(
    proxy: &Running,
    backend: &Backend,
    timing: Timing,
    way: Way,
    streams: usize,
) -> io::Result<Vec<Figure>> {
    let target = if way == Way::Down { backend.source() } else { backend.sink() };
    let outcome = window::run(proxy, streams, timing, false, |_, window| {
        let mut stream = tunnel::open(proxy.address, target)?;
        let mut block = vec![0x5a; BLOCK];
        let mut octets = 0;
        window.ready();
        while !window.is_over() {
            let length = match way {
                Way::Down => stream.read(&mut block)?,
                Way::Up => stream.write(&block)?,
            };
            if length == 0 {
                return Err(io::Error::other("the stream ended early"));
            }
            octets += if window.counts() { length } else { 0 };
        }
        Ok(octets)
    })?;
    let gigabytes = real(outcome.clients.iter().sum()) / 1e9;
    Ok(vec![(THROUGHPUT, gigabytes / outcome.seconds), (CPU, outcome.cpu / gigabytes)])
}
