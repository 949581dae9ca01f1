//! Time. It stands still until it jumps to the end of a wait that has a limit, and any such wait
//! may come to its end at any moment: a thread may be late by any time. What never ends here is a
//! wait whose limit is [`FOREVER`], and, while [`stand_still`] says so, every wait: then a thread
//! that nobody wakes is a deadlock, which shuttle reports. [`SystemTime`] is the time outside.

use std::ops::{Add, Sub};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use shuttle::rand::{Rng, thread_rng};

pub use std::time::{Duration, SystemTime};

/// A limit that is never reached: 136 years.
pub const FOREVER: Duration = Duration::from_secs(1 << 32);

// These are std's: looking at the clock lets nobody else go first.
static NANOSECONDS: AtomicU64 = AtomicU64::new(0);
static STANDS_STILL: AtomicBool = AtomicBool::new(false);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Instant(Duration);

impl Instant {
    #[must_use]
    pub fn now() -> Self {
        Instant(Duration::from_nanos(NANOSECONDS.load(Ordering::SeqCst)))
    }

    #[must_use]
    pub fn duration_since(self, earlier: Instant) -> Duration {
        self.saturating_duration_since(earlier)
    }

    #[must_use]
    pub fn saturating_duration_since(self, earlier: Instant) -> Duration {
        self.0.saturating_sub(earlier.0)
    }

    #[must_use]
    pub fn checked_sub(self, less: Duration) -> Option<Self> {
        self.0.checked_sub(less).map(Instant)
    }

    #[must_use]
    pub fn elapsed(self) -> Duration {
        Instant::now().duration_since(self)
    }
}

impl Add<Duration> for Instant {
    type Output = Instant;

    fn add(self, more: Duration) -> Instant {
        Instant(self.0 + more)
    }
}

impl Sub<Duration> for Instant {
    type Output = Instant;

    fn sub(self, less: Duration) -> Instant {
        Instant(self.0 - less)
    }
}

/// Makes time stand still, or go on.
pub fn stand_still(stands: bool) {
    STANDS_STILL.store(stands, Ordering::SeqCst);
}

/// When a wait with this limit is over, if ever.
#[must_use]
pub fn deadline(limit: Duration) -> Option<Instant> {
    let ends = limit < FOREVER / 2 && !STANDS_STILL.load(Ordering::SeqCst);
    ends.then(|| Instant::now() + limit)
}

/// Whether it has become as late as `deadline`. It may.
#[must_use]
pub fn is_past(deadline: Instant) -> bool {
    let jumps = Instant::now() < deadline && thread_rng().gen_ratio(1, 4);
    if jumps {
        let nanoseconds = u64::try_from(deadline.0.as_nanos()).expect("it is less than 584 years");
        NANOSECONDS.fetch_max(nanoseconds, Ordering::SeqCst);
    }
    Instant::now() >= deadline
}
