//! Who a client is: the method selection, and the proof that it was passed.

use std::io::{Read, Write};

use crate::socks5::{Error, Greeting, Method, write_selection};

/// Who a client is. Only [`Users::authenticate`] makes one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    user: Option<String>,
}

impl Identity {
    /// The name that the client has authenticated with; `None` where no user is required.
    #[must_use]
    pub fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }
}

/// Those who may use the server.
#[derive(Debug, Default)]
pub struct Users;

impl Users {
    /// Reads the greeting, selects a method and carries it out (RFC 1928 section 3).
    ///
    /// # Errors
    ///
    /// [`Error::NoAcceptableMethod`] when the client offers none that is acceptable, those of
    /// [`Greeting::read_from`], and [`Error::Io`].
    pub fn authenticate(&self, client: &mut (impl Read + Write)) -> Result<Identity, Error> {
        let greeting = Greeting::read_from(client)?;
        if !greeting.offers(Method::NoAuthentication) {
            return Err(Error::NoAcceptableMethod);
        }
        write_selection(Some(Method::NoAuthentication), client)?;
        Ok(Identity { user: None })
    }
}
