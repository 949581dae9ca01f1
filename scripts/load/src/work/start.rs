//! The process itself: how soon it serves, and what it holds before anyone has come.

use std::io;

use crate::contender::Contender;
use crate::figure::{Figure, Measure, of_proxy};

const READY: Measure = of_proxy("ready, ms");
const RESIDENT: Measure = of_proxy("resident MiB");

pub(crate) fn run(contender: &Contender) -> io::Result<Vec<Figure>> {
    let ready = contender.time_to_accept()?;
    let resident = contender.resident_untouched()?;
    Ok(vec![(READY, ready.as_secs_f64() * 1e3), (RESIDENT, resident / 1024.0 / 1024.0)])
}
