//! What clients ask for: CONNECT, BIND, UDP ASSOCIATE, and the lookups that these need.

pub mod associate;
pub mod bind;
pub mod connect;
pub mod families;
pub mod lookup;
