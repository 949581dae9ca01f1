//! What a client asks for, whatever protocol it speaks.

use strum::{Display, IntoStaticStr};

use super::address::Address;

/// What the client wants. The log and the metrics write it in capitals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Display, IntoStaticStr)]
#[strum(serialize_all = "SCREAMING_SNAKE_CASE")]
pub enum Command {
    /// A connection to the destination.
    Connect,
    /// A request by HTTP, which is passed on to the destination.
    Http,
    /// One connection from the destination.
    Bind,
    /// A relay of UDP datagrams.
    #[strum(serialize = "UDP")]
    UdpAssociate,
    /// The address of a name, without a connection: Tor's extension.
    Resolve,
    /// The name of an address: Tor's extension.
    ResolvePtr,
}

/// A client's request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// What.
    pub command: Command,
    /// Where.
    pub destination: Address,
}
