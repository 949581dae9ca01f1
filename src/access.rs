//! Who may do what.
//!
//! A client meets this wing three times: when it connects ([`Policy::rejection`], by its address), when
//! it says who it is ([`Users::authenticate`]), and with each request ([`Policy::permit`]).
//!
//! What it promises:
//!
//! - A [`Permit`] is made here alone and from an [`Identity`], which comes from a finished
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
//! | [`Users`], [`Passwords`] | who must authenticate, and the users file |
//! | [`Identity`] | who a client is |
//! | [`Policy`] | the verdict: who is served and what each may do |
//! | [`RuleFile`] | what a rules file says |
//! | [`Permit`] | what may be done, and at which addresses |
//! | [`PermitError`], [`Denied`] | why there is no permit |
//! | [`Upstream`](upstream::Upstream) | another server, through which requests go |
//! | [`spelling`](users::spelling), [`networks`](rules::networks) | how names of users and networks are written |

#[cfg(doc)]
use policy::{Denied, Permit, PermitError, Policy};
#[cfg(doc)]
use rules::RuleFile;
#[cfg(doc)]
use users::{Identity, Passwords, Users};

mod in_force;
mod lines;
pub mod policy;
pub mod rules;
mod secret;
pub mod upstream;
pub mod users;
