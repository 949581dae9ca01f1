//! What a process and the one that takes over from it tell each other: each packet of a local socket is
//! a message, and the end of the socket is that of a process.

use std::fmt;
use std::io::{self, ErrorKind};
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socketpair,
};

use crate::system::poll::poll;

/// The longest message in bytes. A socket takes as much at once (sysctl `net.core.wmem_default`).
const LONGEST: usize = 128 * 1024;

/// The most clients in a message, those with most sessions: each takes 50 bytes at most. And the most ports,
/// of 11 bytes.
const MOST_CLIENTS: usize = 1024;
const MOST_PORTS: usize = 4096;

/// How long the new process may take until it is ready, and then until it is told to take over.
pub(super) const TAKE_OVER: Duration = Duration::from_secs(30);

/// How often each hears what is new of the other.
pub(super) const ROUND: Duration = Duration::from_millis(500);

/// One end of a channel between two processes.
pub(super) struct Channel(OwnedFd);

/// What one process tells the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Message {
    /// The new one could serve clients. Its number.
    Ready(u32),
    /// The new one ends, for this reason.
    Failed(String),
    /// The old one accepts no further clients. Its number.
    TakeOver(u32),
    /// What the old one has left.
    Left(Left),
    /// The new one has read users and rules, and asks what is left.
    Reload,
    /// Where associations of the other processes take their clients' datagrams.
    InnerPorts(Vec<u16>),
}

/// The sessions that an old process has left.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Left {
    pub(super) sessions: usize,
    /// How many of them are those of each client, and how many of `--udp-ports` it has.
    pub(super) clients: Vec<(IpAddr, [usize; 2])>,
    /// Where associations take their clients' datagrams.
    pub(super) inner_ports: Vec<u16>,
}

impl Channel {
    pub(super) fn new(socket: OwnedFd) -> Self {
        Channel(socket)
    }

    /// Both ends of a new channel.
    ///
    /// # Errors
    ///
    /// The error of `socketpair(2)`.
    pub(super) fn pair() -> io::Result<[Self; 2]> {
        let (unix, packets) = (AddressFamily::UNIX, SocketType::SEQPACKET);
        let (one, other) = socketpair(unix, packets, SocketFlags::CLOEXEC, None)?;
        Ok([Channel(one), Channel(other)])
    }

