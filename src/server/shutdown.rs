//! From the stop to the last session: those who have connected are let in, all may finish, and who has
//! not finished in time is ended.
//!
//! What it takes to lose no connection that was there before the stop. Connections lost in 100 stops,
//! with 16 clients that connect again and again over a network with a round trip of 20 ms (on loopback,
//! and so with the script `starts`, a handshake is never under way):
//!
//! | | lost |
//! |---|---|
//! | all of it | 0 |
//! | without the pause for the last handshakes | 700 |
//! | without the filter of the listener: some handshake is always under way | 400 |
//! | without what is taken out of the backlog, where 4 connections are allowed | 350 |

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use log::{info, warn};

use super::accept::Acceptor;
use crate::sessions::{Ending, Sessions};
use crate::system::deadline::Deadline;

/// For the handshakes that are under way when the server stops: a client that has its answer counts
/// itself as connected, and its last segment is still to come. Round trips are shorter than this.
const LAST_HANDSHAKES: Duration = Duration::from_millis(100);

/// How long sessions may take to notice that they were ended.
const LAST_MOMENT: Duration = Duration::from_secs(3);

/// How often the log says how many are left.
const ROUND: Duration = Duration::from_secs(1);

/// Lets live sessions finish within `grace`, and those of clients that have connected before the end.
/// Then ends them.
pub(super) fn drain(sessions: &Sessions, acceptors: &[Arc<Acceptor>], grace: Duration) {
    let drain_backlogs = |limit: Deadline| -> usize {
        acceptors.iter().map(|acceptor| acceptor.drain_backlog(limit)).sum()
    };
    let end = Deadline::after(grace);
    thread::sleep(LAST_HANDSHAKES.min(grace));
    // Where there are places, they have them at once.
    let mut left = drain_backlogs(end.min(Deadline::after(LAST_HANDSHAKES))) + sessions.count();
    if left > 0 {
        let have = if left == 1 { "has" } else { "have" };
        let left = counted(left, "session");
        info!("stopping; {left} {have} {} s to finish", grace.as_secs_f32());
    }
    let mut logged = left;
    while left > 0 && !end.has_passed() {
        let round = end.min(Deadline::after(ROUND));
        let waiting = drain_backlogs(round);
        left = waiting + sessions.wait_until_empty(round.left().unwrap_or_default());
        if left != logged {
            info!("{} left", counted(left, "session"));
            logged = left;
        }
    }
    let without_place: usize = acceptors.iter().map(|acceptor| acceptor.close_all()).sum();
    sessions.close();
    if without_place > 0 {
        let clients = counted(without_place, "client");
        warn!("closed {clients} that had no place within the grace (--max-connections)");
    }
    let left = sessions.count();
    if left > 0 {
        warn!("the grace is over (--grace): ending {}", counted(left, "session"));
        sessions.end_all(Ending::Stopped);
        sessions.wait_until_empty(LAST_MOMENT);
    }
}

/// So many of `one`, in words.
pub(super) fn counted(count: usize, one: &str) -> String {
    format!("{count} {one}{}", if count == 1 { "" } else { "s" })
}
