//! Why a message could not be read.

use std::time::Duration;
use std::{fmt, io};

use super::method::Method;

/// Why a client's message could not be read. Every variant but [`Error::Io`] is the client's fault.
#[derive(Debug)]
pub enum Error {
    /// The greeting begins as SOCKS version 4 does.
    Socks4,
    /// The greeting begins as an HTTP request does.
    Http,
    /// The greeting begins with an octet that is no version of SOCKS.
    NotSocks(u8),
    /// The client does not offer the only method that is acceptable (RFC 1928 section 3).
    NoAcceptableMethod(Method),
    /// The credentials have another VER than RFC 1929's.
    CredentialsVersion(u8),
    /// Nobody has this name and password. The name is one word of visible ASCII.
    BadCredentials(String),
    /// This name has failed too often of late: the password was not looked at, and will not be for
    /// this time.
    IgnoredCredentials(String, Duration),
    /// The request has another VER than the greeting had.
    RequestVersion(u8),
    /// CMD is none of those in RFC 1928 section 4, nor one of those that Tor has added.
    Command(u8),
    /// ATYP is none of those in RFC 1928 section 5.
    AddressType(u8),
    /// DST.ADDR is a name that no host can have; these are its octets.
    Name(Vec<u8>),
    /// The stream failed or ended inside a message.
    Io(io::Error),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Socks4 => f.write_str("the client speaks SOCKS4; set it to SOCKS5"),
            Error::Http => {
                f.write_str("the client speaks HTTP; set this server as its SOCKS5 proxy")
            }
            Error::NotSocks(0x16) => f.write_str("the client speaks TLS, not SOCKS5"),
            Error::NotSocks(octet) => {
                write!(f, "the client's first octet is {octet:#04x}, not SOCKS5's 0x05")
            }
            Error::NoAcceptableMethod(Method::UsernamePassword) => {
                f.write_str("the client offers no username and password")
            }
            Error::NoAcceptableMethod(Method::NoAuthentication) => {
                f.write_str("the client does not offer to go without authentication")
            }
            Error::CredentialsVersion(octet) => {
                write!(f, "the credentials' VER is {octet:#04x}, not 0x01")
            }
            Error::BadCredentials(name) => write!(f, "wrong name or password of {name}"),
            Error::IgnoredCredentials(_, left) => write!(
                f,
                "too many wrong passwords: not looked at for another {:.1} s",
                left.as_secs_f32()
            ),
            Error::RequestVersion(octet) => {
                write!(f, "the request's VER is {octet:#04x}, not 0x05")
            }
            Error::Command(octet) => write!(f, "CMD {octet:#04x} is unknown"),
            Error::AddressType(octet) => write!(f, "ATYP {octet:#04x} is unknown"),
            Error::Name(octets) => {
                // A quotation mark stands for itself nowhere, so that the log can put one around it.
                let spelled = octets.escape_ascii().to_string().replace("\\\"", "\\x22");
                write!(f, "no host is named '{spelled}'")
            }
            Error::Io(error) => error.fmt(f),
        }
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Error::Io(error)
    }
}

/// Why another server's answer could not be read. Every variant but [`AnswerError::Io`] is that
/// server's fault.
#[derive(Debug)]
pub enum AnswerError {
    /// The method selection or the reply has another VER than SOCKS5's.
    Version(u8),
    /// METHOD is neither of those that may have been offered.
    Method(u8),
    /// The status has another VER than RFC 1929's.
    StatusVersion(u8),
    /// BND.ADDR is none.
    Bound(Error),
    /// The stream failed or ended inside a message.
    Io(io::Error),
}

impl fmt::Display for AnswerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AnswerError::Version(octet) => {
                write!(f, "it does not speak SOCKS5: its VER is {octet:#04x}")
            }
            AnswerError::Method(octet) => write!(f, "it selects the unknown METHOD {octet:#04x}"),
            AnswerError::StatusVersion(octet) => {
                write!(f, "the VER of its status is {octet:#04x}, not 0x01")
            }
            AnswerError::Bound(error) => write!(f, "its BND.ADDR is bad: {error}"),
            AnswerError::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                f.write_str("it closes the connection")
            }
            AnswerError::Io(error) => error.fmt(f),
        }
    }
}

impl From<io::Error> for AnswerError {
    fn from(error: io::Error) -> Self {
        AnswerError::Io(error)
    }
}

impl From<Error> for AnswerError {
    fn from(error: Error) -> Self {
        match error {
            Error::Io(error) => AnswerError::Io(error),
            error => AnswerError::Bound(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_client_chose_is_escaped_in_an_error() {
        let error = Error::Name(b"a\nb\x1b[31m\xff".to_vec());
        assert_eq!(error.to_string(), r"no host is named 'a\nb\x1b[31m\xff'");
    }
}
