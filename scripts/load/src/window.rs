//! Clients that work at once, and the window of time in which what they do is counted.

use std::io;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::contender::Running;
use crate::figure::{percentile, real};

/// How long clients work before and while they are counted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timing {
    pub(crate) warmup: Duration,
    pub(crate) counted: Duration,
}

impl Timing {
    /// For a work that takes several turns in a round.
    pub(crate) fn short(self) -> Timing {
        Timing { warmup: self.warmup, counted: self.counted / 2 }
    }
}

const WARMUP: u8 = 0;
const COUNTED: u8 = 1;
const OVER: u8 = 2;

/// What a client sees of the window.
pub(crate) struct Window {
    phase: AtomicU8,
    ready: AtomicUsize,
}

impl Window {
    /// A client says that it has its tunnel, and that time may begin.
    pub(crate) fn ready(&self) {
        self.ready.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn counts(&self) -> bool {
        self.phase.load(Ordering::Relaxed) == COUNTED
    }

    pub(crate) fn is_over(&self) -> bool {
        self.phase.load(Ordering::Relaxed) == OVER
    }
}

/// What came of it.
pub(crate) struct Outcome<T> {
    /// What each client counted.
    pub(crate) clients: Vec<T>,
    pub(crate) seconds: f64,
    /// The proxy's processor time in the window, in seconds.
    pub(crate) cpu: f64,
}

/// Runs `job` in as many threads as there are clients, the number of the client its argument.
///
/// With `settle` the proxy's account is closed only when it has come to rest, because work that
/// clients no longer wait for belongs to what they did.
pub(crate) fn run<T: Send>(
    proxy: &Running,
    clients: usize,
    timing: Timing,
    settle: bool,
    job: impl Fn(usize, &Window) -> io::Result<T> + Sync,
) -> io::Result<Outcome<T>> {
    let window = Window { phase: AtomicU8::new(WARMUP), ready: AtomicUsize::new(0) };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..clients)
            .map(|number| {
                let (job, window) = (&job, &window);
                thread::Builder::new().spawn_scoped(scope, move || job(number, window))
            })
            .collect::<io::Result<_>>()
            .inspect_err(|_| window.phase.store(OVER, Ordering::Relaxed))?;
        // A client that fails ends before the window does, which ends the wait as well.
        while window.ready.load(Ordering::Relaxed) < clients
            && !workers.iter().any(thread::ScopedJoinHandle::is_finished)
        {
            thread::sleep(Duration::from_millis(1));
        }
        thread::sleep(timing.warmup);
        let before = proxy.cpu();
        let begun = Instant::now();
        window.phase.store(COUNTED, Ordering::Relaxed);
        thread::sleep(timing.counted);
        window.phase.store(OVER, Ordering::Relaxed);
        let seconds = begun.elapsed().as_secs_f64();
        let mut after = proxy.cpu();
        let results: Vec<_> = workers.into_iter().map(thread::ScopedJoinHandle::join).collect();
        if settle {
            after = at_rest(proxy);
        }
        let clients = results
            .into_iter()
            .map(|result| result.unwrap_or_else(|_| Err(io::Error::other("a client panicked"))))
            .collect::<io::Result<_>>()?;
        Ok(Outcome { clients, seconds, cpu: after?.saturating_sub(before?).as_secs_f64() })
    })
}

/// What came of a job that was done over and over.
pub(crate) struct Repeated {
    /// How long each took that was counted, in order.
    times: Vec<Duration>,
    seconds: f64,
    cpu: f64,
}

impl Repeated {
    /// How many in a second.
    pub(crate) fn rate(&self) -> f64 {
        real(self.times.len()) / self.seconds
    }

    /// The time in microseconds that such a share of them took at the most.
    pub(crate) fn percentile(&self, share: f64) -> f64 {
        percentile(&self.times, share) * 1e6
    }

    /// The proxy's processor time for each, in microseconds.
    pub(crate) fn cpu(&self) -> f64 {
        self.cpu * 1e6 / real(self.times.len())
    }
}

/// Has each client do the same over and over, at the soonest so long after it has begun the time
/// before: `job` gives back what that is, for the number of the client. What a step leaves is dropped
/// when its time has been taken.
pub(crate) fn repeat<Left, Step: FnMut() -> io::Result<Left>>(
    proxy: &Running,
    clients: usize,
    timing: Timing,
    settle: bool,
    every: Duration,
    job: impl Fn(usize) -> io::Result<Step> + Sync,
) -> io::Result<Repeated> {
    let outcome = run(proxy, clients, timing, settle, |number, window| {
        let mut step = job(number)?;
        let mut times = Vec::with_capacity(1 << 18);
        window.ready();
        // Clients take turns.
        let mut due = Instant::now() + every.mul_f64(real(number) / real(clients));
        while !window.is_over() {
            thread::sleep(due.saturating_duration_since(Instant::now()));
            let begun = Instant::now();
            due = begun.max(due + every);
            let _left = step()?;
            if window.counts() {
                times.push(begun.elapsed());
            }
        }
        Ok(times)
    })?;
    let mut times = outcome.clients.concat();
    times.sort_unstable();
    Ok(Repeated { times, seconds: outcome.seconds, cpu: outcome.cpu })
}

/// The proxy's processor time once it stands still, or after half a second where it does not.
pub(crate) fn at_rest(proxy: &Running) -> io::Result<Duration> {
    let mut last = proxy.cpu()?;
    for _ in 0..25 {
        thread::sleep(Duration::from_millis(20));
        let now = proxy.cpu()?;
        if now.saturating_sub(last) < Duration::from_micros(100) {
            return Ok(now);
        }
        last = now;
    }
    Ok(last)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Timing, repeat};
    use crate::contender::Running;

    #[test]
    fn clients_with_a_pace_begin_no_sooner() {
        let timing =
            Timing { warmup: Duration::from_millis(50), counted: Duration::from_millis(500) };
        let every = Duration::from_millis(10);
        let job = |_| Ok(|| Ok(()));
        let rate = |every| repeat(&Running::none(), 2, timing, false, every, job).unwrap().rate();
        let paced = rate(every);
        assert!((1.0..=210.0).contains(&paced), "{paced}");
        assert!(rate(Duration::ZERO) > 1000.0);
    }
}
