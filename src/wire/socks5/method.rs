//! METHOD: how a client authenticates (RFC 1928 section 3).

use strum::{Display, FromRepr};

/// An authentication method that tabi can select.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Display, FromRepr)]
#[repr(u8)]
pub enum Method {
    /// No authentication required.
    #[strum(to_string = "to go without authentication")]
    NoAuthentication = 0x00,
    /// Username and password (RFC 1929).
    #[strum(to_string = "username and password")]
    UsernamePassword = 0x02,
}
