//! Why a message could not be read, in SOCKS4 and in HTTP.

use std::borrow::Cow;
use std::io;

use super::address::InvalidName;

/// Why a message could not be read. Every variant but [`Error::Io`] is the sender's fault.
#[derive(Debug, strum::Display)]
pub enum Error {
    /// It is none that there can be, or one that two readers may take for different ones; this is why.
    #[strum(to_string = "{0}")]
    Malformed(Cow<'static, str>),
    /// It is too long, or has too many fields.
    #[strum(to_string = "the message is too long")]
    TooLarge,
    /// The stream failed or ended inside it.
    #[strum(transparent)]
    Io(io::Error),
}

impl From<&'static str> for Error {
    fn from(why: &'static str) -> Self {
        Error::Malformed(why.into())
    }
}

impl From<InvalidName> for Error {
    fn from(name: InvalidName) -> Self {
        Error::Malformed(name.to_string().into())
    }
}

impl From<httparse::Error> for Error {
    fn from(error: httparse::Error) -> Self {
        match error {
            httparse::Error::TooManyHeaders => Error::TooLarge,
            error => Error::Malformed(error.to_string().into()),
        }
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Error::Io(error)
    }
}
