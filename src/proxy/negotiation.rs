//! What a client speaks, who it is and what it asks for.

use std::io::BufRead;

use super::Proxy;
use super::client::ClientStream;
use super::failure::Failure;
use crate::access::users::{Identity, LoginError};
use crate::sessions::SessionState;
use crate::wire::credentials::Credentials;
use crate::wire::protocol::Protocol;
use crate::wire::request::Request;
use crate::wire::socks5::{self, Method};

impl Proxy {
    /// Learns who the client is and what it asks for, whatever it speaks.
    #[inline(never)]
    pub(super) fn negotiate(
        &self,
        state: &SessionState,
        client: &mut ClientStream<'_>,
    ) -> Result<(Identity, Request), Failure> {
        let first = client.fill_buf()?.first().copied().ok_or_else(Failure::client_left)?;
        let protocol = Protocol::of(first)?;
        state.speaks(protocol);
        match protocol {
            Protocol::Socks5 => self.negotiate_socks5(state, client),
            Protocol::Socks4 | Protocol::Http => Err(Failure::not_served(protocol)),
        }
    }

    fn negotiate_socks5(
        &self,
        state: &SessionState,
        client: &mut ClientStream<'_>,
    ) -> Result<(Identity, Request), Failure> {
        let credentials = socks5::negotiate(client, self.method())?;
        let identity = self.authenticate(state, credentials.as_ref())?;
        if credentials.is_some() {
            socks5::write_status(true, client)?;
        }
        Ok((identity, Request::read_from(client)?))
    }

    /// What a client has to agree to.
    pub(super) fn method(&self) -> Method {
        if self.users.are_required() { Method::UsernamePassword } else { Method::NoAuthentication }
    }

    fn authenticate(
        &self,
        state: &SessionState,
        credentials: Option<&Credentials>,
    ) -> Result<Identity, LoginError> {
        let identity = self.users.authenticate(credentials, state.peer().ip());
        let name = match &identity {
            Ok(identity) => identity.user().cloned(),
            Err(LoginError::Wrong(name) | LoginError::Ignored(name, _)) => {
                Some(name.as_str().into())
            }
            Err(LoginError::Missing) => None,
        };
        if let Some(name) = name {
            state.identified(name);
        }
        identity
    }
}
