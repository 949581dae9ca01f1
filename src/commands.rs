//! What clients ask for: CONNECT, BIND, UDP ASSOCIATE, and what these need: lookups, another server to
//! go through, where sockets leave this machine.

pub mod associate;
pub mod bind;
pub mod connect;
pub mod lookup;
pub mod source;
pub mod upstream;
