//! A restart that loses no client: the program is started anew with this process's listening sockets, and
//! once it is ready this process accepts nobody else and lets its sessions finish, however long they take.
//!
//! ```text
//! this process                   the new one
//! starts it, through a parent that ends at once: the new one is then a child of the service manager's
//!                                reads its options and files, has all threads that it needs
//!                                <- ready NUMBER, or failed WHY
//! accepts nobody else
//! MAINPID to the service manager
//! -> take-over NUMBER            serves clients
//! -> left ...                    counts what is left against its limits, and shows it
//!                                <- reload: it has read users and rules, now and at each SIGHUP
//!                                <- inner-ports, which associations of this process send nothing to
//! ```

use std::net::{Shutdown, TcpListener};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::process::{self, Child, Command};
use std::sync::{Arc, OnceLock};
use std::time::Instant;
use std::{env, io, thread};

use log::{error, info};
use rustix::io::{FdFlags, fcntl_dupfd_cloexec, fcntl_setfd};
use socket2::SockRef;

use super::accept::Acceptor;
use super::channel::{Channel, Left, Message, ROUND, TAKE_OVER};
use super::inherited::{PREDECESSOR, STATUS};
use super::notify::Notify;
use super::predecessors::{MOST_PREDECESSORS, Predecessors};
use super::reload::Reloader;
use super::stop::Stopper;
use crate::commands::associate::InnerPort;
use crate::proxy::Proxy;
use crate::sessions::Sessions;
use crate::system::deadline::Deadline;
use crate::system::pool::Pool;

/// For a process that only starts another one: the number of its parent.
const PARENT: &str = "TABI_RESTART_OF";

/// How often a row of descriptors is looked for.
const ATTEMPTS: usize = 8;

/// Starts the program anew, and hands this server's clients over to it.
pub struct Restarter {
    pub(super) acceptors: Vec<Arc<Acceptor>>,
    pub(super) status: Option<Arc<TcpListener>>,
    pub(super) proxy: Arc<Proxy>,
    pub(super) stopper: Arc<Stopper>,
    pub(super) notify: Arc<Notify>,
    pub(super) predecessors: Arc<Predecessors>,
    pub(super) successor: Arc<OnceLock<Successor>>,
}

/// The process that takes over.
pub(super) struct Successor {
    pub(super) process: u32,
    pub(super) channel: Channel,
}

impl Restarter {
    /// Starts the program anew: the same command line and environment, and the files of now. When it does
    /// not come up nothing has changed, and the log says why.
    pub fn restart(&self) {
        if let Err(message) = self.try_restart() {
            error!("cannot restart: {message}; nothing has changed");
        }
    }

    fn try_restart(&self) -> Result<(), String> {
        self.may_restart()?;
        let [channel, far] = Channel::pair().map_err(|error| error.to_string())?;
        let mut parent = self.start(&far).map_err(|error| {
            let program = env::args_os().next().unwrap_or_default();
            format!("cannot start {}: {error}", program.to_string_lossy())
        })?;
        drop(far);
        let ready = await_ready(&channel);
        // It has done what it is for, or does not do it.
        let _ = parent.kill();
        let _ = parent.wait();
        let process = ready?;
        self.predecessors.stop_watching(&self.proxy.sessions);
        let _ = self.successor.set(Successor { process, channel });
        // The thread that ends this process tells the new one: neither can be too late.
        if self.stopper.hand_over() { Ok(()) } else { Err("the server stops".into()) }
    }

    fn may_restart(&self) -> Result<(), String> {
        if process::id() == 1 {
            Err("this is process 1, and its container ends with it: restart the container".into())
        } else if self.stopper.is_over() {
            Err("the server stops, or another process has taken over already".into())
        } else if !self.predecessors.have_handed_over() {
            Err("the process before this one has not handed over yet".into())
        } else if self.predecessors.living().count() >= MOST_PREDECESSORS {
            Err(format!("{MOST_PREDECESSORS} earlier processes have sessions still"))
        } else {
            Ok(())
        }
    }

    /// Starts the process that starts the new one.
    fn start(&self, far: &Channel) -> io::Result<Child> {
        let mut sockets = vec![(PREDECESSOR, far.as_fd())];
        sockets.extend(self.predecessors.living().map(|channel| (PREDECESSOR, channel.as_fd())));
        sockets.extend(self.acceptors.iter().map(|acceptor| acceptor.listener().to_hand_over()));
        sockets.extend(self.status.iter().map(|listener| (STATUS, listener.as_fd())));
        let (names, sockets): (Vec<_>, Vec<_>) = sockets.into_iter().unzip();
        let row = in_a_row(&sockets)?;
        let first = row.first().map_or(0, AsRawFd::as_raw_fd);
        same_command()
            .env(PARENT, process::id().to_string())
            .env("LISTEN_FDS", row.len().to_string())
            .env("LISTEN_FDS_FIRST_FD", first.to_string())
            .env("LISTEN_FDNAMES", names.join(":"))
            // They name this process.
            .env_remove("LISTEN_PID")
            .env_remove("WATCHDOG_PID")
            .spawn()
    }

