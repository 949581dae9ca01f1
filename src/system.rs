//! What the machine has: threads, descriptors, mappings, queues.

pub mod descriptors;
pub mod mappings;
pub mod pool;
#[cfg(target_os = "linux")]
pub mod queue;
