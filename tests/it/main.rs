//! End-to-end tests: a server on port 0 of this machine, and clients and targets beside it that
//! speak in plain octets. Every wait has a limit.

#![allow(unreachable_pub, reason = "a test crate exports nothing")]

mod activation;
mod admission;
mod associate;
mod bind;
mod curl;
mod documents;
mod environment;
mod faults;
mod hashes;
mod http;
mod json_log;
mod limits;
mod log;
mod manager;
mod names;
mod namespace;
mod no_password;
mod packages;
mod pages;
mod probe;
mod properties;
mod proxy_protocol;
mod relay;
mod reload;
mod resolve;
mod restart;
mod revoked;
mod rules;
mod scratch;
mod shares;
mod shortage;
mod signals;
mod socks4;
mod source;
mod stage;
mod status;
mod stop;
mod terminal;
mod time;
mod udp_ports;
mod upstream;
mod users;
mod whole;
mod wire;
