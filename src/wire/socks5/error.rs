//! Why a message could not be read.

use std::io;

use super::method::Method;
use crate::wire::address::InvalidName;

/// Why a client's message could not be read. Every variant but [`Error::Io`] is the client's fault.
#[derive(Debug, strum::Display)]
pub enum Error {
    /// A greeting or a request has another VER than 0x05.
    #[strum(to_string = "VER is {0:#04x}, not 0x05")]
    Version(u8),
    /// The client does not offer the only method that is acceptable (RFC 1928 section 3).
    #[strum(to_string = "the client does not offer {0}")]
    NoAcceptableMethod(Method),
    /// The credentials have another VER than RFC 1929's.
    #[strum(to_string = "the credentials' VER is {0:#04x}, not 0x01")]
    CredentialsVersion(u8),
    /// CMD is none of those in RFC 1928 section 4, nor one of those that Tor has added.
    #[strum(to_string = "CMD {0:#04x} is unknown")]
    Command(u8),
    /// ATYP is none of those in RFC 1928 section 5.
    #[strum(to_string = "ATYP {0:#04x} is unknown")]
    AddressType(u8),
    /// DST.ADDR is a name that no host can have.
    #[strum(to_string = "{0}")]
    Name(InvalidName),
    /// The stream failed or ended inside a message.
    #[strum(transparent)]
    Io(io::Error),
}

impl From<InvalidName> for Error {
    fn from(name: InvalidName) -> Self {
        Error::Name(name)
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Error::Io(error)
    }
}

/// Why another server's answer could not be read. Every variant but [`AnswerError::Io`] is that
/// server's fault.
#[derive(Debug, strum::Display)]
pub enum AnswerError {
    /// The method selection or the reply has another VER than SOCKS5's.
    #[strum(to_string = "it does not speak SOCKS5: its VER is {0:#04x}")]
    Version(u8),
    /// METHOD is neither of those that may have been offered.
    #[strum(to_string = "it selects the unknown METHOD {0:#04x}")]
    Method(u8),
    /// The status has another VER than RFC 1929's.
    #[strum(to_string = "the VER of its status is {0:#04x}, not 0x01")]
    StatusVersion(u8),
    /// BND.ADDR is none.
    #[strum(to_string = "its BND.ADDR is bad: {0}")]
    Bound(Error),
    /// The stream failed or ended inside a message.
    #[strum(transparent)]
    Io(io::Error),
}

impl From<io::Error> for AnswerError {
    fn from(error: io::Error) -> Self {
        AnswerError::Io(match error.kind() {
            io::ErrorKind::UnexpectedEof => {
                io::Error::new(io::ErrorKind::UnexpectedEof, "it closes the connection")
            }
            _ => error,
        })
    }
}

impl From<Error> for AnswerError {
    fn from(error: Error) -> Self {
        match error {
            Error::Io(error) => error.into(),
            error => AnswerError::Bound(error),
        }
    }
}
