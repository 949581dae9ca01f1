//! The registry of live sessions: who they are, what they have moved, and how long they may stay.

use std::collections::HashMap;
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::{SockRef, TcpKeepalive};

use crate::socks5::{Address, Command};
use crate::system::descriptors::{Descriptors, Held};

/// A peer that says nothing is asked after this time whether it is still there, and then again.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(120);
const KEEPALIVE_EVERY: Duration = Duration::from_secs(30);
const KEEPALIVE_PROBES: u32 = 4;

/// How many sessions one client may have, and how long a session may do nothing.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Sessions that one client address may have at once.
    pub per_client: usize,
    /// From the first octet of the greeting to the last of the request.
    pub handshake: Duration,
    /// Without an octet in either direction.
    pub idle: Duration,
}

/// Every live session of this process.
pub struct Sessions {
    limits: Limits,
    descriptors: Arc<Descriptors>,
    live: Mutex<Live>,
    /// Signalled when a session opens while the watch sleeps without a limit, and at the end.
    opened: Condvar,
}

#[derive(Default)]
struct Live {
    next: u64,
    entries: HashMap<u64, Entry>,
    clients: HashMap<IpAddr, usize>,
    watch_sleeps: bool,
    watch_ends: bool,
}

struct Entry {
    account: Arc<Account>,
    /// The octets that the watch saw moved, and when it first saw so many.
    seen: u64,
    since: Instant,
    /// The watch has seen it ended in an earlier round.
    told: bool,
}

/// More octets than any session moves: the watch has not seen it relaying yet.
const NEVER: u64 = u64::MAX;

/// One client has as many sessions as it may.
#[derive(Debug)]
pub struct TooMany {
    /// The limit that it is at.
    pub limit: usize,
}

impl Sessions {
    /// An empty registry of sessions that hold some of `descriptors`.
    #[must_use]
    pub fn new(limits: Limits, descriptors: Arc<Descriptors>) -> Arc<Self> {
        Arc::new(Sessions { limits, descriptors, live: Mutex::default(), opened: Condvar::new() })
    }

    /// Opens a session for the client at the far end of `stream`. It ends when it is dropped.
    ///
    /// # Errors
    ///
    /// [`TooMany`] when the client's address has as many sessions as it may.
    pub fn open(self: &Arc<Self>, peer: SocketAddr, stream: TcpStream) -> Result<Session, TooMany> {
        let now = Instant::now();
        let mut live = self.lock();
        let count = live.clients.entry(peer.ip()).or_default();
        if *count >= self.limits.per_client {
            return Err(TooMany { limit: self.limits.per_client });
        }
        *count += 1;
        let id = live.next;
        live.next += 1;
        let account = Arc::new(Account::new(id, peer, stream, now, self.descriptors.hold()));
        let entry = Entry { account: Arc::clone(&account), seen: NEVER, since: now, told: false };
        live.entries.insert(id, entry);
        if live.watch_sleeps {
            self.opened.notify_one();
        }
        Ok(Session { account, sessions: Arc::clone(self) })
    }

    /// Ends every live session.
    pub fn end_all(&self, ending: Ending) {
        for entry in self.lock().entries.values() {
            entry.account.end(ending);
        }
    }

    /// Ends sessions whose time is up, until [`Sessions::stop_watch`]. `each_round` is called about
    /// once a second while sessions live, and says how soon it has to be called again when none do.
    pub fn watch(&self, mut each_round: impl FnMut(Instant) -> Option<Duration>) {
        let mut live = self.lock();
        while !live.watch_ends {
            let now = Instant::now();
            let next = live.sweep(now, self.limits);
            drop(live);
            let again = each_round(now);
            live = self.lock();
            // A session that has opened meanwhile has its deadline after `next` or finds the watch
            // asleep and wakes it.
            live = match next {
                Some(next) => {
                    let pause = next.saturating_duration_since(Instant::now());
                    self.opened.wait_timeout(live, pause).unwrap_or_else(PoisonError::into_inner).0
                }
                None if live.entries.is_empty() && !live.watch_ends => {
                    live.watch_sleeps = true;
                    let mut live = match again {
                        None => self.opened.wait(live).unwrap_or_else(PoisonError::into_inner),
                        Some(again) => {
                            let woken = self.opened.wait_timeout(live, again);
                            woken.unwrap_or_else(PoisonError::into_inner).0
                        }
                    };
                    live.watch_sleeps = false;
                    live
                }
                None => live,
            };
        }
    }

