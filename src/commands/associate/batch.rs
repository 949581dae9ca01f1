//! Datagrams that were received together.
//!
//! Sending wakes the one who waits for the datagram. Where many are received before the first is
//! sent, the receiver finds them all in one go, and does not fall asleep after each.

use std::net::{SocketAddr, UdpSocket};

use rustix::buffer::spare_capacity;
use rustix::io::Errno;
use rustix::net::{RecvFlags, recvfrom};

use crate::wire::socks5::LONGEST_HEADER;

/// What precedes each datagram: space for the header that a reply gets.
pub(super) const HEADROOM: usize = LONGEST_HEADER;

/// No UDP datagram has more bytes.
const MAX_DATAGRAM: usize = 65_535;

/// A batch is full at so many datagrams, or at so many bytes.
const MAX_DATAGRAMS: usize = 32;
const MAX_BYTES: usize = 32 * 1024;

/// Datagrams of one socket, in the order in which they have come.
#[derive(Default)]
pub(super) struct Batch {
    /// Each datagram behind its headroom. Memory is taken at the first use, and only its touched
    /// pages count.
    bytes: Vec<u8>,
    received: Vec<Received>,
}

struct Received {
    from: SocketAddr,
    end: usize,
}

impl Batch {
    /// Takes what waits in `socket`, at most so many datagrams, in place of what was taken before.
    /// True if the peer to whom the socket is connected has said that nobody is there (ICMP, port
    /// unreachable).
    pub(super) fn receive(&mut self, socket: &UdpSocket, most: usize) -> bool {
        const CAPACITY: usize = MAX_BYTES + HEADROOM + MAX_DATAGRAM;
        self.bytes.clear();
        self.bytes.reserve_exact(CAPACITY);
        self.received.clear();
        let mut is_refused = false;
        for _ in 0..most.min(MAX_DATAGRAMS) {
            let start = self.bytes.len();
            self.bytes.resize(start + HEADROOM, 0);
            let from = recvfrom(socket, spare_capacity(&mut self.bytes), RecvFlags::DONTWAIT);
            let from = match from {
                Ok((_, _, from)) => from.and_then(|from| from.try_into().ok()),
                Err(Errno::AGAIN) => {
                    self.bytes.truncate(start);
                    break;
                }
                // An ICMP error about an earlier datagram. The next one may be fine.
                Err(error) => {
                    is_refused |= error == Errno::CONNREFUSED;
                    None
                }
            };
            match from {
                Some(from) => self.received.push(Received { from, end: self.bytes.len() }),
                None => self.bytes.truncate(start),
            }
            if self.bytes.len() > MAX_BYTES {
                break;
            }
        }
        is_refused
    }

    /// The datagrams: where each is from, and its bytes behind the headroom.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (SocketAddr, &mut [u8])> {
        let mut rest = self.bytes.as_mut_slice();
        let mut start = 0;
        self.received.iter().map(move |&Received { from, end }| {
            let (bytes, behind) = std::mem::take(&mut rest).split_at_mut(end - start);
            (rest, start) = (behind, end);
            (from, bytes)
        })
    }

    /// Gives the memory back.
    pub(super) fn release(&mut self) {
        *self = Batch::default();
    }

    /// Whether there is no memory to give back.
    pub(super) fn is_released(&self) -> bool {
        self.bytes.capacity() == 0
    }
}
