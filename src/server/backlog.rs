//! Clients that a stop finds in the backlog of a listener: they have connected, and nobody has
//! accepted them yet. They are served like all others, while nobody new gets in.

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::mem;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::listen::BACKLOG;
use crate::system::descriptors::{Descriptors, Held};

/// For the handshakes that are under way when the server stops: a client that has its answer counts
/// itself as connected, and its last segment is still to come. Round trips are shorter than this.
pub(super) const LAST_HANDSHAKES: Duration = Duration::from_millis(100);

/// A client that has been accepted, and where it is.
pub(super) type Client = (TcpStream, SocketAddr);

/// The clients that waited in the backlog when the server was stopped.
#[derive(Default)]
pub(super) struct Backlog(Mutex<VecDeque<(Client, Held)>>);

impl Backlog {
    /// Accepts those who wait at `listener`, as long as there are descriptors to spare. Whether that
    /// was all.
    pub(super) fn take(&self, listener: &TcpListener, descriptors: &Arc<Descriptors>) -> bool {
        if listener.set_nonblocking(true).is_err() {
            return true;
        }
        while self.len() < BACKLOG {
            let Some(held) = descriptors.spare() else { return false };
            match listener.accept() {
                Ok(client) => {
                    // Elsewhere what is accepted does not wait either where its listener does not.
                    #[cfg(not(target_os = "linux"))]
                    let _ = client.0.set_nonblocking(false);
                    self.lock().push_back((client, held));
                }
                Err(error) => match error.kind() {
                    ErrorKind::WouldBlock => return true,
                    ErrorKind::ConnectionAborted | ErrorKind::Interrupted => {}
                    _ => return false,
                },
            }
        }
        false
    }

    /// The one that has waited for longest.
    pub(super) fn next(&self) -> Option<Client> {
        self.lock().pop_front().map(|(client, _)| client)
    }

    pub(super) fn len(&self) -> usize {
        self.lock().len()
    }

    /// Closes them all. Says how many they were.
    pub(super) fn clear(&self) -> usize {
        let clients = mem::take(&mut *self.lock());
        clients.len()
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<(Client, Held)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes the system ignore those who begin to connect from now on. Who has begun already comes
/// through. Where the system cannot do that, clients get in until the listener is closed.
pub(super) fn let_nobody_begin(listener: &TcpListener) {
    #[cfg(target_os = "linux")]
    let _ = socket2::SockRef::from(listener).attach_filter(&linux::NO_FIRST_SEGMENT);
    #[cfg(not(target_os = "linux"))]
    let _ = listener;
}

#[cfg(target_os = "linux")]
mod linux {
    use socket2::SockFilter;

    /// Where a TCP segment has its flags, and those of the first segment of a connection: SYN
    /// without ACK (RFC 9293 section 3.1).
    const FLAGS: u32 = 13;
    const SYN: u32 = 0x02;
    const ACK: u32 = 0x10;

    /// A program for the kernel (`linux/filter.h`) that is run on every segment for the listener. It
    /// drops those that begin a connection.
    pub(super) const NO_FIRST_SEGMENT: [SockFilter; 5] = [
        // ldb [FLAGS]
        SockFilter::new(0x30, 0, 0, FLAGS),
        // and #SYN|ACK
        SockFilter::new(0x54, 0, 0, SYN | ACK),
        // jeq #SYN: the next one, or the one behind it
        SockFilter::new(0x15, 0, 1, SYN),
        // ret #0: none of its bytes
        SockFilter::new(0x06, 0, 0, 0),
        // ret #-1: all of its bytes
        SockFilter::new(0x06, 0, 0, u32::MAX),
    ];
}