    /// Makes [`Sessions::watch`] return.
    pub fn stop_watch(&self) {
        self.lock().watch_ends = true;
        self.opened.notify_one();
    }

    fn close(&self, account: &Account) {
        let mut live = self.lock();
        let entry = live.entries.remove(&account.id);
        let ip = account.client.ip();
        if let Some(count) = live.clients.get_mut(&ip) {
            *count -= 1;
            if *count == 0 {
                live.clients.remove(&ip);
            }
        }
        drop(live);
        drop(entry);
    }

    fn lock(&self) -> MutexGuard<'_, Live> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Live {
    /// Ends what has to end now, and says when to look again: `None` when nothing is live.
    fn sweep(&mut self, now: Instant, limits: Limits) -> Option<Instant> {
        let pause = (limits.idle.min(limits.handshake) / 8)
            .clamp(Duration::from_millis(10), Duration::from_secs(1));
        let mut next = now + pause;
        for entry in self.entries.values_mut() {
            let account = &entry.account;
            if account.ending().is_some() {
                if entry.told && account.is_writing() {
                    account.end_by_force();
                }
                entry.told = true;
                continue;
            }
            match account.stage() {
                Stage::Handshake => {
                    let deadline = account.opened + limits.handshake;
                    if now >= deadline {
                        account.end(Ending::HandshakeTimeout);
                    } else {
                        next = next.min(deadline);
                    }
                }
                Stage::Relay => {
                    let moved = account.up() + account.down();
                    if entry.seen == NEVER {
                        // Most sessions are over before anyone could miss their peers, and do
                        // without these system calls.
                        account.keep_alive();
                    }
                    if moved != entry.seen {
                        entry.seen = moved;
                        entry.since = now;
                    } else if now.duration_since(entry.since) >= limits.idle {
                        account.end(Ending::IdleTimeout);
                    } else if account.is_writing() {
                        account.end_if_reset();
                    }
                }
                // What happens here has a deadline of its own.
                Stage::Dial | Stage::Farewell => {}
            }
        }
        (!self.entries.is_empty()).then_some(next)
    }
}

/// A live session. It leaves the registry when it is dropped.
pub struct Session {
    account: Arc<Account>,
    sessions: Arc<Sessions>,
}

impl Session {
    /// The account, to be shared with a second thread.
    #[must_use]
    pub fn account(&self) -> &Arc<Account> {
        &self.account
    }
}

impl Deref for Session {
    type Target = Account;

    fn deref(&self) -> &Account {
        &self.account
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.sessions.close(&self.account);
    }
}

/// Where in its life a session is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Stage {
    /// Greeting to request, under one deadline.
    Handshake,
    /// Lookup and connection.
    Dial,
    /// Octets go both ways.
    Relay,
    /// The failing reply is on its way.
    Farewell,
}

/// Why a session ended before both sides had sent their end of file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The client's connection failed: usually the client reset it.
    ClientReset,
    /// The target's connection failed.
    TargetReset,
    /// Greeting and request took too long.
    HandshakeTimeout,
    /// Nothing moved for too long.
    IdleTimeout,
    /// The server stops.
    Stopped,
}

