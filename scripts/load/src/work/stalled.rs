//! A fast source and a reader that has stopped: what the proxy hoards.

use std::io::{self, Read};
use std::thread;
use std::time::Duration;

use crate::backend::Backend;
use crate::contender::Running;
use crate::digest::BLOCK;
use crate::figure::{Figure, Measure, of_proxy, real};
use crate::tunnel;

const PER_TUNNEL: Measure = of_proxy("resident KiB/tunnel");

/// Blocks read before the reader stops: 4 MiB, by when every proxy moves in bulk.
const BLOCKS: usize = 16;

pub(crate) fn run(proxy: &Running, backend: &Backend, tunnels: usize) -> io::Result<Vec<Figure>> {
    let before = proxy.resident()?;
    let mut stalled = Vec::new();
    let mut block = vec![0; BLOCK];
    for _ in 0..tunnels {
        let mut stream = tunnel::open(proxy.address, backend.source())?;
        for _ in 0..BLOCKS {
            stream.read_exact(&mut block)?;
        }
        stalled.push(stream);
    }
    // The source fills whatever there is to fill.
    thread::sleep(Duration::from_secs(1));
    let growth = (proxy.resident()? - before) / 1024.0 / real(tunnels);
    Ok(vec![(PER_TUNNEL, growth)])
}
