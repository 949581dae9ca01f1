//! The status page, its numbers as JSON, the metrics and the state of health, over HTTP.
//!
//! ```text
//! /          the page                    visitors   connections: each within its limits
//! /sessions  the same as JSON            request    the head of a request, and what is asked for
//! /metrics   for Prometheus              answer     the head of an answer, and its body
//! /healthz   200, and 503 while draining history    bytes of each second, for the page's chart
//! ```
//!
//! It shows, and changes nothing. One thread serves all visitors and never waits for one of them.
//! There are at most 16 at once, each with a limit on bytes and time, and the lists are made at most
//! twice a second, however many visitors ask. So a hostile visitor cannot slow the proxy.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use log::error;

use super::{Lookups, Metrics};
use crate::sessions::Sessions;
use crate::system::waker::Waker;

mod answer;
mod connections;
mod handler;
mod history;
mod json;
mod request;

use handler::StatusHandler;

/// What is shown.
pub struct StatusSource {
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// The live sessions.
    pub sessions: Arc<Sessions>,
    /// Threads that there may be at once.
    pub max_threads: usize,
    /// Descriptors that there may be at once.
    pub max_fds: usize,
    /// Asks how many names were looked up.
    pub lookups: Box<dyn Fn() -> Lookups + Send>,
}

/// The status page before anybody gets to see it: visitors wait.
pub struct Status {
    listener: TcpListener,
}

impl Status {
    /// Listens on `address`.
    ///
    /// # Errors
    ///
    /// The error of `bind(2)`, with the option and the address.
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(address).and_then(|listener| {
            listener.set_nonblocking(true)?;
            Ok(listener)
        });
        let told = |error: io::Error| {
            let hint = match error.kind() {
                io::ErrorKind::AddrInUse => "; choose another port",
                _ => "",
            };
            let told = format!("--status cannot listen on {address}: {error}{hint}");
            io::Error::new(error.kind(), told)
        };
        Ok(Status { listener: listener.map_err(told)? })
    }

    /// Where it listens.
    ///
    /// # Errors
    ///
    /// The error of `getsockname(2)`.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves visitors, on a thread of its own, until what is given back is dropped.
    ///
    /// # Errors
    ///
    /// When the system refuses a thread or a descriptor.
    pub fn start(self, shown: StatusSource) -> io::Result<Serving> {
        let end = Arc::new(Waker::new()?);
        let ended = Arc::clone(&end);
        let draining = Arc::new(AtomicBool::new(false));
        let desk = StatusHandler::new(shown, Arc::clone(&draining));
        let thread = thread::Builder::new().name("tabi status".into()).spawn(move || {
            if let Err(error) = connections::serve(&self.listener, &ended, desk) {
                error!("the status page has ended: {error}");
            }
        })?;
        Ok(Serving { draining, end, thread: Some(thread) })
    }
}

/// The status page while it is served. Dropping it ends it.
pub struct Serving {
    draining: Arc<AtomicBool>,
    end: Arc<Waker>,
    thread: Option<JoinHandle<()>>,
}

impl Serving {
    /// No further client is accepted: the state of health says so.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.end.wake();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Whether a visitor with this address gets to see anything: this machine and its neighbours.
fn may_visit(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => ip.is_loopback() || ip.is_private() || ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_and_its_neighbours_may_visit() {
        let may = |ip: &str| may_visit(ip.parse().unwrap());
        for ip in ["127.0.0.1", "::1", "10.1.2.3", "192.168.0.1", "172.31.0.1", "169.254.1.1"] {
            assert!(may(ip), "{ip}");
        }
        for ip in ["fe80::1", "fd00::1", "::ffff:10.0.0.1"] {
            assert!(may(ip), "{ip}");
        }
        for ip in ["8.8.8.8", "100.64.0.1", "172.32.0.1", "2001:db8::1", "::", "::ffff:8.8.8.8"] {
            assert!(!may(ip), "{ip}");
        }
    }
}
