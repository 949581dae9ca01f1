//! Clients that a stop finds in the backlog of a listener: they have connected, and nobody has
//! accepted them yet. They are served like all others, while nobody new gets in.

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::mem;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::listen::BACKLOG;
use crate::system::descriptors::{Descriptors, Reservation};

/// For the handshakes that are under way when the server stops: a client that has its answer counts
/// itself as connected, and its last segment is still to come. Round trips are shorter than this.
pub(super) const LAST_HANDSHAKES: Duration = Duration::from_millis(100);

/// A client that has been accepted, and where it is.
pub(super) type Accepted = (TcpStream, SocketAddr);

/// The clients that waited in the backlog when the server was stopped.
#[derive(Default)]
pub(super) struct Backlog(Mutex<VecDeque<(Accepted, Reservation)>>);

impl Backlog {
    /// Accepts those who wait at `listener`, as long as there are descriptors to spare. Whether that
    /// was all.
    pub(super) fn take(&self, listener: &TcpListener, descriptors: &Arc<Descriptors>) -> bool {
        if listener.set_nonblocking(true).is_err() {
            return true;
        }
        while self.len() < BACKLOG {
            let Some(held) = descriptors.try_reserve() else { return false };
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
    pub(super) fn next(&self) -> Option<Accepted> {
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

    fn lock(&self) -> MutexGuard<'_, VecDeque<(Accepted, Reservation)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
