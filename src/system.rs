//! What we have: threads, descriptors, and how many connections they are enough for.
//!
//! - [`pool::Pool`] runs jobs on threads in pairs, a worker and its [`pool::Partner`].
//! - [`descriptors::Descriptors`] raises the limit on descriptors and knows how many are held.
//! - [`address_space::room_for`] says whether there is room for one more stack.
//! - [`poll`] waits for several of them at once, for a limited time, and [`waker`] ends such a wait.
//! - [`timed_stream`] is a connection that waits for its peer until a deadline.
//! - [`shared_wait`] is the wait of several threads for one socket.
//! - `packet_info` tells at which address a datagram has come, and sends one from there.
//! - `queue` tells how many bytes wait in a connection's send queue, and how many clients in a backlog.
//! - [`capacity::Capacity`] is how many connections this machine has room for, and what limits that.
//! - [`memory`] is how much memory there is, and whether it is short; `groups` are the control groups.
//! - [`usage`] is what of it is in use at present.
//! - [`rate`] is so many bytes a second for several who share them.
//! - `jobs` is what takes long and has few threads to run on, and who waits for it.
//! - [`shares`] is how what there is too little of is shared among clients, and lists all of that.
//! - `links` keeps the addresses of this machine and the prefixes of its links, and reads them again once the
//!   kernel tells `routing` of a change, which also asks it about a single address. `interfaces` says what
//!   follows from them, [`hosts`] knows this machine's names, and [`ip`] what kind an address is.
//!
//! And what all others use: `sync` (locks), [`deadline`], `lru` (a map with a bound).
//!
//! Nothing here knows a session, a policy or a log.

pub mod address_space;
pub mod capacity;
pub mod deadline;
pub mod descriptors;
mod groups;
pub mod hosts;
pub mod interfaces;
pub mod ip;
pub(crate) mod jobs;
mod links;
pub mod lru;
pub mod memory;
pub mod packet_info;
pub mod poll;
pub mod pool;
#[cfg(target_os = "linux")]
pub mod queue;
pub mod rate;
pub mod routing;
pub mod shared_wait;
pub mod shares;
pub mod sync;
pub mod timed_stream;
pub mod usage;
pub mod waker;
