//! The wire: the messages that clients, load balancers and upstreams send, and those that they are sent.
//!
//! Each protocol has a folder or a file of its own. It reads the same [`request::Request`] from its octets, and
//! says the same success and the same [`refusal::Refusal`] in its own way: what comes behind it works on these,
//! and does not know which protocol it was. [`protocol::Protocol`] tells them apart.
//!
//! Everything here reads from any [`std::io::Read`] and takes exactly its own octets and not one more.
//! Nothing here knows a socket, a policy or a log.

pub mod address;
pub mod credentials;
pub mod error;
pub mod http;
pub mod protocol;
pub mod proxy_protocol;
pub mod refusal;
pub mod request;
pub mod socks4;
pub mod socks5;
