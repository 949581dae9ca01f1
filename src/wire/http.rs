//! HTTP/1, as a client speaks it to a proxy (RFC 9110, RFC 9112).
//!
//! ```text
//! client                                     server
//!   | CONNECT host:port HTTP/1.1, fields       |
//!   |----------------------------------------->|
//!   |                             HTTP/1.1 200 |
//!   |<-----------------------------------------|
//!   |       octets of client and target        |
//!   |<---------------------------------------->|
//!
//!   | GET http://host/path HTTP/1.1, fields    |     to the target: GET /path HTTP/1.1
//!   |----------------------------------------->|
//!   |              the target's response       |
//!   |<-----------------------------------------|
//! ```
//!
//! A connection is for one request, but for one more after a 407. A head is read as `httparse` does, and what
//! two readers might take for different messages is refused.

mod body;
mod head;
mod pages;
mod refusal;
mod request;
mod response;

pub use body::Body;
pub use pages::answer;
pub use refusal::{CHALLENGE, refusal};
pub use request::{Request, Target};
pub use response::ResponseHead;

/// The response to a CONNECT that has succeeded.
pub const CONNECTED: &[u8] = b"HTTP/1.1 200 Connection established\r\n\r\n";
