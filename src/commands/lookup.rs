//! Names to addresses, within a deadline. The system's resolver cannot be interrupted, so it runs
//! on the partner thread, and the worker gives up on it when time is up or the client has left.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, ToSocketAddrs};
use std::time::{Duration, Instant};

use crate::socks5::Name;
use crate::system::pool::{Partner, Pending, UnderWay};

/// How often to look whether the client is still there.
const LOOK_UP: Duration = Duration::from_millis(200);

/// Why a name has no addresses.
#[derive(Debug)]
pub enum Error {
    /// The resolver says so.
    Unresolved(io::Error),
    /// The resolver has not answered within the deadline.
    TimedOut,
    /// The client has left meanwhile.
    ClientLeft,
}

/// Looks `name` up, until `deadline` at the latest and for as long as `client_left` says no.
///
/// # Errors
///
/// See [`Error`]. A name with no address at all is [`Error::Unresolved`].
pub fn resolve(
    name: &Name,
    port: u16,
    partner: &Partner,
    deadline: Instant,
    mut client_left: impl FnMut() -> bool,
) -> Result<Vec<SocketAddr>, Error> {
    let mut answer = start(name, port, partner);
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match answer.wait_for(left.min(LOOK_UP)) {
            Ok(Some(Ok(addresses))) if addresses.is_empty() => {
                return Err(Error::Unresolved(ErrorKind::NotFound.into()));
            }
            Ok(Some(answer)) => return answer.map_err(Error::Unresolved),
            Ok(None) => return Err(Error::Unresolved(io::Error::other("the resolver failed"))),
            Err(UnderWay) if left.is_zero() => return Err(Error::TimedOut),
            Err(UnderWay) if client_left() => return Err(Error::ClientLeft),
            Err(UnderWay) => {}
        }
    }
}

/// Starts to look `name` up. Whoever drops the lookup waits until the resolver is done with it.
#[must_use]
pub fn start<'p>(
    name: &Name,
    port: u16,
    partner: &'p Partner,
) -> Pending<'p, io::Result<Vec<SocketAddr>>> {
    let host = name.as_str().to_owned();
    partner.start_job(move || (host.as_str(), port).to_socket_addrs().map(Iterator::collect))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system::pool::Pool;
    use std::sync::mpsc::channel;

    fn with_partner<T: Send + 'static>(job: impl FnOnce(&Partner) -> T + Send + 'static) -> T {
        let pool = Pool::new(1);
        let (sender, receiver) = channel();
        pool.start(move |partner| sender.send(job(partner)).unwrap()).unwrap();
        receiver.recv_timeout(Duration::from_secs(30)).unwrap()
    }

    fn name(name: &str) -> Name {
        Name::new(name.into()).unwrap()
    }

    #[test]
    fn every_spelling_of_an_address_resolves_to_it() {
        with_partner(|partner| {
            for spelling in ["127.1", "2130706433", "0x7f.1", "127.0.0.1"] {
                let deadline = Instant::now() + Duration::from_secs(20);
                let found = resolve(&name(spelling), 80, partner, deadline, || false).unwrap();
                assert_eq!(found, ["127.0.0.1:80".parse().unwrap()], "{spelling}");
            }
        });
    }

    #[test]
    fn an_unknown_name_is_told_apart_from_a_lookup_without_end() {
        with_partner(|partner| {
            let soon = Instant::now() + Duration::from_secs(20);
            let unknown = resolve(&name("tabi.invalid"), 80, partner, soon, || false);
            assert!(matches!(unknown, Err(Error::Unresolved(_))));
        });
    }
}
