//! tabi: a SOCKS5 proxy server for a home or office network.
//!
//! A blocking listener, and workers of a thread pool that wait at it. The worker that gets a client
//! reads its greeting and its request, connects to the target, and then carries one direction of the
//! tunnel while its partner thread carries the other. A UDP association is carried by the worker
//! alone.
//!
//! # Map
//!
//! Six wings, each a folder whose own file says what it promises, and a few files above them. Each
//! file is one noun.
//!
//! ```text
//! main            arguments, logger, listeners, signals, run, exit status: the only place that exits
//! cli             the command line and the environment, parsed
//! config          the options of a server, each with its help and its default
//! probe           greets a server, for health checks
//! server/         listen, accept, reload, stop, shutdown; activation and notify are for a service manager
//! proxy           one client's whole life, top to bottom: admission, request, reply
//! proxy_protocol  the PROXY header of a load balancer, which says for whom it comes
//! relay/          two directions of a tunnel, half-closes and resets
//!
//! commands/       WHAT IS ASKED   CONNECT, BIND, UDP ASSOCIATE, name lookup
//! report/         WHAT IS SEEN    how a session ended, its line in the log, who was turned away,
//!                                 metrics, the status page
//! access/         WHO MAY         users and their passwords, rules, the policy that decides
//! sessions/       WHO IS HERE     the registry, who gets a place in it, time limits
//! socks5/         THE WIRE        the messages of RFC 1928 and RFC 1929, one a file
//! system/         WHAT WE HAVE    threads, descriptors, addresses, how many connections they are enough for;
//!                                 and what all stand on: locks, deadlines, a bounded map, kinds of addresses
//! ```
//!
//! Where to look for what newcomers ask first:
//!
//! ```text
//! where a new option goes             config, its value in config/value; people read of it in scripts/docs
//! how many connections there can be   system/capacity
//! who gets a place, who has to go     sessions/admission
//! where a wrong password is counted   access/users/penalties
//! what decides about a request        access/policy; the rule that matches is found in access/rules/index
//! which address is dialed first       commands/connect
//! what a client gets that has failed  proxy/failure
//! how bytes are copied                relay/direction, and relay/splice where there are many
//! where a reset is passed on          sessions/state, in `SessionState::end`
//! the line in the log                 report/line; why a session has ended is report/outcome
//! ```
//!
//! Arrows point down only, between wings as between files, and there is no circle: a file may name
//! those in its folder, and they never name it.
//!
//! ```text
//! main -> cli, server, probe -> config, proxy_protocol
//! server -> proxy -> config, relay, commands, report, proxy_protocol
//! config -> commands, access
//! commands -> access, sessions, system      relay, report -> sessions, system
//! access, sessions -> socks5, system
//! proxy_protocol -> socks5                  socks5, system -> std and small crates
//! ```
//!
//! # Invariants
//!
//! Types keep these, not comments.
//!
//! 1. [`socks5`] is `Read`, `Write` and bytes. Nothing in it knows a socket, a policy or a log.
//! 2. A reader takes exactly its message and not one octet more. What a client sends early reaches
//!    its target.
//! 3. Nothing is dialed, bound or sent to without a [`Permit`](access::policy::Permit). Only
//!    [`Policy`](access::policy::Policy) makes one, it needs an [`Identity`](access::users::Identity),
//!    and only [`Users::authenticate`](access::users::Users::authenticate) makes that. A permit
//!    carries resolved addresses, and only those are dialed.
//! 4. Every wait has a limit. From greeting to request there is one deadline, not one for each read.
//!    No lock is held across a system call that can block.
//! 5. The pool never waits on itself: a client is admitted before its session begins, and a worker
//!    has its partner before it begins. A live tunnel is two descriptors and two threads; an
//!    association counts as four descriptors, or six with a source, for its sockets and its lookups.
//! 6. No password is logged, printed or put into an error.
//! 7. A failing reply is made in one place (`proxy`), from one table ([`socks5::Rep`]).

pub mod access;
pub mod cli;
mod commands;
pub mod config;
pub mod probe;
mod proxy;
pub mod proxy_protocol;
mod relay;
pub mod report;
pub mod server;
mod sessions;
pub mod socks5;
pub mod system;
