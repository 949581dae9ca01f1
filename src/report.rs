//! What is seen of the server from outside: how each session ended, and who was turned away.
//!
//! - [`Outcome`] is how a session ended, one value with one word for it. Whatever tells of a session
//!   (log, README) uses this word.
//! - [`line`](mod@line) prints the one line that a session leaves in the log.
//! - [`Metrics`] counts, for Prometheus and for the status page.
//! - [`status`] serves the status page, the metrics and the state of health.
//! - [`Refusals`] logs those who were turned away before they had a session, a few each second.
//! - [`Rarely`] logs that the server is full, once a minute.

mod form;
pub mod line;
mod logger;
mod metrics;
mod outcome;
mod queue;
mod rarely;
mod refusals;
pub mod status;

pub use logger::Logger;
pub use metrics::{Gauges, Lookups, Metrics, Refused};
pub use outcome::Outcome;
pub use rarely::Rarely;
pub use refusals::Refusals;
