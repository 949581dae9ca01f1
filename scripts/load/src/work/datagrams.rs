//! Datagrams to and fro through UDP associations, several in flight in each.

use std::io::{self, ErrorKind};

use crate::association::Association;
use crate::backend::Backend;
use crate::contender::Running;
use crate::figure::{Better, Figure, Measure, of_client, of_proxy};
use crate::window::{self, Timing};

pub(crate) const RATE: Measure = of_client("echoes/s", Better::Higher);
const CPU: Measure = of_proxy("proxy CPU µs/echo");
const LOST: Measure = of_client("lost", Better::Lower);

/// Datagrams that are under way at any time.
const IN_FLIGHT: usize = 16;

pub(crate) fn run(
    proxy: &Running,
    backend: &Backend,
    timing: Timing,
    associations: usize,
    size: usize,
) -> io::Result<Vec<Figure>> {
    let outcome = window::run(proxy, associations, timing, false, |_, window| {
        let association = Association::open(proxy, backend.datagrams(), size)?;
        association.echo_once()?;
        window.ready();
        let mut answer = vec![0; association.datagram.len() + 1];
        let (mut echoes, mut lost, mut in_flight) = (0_u32, 0_u32, 0);
        while !window.is_over() {
            while in_flight < IN_FLIGHT {
                association.socket.send(&association.datagram)?;
                in_flight += 1;
            }
            match association.socket.recv(&mut answer) {
                Ok(length) if length == association.datagram.len() => {
                    in_flight = in_flight.saturating_sub(1);
                    echoes += u32::from(window.counts());
                }
                Ok(length) => return Err(io::Error::other(format!("an echo of {length} octets"))),
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) =>
                {
                    lost += u32::try_from(in_flight).unwrap_or_default();
                    in_flight = 0;
                }
                Err(error) => return Err(error),
            }
        }
        Ok((echoes, lost))
    })?;
    let echoes = f64::from(outcome.clients.iter().map(|(echoes, _)| echoes).sum::<u32>());
    let lost = f64::from(outcome.clients.iter().map(|(_, lost)| lost).sum::<u32>());
    if echoes == 0.0 {
        return Err(io::Error::other("no datagram came back"));
    }
    Ok(vec![(RATE, echoes / outcome.seconds), (LOST, lost), (CPU, outcome.cpu * 1e6 / echoes)])
}
