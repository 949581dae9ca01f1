//! tabi: a SOCKS5 proxy server for a home or office network.
//!
//! A blocking listener hands each client to a worker of a thread pool. The worker reads the greeting
//! and the request, connects to the target, and then carries one direction of the tunnel while its
//! partner thread carries the other. An association of UDP is carried by the worker alone.
//!
//! # Map
//!
//! Each file is one noun, and arrows point down only:
//!
//! ```text
//! main      arguments, logger, listeners, signals, run, exit status  -> cli, server
//! cli       the command line, parsed                                 -> server (its Config)
//! server    accept loops: admission, accept errors, drain            -> proxy, pool, mappings
//! proxy     one client's whole life                                  -> all below
//! users     method selection, passwords, penalties, Identity         -> socks5
//! rules     who is served, the rules file, Permit                    -> users, socks5
//! lookup    names to addresses, within a deadline                    -> pool, socks5
//! connect   CONNECT: races the permitted addresses                   -> rules
//! bind      BIND: one listener, two replies, one expected peer       -> rules, connect
//! associate UDP ASSOCIATE: lives and dies with its TCP connection    -> rules, lookup, connect,
//!                                                                       sessions, pool
//! relay     two directions, half-closes and resets                   -> sessions, pool
//!           (relay::splice: the bulk path on Linux)                  -> descriptors
//! sessions  the registry of live sessions, counters, time limits     -> socks5, descriptors
//! descriptors  the limit on them, and who holds how many
//! mappings     the limit on them, and how threads do with fewer
//! pool      the threads: a worker and its partner for each session
//! socks5    the messages, one a file
//! ```
//!
//! # Invariants
//!
//! Types keep these, not comments.
//!
//! 1. [`socks5`] is `Read`, `Write` and octets. Nothing in it knows a socket, a policy or a log.
//! 2. A reader takes exactly its message and not one octet more. What a client sends early reaches
//!    its target.
//! 3. Nothing is dialed, bound or sent to without a [`rules::Permit`]. Only [`rules::Rules`] makes
//!    one, it needs a [`users::Identity`], and only [`users::Users::authenticate`] makes that. A
//!    permit carries resolved addresses, and only those are dialed.
//! 4. Every wait has a limit. From greeting to request there is one deadline, not one a read.
//! 5. The pool never waits on itself: admission is decided before a job is queued, and a worker has
//!    its partner before it begins. A live tunnel is two descriptors and two threads;
//!    an association with its UDP sockets has a descriptor more.
//! 6. No password is logged, printed or put into an error.
//! 7. A failing reply is made in one place ([`proxy`]), from one table ([`socks5::Rep`]).

pub mod access;
pub mod cli;
pub mod commands;
pub mod probe;
pub mod proxy;
pub mod proxy_protocol;
pub mod relay;
pub mod report;
pub mod server;
pub mod sessions;
pub mod socks5;
pub mod system;
