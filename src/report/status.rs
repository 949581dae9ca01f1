//! The status page, its numbers as JSON, the metrics and the state of health, over HTTP.
//!
//! ```text
//! /          the page                    visitors   connections: each within its limits
//! /sessions  the same as JSON            request    the head of a request, and what is asked for
//! /metrics   for Prometheus              handler    what is answered, made once for all who ask
//! /healthz   200, and 503 while draining response   the head of a response, and its body
//!                                        source     where the numbers come from
//!                                        history    bytes of each second, for the page's chart
//!                                        rates      what each client and each user moves
//! ```
//!
//! It shows, and changes nothing. Who is no client is dropped first and costs nobody anything. Each visitor
//! has a thread of its own, so that a slow one holds up nobody. There are at most 16 at once, each with a
//! limit on bytes and time; one more takes the place of one whose address has most, and no other machine has
//! more than 500 a second. The lists are made at most twice a second, however many visitors ask. So a
//! hostile visitor cannot slow the proxy, nor a health check.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use log::error;

use crate::system::waker::Waker;

mod handler;
mod history;
mod json;
mod rates;
mod request;
mod response;
mod source;
mod visitors;

pub use source::StatusSource;

use handler::StatusHandler;

/// The status page before anybody gets to see it: visitors wait.
pub struct Status {
    listener: Arc<TcpListener>,
}

impl Status {
    /// Listens on `address`. The error says which option and address are meant.
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(address).map_err(|error| {
            let is_in_use = error.kind() == io::ErrorKind::AddrInUse;
            let hint = if is_in_use { "; choose another port" } else { "" };
            let message = format!("--status cannot listen on {address}: {error}{hint}");
            io::Error::new(error.kind(), message)
        })?;
        Ok(listener.into())
    }

    /// The socket, for a process that takes over.
    pub fn listener(&self) -> Arc<TcpListener> {
        Arc::clone(&self.listener)
    }

    /// Where it listens.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves visitors, on threads of its own, until what is given back is dropped.
    pub fn start(self, source: StatusSource) -> io::Result<StatusServer> {
        let end = Arc::new(Waker::new()?);
        let handler = Arc::new(StatusHandler::new(source));
        let (its_end, its_handler) = (Arc::clone(&end), Arc::clone(&handler));
        let thread = thread::Builder::new().name("tabi status".into()).spawn(move || {
            if let Err(error) = visitors::serve(&self.listener, &its_end, &its_handler) {
                error!("the status page has ended: {error}");
            }
        })?;
        Ok(StatusServer { handler, end, thread: Some(thread) })
    }
}

impl From<TcpListener> for Status {
    /// One that listens already.
    fn from(listener: TcpListener) -> Self {
        Status { listener: Arc::new(listener) }
    }
}

/// The status page while it is served. Dropping it ends it.
pub struct StatusServer {
    handler: Arc<StatusHandler>,
    end: Arc<Waker>,
    thread: Option<JoinHandle<()>>,
}

impl StatusServer {
    /// No further client is accepted: the state of health says so.
    pub fn drain(&self) {
        self.handler.drain();
    }
}

impl Drop for StatusServer {
    fn drop(&mut self) {
        self.end.wake();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
