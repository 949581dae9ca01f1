//! Who may do what.
//!
//! A client meets this wing three times: when it connects ([`policy::Policy::rejection`], by its
//! address), when it says who it is ([`users::Users::authenticate`]), and with each request
//! ([`policy::Policy::permit`]).
//!
//! What it promises:
//!
//! - A [`policy::Permit`] is made here alone and from an [`users::Identity`], which comes from a finished
//!   authentication alone. It has the addresses that were checked, and only those are dialed.
//! - With no option given nobody but this machine and its neighbours is served, and what listens for
//!   this machine alone stays closed to them.
//! - Passwords are compared in constant time, and never logged, printed or put into an error.
//! - Guessing at passwords is slowed down, in bounded memory.
//! - A file is read once and whole. A bad line is an error with `FILE:LINE`, and nothing of that file
//!   counts.
//!
//! What it hands out:
//!
//! | type | what it is |
//! |---|---|
//! | [`in_force::AccessFiles`], [`in_force::InForce`] | what the files of users and rules say, and which count now |
//! | [`users::Users`], [`users::Passwords`] | who must authenticate, and the users file |
//! | [`users::Identity`] | who a client is |
//! | [`policy::Policy`] | the verdict: who is served and what each may do |
//! | [`rules::RuleFile`] | what a rules file says |
//! | [`policy::Permit`] | what may be done, and at which addresses |
//! | [`policy::Denied`] | why there is no permit |
//! | [`upstream::Upstream`] | another server, through which requests go |
//! | [`users::spelling`], [`rules::networks`] | how names of users and networks are written |

pub mod in_force;
mod lines;
pub mod policy;
pub mod rules;
mod secret;
pub mod upstream;
pub mod users;
