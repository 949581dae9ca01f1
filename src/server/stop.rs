//! The stop of a server, from whichever thread.

use std::sync::Arc;
use std::time::Duration;

use super::listen::Listener;
use crate::system::sync::{Condvar, Mutex};

/// Stops a server. Every clone stops the same one.
#[derive(Clone)]
pub struct Stopper(pub(super) Arc<Stop>);

impl Stopper {
    /// Lets nobody new in and makes [`Server::run`](super::Server::run) drain and return. It never
    /// waits.
    pub fn stop(&self) {
        self.0.stop();
    }
}

/// Whether the server is stopped.
pub(super) struct Stop {
    /// `None` once it is.
    listeners: Mutex<Option<Vec<Arc<Listener>>>>,
    stopped: Condvar,
}

impl Stop {
    pub(super) fn new(listeners: Vec<Arc<Listener>>) -> Arc<Self> {
        Arc::new(Stop { listeners: Mutex::new(Some(listeners)), stopped: Condvar::default() })
    }

    pub(super) fn stop(&self) {
        let listeners = self.listeners.lock().take();
        for listener in listeners.iter().flatten() {
            listener.stop();
        }
        self.stopped.notify_all();
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.listeners.lock().is_none()
    }

    /// Waits until the server is stopped.
    pub(super) fn wait(&self) {
        let mut listeners = self.listeners.lock();
        while listeners.is_some() {
            listeners = self.stopped.wait(listeners, None);
        }
    }

    /// Waits for at most `limit`, and not beyond the stop.
    pub(super) fn pause(&self, limit: Duration) {
        let listeners = self.listeners.lock();
        if listeners.is_some() {
            drop(self.stopped.wait(listeners, Some(limit)));
        }
    }
}
