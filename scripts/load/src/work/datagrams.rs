//! Datagrams to and fro through UDP associations, several in flight in each.

use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream, UdpSocket};
use std::time::Duration;

use crate::backend::Backend;
use crate::contender::Running;
use crate::figure::{Better, Figure, Measure, of_client, of_proxy};
use crate::socks;
use crate::window::{self, Timing};

pub(crate) const RATE: Measure = of_client("echoes/s", Better::Higher);
const CPU: Measure = of_proxy("proxy CPU µs/echo");
const LOST: Measure = of_client("lost", Better::Lower);

/// Datagrams that are under way at any time.
const IN_FLIGHT: usize = 16;

/// A datagram that is not back by then is lost.
const TOO_LATE: Duration = Duration::from_millis(250);

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

/// An association, or without a proxy a socket and nothing more.
struct Association {
    /// The association lives as long as its connection.
    _control: Option<TcpStream>,
    socket: UdpSocket,
    /// The datagram to send, its header included.
    datagram: Vec<u8>,
}

impl Association {
    fn open(proxy: &Running, target: SocketAddrV4, size: usize) -> io::Result<Association> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        socket.set_read_timeout(Some(TOO_LATE))?;
        let Some(address) = proxy.address else {
            socket.connect(target)?;
            return Ok(Association { _control: None, socket, datagram: vec![0x5a; size] });
        };
        let mut control = TcpStream::connect(address)?;
        control.set_read_timeout(Some(socks::PATIENCE))?;
        let unknown = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0);
        let relay = socks::negotiate(&mut control, socks::ASSOCIATE, unknown)?;
        let host = if relay.ip().is_unspecified() { &Ipv4Addr::LOCALHOST } else { relay.ip() };
        socket.connect((*host, relay.port()))?;
        let mut datagram = vec![0x00, 0x00, 0x00, 0x01];
        datagram.extend_from_slice(&target.ip().octets());
        datagram.extend_from_slice(&target.port().to_be_bytes());
        datagram.resize(datagram.len() + size, 0x5a);
        Ok(Association { _control: Some(control), socket, datagram })
    }

    /// One datagram there and back, unchanged. The first may come before the proxy is ready for it.
    fn echo_once(&self) -> io::Result<()> {
        let mut answer = vec![0; self.datagram.len() + 1];
        for _ in 0..8 {
            self.socket.send(&self.datagram)?;
            match self.socket.recv(&mut answer) {
                Ok(length) if answer[..length] == self.datagram => return Ok(()),
                Ok(_) => return Err(io::Error::other("a datagram came back changed")),
                Err(_) => {}
            }
        }
        Err(io::Error::other("no datagram came back"))
    }
}
