//! RESOLVE and `RESOLVE_PTR`: answers without a connection, which Tor has added to SOCKS5 and of which
//! torsocks and others make use.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::client_watch::ClientWatch;
use super::error::Error;
use super::resolver::{Found, Question, Resolver};
use crate::access::policy::Permit;
use crate::system::deadline::Deadline;
use crate::wire::address::{Address, Host};
use crate::wire::request::Command;

/// Answers `client` what the address of a permitted name is, or the name of a permitted address.
pub(crate) fn resolve(
    permit: &Permit,
    resolver: &Arc<Resolver>,
    client: IpAddr,
    deadline: Deadline,
    watch: &ClientWatch<'_>,
) -> Result<Address, Error> {
    let addresses = permit.addresses();
    let first = addresses.first().ok_or_else(|| Error::unresolved(ErrorKind::NotFound))?;
    if permit.command() == Command::ResolvePtr {
        let question = Question::Name(first.ip());
        return match resolver.resolve(question, client, deadline, watch)? {
            Found::Name(name) => Ok(Address { host: Host::Name(name), port: 0 }),
            Found::Addresses(_) => Err(Error::unresolved(ErrorKind::NotFound)),
        };
    }
    // torsocks knows no IPv6 address in an answer.
    let found = addresses.iter().find(|address| address.is_ipv4()).unwrap_or(first);
    Ok(SocketAddr::new(found.ip(), 0).into())
}