    /// Has the new process serve the clients from now on: nothing of the ports is this one's to close.
    pub(super) fn hand_over(&self, successor: &Successor) {
        self.acceptors.iter().for_each(|acceptor| acceptor.hand_over());
        self.notify.hand_over(successor.process);
        successor.channel.send(&Message::TakeOver(process::id()));
        successor.channel.send(&Message::Left(left(&self.proxy.sessions)));
        let process = successor.process;
        info!("process {process} serves clients now; sessions of this one finish");
    }

    /// Lets sessions finish, however long they take, until none is left or the server is stopped.
    pub(super) fn finish(&self, successor: &Channel, reloader: &Reloader, pool: &Pool) {
        let mut told = None;
        while self.stopper.is_taken_over() {
            // A worker that waits no more has its session already.
            let waiting = self.acceptors.iter().filter(|acceptor| acceptor.has_workers()).count();
            let left = left(&self.proxy.sessions);
            if told.as_ref() != Some(&left) {
                successor.send(&Message::Left(left.clone()));
            }
            if left.sessions + waiting == 0 {
                return;
            }
            told = Some(left);
            match successor.receive(ROUND) {
                Ok(Some(Message::Reload)) => {
                    reloader.follow();
                    told = None;
                }
                Ok(Some(Message::InnerPorts(ports))) => InnerPort::set_elsewhere(&ports),
                Ok(_) => {}
                // It has ended, and nobody serves clients; sessions go on.
                Err(_) => {
                    self.close_ports();
                    thread::sleep(ROUND);
                }
            }
            pool.trim(Instant::now());
        }
    }

    /// Closes the ports, which would keep a later process from having them, and clients waiting.
    fn close_ports(&self) {
        self.acceptors.iter().for_each(|acceptor| acceptor.listener().close());
        if let Some(status) = &self.status {
            let _ = SockRef::from(&**status).shutdown(Shutdown::Both);
        }
    }
}

/// In a process that is there only to start the one that takes over: starts it. `None` in every other.
pub fn start_as_parent() -> Option<io::Result<()>> {
    let parent = env::var(PARENT).ok()?.parse::<u32>().ok();
    let is_meant = parent == Some(std::os::unix::process::parent_id());
    is_meant.then(|| same_command().env_remove(PARENT).spawn().map(drop))
}

/// The command of this process, looked for as it was at the start: a newer version may be there.
fn same_command() -> Command {
    let mut words = env::args_os();
    let mut command = Command::new(words.next().unwrap_or_default());
    command.args(words);
    command
}

/// The sockets once more, with numbers in a row, and left open in the programs that this one starts.
fn in_a_row(sockets: &[BorrowedFd<'_>]) -> io::Result<Vec<OwnedFd>> {
    let mut first: RawFd = 3;
    for _ in 0..ATTEMPTS {
        let row = sockets.iter().map(|socket| fcntl_dupfd_cloexec(socket, first));
        let row = row.collect::<Result<Vec<OwnedFd>, _>>()?;
        let numbers: Vec<RawFd> = row.iter().map(AsRawFd::as_raw_fd).collect();
        if numbers.is_sorted_by(|one, next| one + 1 == *next) {
            row.iter().try_for_each(|socket| fcntl_setfd(socket, FdFlags::empty()))?;
            return Ok(row);
        }
        // Above all that are open.
        first = numbers.into_iter().max().unwrap_or(first) + 1;
    }
    Err(io::Error::other("there are no free descriptors in a row"))
}

/// Waits until the new process is ready, and says which it is.
fn await_ready(channel: &Channel) -> Result<u32, String> {
    let deadline = Deadline::after(TAKE_OVER);
    while let Some(left) = deadline.left() {
        match channel.receive(left) {
            Ok(Some(Message::Ready(process))) => return Ok(process),
            Ok(Some(Message::Failed(why))) => {
                let lines: Vec<_> = why.lines().map(str::trim).collect();
                return Err(lines.join(" "));
            }
            Ok(_) => {}
            Err(_) => return Err("the new process ended before it was ready".into()),
        }
    }
    Err(format!("the new process was not ready within {} s", TAKE_OVER.as_secs()))
}

/// What is left in this process.
fn left(sessions: &Sessions) -> Left {
    let clients = sessions.by_client();
    let inner_ports = InnerPort::all_here().collect();
    Left { sessions: sessions.count(), clients: clients.into_iter().collect(), inner_ports }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli;
    use crate::server::{Inherited, Server};
    use std::net::TcpStream;
    use std::time::Duration;

    #[test]
    fn a_stop_right_after_the_hand_over_leaves_the_clients_to_the_new_process() {
        let arguments = cli::parse(["tabi", "127.0.0.1:0", "--grace", "0"]).unwrap();
        let server =
            Server::bind(arguments.config, Inherited::default(), Notify::default()).unwrap();
        let address = server.addresses()[0];
        let _of_new_process = server.acceptors[0].listener().to_hand_over().1.try_clone_to_owned();
        let [channel, far] = Channel::pair().unwrap();
        let _ = server.successor.set(Successor { process: 4242, channel });
        assert!(server.stopper.hand_over());
        server.stopper.stop();
        assert!(!server.stopper.hand_over());
        server.run().unwrap();
        let told = far.receive(Duration::ZERO).unwrap();
        assert_eq!(told, Some(Message::TakeOver(process::id())));
        assert!(TcpStream::connect(address).is_ok(), "the port is closed");
    }
}
