//! SOCKS4, and `SOCKS4a` with names.

use super::refusal::Refusal;

/// "Request rejected or failed": there is hardly more to say.
pub fn refusal(_: &Refusal) -> Vec<u8> {
    b"\x00\x5b\x00\x00\x00\x00\x00\x00".to_vec()
}
