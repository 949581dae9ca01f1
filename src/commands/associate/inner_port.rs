//! The ports at which associations take their clients' datagrams, those of other processes of this server
//! among them.
//!
//! Nobody sends there through an association of its own: what comes from this machine is taken for that of a
//! client on this machine, or of one behind a proxy that runs here.

use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};

/// How many associations have each port: those at other addresses may have the same one.
static LIVE: [AtomicU16; 1 << 16] = [const { AtomicU16::new(0) }; 1 << 16];

/// Whether an association of another process has it.
static ELSEWHERE: [AtomicBool; 1 << 16] = [const { AtomicBool::new(false) }; 1 << 16];

/// The port of an association, for as long as it lives.
pub(crate) struct InnerPort(u16);

impl InnerPort {
    pub(super) fn new(port: u16) -> Self {
        LIVE[usize::from(port)].fetch_add(1, Ordering::Relaxed);
        InnerPort(port)
    }

    /// Every port that an association of this process has.
    pub(crate) fn all_here() -> impl Iterator<Item = u16> {
        (0..=u16::MAX).filter(|port| LIVE[usize::from(*port)].load(Ordering::Relaxed) > 0)
    }

    /// From now on the associations of other processes have these.
    pub(crate) fn set_elsewhere(ports: &[u16]) {
        let mut held = vec![false; ELSEWHERE.len()];
        for port in ports {
            held[usize::from(*port)] = true;
        }
        ELSEWHERE.iter().zip(held).for_each(|(port, held)| port.store(held, Ordering::Relaxed));
    }

    /// Whether an association has this port, at whichever address.
    pub(super) fn is_live(port: u16) -> bool {
        let port = usize::from(port);
        LIVE[port].load(Ordering::Relaxed) > 0 || ELSEWHERE[port].load(Ordering::Relaxed)
    }
}

impl Drop for InnerPort {
    fn drop(&mut self) {
        LIVE[usize::from(self.0)].fetch_sub(1, Ordering::Relaxed);
    }
}