/// What a session's threads and those who watch it know together. It holds the session's two
/// descriptors: there are no others.
pub struct Account {
    id: u64,
    /// The client's address.
    pub client: SocketAddr,
    /// When the client was accepted.
    pub opened: Instant,
    stream: TcpStream,
    target: OnceLock<(TcpStream, SocketAddr)>,
    user: OnceLock<String>,
    request: OnceLock<(Command, Address)>,
    up: AtomicU64,
    down: AtomicU64,
    stage: AtomicU8,
    /// Directions that are in the middle of a write.
    writing: AtomicU8,
    ending: OnceLock<Ending>,
    /// The source's end of file has been passed on, from the client and from the target.
    up_ended: AtomicBool,
    down_ended: AtomicBool,
    forced: AtomicBool,
    held: Held,
}

impl Account {
    fn new(id: u64, client: SocketAddr, stream: TcpStream, opened: Instant, held: Held) -> Self {
        Account {
            id,
            client,
            opened,
            stream,
            target: OnceLock::new(),
            user: OnceLock::new(),
            request: OnceLock::new(),
            up: AtomicU64::new(0),
            down: AtomicU64::new(0),
            stage: AtomicU8::new(Stage::Handshake as u8),
            writing: AtomicU8::new(0),
            ending: OnceLock::new(),
            up_ended: AtomicBool::new(false),
            down_ended: AtomicBool::new(false),
            forced: AtomicBool::new(false),
            held,
        }
    }

    /// The client's connection.
    #[must_use]
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// The target's connection, once there is one.
    #[must_use]
    pub fn target(&self) -> Option<&TcpStream> {
        self.target.get().map(|(stream, _)| stream)
    }

    /// Those of the whole process.
    #[must_use]
    pub fn descriptors(&self) -> &Arc<Descriptors> {
        self.held.of()
    }

    /// The address that was reached, once one was.
    #[must_use]
    pub fn reached(&self) -> Option<SocketAddr> {
        self.target.get().map(|(_, address)| *address)
    }

    /// The name that the client has authenticated with, or failed to: one word of visible ASCII.
    #[must_use]
    pub fn user(&self) -> Option<&str> {
        self.user.get().map(String::as_str)
    }

    /// What the client asked for.
    #[must_use]
    pub fn request(&self) -> Option<&(Command, Address)> {
        self.request.get()
    }

    /// Octets from the client to its target.
    #[must_use]
    pub fn up(&self) -> u64 {
        self.up.load(Ordering::Relaxed)
    }

    /// Octets from the target to the client.
    #[must_use]
    pub fn down(&self) -> u64 {
        self.down.load(Ordering::Relaxed)
    }

    /// The counter behind [`Account::up`].
    #[must_use]
    pub fn up_counter(&self) -> &AtomicU64 {
        &self.up
    }

    /// The counter behind [`Account::down`].
    #[must_use]
    pub fn down_counter(&self) -> &AtomicU64 {
        &self.down
    }

    /// Set when the client's end of file is passed on to the target.
    #[must_use]
    pub fn up_ended(&self) -> &AtomicBool {
        &self.up_ended
    }

    /// Set when the target's end of file is passed on to the client.
    #[must_use]
    pub fn down_ended(&self) -> &AtomicBool {
        &self.down_ended
    }

    /// Notes who the client is, or says that it is; see [`crate::access::users::spelling`].
    pub fn identified(&self, user: &str) {
        let _ = self.user.set(user.into());
    }

    /// Notes what the client asks for.
    pub fn requested(&self, command: Command, destination: Address) {
        let _ = self.request.set((command, destination));
    }

    /// Takes the target's connection.
    pub fn connected(&self, target: TcpStream, address: SocketAddr) {
        let _ = self.target.set((target, address));
    }

    /// Notes that the next part of the session's life begins.
    pub fn enter(&self, stage: Stage) {
        self.stage.store(stage as u8, Ordering::Relaxed);
    }

