//! Sockets that are handed over when the program starts (`sd_listen_fds(3)`): by a service manager, or
//! by the process that this one takes over from.

use std::env;
use std::io;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use listenfd::ListenFd;
use rustix::net::{AddressFamily, SocketType};

use super::channel::{Channel, Message};

/// The first descriptor that is handed over, where `LISTEN_FDS_FIRST_FD` names no other: those below are
/// standard input, output and error.
const FIRST: usize = 3;

/// The names of descriptors in `LISTEN_FDNAMES`: a listener that is closed with this program, that of the
/// status page, and the channel to a process that finishes its sessions. Each other one is a listener that
/// is the service manager's.
pub(super) const OWN: &str = "tabi-listener";
pub(super) const STATUS: &str = "tabi-status";
pub(super) const PREDECESSOR: &str = "tabi-predecessor";

/// Whose a listening socket is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// This program's: it closes it when it stops.
    Tabi,
    /// The service manager's. It outlives this server: clients that come between two servers wait in its
    /// backlog, so it is never shut.
    Manager,
}

/// What was handed over to this process.
#[derive(Default)]
pub struct Inherited {
    /// Where clients come in, and whether that is a service manager's.
    pub(super) listeners: Vec<(TcpListener, Owner)>,
    /// Where visitors of the status page come in.
    pub(super) status: Option<TcpListener>,
    /// To the processes that finish their sessions. The first one is that which has started this one.
    pub(super) predecessors: Vec<Arc<Channel>>,
}

impl Inherited {
    /// What was handed over to this process (`LISTEN_FDS`, `LISTEN_FDNAMES`), if anything was.
    ///
    /// To be called first thing, and once: while the process has one thread, and before it opens
    /// anything itself.
    ///
    /// # Errors
    ///
    /// When a descriptor is not what its name says; the error says which it is, and what.
    pub fn of_this_process() -> io::Result<Self> {
        let number = |name: &str| env::var(name).ok()?.parse().ok();
        let first = number("LISTEN_FDS_FIRST_FD").unwrap_or(FIRST);
        let names = env::var("LISTEN_FDNAMES").unwrap_or_default();
        let mut names = names.split(':');
        let (mut found, mut inherited) = (ListenFd::from_env(), Inherited::default());
        for index in 0..found.len() {
            let wrong = |what| {
                let message = format!("LISTEN_FDS: descriptor {} is {what}", first + index);
                io::Error::new(io::ErrorKind::InvalidInput, message)
            };
            match names.next() {
                Some(PREDECESSOR) => {
                    let channel = channel(&mut found, index);
                    let channel = channel.ok_or_else(|| wrong("no channel to another tabi"))?;
                    inherited.predecessors.push(Arc::new(channel));
                }
                name => {
                    let listener = found.take_tcp_listener(index).ok().flatten();
                    let listener = listener.filter(listens);
                    let listener = listener.ok_or_else(|| wrong("no TCP socket that listens"))?;
                    match name {
                        Some(STATUS) => inherited.status = Some(listener),
                        Some(OWN) => inherited.listeners.push((listener, Owner::Tabi)),
                        _ => inherited.listeners.push((listener, Owner::Manager)),
                    }
                }
            }
        }
        Ok(inherited)
    }

    /// Tells the process that has started this one, if it is to be taken over from, why that fails.
    pub fn on_failure(&self) -> impl Fn(&str) + use<> {
        let starter = self.predecessors.first().cloned();
        move |why| starter.iter().for_each(|it| it.send(&Message::Failed(why.into())))
    }
}

fn channel(found: &mut ListenFd, index: usize) -> Option<Channel> {
    let (family, kind) = (AddressFamily::UNIX.as_raw(), SocketType::SEQPACKET.as_raw());
    let family = family.into();
    let socket = found.take_custom::<OwnedFd>(index, family, kind.try_into().ok()?, "channel");
    socket.ok().flatten().map(Channel::new)
}

fn listens(socket: &TcpListener) -> bool {
    #[cfg(target_vendor = "apple")]
    return socket.local_addr().is_ok();
    #[cfg(not(target_vendor = "apple"))]
    return rustix::net::sockopt::socket_acceptconn(socket) == Ok(true);
}
