//! Why a session ended early.

/// Why a session ended before both sides had sent their end of file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The client's connection failed: usually the client reset it.
    ClientReset,
    /// The target's connection failed.
    TargetReset,
    /// Greeting and request took too long.
    HandshakeTimeout,
    /// Nothing moved for too long.
    IdleTimeout,
    /// Others needed more what it had, which was this.
    Evicted(&'static str),
    /// The server stops.
    Stopped,
    /// Its user may do nothing more, for this reason.
    Revoked(&'static str),
    /// What the client has sent for its target is none that can be passed on, for this reason.
    BadRequest(&'static str),
    /// A thread of the session has panicked.
    Fault,
}

impl Ending {
    /// Whether a side, or this server, has failed: then whoever is left hears of that at once,
    /// whatever is on its way.
    pub(super) fn is_failure(self) -> bool {
        matches!(
            self,
            Ending::ClientReset | Ending::TargetReset | Ending::BadRequest(_) | Ending::Fault
        )
    }

    /// The reason, where the kind of ending alone does not say it.
    pub fn why(self) -> Option<&'static str> {
        match self {
            Ending::Evicted(why) | Ending::Revoked(why) | Ending::BadRequest(why) => Some(why),
            Ending::Fault => Some("internal error"),
            _ => None,
        }
    }
}