    fn stage(&self) -> Stage {
        match self.stage.load(Ordering::Relaxed) {
            stage if stage == Stage::Handshake as u8 => Stage::Handshake,
            stage if stage == Stage::Dial as u8 => Stage::Dial,
            stage if stage == Stage::Relay as u8 => Stage::Relay,
            _ => Stage::Farewell,
        }
    }

    /// Runs `write` and lets the watch know of it: while a direction is blocked there, nobody reads
    /// from its source, and the watch looks out for a reset in its stead.
    pub fn while_writing<T>(&self, write: impl FnOnce() -> T) -> T {
        self.writing.fetch_add(1, Ordering::Relaxed);
        let written = write();
        self.writing.fetch_sub(1, Ordering::Relaxed);
        written
    }

    fn keep_alive(&self) {
        let keepalive = TcpKeepalive::new()
            .with_time(KEEPALIVE_AFTER)
            .with_interval(KEEPALIVE_EVERY)
            .with_retries(KEEPALIVE_PROBES);
        for stream in [Some(&self.stream), self.target()].into_iter().flatten() {
            let _ = SockRef::from(stream).set_tcp_keepalive(&keepalive);
        }
    }

    fn is_writing(&self) -> bool {
        self.writing.load(Ordering::Relaxed) > 0
    }

    fn end_if_reset(&self) {
        if is_reset(&self.stream) {
            self.end(Ending::ClientReset);
        } else if self.target().is_some_and(is_reset) {
            self.end(Ending::TargetReset);
        }
    }

    /// Why the session ended early, if it did.
    #[must_use]
    pub fn ending(&self) -> Option<Ending> {
        self.ending.get().copied()
    }

    /// Ends the session early. Whoever reads from it finds an end of file that is no clean one, and
    /// both ends of a tunnel will see a reset. Only the first ending counts.
    pub fn end(&self, ending: Ending) {
        if self.ending.set(ending).is_err() {
            return;
        }
        if let Some(target) = self.target() {
            reset_at_close(&self.stream);
            reset_at_close(target);
            // This wakes a reader and puts nothing on the wire.
            let _ = target.shutdown(Shutdown::Read);
        }
        let _ = self.stream.shutdown(Shutdown::Read);
    }

    /// Ends what [`Account::end`] could not: a thread that is blocked in a write. The end of file
    /// that this queues is behind octets that nobody takes, and the reset overtakes it.
    fn end_by_force(&self) {
        if !self.forced.swap(true, Ordering::Relaxed) {
            let _ = self.stream.shutdown(Shutdown::Both);
            if let Some(target) = self.target() {
                let _ = target.shutdown(Shutdown::Both);
            }
        }
    }
}

fn is_reset(stream: &TcpStream) -> bool {
    let mut ready = [PollFd::new(stream, PollFlags::ERR)];
    matches!(poll(&mut ready, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })), Ok(1..))
        && ready[0].revents().contains(PollFlags::ERR)
}

/// Makes closing `stream` send a reset, not an end of file.
fn reset_at_close(stream: &TcpStream) {
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;
    use std::thread;

    #[test]
    fn the_watch_comes_back_to_what_is_not_done_though_nobody_is_there() {
        let limits = Limits { per_client: 1, handshake: NEVER_HERE, idle: NEVER_HERE };
        let sessions = Sessions::new(limits, Descriptors::new(usize::MAX));
        let (sender, rounds) = channel();
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut left = 3;
                sessions.watch(|_| {
                    left -= 1;
                    sender.send(left).unwrap();
                    (left > 0).then_some(Duration::from_millis(10))
                });
            });
            for left in (0..3).rev() {
                assert_eq!(rounds.recv_timeout(NEVER_HERE), Ok(left));
            }
            assert!(rounds.recv_timeout(Duration::from_millis(100)).is_err(), "it sleeps now");
            sessions.stop_watch();
        });
    }

    /// Far longer than the test takes.
    const NEVER_HERE: Duration = Duration::from_secs(20);
}
