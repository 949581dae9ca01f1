//! METHOD: how a client authenticates (RFC 1928 section 3).

use strum::FromRepr;

/// An authentication method that tabi can select.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromRepr)]
#[repr(u8)]
pub enum Method {
    /// No authentication required.
    NoAuthentication = 0x00,
    /// Username and password (RFC 1929).
    UsernamePassword = 0x02,
}
