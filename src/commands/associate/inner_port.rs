//! The ports at which associations take their clients' datagrams, those of earlier processes among them.
//!
//! Nobody sends there through an association of its own: what comes from this machine is taken for that of a
//! client on this machine, or of one behind a proxy that runs here.

use std::sync::atomic::{AtomicU16, Ordering};

/// How many associations have each port: those at other addresses may have the same one.
static LIVE: [AtomicU16; 1 << 16] = [const { AtomicU16::new(0) }; 1 << 16];

/// The port of an association, for as long as it lives.
pub(crate) struct InnerPort(u16);

impl InnerPort {
    pub(crate) fn new(port: u16) -> Self {
        LIVE[usize::from(port)].fetch_add(1, Ordering::Relaxed);
        InnerPort(port)
    }

    /// Every port that an association has.
    pub(crate) fn all_live() -> impl Iterator<Item = u16> {
        (0..=u16::MAX).filter(|port| Self::is_live(*port))
    }

    /// Whether an association has this port, at whichever address.
    pub(super) fn is_live(port: u16) -> bool {
        LIVE[usize::from(port)].load(Ordering::Relaxed) > 0
    }
}

impl Drop for InnerPort {
    fn drop(&mut self) {
        LIVE[usize::from(self.0)].fetch_sub(1, Ordering::Relaxed);
    }
}
