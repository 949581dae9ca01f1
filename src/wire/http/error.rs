//! Why a message could not be read.

use std::{fmt, io};

/// Why a message could not be read. Every variant but [`Error::Io`] is the sender's fault.
#[derive(Debug)]
pub enum Error {
    /// It is no message of HTTP/1, or one that two readers may take for different ones; this is why.
    Malformed(&'static str),
    /// Its head is too long, or has too many fields.
    TooLarge,
    /// The stream failed or ended inside the head.
    Io(io::Error),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Malformed(why) => f.write_str(why),
            Error::TooLarge => {
                f.write_str("the head is longer than 16 KiB, or has over 128 fields")
            }
            Error::Io(error) => error.fmt(f),
        }
    }
}

impl From<httparse::Error> for Error {
    fn from(error: httparse::Error) -> Self {
        match error {
            httparse::Error::HeaderName => {
                Error::Malformed("a field has no name that there can be")
            }
            httparse::Error::HeaderValue => {
                Error::Malformed("a field has no value that there can be")
            }
            httparse::Error::Version => Error::Malformed("it is not HTTP/1"),
            httparse::Error::TooManyHeaders => Error::TooLarge,
            _ => Error::Malformed("the first line is none of HTTP/1"),
        }
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Error::Io(error)
    }
}

impl From<io::ErrorKind> for Error {
    fn from(kind: io::ErrorKind) -> Self {
        Error::Io(kind.into())
    }
}
