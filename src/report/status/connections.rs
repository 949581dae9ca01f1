//! The visitors: one thread serves them all, and waits for none of them.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use log::debug;
use rustix::event::{PollFd, PollFlags};

use super::answer::Answer;
use super::handler::StatusHandler;
use super::may_visit;
use super::request::LONGEST_HEAD;
use crate::system::poll::poll;
use crate::system::waker::Waker;

/// Connections at once. One more takes the place of the one who has been there for longest.
const MOST: usize = 16;

/// How long a visitor may take for its request, and then to read the answer.
const ASKING: Duration = Duration::from_secs(5);
const READING: Duration = Duration::from_secs(15);

/// How long the end of an answer may take to arrive. Closing at once on a visitor who has sent more
/// than was read would be a reset, and the answer would be lost.
const LEAVING: Duration = Duration::from_secs(1);

/// Connections that are let in within a tenth of a second: ten open pages and some more need one.
const AT_ONCE: u32 = 10;
const A_WHILE: Duration = Duration::from_millis(100);

/// Serves whoever comes, until `end` is rung.
///
/// # Errors
///
/// The error of `poll(2)`.
pub(super) fn serve(
    listener: &TcpListener,
    end: &Waker,
    mut desk: StatusHandler,
) -> io::Result<()> {
    let mut visitors: Vec<HttpConnection> = Vec::with_capacity(MOST);
    let mut door = BindListener { since: Instant::now(), let_in: 0 };
    loop {
        let now = Instant::now();
        let next = [desk.tick(now), door.opens(now)].into_iter();
        let next = next.chain(visitors.iter().map(|visitor| visitor.until)).min();
        let pause = next.map_or(A_WHILE, |next| next.saturating_duration_since(now));
        let is_open = door.is_open(now);
        let ready = wait(listener, is_open, end, &visitors, pause)?;
        let now = Instant::now();
        if ready.end {
            return Ok(());
        }
        for index in (0..visitors.len()).rev() {
            let stays = !ready.visitors[index] || visitors[index].go_on(&mut desk, now);
            if !stays || now >= visitors[index].until {
                visitors.remove(index);
            }
        }
        if ready.listener && is_open {
            door.let_in += 1;
            if let Some(visitor) = take_in(listener, now) {
                if visitors.len() >= MOST {
                    visitors.remove(0);
                }
                visitors.push(visitor);
            }
        }
    }
}

/// Keeps a crowd from taking a core for itself.
struct BindListener {
    since: Instant,
    let_in: u32,
}

impl BindListener {
    fn is_open(&mut self, now: Instant) -> bool {
        if now >= self.since + A_WHILE {
            *self = BindListener { since: now, let_in: 0 };
        }
        self.let_in < AT_ONCE
    }

    /// When it opens, if it is closed.
    fn opens(&self, now: Instant) -> Instant {
        if self.let_in < AT_ONCE { now + LEAVING } else { self.since + A_WHILE }
    }
}

/// Who has something to say.
struct Ready {
    end: bool,
    listener: bool,
    visitors: Vec<bool>,
}

fn wait(
    listener: &TcpListener,
    is_open: bool,
    end: &Waker,
    visitors: &[HttpConnection],
    pause: Duration,
) -> io::Result<Ready> {
    let waits_at_door = if is_open { PollFlags::IN } else { PollFlags::empty() };
    let mut polled = Vec::with_capacity(2 + MOST);
    polled.push(PollFd::new(end, PollFlags::IN));
    polled.push(PollFd::new(listener, waits_at_door));
    polled.extend(visitors.iter().map(|visitor| PollFd::new(&visitor.stream, visitor.awaits())));
    poll(&mut polled, pause)?;
    let mut ready = polled.iter().map(|polled| !polled.revents().is_empty());
    let (end, listener) = (ready.next() == Some(true), ready.next() == Some(true));
    Ok(Ready { end, listener, visitors: ready.collect() })
}

/// Takes the next visitor in, if it is one that may come.
fn take_in(listener: &TcpListener, now: Instant) -> Option<HttpConnection> {
    let (stream, peer) = listener.accept().ok()?;
    if !may_visit(peer.ip()) {
        debug!("turned away a visitor of the status page client={peer}: no private address");
        return None;
    }
    stream.set_nonblocking(true).ok()?;
    let phase = Phase::Asking(Vec::new());
    Some(HttpConnection { stream, phase, until: now + ASKING })
}

/// One visitor's connection.
struct HttpConnection {
    stream: TcpStream,
    phase: Phase,
    /// When it has to have come to the next phase.
    until: Instant,
}

enum Phase {
    /// What has come of its request.
    Asking(Vec<u8>),
    /// The answer, and how much of it has been sent.
    Reading(Answer, usize),
    /// It has the answer; the rest of what it says is not looked at.
    Leaving,
}

impl HttpConnection {
    fn awaits(&self) -> PollFlags {
        match self.phase {
            Phase::Asking(_) | Phase::Leaving => PollFlags::IN,
            Phase::Reading(..) => PollFlags::OUT,
        }
    }

    /// Does what can be done without waiting. False when the visitor has gone.
    fn go_on(&mut self, desk: &mut StatusHandler, now: Instant) -> bool {
        match self.step(desk, now) {
            Ok(stays) => stays,
            Err(error) => matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted),
        }
    }

    fn step(&mut self, desk: &mut StatusHandler, now: Instant) -> io::Result<bool> {
        let mut bytes = [0; 1024];
        loop {
            match &mut self.phase {
                Phase::Asking(head) => {
                    let most = bytes.len().min(LONGEST_HEAD - head.len());
                    let length = self.stream.read(&mut bytes[..most])?;
                    if length == 0 {
                        return Ok(false);
                    }
                    head.extend_from_slice(&bytes[..length]);
                    if let Some(answer) = desk.answer(head, now) {
                        self.enter(Phase::Reading(answer, 0), now + READING);
                    }
                }
                Phase::Reading(answer, sent) => {
                    let left = answer.rest(*sent);
                    if left.is_empty() {
                        self.stream.shutdown(Shutdown::Write)?;
                        self.enter(Phase::Leaving, now + LEAVING);
                    } else {
                        *sent += self.stream.write(left)?;
                    }
                }
                // One read a turn: a visitor that never ends must not keep the others waiting.
                Phase::Leaving => return Ok(self.stream.read(&mut bytes)? > 0),
            }
        }
    }

    fn enter(&mut self, phase: Phase, until: Instant) {
        self.phase = phase;
        self.until = until;
    }
}

impl Answer {
    /// What comes next when `sent` bytes have been sent.
    fn rest(&self, sent: usize) -> &[u8] {
        match sent.checked_sub(self.head.len()) {
            None => &self.head[sent..],
            Some(of_body) => &self.body.as_bytes()[of_body..],
        }
    }
}
