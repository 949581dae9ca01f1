//! What is asked: the commands of a request, and the lookup of names that they need.
//!
//! - [`connect`] dials the addresses of a [`Permit`](crate::access::policy::Permit) and gives back the
//!   first connection that the target accepts; [`families`] says which address family goes first.
//! - [`bind`] listens for the one peer that the client expects.
//! - [`associate`] relays datagrams for as long as the client's TCP connection stays.
//! - [`resolve`] answers what the address of a name is, or the name of an address.
//! - [`resolver`] turns a name into addresses, and an address into a name, within a deadline.
//! - [`upstream`] dials through another SOCKS5 server.
//! - [`egress`] says where the sockets of all of them leave this machine.
//! - [`client_watch`] is the client meanwhile: it may leave.
//!
//! Nothing here is done without a permit, and each wait ends when the client leaves. What went wrong
//! comes back as an [`Error`]; only [`proxy`](crate::proxy) tells the client.

pub(crate) mod associate;
pub(crate) mod bind;
pub(crate) mod client_watch;
pub(crate) mod connect;
pub(crate) mod egress;
mod error;
pub(crate) mod families;
pub(crate) mod resolve;
pub(crate) mod resolver;
pub(crate) mod upstream;

pub(crate) use error::Error;
