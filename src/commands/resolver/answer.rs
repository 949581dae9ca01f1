//! What a lookup has found.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::wire::address::Name;

/// What a lookup has found, or why it has found nothing.
pub(crate) type Answer = Result<Found, Arc<io::Error>>;

/// What a lookup has found.
#[derive(Clone, Debug)]
pub(crate) enum Found {
    /// The addresses of a name, with port 0.
    Addresses(Arc<[SocketAddr]>),
    /// The name of an address.
    Name(Name),
}

impl Found {
    /// The addresses of a name, with `port`.
    pub(crate) fn with_port(&self, port: u16) -> Vec<SocketAddr> {
        let mut addresses = match self {
            Found::Addresses(addresses) => addresses.to_vec(),
            Found::Name(_) => Vec::new(),
        };
        for address in &mut addresses {
            address.set_port(port);
        }
        addresses
    }
}
