//! From the stop to the last session: those who have connected are let in, all may finish, and who
//! has not finished in time is ended.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use log::{info, warn};

use super::acceptor::Acceptor;
use super::backlog::LAST_HANDSHAKES;
use super::counted;
use crate::sessions::{Ending, Sessions};

/// How long sessions may take to notice that they were ended.
const LAST_MOMENT: Duration = Duration::from_secs(3);

/// How often the log says how many are left.
const ROUND: Duration = Duration::from_secs(1);

/// Lets live sessions finish within `grace`, and those of clients that have connected before the end.
/// Then ends them.
pub(super) fn drain(sessions: &Sessions, entrances: &[Arc<Acceptor>], grace: Duration) {
    let end = Instant::now() + grace;
    thread::sleep(LAST_HANDSHAKES.min(grace));
    // Where there are places, they have them at once.
    let mut left = let_in(entrances, end.min(Instant::now() + LAST_HANDSHAKES)) + sessions.count();
    if left > 0 {
        let have = if left == 1 { "has" } else { "have" };
        let left = counted(left, "session");
        info!("stopping; {left} {have} {} s to finish", grace.as_secs_f32());
    }
    let mut told = left;
    while left > 0 && Instant::now() < end {
        let round = end.min(Instant::now() + ROUND);
        let waiting = let_in(entrances, round);
        left = waiting + sessions.wait_until_empty(round.saturating_duration_since(Instant::now()));
        if left != told {
            info!("{} left", counted(left, "session"));
            told = left;
        }
    }
    let without: usize = entrances.iter().map(|entrance| entrance.turn_away_the_last()).sum();
    sessions.close();
    if without > 0 {
        let clients = counted(without, "client");
        warn!("closed {clients} that had no place within the grace (--max-connections)");
    }
    let left = sessions.count();
    if left > 0 {
        warn!("the grace is over (--grace): ending {}", counted(left, "session"));
        sessions.end_all(Ending::Stopped);
        sessions.wait_until_empty(LAST_MOMENT);
    }
}

/// Lets in those who wait. Says how many still wait at `deadline`.
fn let_in(entrances: &[Arc<Acceptor>], deadline: Instant) -> usize {
    entrances.iter().map(|entrance| entrance.let_in_the_last(deadline)).sum()
}
