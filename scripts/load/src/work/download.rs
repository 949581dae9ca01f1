//! One large file from an HTTP origin, its head and its end included.

use std::io;
use std::time::Instant;

use super::bulk::{CPU, THROUGHPUT};
use crate::backend::Backend;
use crate::contender::Running;
use crate::figure::{Figure, real};
use crate::{http, tunnel, window};

pub(crate) fn run(proxy: &Running, backend: &Backend, length: usize) -> io::Result<Vec<Figure>> {
    let (begun, cpu) = (Instant::now(), proxy.cpu()?);
    let target = backend.origin(0);
    let mut stream = tunnel::open(proxy.address, target)?;
    http::get(proxy.address, &mut stream, target, length, |_| {})?;
    let seconds = begun.elapsed().as_secs_f64();
    drop(stream);
    let cpu = window::at_rest(proxy)?.saturating_sub(cpu).as_secs_f64();
    let gigabytes = real(length) / 1e9;
    Ok(vec![(THROUGHPUT, gigabytes / seconds), (CPU, cpu / gigabytes)])
}
