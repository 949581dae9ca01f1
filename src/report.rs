//! What is seen of the server from outside: how each session ended, and who was turned away.
//!
//! - [`Outcome`] is how a session ended: one value, and one word for it in the log, the metrics and
//!   the status page.
//! - [`ClientLog`] counts each session that has ended, and logs a line for it. A session whose thread
//!   panics is logged, too: it has `failed`. It logs who was turned away before there was a session, as
//!   well. Of a client that has very many lines, and of all clients, only some are logged.
//! - [`Metrics`] counts, for Prometheus and for the status page.
//! - [`status`] serves the status page, the metrics and the state of health.
//! - [`RateLimitedWarning`] logs what comes again and again, such as that the server is full, once a
//!   minute; [`LastingState`] logs the beginning and the end of what lasts.
//! - [`Logger`] makes lines with simplelog and puts them into a queue. Whoever logs never waits for
//!   whoever reads the log; what does not fit into the queue is counted, and the log says so.
//!
//! Inside, `line` prints a session's line, `rate_limit` counts lines and visitors, `format` knows how times and
//! levels look on a terminal, in a file, in systemd's journal and in JSON, which `json` writes, and `queue` has
//! the thread that writes. Everything that a client chose is escaped once, and every line has a bounded length.

mod client_log;
mod format;
mod json;
mod lasting_state;
mod line;
mod logger;
mod metrics;
mod outcome;
mod queue;
mod rate_limit;
mod rate_limited_warning;
pub mod status;

pub use client_log::{ClientLog, SessionEntry};
pub use lasting_state::LastingState;
pub use logger::Logger;
pub use metrics::{Counts, Gauges, Metrics, Rejection};
pub use outcome::Outcome;
pub use rate_limited_warning::RateLimitedWarning;
