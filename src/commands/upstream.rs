//! CONNECT through another SOCKS5 server: this one is its client.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};

use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};

use super::client_watch::wait_for;
use super::connect::{Connection, Dial, race};
use super::error::Error;
use crate::access::policy::UpstreamRoute;
use crate::access::upstream::Upstream;
use crate::wire::address::{Address, Host, Name};
use crate::wire::socks5::{AnswerError, Greeting, Method, Reply, read_selection, read_status};

/// Connects through the upstream of `route`, which is at `addresses`. All of it has to be done by the
/// deadline of `dial`. The connection is the one with the upstream, and its reply what the upstream says of
/// the target.
pub(crate) fn connect(
    route: &UpstreamRoute,
    addresses: &[SocketAddr],
    dial: &Dial<'_>,
) -> Result<Connection, Error> {
    let upstream = route.upstream();
    let connection = race(addresses, dial).map_err(|error| match error {
        Error::Unreachable(error) => failed(&format!("cannot be reached: {error}")),
        error => error,
    })?;
    let mut stream = UpstreamStream { stream: &connection.stream, dial, wait_error: None };
    negotiate(upstream, &mut stream).map_err(|error| match error {
        Error::Unreachable(_) => failed("does not answer"),
        error => error,
    })?;
    let sent = route.request().write_to(&mut stream);
    let reply = stream.answer(sent, Reply::read_from)?;
    match reply.refusal() {
        None => Ok(Connection { bound: reply.bound().clone(), ..connection }),
        Some(_) => Err(Error::UpstreamRefused(reply)),
    }
}

/// Where `upstream` is; a name is looked up with `lookup`.
pub(crate) fn addresses(
    upstream: &Upstream,
    lookup: impl FnOnce(&Name, u16) -> Result<Vec<SocketAddr>, Error>,
) -> Result<Vec<SocketAddr>, Error> {
    let Address { host, port } = upstream.address();
    match host {
        Host::Ip(ip) => Ok(vec![SocketAddr::new(*ip, *port)]),
        Host::Name(name) => lookup(name, *port).map_err(|error| match error {
            Error::Unresolved(error) => {
                Error::UpstreamFailed(format!("the upstream's name has no address: {error}"))
            }
            Error::Unreachable(_) => {
                Error::UpstreamFailed("the upstream's name was not looked up in time".into())
            }
            error => error,
        }),
    }
}

/// Greeting, method selection, credentials, status.
fn negotiate(upstream: &Upstream, stream: &mut UpstreamStream<'_>) -> Result<(), Error> {
    const METHODS: &[Method] = &[Method::NoAuthentication, Method::UsernamePassword];
    let credentials = upstream.credentials();
    let offered = if credentials.is_some() { METHODS } else { &METHODS[..1] };
    let sent = Greeting::new(offered).write_to(stream);
    match (stream.answer(sent, read_selection)?, credentials) {
        (None, None) => Err(failed("does not serve us without a user name and a password")),
        (None, Some(_)) => Err(failed("accepts neither our user name and password nor none")),
        (Some(Method::NoAuthentication), _) => Ok(()),
        (Some(Method::UsernamePassword), None) => Err(failed("wants a user name and a password")),
        (Some(Method::UsernamePassword), Some(credentials)) => {
            let sent = credentials.write_to(stream);
            let is_accepted = stream.answer(sent, read_status)?;
            is_accepted.then_some(()).ok_or_else(|| failed("refuses our user name or password"))
        }
    }
}

fn failed(message: &str) -> Error {
    Error::UpstreamFailed(format!("the upstream {message}"))
}

/// The connection with the upstream until it has replied. It ends at the deadline, or when the client
/// leaves.
struct UpstreamStream<'a> {
    stream: &'a TcpStream,
    dial: &'a Dial<'a>,
    /// Why the last wait for an answer has ended without one.
    wait_error: Option<Error>,
}

impl UpstreamStream<'_> {
    /// Reads the answer to a message that was `sent`.
    fn answer<T>(
        &mut self,
        sent: io::Result<()>,
        read: impl FnOnce(&mut Self) -> Result<T, AnswerError>,
    ) -> Result<T, Error> {
        let answer = sent.map_err(AnswerError::from).and_then(|()| read(self));
        answer.map_err(|error| {
            let wait_error = self.wait_error.take();
            wait_error.unwrap_or_else(|| failed(&format!("answers badly: {error}")))
        })
    }
}

impl Read for UpstreamStream<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        loop {
            match recv(self.stream, &mut *bytes, RecvFlags::DONTWAIT) {
                Ok((_, length)) => return Ok(length),
                Err(Errno::AGAIN) => {}
                Err(error) => return Err(error.into()),
            }
            wait_for(self.stream, self.dial.client, self.dial.deadline).map_err(|error| {
                self.wait_error = Some(error);
                io::Error::from(ErrorKind::TimedOut)
            })?;
        }
    }
}

impl Write for UpstreamStream<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // The connection is new and its buffers are empty, so that this does not wait.
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
