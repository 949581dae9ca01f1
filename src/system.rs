//! What we have: threads, descriptors, and how many connections they are enough for.
//!
//! - [`pool::Pool`] runs jobs on threads in pairs, a worker and its [`pool::Partner`].
//! - [`descriptors::Descriptors`] raises the limit on descriptors and knows how many are held.
//! - [`capacity::Capacity`] is how many connections this machine has room for, and what limits that.
//!
//! Nothing here knows a session, a policy or a log.

pub mod capacity;
pub mod descriptors;
pub mod pool;
pub mod usage;
