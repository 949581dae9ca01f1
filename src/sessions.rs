//! Who is here: the live sessions, what each has moved, and how long it may stay.
//!
//! - [`Sessions`] is the registry. It opens a [`Session`] for each client that is admitted, and
//!   keeps to the limit of one client.
//! - [`Account`] is what the threads of one session and those who watch it know together. It holds
//!   the session's two [`Side`]s, and with them its two TCP connections: there are no others.
//! - [`Sessions::totals`] and [`Sessions::each`] are what those who watch from outside are shown.
//! - [`Sessions::watch`] ends sessions whose time is up; [`Ending`] says why.
//!
//! A session leaves the registry when its [`Session`] is dropped.

mod account;
mod registry;
mod totals;
mod watch;

pub use account::{Account, Ending, Side, Stage};
pub use registry::{Limits, Session, Sessions, TooMany};
pub use totals::{Totals, Traffic};
