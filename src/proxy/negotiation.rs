//! What a client speaks, who it is and what it asks for.

use std::io::{BufRead, Write};
use std::net::IpAddr;

use super::client::ClientStream;
use super::failure::Failure;
use super::{Proxy, close_with};
use crate::access::users::spelling::spell;
use crate::access::users::{Identity, LoginError};
use crate::report::Outcome;
use crate::sessions::SessionState;
use crate::system::waker::Waker;
use crate::wire::address::Address;
use crate::wire::credentials::Credentials;
use crate::wire::http::{self, Body, Target};
use crate::wire::protocol::Protocol;
use crate::wire::refusal::Refusal;
use crate::wire::request::{Command, Request};
use crate::wire::socks4;
use crate::wire::socks5::{self, Method};

/// What of a refused request's body is read, in bytes, so that the connection may have another request.
const MOST_REFUSED: usize = 64 * 1024;

/// What a client is and wants.
pub(super) struct Negotiated {
    pub(super) identity: Identity,
    pub(super) request: Request,
    /// What the target gets, and what is still to come of its body, where that is one request.
    pub(super) forwarded: Option<Box<(Vec<u8>, Body)>>,
}

impl Proxy {
    /// Learns who the client is and what it asks for, whatever it speaks.
    #[inline(never)]
    pub(super) fn negotiate(
        &self,
        state: &SessionState,
        client: &mut ClientStream<'_>,
    ) -> Result<Negotiated, Failure> {
        let first = client.fill_buf()?.first().copied().ok_or_else(Failure::client_left)?;
        let protocol = Protocol::of(first)?;
        state.speaks(protocol);
        if !self.config.protocols.contains(&protocol) {
            let why = format!("the client speaks {protocol}, which is not served (--protocols)");
            return Err(Failure::new(Refusal::NotServed, why));
        }
        match protocol {
            Protocol::Socks5 => self.negotiate_socks5(state, client),
            Protocol::Socks4 => self.negotiate_socks4(state, client),
            Protocol::Http => self.negotiate_http(state, client),
        }
    }

    #[inline(never)]
    fn negotiate_socks5(
        &self,
        state: &SessionState,
        client: &mut ClientStream<'_>,
    ) -> Result<Negotiated, Failure> {
        let identity = match self.greet(client, state.peer().ip())? {
            Method::NoAuthentication => self.authenticate(state, client, None)?,
            Method::UsernamePassword => self.log_in(state, client)?,
        };
        Ok(Negotiated { identity, request: Request::read_from(client)?, forwarded: None })
    }

    /// RFC 1929.
    #[inline(never)]
    fn log_in(
        &self,
        state: &SessionState,
        client: &mut ClientStream<'_>,
    ) -> Result<Identity, Failure> {
        let credentials = Credentials::read_from(client)?;
        let identity = self.authenticate(state, client, Some(&credentials))?;
        socks5::write_status(true, client)?;
        Ok(identity)
    }

    /// The user of SOCKS4 proves nothing: it is for the log alone.
    #[inline(never)]
    fn negotiate_socks4(
        &self,
        state: &SessionState,
        client: &mut ClientStream<'_>,
    ) -> Result<Negotiated, Failure> {
        let (request, user) = socks4::read_request(client)?;
        if !user.is_empty() {
            state.identified(spell(&user));
        }
        let identity = self.authenticate(state, client, None).map_err(|_| {
            Failure::new(Refusal::NoLogin, String::from("SOCKS4 knows no password (--users)"))
        })?;
        Ok(Negotiated { identity, request, forwarded: None })
    }

    #[inline(never)]
    fn negotiate_http(
        &self,
        state: &SessionState,
        client: &mut ClientStream<'_>,
    ) -> Result<Negotiated, Failure> {
        let mut request = http::Request::read_from(client)?;
        if let Target::Page { method, path, host } = request.target {
            return Err(show_page(state, &method, &path, host)?);
        }
        if request.credentials.is_none() && self.users.are_required(state.peer().ip()) {
            request = challenge(client, request)?;
        }
        client.has_said_all = matches!(request.target, Target::Forwarded(..));
        let identity = self.authenticate(state, client, request.credentials.as_ref())?;
        let (command, destination, forwarded) = match request.target {
            Target::Connection(destination) => (Command::Connect, destination, None),
            Target::Forwarded(destination, mut head) => {
                head.extend(client.take_early(&mut request.body)?);
                (Command::Http, destination, Some(Box::new((head, request.body))))
            }
            Target::Page { .. } => return Err(LoginError::Missing.into()),
        };
        Ok(Negotiated { identity, request: Request { command, destination }, forwarded })
    }

    /// Agrees with a client of SOCKS5, which is at `from`, on how it authenticates.
    pub(super) fn greet(
        &self,
        client: &mut ClientStream<'_>,
        from: IpAddr,
    ) -> Result<Method, socks5::Error> {
        let without = Method::NoAuthentication;
        if !self.users.are_known() {
            return socks5::greet(client, without, None);
        }
        // Who can log in does, so that rules and the log have the user.
        let other = Some(without).filter(|_| !self.users.are_required(from));
        socks5::greet(client, Method::UsernamePassword, other)
    }

    #[inline(never)]
    fn authenticate(
        &self,
        state: &SessionState,
        client: &ClientStream<'_>,
        credentials: Option<&Credentials>,
    ) -> Result<Identity, LoginError> {
        use LoginError::{Ignored, NotVerified, Wrong};
        let wait = |waker: &Waker| client.waits_for(waker, state, self.config.handshake_timeout);
        let identity = self.users.authenticate(credentials, state.peer().ip(), wait);
        let name = match &identity {
            Ok(identity) => identity.user().cloned(),
            Err(LoginError::Missing | LoginError::ClientLeft) => None,
            Err(Wrong(name) | Ignored(name, _) | NotVerified(name)) => Some(name.as_str().into()),
        };
        if let Some(name) = name {
            state.identified(name);
        }
        identity
    }
}

/// Asks for a login, and reads the request that follows with one. What comes behind a CONNECT may be for
/// its target: without credentials it is no request (RFC 9931 would close the connection here, at which
/// several clients give up).
fn challenge(
    client: &mut ClientStream<'_>,
    mut refused: http::Request,
) -> Result<http::Request, Failure> {
    if refused.is_last || !client.discard(&mut refused.body, MOST_REFUSED)? {
        return Err(LoginError::Missing.into());
    }
    client.write_all(http::CHALLENGE)?;
    let next = http::Request::read_from(client);
    next.map_err(|_| Failure { refusal: None, ..LoginError::Missing.into() })
}

/// Shows what this server has for people and their devices.
#[inline(never)]
fn show_page(
    state: &SessionState,
    method: &str,
    path: &str,
    host: Option<Address>,
) -> Result<Failure, Failure> {
    let here = state.stream().local_addr()?;
    let place = host.unwrap_or_else(|| here.into()).to_string();
    let page = http::answer(method, path, &place);
    close_with(state, &page.octets);
    let outcome = if page.is_found { Outcome::Closed } else { Outcome::BadRequest };
    Ok(Failure::silent(outcome, format!("{method} {}", spell(path.as_bytes()))))
}
