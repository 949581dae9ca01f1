//! The processes from which this one has taken over, and that still have sessions: what they have left
//! counts against this one's limits.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::sync_channel;
use std::thread::{self, JoinHandle};
use std::time::Duration;
use std::{io, process};

use log::info;
use rustix::event::{PollFd, PollFlags};

use super::channel::{Channel, Left, Message, ROUND, TAKE_OVER};
use crate::commands::associate::InnerPort;
use crate::sessions::Sessions;
use crate::system::deadline::Deadline;
use crate::system::poll::poll;
use crate::system::sync::Mutex;
use crate::system::waker::Waker;

/// How long the first count of what is left may take.
const FIRST_COUNT: Duration = Duration::from_secs(1);

/// The most processes that may finish their sessions beside this one.
pub(super) const MOST_PREDECESSORS: usize = 16;

/// The processes that finish their sessions beside this one.
pub(super) struct Predecessors {
    /// The first one is that which has started this one.
    processes: Vec<Predecessor>,
    have_handed_over: AtomicBool,
    /// Ends the watch. There is none, and nothing to watch, where no other process is.
    end: Option<Waker>,
    watch: Mutex<Option<JoinHandle<()>>>,
}

struct Predecessor {
    channel: Arc<Channel>,
    has_ended: AtomicBool,
}

impl Predecessors {
    /// # Errors
    ///
    /// When the system has no further descriptors.
    pub(super) fn new(channels: Vec<Arc<Channel>>) -> io::Result<Arc<Self>> {
        let end = if channels.is_empty() { None } else { Some(Waker::new()?) };
        let processes = channels.into_iter();
        let processes =
            processes.map(|channel| Predecessor { channel, has_ended: AtomicBool::new(false) });
        Ok(Arc::new(Predecessors {
            have_handed_over: AtomicBool::new(end.is_none()),
            processes: processes.collect(),
            end,
            watch: Mutex::default(),
        }))
    }

    /// Those that have sessions still.
    pub(super) fn living(&self) -> impl Iterator<Item = &Channel> {
        let living = self.processes.iter().filter(|it| !it.has_ended.load(Ordering::Relaxed));
        living.map(|it| &*it.channel)
    }

    /// Whether this process serves clients, or will as soon as it can.
    pub(super) fn have_handed_over(&self) -> bool {
        self.have_handed_over.load(Ordering::Relaxed)
    }

    /// Says that this process is ready, and waits until it is to serve the clients.
    ///
    /// # Errors
    ///
    /// When there is no thread to watch it, and when the process that has started this one goes on itself.
    pub(super) fn take_over(self: &Arc<Self>, sessions: &Arc<Sessions>) -> io::Result<()> {
        let Some(starter) = self.processes.first() else { return Ok(()) };
        let (begin, begins) = sync_channel(1);
        let (predecessors, to_watch) = (Arc::clone(self), Arc::clone(sessions));
        let watch = move || {
            if begins.recv().is_ok() {
                predecessors.run_watch(&to_watch);
            }
        };
        let watch = thread::Builder::new().name("tabi predecessors".into()).spawn(watch)?;
        starter.channel.send(&Message::Ready(process::id()));
        let deadline = Deadline::after(TAKE_OVER);
        let process = loop {
            let message = starter.channel.receive(deadline.time_left()?)?;
            if let Some(Message::TakeOver(process)) = message {
                break process;
            }
        };
        info!("serving the clients of process {process} from now on");
        self.have_handed_over.store(true, Ordering::Relaxed);
        // Before anybody is served. It has been sent at the same time.
        if let Ok(Some(Message::Left(left))) = starter.channel.receive(FIRST_COUNT) {
            sessions.set_elsewhere(left.sessions, &left.clients);
            InnerPort::set_elsewhere(&left.inner_ports);
        }
        self.reload();
        let _ = begin.send(());
        *self.watch.lock() = Some(watch);
        Ok(())
    }

    /// Has them read users and rules again, too: their sessions are judged by those of now. They say again
    /// what is left, which another process may have heard the last time.
    pub(super) fn reload(&self) {
        self.living().for_each(|channel| channel.send(&Message::Reload));
    }

    /// Leaves what they say from now on to another process, which shares the places out. Who has come
    /// before and waits for one here waits for none of theirs, whose end nobody would hear of.
    pub(super) fn stop_watching(&self, sessions: &Sessions) {
        self.end.iter().for_each(Waker::wake);
        if let Some(watch) = self.watch.lock().take() {
            let _ = watch.join();
            sessions.set_elsewhere(0, &[]);
        }
    }

    /// Hears what is left until nothing is.
    fn run_watch(&self, sessions: &Sessions) {
        let mut left = vec![Left::default(); self.processes.len()];
        let (mut known, mut told) = (None, Vec::new());
        while self.living().next().is_some() && self.wait() {
            for (predecessor, left) in self.processes.iter().zip(&mut left) {
                predecessor.hear(left);
            }
            let mut ports: Vec<_> = left.iter().flat_map(|it| it.inner_ports.clone()).collect();
            if known.as_ref() != Some(&left) {
                let clients: Vec<_> = left.iter().flat_map(|left| left.clients.clone()).collect();
                sessions.set_elsewhere(left.iter().map(|left| left.sessions).sum(), &clients);
                InnerPort::set_elsewhere(&ports);
                known = Some(left.clone());
            }
            ports.extend(InnerPort::all_here());
            if ports != told {
                let message = Message::InnerPorts(ports.clone());
                self.living().for_each(|channel| channel.send(&message));
                told = ports;
            }
        }
        InnerPort::set_elsewhere(&[]);
    }

    /// Waits until one of them says something, or it is time to tell them something. `false` at the end of
    /// the watch.
    fn wait(&self) -> bool {
        let sockets = self.living().map(|channel| PollFd::new(channel, PollFlags::IN));
        let end = self.end.iter().map(|end| PollFd::new(end, PollFlags::IN));
        let mut polled: Vec<_> = end.chain(sockets).collect();
        let polls = poll(&mut polled, ROUND);
        polls.is_err() || polled[0].revents().is_empty()
    }
}

impl Predecessor {
    /// Takes what it has said.
    fn hear(&self, left: &mut Left) {
        while !self.has_ended.load(Ordering::Relaxed) {
            match self.channel.receive(Duration::ZERO) {
                Ok(Some(Message::Left(now))) => *left = now,
                Ok(Some(_)) => {}
                Ok(None) => return,
                Err(_) => {
                    *left = Left::default();
                    self.has_ended.store(true, Ordering::Relaxed);
                }
            }
        }
    }
}
