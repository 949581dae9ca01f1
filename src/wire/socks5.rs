//! The messages of SOCKS protocol version 5 (RFC 1928) and of its username and password (RFC 1929).
//!
//! ```text
//! client                                server
//!   | greeting   05 n methods             |
//!   |------------------------------------>|
//!   |             05 method     selection |
//!   |<------------------------------------|
//!   | credentials  01 n name n password   |   where the method is 02
//!   |------------------------------------>|
//!   |             01 status        status |
//!   |<------------------------------------|
//!   | request    05 cmd 00 atyp dst port  |
//!   |------------------------------------>|
//!   |   05 rep 00 atyp bnd port     reply |
//!   |<------------------------------------|
//!   |  octets of the client and target    |
//!   |<----------------------------------->|
//! ```
//!
//! Each message reads itself from any [`std::io::Read`], and writes itself with one `write_all`.
//!
//! The server is this one, or the other one that this one is a client of.

mod address;
mod datagram;
mod error;
mod greeting;
mod method;
mod refusal;
mod reply;
mod request;
mod userpass;

pub use datagram::{Datagram, LONGEST_HEADER, append_header};
pub use error::{AnswerError, Error};
pub use greeting::{Greeting, greet, read_selection, write_selection};
pub use method::Method;
pub use refusal::{refusal, success};
pub use reply::Reply;
pub use userpass::{read_status, write_status};
