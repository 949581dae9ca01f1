//! tabi: a proxy server for a home or office network. It speaks SOCKS5, SOCKS4 and HTTP on one port.
//!
//! A blocking listener, and workers of a thread pool that wait at it. The worker that gets a client
//! reads its request, by whatever protocol it comes, connects to the target, and then carries one direction of
//! the tunnel while a second thread, its partner, carries the other. A UDP association is carried by the worker
//! alone.
//!
//! The first byte tells what a client speaks. What it asks for becomes one neutral request, and what it gets
//! one neutral refusal or success, so that access, lookups, dialing and limits are the same for all of them.
//!
//! # A CONNECT, step by step
//!
//! ```text
//! server/accept         a worker accepts the client and has it admitted     sessions/admission
//! proxy/negotiation     reads greeting, password and request                wire/socks5, access/users
//! proxy                 asks the policy, which may need the name's          access/policy, commands/resolver
//!                       addresses: a lookup that the proxy hands to it
//!                       dials the addresses that are permitted              commands/connect
//! relay                 replies, and copies both ways                       relay/direction
//!                       passes on ends of file and resets                   sessions/state
//! report/client_log     counts the session and logs its line                report/outcome, report/line
//! ```
//!
//! # A request by HTTP
//!
//! Up to the connection it is a CONNECT. Then one request and one response pass, and not bytes both ways:
//!
//! ```text
//! proxy/negotiation     reads the head; asks once for a login that is missing  wire/http/head, request
//!                       shows a page, where one of its own is asked for        wire/http/pages
//! proxy                 asks, dials                                            as above
//! relay/exchange        sends the head as the target is to get it, the body
//!                       as far as it goes and not one byte more,               wire/http/body
//!                       the response's head, and the rest as a tunnel does     wire/http/response
//! ```
//!
//! # Map
//!
//! Six parts, each a folder whose own file says what is in it, and what uses them, from top to bottom.
//!
//! ```text
//! main            arguments, logger, listeners, signals, run, exit status: the only place that exits
//! cli             the command line and the environment, parsed; how much is logged and where to
//! config          the options of a server, each with its help and its default
//! probe           greets a server, for health checks
//! server/         listen, accept, reload, stop, shutdown; restart hands all clients to a new process;
//!                 inherited takes sockets from systemd or the process before, notify tells systemd
//!                 how the server is
//! proxy           one client's whole life, top to bottom: admission, request, reply
//! relay/          the two directions of a tunnel; exchange: one request by HTTP and its response
//!
//! commands/       what is asked   CONNECT, BIND, UDP ASSOCIATE, name lookup
//! report/         what is seen    how a session ended, its line in the log, who was turned away,
//!                                 metrics, the status page
//! access/         who may         users and their passwords, rules, the policy that decides
//! sessions/       who is here     the registry, who gets a place in it, time limits, how a session ends
//! wire/           the wire        what clients send and are sent: socks5, socks4, http (heads, bodies, the PAC
//!                                 file and the page), a balancer's header; and one request and one refusal
//!                                 for all of them
//! system/         what there is   threads, descriptors, addresses, how many connections they are enough
//!                                 for; locks, deadlines, a bounded map, kinds of addresses
//! ```
//!
//! Where to look for what newcomers ask first:
//!
//! ```text
//! where a new option goes             config, its value in config/value; people read of it in scripts/docs
//! how many connections there can be   system/capacity
//! who gets a place, who has to go     sessions/admission
//! how much one client may have        system/shares, for everything that is bounded
//! who shares a `limit` of the rules   access/rules/limits; how a rate is kept is system/rate, where one waits
//!                                     for that is sessions/rates
//! where a wrong password is counted   access/users/penalties
//! what decides about a request        access/policy; the rule that matches is found in access/rules/index
//! which addresses are the machine's   system/interfaces: a list that system/links keeps as long as nothing
//!                                     changes, and the kernel, which system/routing asks
//! which address is dialed first       commands/connect
//! what a client gets that has failed  proxy/failure decides, and each protocol in wire/ says it in its way
//! how bytes are copied                relay/direction, and relay/splice where there are many
//! where a reset is passed on          sessions/state, in `SessionState::end`
//! the line in the log                 report/line; why a session has ended is report/outcome
//! ```
//!
//! Each uses those below it, and there is no circle between files: a file uses those in its folder, and
//! they never use it.
//!
//! ```text
//! main -> cli, server, probe -> config, wire
//! server -> proxy -> config, relay, commands, report, wire
//! config -> commands, access
//! commands -> access, sessions              relay, report -> sessions
//! access, sessions -> wire, system -> std and small crates
//! ```
//!
//! # Invariants
//!
//! 1. [`wire`] is `Read`, `Write` and bytes. Nothing in it knows a socket, a policy or a log, and nothing behind
//!    it knows which protocol a client speaks, but the log and the metrics.
//! 2. A reader takes exactly its message and not one octet more. What a client sends early reaches
//!    its target.
//! 3. Nothing is dialed, bound or sent to for a client without a [`Permit`](access::policy::Permit). Only
//!    [`Policy`](access::policy::Policy) makes one, it needs an [`Identity`](access::users::Identity),
//!    and only [`Users::authenticate`](access::users::Users::authenticate) makes that. A permit
//!    carries the addresses that were judged, and only those are dialed; or the upstream to go through, and
//!    then only that is.
//! 4. Every wait has a limit. From greeting to request there is one deadline, not one for each read; a
//!    tunnel's waits are ended by the watch over all sessions. No lock is held across a system call that can
//!    block.
//! 5. The pool never waits on itself: a client is admitted before its session begins, and a worker
//!    has its second thread before it begins. A live tunnel is two descriptors and two threads; an
//!    association asks for two more, or four with `--source` or `--interface`, for its sockets and its
//!    lookups.
//! 6. No password is logged, printed or put into an error.
//! 7. What a client is told that has failed is decided in one place (`proxy/failure`), and each protocol has one
//!    table of how it says that (`wire/*/refusal`). An upstream's reply is passed on as it came.
//! 8. 0 bytes are an end of file only where a read says so. A fast path (`splice`, batches of datagrams)
//!    that is refused gives way to the slow one, and ends no session.
//! 9. What was cut off never looks complete: closing a tunnel's connection resets it, whoever closes it, until
//!    an end of file was passed on.
//! 10. Whoever is judged is judged as of now: a request and each datagram by the users and rules in force
//!     (`access/in_force`), and who has logged in as one of those users.

pub mod access;
pub mod cli;
mod commands;
pub mod config;
pub mod probe;
mod proxy;
mod relay;
pub mod report;
pub mod server;
mod sessions;
pub mod system;
pub mod wire;
