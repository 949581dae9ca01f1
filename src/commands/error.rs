//! Why a command has come to nothing.

use std::io::{self, ErrorKind};
use std::sync::Arc;

use crate::wire::socks5::Reply;

/// Why a command has come to nothing.
#[derive(Debug)]
pub(crate) enum Error {
    /// The resolver finds no address for the name, or no name for the address, or cannot be asked.
    Unresolved(Arc<io::Error>),
    /// The target was not reached. Of several addresses this is the failure of the one that came
    /// furthest; `TimedOut` where the deadline has passed.
    Unreachable(io::Error),
    /// The upstream cannot be reached, does not accept us, or says what it should not; this is what,
    /// without a password.
    UpstreamFailed(String),
    /// The upstream has failed to reach the target, and this is its reply.
    UpstreamRefused(Reply),
    /// The client has left meanwhile.
    ClientLeft,
}

impl Error {
    /// The same, where the deadline has passed while something else than the target was silent: `why` says
    /// what.
    pub(crate) fn timed_out(self, why: &'static str) -> Self {
        match self {
            Error::Unreachable(error) if error.kind() == ErrorKind::TimedOut => {
                io::Error::new(ErrorKind::TimedOut, why).into()
            }
            error => error,
        }
    }

    /// The resolver says so, or cannot be asked.
    pub(crate) fn unresolved(error: impl Into<io::Error>) -> Self {
        Error::Unresolved(Arc::new(error.into()))
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Error::Unreachable(error)
    }
}
