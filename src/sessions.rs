//! Who is here: the live sessions, what each has moved, and how long it may stay.
//!
//! - [`Sessions`] is the registry. [`Sessions::open`] decides whom it opens a [`Session`] for: no
//!   client gets more than its share, and a full server evicts a session or lets the client wait.
//! - [`SessionState`] is what the threads of one session and those who watch it know together. It holds
//!   the session's two [`Endpoint`]s, and with them its two TCP connections: there are no others.
//! - [`Sessions::totals`], [`Sessions::accounts`] and [`Sessions::each`] are what those who watch from outside are shown.
//! - [`Sessions::watch`] ends sessions whose time is up; [`Ending`] says why.
//!
//! A session leaves the registry when its [`Session`] is dropped.

mod accounts;
mod admission;
mod ending;
mod endpoint;
mod limits;
mod live;
mod rates;
mod registry;
mod state;
mod totals;

pub(crate) use accounts::{Account, Accounts};
pub(crate) use admission::AdmissionError;
pub(crate) use ending::Ending;
pub(crate) use endpoint::Endpoint;
pub(crate) use limits::Limits;
pub(crate) use live::Extra;
pub(crate) use registry::{Session, Sessions};
pub(crate) use state::{SessionState, Stage};
pub(crate) use totals::Totals;
