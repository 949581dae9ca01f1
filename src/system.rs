//! What we have: threads, descriptors, and how many connections they are enough for.
//!
//! - [`pool::Pool`] runs jobs on threads in pairs, a worker and its [`pool::Partner`].
//! - [`descriptors::Descriptors`] raises the limit on descriptors and knows how many are held.
//! - [`addresses::room_for`] says whether there are addresses for one more thread.
//! - `queue` tells how many bytes wait in a connection's send queue.
//! - [`capacity::Capacity`] is how many connections this machine has room for, and what limits that.
//!
//! Nothing here knows a session, a policy or a log.

pub mod addresses;
pub mod capacity;
pub mod descriptors;
pub mod pool;
#[cfg(target_os = "linux")]
pub mod queue;
pub mod usage;
