//! What the machine has: threads, descriptors, mappings.

pub mod descriptors;
pub mod mappings;
pub mod pool;
pub mod usage;
