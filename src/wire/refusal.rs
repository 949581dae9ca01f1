//! Why a client gets nothing: one value, which each protocol says in its own way.

use std::io::{self, ErrorKind};

use super::socks5::Reply;

/// Why a client gets nothing, as far as it is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// What it speaks is not served.
    NotServed,
    /// Its message is none that there can be.
    Malformed,
    /// Its message is too large.
    TooLarge,
    /// It has to log in, and has not tried to.
    NoLogin,
    /// Its login is wrong, or was not looked at.
    WrongLogin,
    /// It may not have what it asks for.
    Denied,
    /// It asks for what there is not.
    Command,
    /// The network cannot be reached.
    NetworkUnreachable,
    /// The host cannot be reached, or its name has no address.
    HostUnreachable,
    /// The target refuses the connection.
    ConnectionRefused,
    /// The target has not answered in time.
    TimedOut,
    /// Addresses of this kind cannot be had.
    AddressFamily,
    /// The target has answered with what cannot be passed on.
    BadResponse,
    /// Anything else.
    Failed,
    /// An upstream has said so, and this is its reply.
    Upstream(Box<Reply>),
}

/// The target could not be reached.
impl From<&io::Error> for Refusal {
    fn from(error: &io::Error) -> Self {
        const NO_SUCH_FAMILY: i32 = rustix::io::Errno::AFNOSUPPORT.raw_os_error();
        match error.kind() {
            ErrorKind::ConnectionRefused => Refusal::ConnectionRefused,
            ErrorKind::NetworkUnreachable | ErrorKind::NetworkDown => Refusal::NetworkUnreachable,
            ErrorKind::HostUnreachable => Refusal::HostUnreachable,
            ErrorKind::TimedOut => Refusal::TimedOut,
            _ if error.raw_os_error() == Some(NO_SUCH_FAMILY) => Refusal::AddressFamily,
            _ => Refusal::Failed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::io::Errno;

    #[test]
    fn a_system_error_has_its_refusal() {
        let table = [
            (Errno::CONNREFUSED, Refusal::ConnectionRefused),
            (Errno::NETUNREACH, Refusal::NetworkUnreachable),
            (Errno::NETDOWN, Refusal::NetworkUnreachable),
            (Errno::HOSTUNREACH, Refusal::HostUnreachable),
            (Errno::TIMEDOUT, Refusal::TimedOut),
            (Errno::AFNOSUPPORT, Refusal::AddressFamily),
            (Errno::MFILE, Refusal::Failed),
            (Errno::ADDRNOTAVAIL, Refusal::Failed),
        ];
        for (errno, refusal) in table {
            assert_eq!(Refusal::from(&io::Error::from(errno)), refusal, "{errno}");
        }
    }
}
