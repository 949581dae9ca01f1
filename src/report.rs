//! What is seen of the server from outside: how each session ended, and who was turned away.
//!
//! - [`Outcome`] is how a session ended, one value with one word for it. Whatever tells of a session
//!   (log, README) uses this word.
//! - [`line`](mod@line) prints the one line that a session leaves in the log.
//! - [`Refusals`] logs those who were turned away before they had a session, a few each second.
//! - [`Rarely`] logs that the server is full, once a minute.

mod form;
pub mod line;
mod logger;
mod outcome;
mod queue;
mod rarely;
mod refusals;

pub use logger::Logger;
pub use outcome::Outcome;
pub use rarely::Rarely;
pub use refusals::Refusals;
