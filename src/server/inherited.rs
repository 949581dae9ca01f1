//! Sockets that are handed over when the program starts (`sd_listen_fds(3)`): by a service manager, or
//! by the process that this one takes over from.

use std::fs::read_link;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::{env, io};

use listenfd::ListenFd;
use rustix::net::{AddressFamily, SocketType};
use socket2::SockRef;

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
        for (index, number) in (0..found.len()).zip(first..) {
            let name = names.next().unwrap_or_default();
            let taken = inherited.take(&mut found, name, index, number);
            taken.map_err(|what| {
                let message = format!("LISTEN_FDS: descriptor {number} is {what}");
                io::Error::new(io::ErrorKind::InvalidInput, message)
            })?;
        }
        Ok(inherited)
    }

    /// Takes the descriptor with this `index`. Or says what it is instead.
    fn take(
        &mut self,
        found: &mut ListenFd,
        name: &str,
        index: usize,
        number: usize,
    ) -> Result<(), String> {
        if name == PREDECESSOR {
            let channel = channel(found, index).ok_or("no channel to another tabi")?;
            self.predecessors.push(Arc::new(channel));
            return Ok(());
        }
        let listener = listener(found, index, number)
            .map_err(|why| format!("no TCP socket that listens: {why}"))?;
        match name {
            STATUS => self.status = Some(listener),
            OWN => self.listeners.push((listener, Owner::Tabi)),
            _ => self.listeners.push((listener, Owner::Manager)),
        }
        Ok(())
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

fn listener(found: &mut ListenFd, index: usize, number: usize) -> Result<TcpListener, String> {
    Err(match found.take_tcp_listener(index) {
        Ok(Some(listener)) if listens(&listener) => return Ok(listener),
        // That is how systemd starts a program for each client.
        Ok(Some(listener)) if SockRef::from(&listener).peer_addr().is_ok() => {
            "it is a connection (Accept=no is for tabi)".into()
        }
        Ok(_) => "it does not listen".into(),
        Err(_) => what_it_is(found, index, number),
    })
}

/// What the descriptor is that is no TCP socket.
fn what_it_is(found: &mut ListenFd, index: usize, number: usize) -> String {
    if found.take_udp_socket(index).is_ok() {
        return "it is a UDP socket".into();
    }
    if found.take_unix_listener(index).is_ok() || found.take_unix_datagram(index).is_ok() {
        return "it is a Unix socket".into();
    }
    match read_link(format!("/proc/self/fd/{number}")) {
        Ok(file) if file.to_string_lossy().starts_with("socket:") => {
            "it is a socket of another kind".into()
        }
        Ok(file) => format!("it is {}", file.display()),
        Err(_) => "it is closed, or of an unknown kind".into(),
    }
}

fn listens(socket: &TcpListener) -> bool {
    #[cfg(target_vendor = "apple")]
    return socket.local_addr().is_ok();
    #[cfg(not(target_vendor = "apple"))]
    return rustix::net::sockopt::socket_acceptconn(socket) == Ok(true);
}
