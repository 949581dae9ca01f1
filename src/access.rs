//! Who may do what: [`users`] says who a client is, [`rules`] what it may do.

pub mod rules;
pub mod users;
