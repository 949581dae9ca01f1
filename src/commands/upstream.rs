//! CONNECT through another SOCKS5 server: this one is its client.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Instant;

use rustix::net::{RecvFlags, recv};

use super::client_watch::{ClientWatch, WaitOutcome, wait_for};
use super::connect::{self, Dial, race};
use super::resolver;
use crate::access::policy::UpstreamRoute;
use crate::access::upstream::Upstream;
use crate::socks5::{
    AnswerError, Greeting, Host, Method, Name, Rep, Reply, read_selection, read_status,
};

/// Why there is no connection through the upstream.
#[derive(Debug)]
pub(crate) enum Error {
    /// The upstream cannot be reached, does not accept us, or says what it should not; this is what,
    /// without a password.
    Failed(String),
    /// The upstream has failed to reach the target, and this is what it says.
    Refused(Reply),
    /// The upstream has not come to an end with the target in time.
    TimedOut,
    /// The client has left meanwhile.
    ClientLeft,
}

/// A connection with a target through an upstream.
#[derive(Debug)]
pub(crate) struct Connection {
    /// The connection with the upstream. What comes next is the target's.
    pub stream: TcpStream,
    /// The upstream's address.
    pub address: SocketAddr,
    /// What the upstream says of the target.
    pub reply: Reply,
}

/// Connects through the upstream of `route`, whose own name is looked up with `lookup`. All of it
/// has to be done by the deadline of `dial`.
///
/// # Errors
///
/// See [`Error`].
pub(crate) fn connect(
    route: &UpstreamRoute,
    dial: Dial<'_>,
    lookup: impl FnOnce(&Name, u16) -> Result<Vec<SocketAddr>, resolver::Error>,
) -> Result<Connection, Error> {
    let upstream = route.upstream();
    let addresses = addresses_of(upstream, lookup)?;
    let reached = race(&addresses, dial).map_err(|error| match error {
        connect::Error::Unreachable(error) => {
            Error::Failed(format!("the upstream cannot be reached: {error}"))
        }
        connect::Error::ClientLeft => Error::ClientLeft,
    })?;
    let mut talk = UpstreamStream::new(&reached.stream, dial);
    negotiate(upstream, &mut talk)?;
    let sent = route.request().write_to(&mut talk);
    let reply = sent.map_err(AnswerError::from).and_then(|()| Reply::read_from(&mut talk));
    // What it says of itself is over; for the rest it waits for the target.
    let reply = reply.map_err(|error| talk.error(error, || Error::TimedOut))?;
    match reply.rep() {
        Ok(Rep::Succeeded) => {
            Ok(Connection { stream: reached.stream, address: reached.address, reply })
        }
        _ => Err(Error::Refused(reply)),
    }
}

fn addresses_of(
    upstream: &Upstream,
    lookup: impl FnOnce(&Name, u16) -> Result<Vec<SocketAddr>, resolver::Error>,
) -> Result<Vec<SocketAddr>, Error> {
    let port = upstream.address().port;
    match &upstream.address().host {
        Host::Ip(ip) => Ok(vec![SocketAddr::new(*ip, port)]),
        Host::Name(name) => lookup(name, port).map_err(|error| match error {
            resolver::Error::Unresolved(error) => {
                Error::Failed(format!("the upstream's name has no address: {error}"))
            }
            resolver::Error::TimedOut => {
                Error::Failed("the upstream's name was not looked up in time".into())
            }
            resolver::Error::ClientLeft => Error::ClientLeft,
        }),
    }
}

/// Greeting, method selection, credentials, status.
fn negotiate(upstream: &Upstream, talk: &mut UpstreamStream<'_>) -> Result<(), Error> {
    const EITHER: &[Method] = &[Method::NoAuthentication, Method::UsernamePassword];
    let failed = |told: &str| Err(Error::Failed(format!("the upstream {told}")));
    let credentials = upstream.credentials();
    let offered = if credentials.is_some() { EITHER } else { &EITHER[..1] };
    let sent = Greeting::new(offered).write_to(talk);
    let selected = sent.map_err(AnswerError::from).and_then(|()| read_selection(talk));
    let selected = selected.map_err(|error| talk.error(error, silent))?;
    match (selected, credentials) {
        (None, None) => failed("does not serve us without a user name and a password"),
        (None, Some(_)) => failed("accepts neither our user name and password nor none"),
        (Some(Method::NoAuthentication), _) => Ok(()),
        (Some(Method::UsernamePassword), None) => failed("wants a user name and a password"),
        (Some(Method::UsernamePassword), Some(credentials)) => {
            let sent = credentials.write_to(talk);
            let status = sent.map_err(AnswerError::from).and_then(|()| read_status(talk));
            if status.map_err(|error| talk.error(error, silent))? {
                return Ok(());
            }
            failed("refuses our user name or password")
        }
    }
}

fn silent() -> Error {
    Error::Failed("the upstream does not answer".into())
}

/// A conversation with the upstream that ends at the deadline, or when the client leaves.
struct UpstreamStream<'a> {
    stream: &'a TcpStream,
    deadline: Instant,
    client: Option<&'a ClientWatch<'a>>,
    client_left: bool,
    /// There may be more to read without waiting.
    has_more: bool,
}

impl<'a> UpstreamStream<'a> {
    fn new(stream: &'a TcpStream, dial: Dial<'a>) -> Self {
        let Dial { deadline, client, .. } = dial;
        UpstreamStream { stream, deadline, client, client_left: false, has_more: false }
    }

    /// What has gone wrong, where `late` is what it is when time is up.
    fn error(&self, error: AnswerError, late: impl FnOnce() -> Error) -> Error {
        match error {
            _ if self.client_left => Error::ClientLeft,
            AnswerError::Io(error) if error.kind() == ErrorKind::TimedOut => late(),
            error => Error::Failed(format!("the upstream answers badly: {error}")),
        }
    }

    /// Waits until there is something to read.
    fn wait(&mut self) -> io::Result<()> {
        loop {
            let left = self.deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(ErrorKind::TimedOut.into());
            }
            match wait_for(self.stream, self.client, left)? {
                WaitOutcome::Answer => return Ok(()),
                WaitOutcome::ClientLeft => {
                    self.client_left = true;
                    return Err(ErrorKind::ConnectionAborted.into());
                }
                WaitOutcome::Nothing => {}
            }
        }
    }
}

impl Read for UpstreamStream<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        loop {
            if !self.has_more {
                self.wait()?;
                self.has_more = true;
            }
            match recv(self.stream, &mut *bytes, RecvFlags::DONTWAIT) {
                Ok((_, length)) => return Ok(length),
                Err(rustix::io::Errno::AGAIN) => self.has_more = false,
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl Write for UpstreamStream<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // The connection is new and its buffers are empty, so that this does not wait.
        self.has_more = false;
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
