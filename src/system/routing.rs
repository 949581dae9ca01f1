//! What the kernel's routing tables say of an address: whether it is this machine's, and whether that may
//! have changed.

use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

#[cfg(target_os = "linux")]
mod netlink;
#[cfg(target_os = "linux")]
use netlink::{Notices, is_local_route};
#[cfg(not(target_os = "linux"))]
use nothing::{Notices, is_local_route};

/// How long what is known is believed where the kernel does not tell of changes.
const LASTS: Duration = Duration::from_secs(1);

/// Whether what goes to `ip` stays on this machine: it is one of its addresses, in a network that is routed
/// to itself, or the anycast address that all routers of a subnet have (RFC 4291 section 2.6.1). `None` if
/// the kernel does not tell.
pub fn is_local(ip: IpAddr) -> Option<bool> {
    is_local_route(ip.to_canonical())
}

/// Counts the changes of what is local.
#[derive(Debug)]
pub struct Changes {
    /// Where the kernel tells of them, if it does.
    notices: Option<Notices>,
    counted: AtomicUsize,
    begun: Instant,
}

impl Default for Changes {
    fn default() -> Self {
        Changes { notices: Notices::open(), counted: AtomicUsize::new(0), begun: Instant::now() }
    }
}

impl Changes {
    /// A higher number than before once something may have changed. Where the kernel does not tell, that is
    /// so each second.
    pub fn count(&self) -> usize {
        let Some(notices) = &self.notices else {
            let seconds = self.begun.elapsed().as_secs() / LASTS.as_secs();
            return usize::try_from(seconds).unwrap_or(usize::MAX);
        };
        if notices.have_come() {
            self.counted.fetch_add(1, Ordering::AcqRel);
        }
        self.counted.load(Ordering::Acquire)
    }
}

/// Systems whose kernel is not asked.
#[cfg(not(target_os = "linux"))]
mod nothing {
    #[derive(Debug)]
    pub(super) struct Notices;

    impl Notices {
        pub(super) fn open() -> Option<Self> {
            None
        }

        pub(super) fn have_come(&self) -> bool {
            true
        }
    }

    pub(super) fn is_local_route(_: std::net::IpAddr) -> Option<bool> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_notices_there_may_be_a_change_each_second() {
        let silent = Changes { notices: None, ..Changes::default() };
        assert_eq!(silent.count(), 0);
        let begun = silent.begun.checked_sub(LASTS).unwrap();
        assert_eq!(Changes { begun, ..silent }.count(), 1);
    }
}
