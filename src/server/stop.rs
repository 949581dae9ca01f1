//! The stop of a server, from whichever thread.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use super::listen::Listener;
use crate::system::sync::{Condvar, Mutex};

/// Whether the server is stopped, and the means to stop it.
pub struct Stopper {
    /// `None` once it is.
    listeners: Mutex<Option<Vec<Arc<Listener>>>>,
    stopped: Condvar,
    housekeeping: SyncSender<()>,
}

impl Stopper {
    /// What wakes the housekeeping comes out of the second one.
    pub(super) fn new(listeners: Vec<Arc<Listener>>) -> (Arc<Self>, Receiver<()>) {
        let (housekeeping, wakes) = sync_channel(1);
        let listeners = Mutex::new(Some(listeners));
        (Arc::new(Stopper { listeners, stopped: Condvar::default(), housekeeping }), wakes)
    }

    /// Lets nobody new in and makes [`Server::run`](super::Server::run) drain and return. It never
    /// waits.
    pub fn stop(&self) {
        let listeners = self.listeners.lock().take();
        for listener in listeners.iter().flatten() {
            listener.stop();
        }
        self.stopped.notify_all();
        self.wake_housekeeping();
    }

    /// Makes the housekeeping begin its next round now.
    pub(super) fn wake_housekeeping(&self) {
        // One that waits to begin is good for this wake, too.
        let _ = self.housekeeping.try_send(());
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.listeners.lock().is_none()
    }

    /// Waits for at most `limit`, and not beyond the stop.
    pub(super) fn pause(&self, limit: Duration) {
        let listeners = self.listeners.lock();
        if listeners.is_some() {
            drop(self.stopped.wait(listeners, Some(limit)));
        }
    }
}