    /// Sends `message`, if the other process is there and reads: it never waits.
    pub(super) fn send(&self, message: &Message) {
        let text = message.to_string();
        let whole = &text.as_bytes()[..text.len().min(LONGEST)];
        let _ = send(&self.0, whole, SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
    }

    /// The next message, if one comes within `limit`. One that means nothing is none.
    ///
    /// # Errors
    ///
    /// When the other process has ended.
    pub(super) fn receive(&self, limit: Duration) -> io::Result<Option<Message>> {
        poll(&mut [PollFd::new(&self.0, PollFlags::IN)], limit)?;
        let mut packet = vec![0; LONGEST];
        match recv(&self.0, &mut packet[..], RecvFlags::DONTWAIT).map_err(io::Error::from) {
            Ok((_, 0)) => Err(ErrorKind::UnexpectedEof.into()),
            Ok((_, length)) => Ok(Message::read(&String::from_utf8_lossy(&packet[..length]))),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Message {
    fn read(text: &str) -> Option<Self> {
        let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
        Some(match word {
            "ready" => Message::Ready(rest.parse().ok()?),
            "failed" => Message::Failed(rest.into()),
            "take-over" => Message::TakeOver(rest.parse().ok()?),
            "left" => Message::Left(Left::read(rest)?),
            "reload" => Message::Reload,
            "inner-ports" => Message::InnerPorts(rest.split(' ').flat_map(str::parse).collect()),
            _ => return None,
        })
    }
}

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Message::Ready(process) => write!(f, "ready {process}"),
            Message::Failed(why) => write!(f, "failed {why}"),
            Message::TakeOver(process) => write!(f, "take-over {process}"),
            Message::Left(left) => write!(f, "left {left}"),
            Message::Reload => f.write_str("reload"),
            Message::InnerPorts(ports) => {
                f.write_str("inner-ports")?;
                ports.iter().take(MOST_PORTS).try_for_each(|port| write!(f, " {port}"))
            }
        }
    }
}

impl Left {
    fn read(text: &str) -> Option<Self> {
        let mut words = text.split(' ');
        let sessions = words.next()?.parse().ok()?;
        let mut left = Left { sessions, ..Left::default() };
        for (what, value) in words.filter_map(|word| word.split_once('=')) {
            let (value, ports) = value.split_once('/').unwrap_or((value, "0"));
            let counts = (value.parse().ok(), ports.parse().ok());
            match (what.parse(), counts) {
                (Ok(client), (Some(sessions), Some(ports))) => {
                    left.clients.push((client, [sessions, ports]));
                }
                _ if what == "port" => left.inner_ports.extend(value.parse::<u16>()),
                _ => {}
            }
        }
        Some(left)
    }
}

impl fmt::Display for Left {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.sessions.fmt(f)?;
        let mut clients = self.clients.clone();
        clients.sort_unstable_by_key(|(_, [sessions, _])| std::cmp::Reverse(*sessions));
        for (client, [sessions, ports]) in clients.iter().take(MOST_CLIENTS) {
            write!(f, " {client}={sessions}/{ports}")?;
        }
        self.inner_ports.iter().take(MOST_PORTS).try_for_each(|port| write!(f, " port={port}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_message_arrives_as_it_was_sent() {
        let [old, new] = Channel::pair().unwrap();
        let clients = [("192.168.1.7", [9, 0]), ("fd00::7", [3, 2])];
        let clients = clients.map(|(client, counts)| (client.parse().unwrap(), counts)).to_vec();
        for message in [
            Message::Ready(4242),
            Message::Failed("the file\nhas two lines".into()),
            Message::TakeOver(1),
            Message::Left(Left { sessions: 12, clients, inner_ports: vec![40_000, 40_009] }),
            Message::Left(Left::default()),
            Message::Reload,
            Message::InnerPorts(vec![40_000, 40_009]),
            Message::InnerPorts(Vec::new()),
        ] {
            new.send(&message);
            assert_eq!(old.receive(Duration::ZERO).unwrap(), Some(message));
        }
        assert_eq!(old.receive(Duration::ZERO).unwrap(), None);
        drop(new);
        assert!(old.receive(Duration::from_secs(20)).is_err());
        // Nobody hears it.
        old.send(&Message::Reload);
    }

    #[test]
    fn what_a_later_version_may_say_is_no_message() {
        for text in ["", "hello", "ready", "ready x", "left", "left x", "take-over -1"] {
            assert_eq!(Message::read(text), None, "{text}");
        }
        let left = Left { sessions: 2, ..Left::default() };
        let read = Message::read("left 2 nobody=3 =1 10.0.0.1=x port=65536 port");
        assert_eq!(read, Some(Message::Left(left)));
    }

    #[test]
    fn a_process_with_very_many_clients_names_those_that_have_most() {
        let client =
            |index: u16| ([10, 0, index.to_be_bytes()[0], index.to_be_bytes()[1]].into(), [1, 0]);
        let mut clients: Vec<(IpAddr, [usize; 2])> = (0..5000).map(client).collect();
        clients.push(([192, 0, 2, 1].into(), [100, 0]));
        let [old, new] = Channel::pair().unwrap();
        old.send(&Message::Left(Left { sessions: 5100, clients, ..Left::default() }));
        let Some(Message::Left(left)) = new.receive(Duration::ZERO).unwrap() else { panic!() };
        assert_eq!((left.sessions, left.clients.len()), (5100, MOST_CLIENTS));
        assert_eq!(left.clients[0], ([192, 0, 2, 1].into(), [100, 0]));
    }
}
