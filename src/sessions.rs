//! Who is here: the live sessions, what each has moved, and how long it may stay.
//!
//! - [`Sessions`] is the registry. [`Sessions::open`] decides whom it opens a [`Session`] for: no
//!   client gets more than its share, and a full server makes room or lets the client wait.
//! - [`Account`] is what the threads of one session and those who watch it know together. It holds
//!   the session's two [`Side`]s, and with them its two TCP connections: there are no others.
//! - [`Sessions::totals`] and [`Sessions::each`] are what those who watch from outside are shown.
//! - [`Sessions::watch`] ends sessions whose time is up; [`Ending`] says why.
//!
//! A session leaves the registry when its [`Session`] is dropped.

mod account;
mod ending;
mod registry;
mod room;
mod side;
mod totals;
mod watch;

pub use account::{Account, Stage};
pub use ending::Ending;
pub use registry::{Limits, Session, Sessions};
pub use room::TooMany;
pub use side::Side;
pub use totals::{Totals, Traffic};
