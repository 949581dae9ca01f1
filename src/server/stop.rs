//! The end of a server, and what its main thread waits for until then.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::listen::Listener;

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

pub(super) struct Stop {
    state: Mutex<State>,
    /// Signalled when the server is stopped, and when an entrance needs help.
    changed: Condvar,
}

struct State {
    /// `None` once the server is stopped.
    listeners: Option<Vec<Arc<Listener>>>,
    /// An entrance has no worker, for want of a thread.
    help_wanted: bool,
}

impl Stop {
    pub(super) fn new(listeners: Vec<Arc<Listener>>) -> Arc<Self> {
        let state = State { listeners: Some(listeners), help_wanted: false };
        Arc::new(Stop { state: Mutex::new(state), changed: Condvar::new() })
    }

    pub(super) fn stop(&self) {
        let listeners = self.lock().listeners.take();
        for listener in listeners.iter().flatten() {
            listener.stop();
        }
        self.changed.notify_all();
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.lock().listeners.is_none()
    }

    /// Waits for at most `limit`, and not beyond the end.
    pub(super) fn wait(&self, limit: Duration) {
        let state = self.lock();
        let _ = self.changed.wait_timeout_while(state, limit, |state| state.listeners.is_some());
    }

    /// Tells [`Stop::until_help_is_wanted`] that an entrance has no worker.
    pub(super) fn ask_for_help(&self) {
        self.lock().help_wanted = true;
        self.changed.notify_all();
    }

    /// Waits until an entrance has no worker. False once the server is stopped.
    pub(super) fn until_help_is_wanted(&self) -> bool {
        let mut state = self.lock();
        while state.listeners.is_some() && !state.help_wanted {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.help_wanted = false;
        state.listeners.is_some()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
