//! A password for the users file: read where nobody sees it, and made a hash of.

use std::io::{self, IsTerminal, stdin};

use crate::access::users::of_new_password;

/// Reads a password, and gives back its hash. From a terminal it is read twice, and not shown.
///
/// # Errors
///
/// When there is none, or two that differ, and when it is too long.
pub fn hash() -> Result<String, String> {
    let read = if stdin().is_terminal() {
        from_terminal()
    } else {
        stdin().lines().next().unwrap_or_else(|| Ok(String::new()))
    };
    let password = read.map_err(|error| format!("cannot read the password: {error}"))?;
    of_new_password(password.as_bytes())
}

fn from_terminal() -> io::Result<String> {
    let password = rpassword::prompt_password("Password: ")?;
    let again = rpassword::prompt_password("The same again: ")?;
    let is_same = password == again;
    is_same.then_some(password).ok_or_else(|| io::Error::other("the two are not the same"))
}
