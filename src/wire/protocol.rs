//! What a client speaks: known by its first octet.

use std::fmt;

use strum::{Display, EnumString, IntoStaticStr};

use super::address::Address;
use super::refusal::Refusal;
use super::{http, socks4, socks5};

/// What a client speaks. The log and the metrics write it in small letters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Display, EnumString, IntoStaticStr)]
#[strum(serialize_all = "lowercase")]
pub enum Protocol {
    /// SOCKS protocol version 5 (RFC 1928).
    Socks5,
    /// SOCKS4, and `SOCKS4a` with names.
    Socks4,
    /// HTTP/1, as it is spoken to a proxy (RFC 9110 section 7.6, RFC 9112 section 3.2).
    Http,
}

/// The first octet of a client that speaks something else.
#[derive(Debug)]
pub struct UnknownProtocol(pub u8);

impl Protocol {
    /// What begins with the octet `first`.
    pub fn of(first: u8) -> Result<Self, UnknownProtocol> {
        match first {
            0x05 => Ok(Protocol::Socks5),
            0x04 => Ok(Protocol::Socks4),
            // A method.
            b'A'..=b'Z' => Ok(Protocol::Http),
            _ => Err(UnknownProtocol(first)),
        }
    }

    /// What a client is told whose request has succeeded; `bound` is the address at which this server is
    /// seen.
    pub fn success(self, bound: &Address) -> Vec<u8> {
        match self {
            Protocol::Socks5 => socks5::success(bound),
            Protocol::Socks4 => socks4::success(bound),
            Protocol::Http => http::CONNECTED.into(),
        }
    }

    /// The last message to a client that gets nothing.
    pub fn refusal(self, refusal: &Refusal) -> Vec<u8> {
        match self {
            Protocol::Socks5 => socks5::refusal(refusal),
            Protocol::Socks4 => socks4::refusal(refusal),
            Protocol::Http => http::refusal(refusal),
        }
    }
}

impl fmt::Display for UnknownProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            UnknownProtocol(0x16) => f.write_str("the client speaks TLS, which is not served"),
            UnknownProtocol(octet) => {
                write!(f, "the client's first octet {octet:#04x} begins no protocol that is known")
            }
        }
    }
}
