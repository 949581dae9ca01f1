//! The stop of a server, from whichever thread.

use std::mem;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use super::listen::Listener;
use crate::system::sync::{Condvar, Mutex};

/// Whether the server is stopped, and the means to stop it.
pub struct Stopper {
    state: Mutex<State>,
    stopped: Condvar,
    housekeeping: SyncSender<()>,
}

enum State {
    Serving(Vec<Arc<Listener>>),
    /// Another process accepts the clients now; sessions have all the time that they need, until the stop.
    TakenOver {
        is_stopped: bool,
    },
    Stopped,
}

impl Stopper {
    /// What wakes the housekeeping comes out of the second one.
    pub(super) fn new(listeners: Vec<Arc<Listener>>) -> (Arc<Self>, Receiver<()>) {
        let (housekeeping, wakes) = sync_channel(1);
        let state = Mutex::new(State::Serving(listeners));
        (Arc::new(Stopper { state, stopped: Condvar::default(), housekeeping }), wakes)
    }

    /// Lets nobody new in and makes [`Server::run`](super::Server::run) drain and return. It never
    /// waits.
    pub fn stop(&self) {
        let mut state = self.state.lock();
        let is_taken_over = matches!(*state, State::TakenOver { .. });
        let next =
            if is_taken_over { State::TakenOver { is_stopped: true } } else { State::Stopped };
        let before = mem::replace(&mut *state, next);
        drop(state);
        self.stopped.notify_all();
        self.wake_housekeeping();
        if let State::Serving(listeners) = before {
            listeners.iter().map(Arc::as_ref).for_each(Listener::stop);
        }
    }

    /// Leaves the listeners to another process. False if the server is stopped: they are not left.
    pub(super) fn hand_over(&self) -> bool {
        let mut state = self.state.lock();
        let State::Serving(listeners) = &mut *state else { return false };
        let listeners = mem::take(listeners);
        *state = State::TakenOver { is_stopped: false };
        drop(state);
        self.stopped.notify_all();
        listeners.iter().map(Arc::as_ref).for_each(Listener::leave);
        self.wake_housekeeping();
        true
    }

    /// Makes the housekeeping begin its next round now.
    pub(super) fn wake_housekeeping(&self) {
        // One that waits to begin is good for this wake, too.
        let _ = self.housekeeping.try_send(());
    }

    /// Whether this process accepts no further clients.
    pub(super) fn is_over(&self) -> bool {
        !matches!(*self.state.lock(), State::Serving(_))
    }

    /// Whether another process accepts the clients, and nobody has stopped this one since.
    pub(super) fn is_taken_over(&self) -> bool {
        matches!(*self.state.lock(), State::TakenOver { is_stopped: false })
    }

    /// Whether the listeners are another process's, also after the stop.
    pub(super) fn has_handed_over(&self) -> bool {
        matches!(*self.state.lock(), State::TakenOver { .. })
    }

    /// Waits for at most `limit`, and not beyond the stop.
    pub(super) fn pause(&self, limit: Duration) {
        let state = self.state.lock();
        if matches!(*state, State::Serving(_)) {
            drop(self.stopped.wait(state, Some(limit)));
        }
    }
}
