//! RESOLVE and `RESOLVE_PTR`: answers without a connection, which Tor has added to SOCKS5.

use std::io::ErrorKind;
use std::net::SocketAddr;

use super::{ClientStream, Failure, Proxy, RequestContext, farewell};
use crate::commands::Error;
use crate::socks5::{Address, Command, Host, Reply};
use crate::system::deadline::Deadline;

impl Proxy {
    /// Answers what the addresses of a name are, or the name of an address: Tor's extension, of which
    /// torsocks and others make use.
    #[inline(never)]
    pub(super) fn resolve(
        &self,
        context: &RequestContext<'_>,
        client: &ClientStream<'_>,
    ) -> Result<(), Failure> {
        let deadline = Deadline::after(self.connect_timeout);
        let permit = self.permit(context, client, deadline)?;
        let reply = match (permit.route(), permit.addresses()) {
            (Some(route), _) => self.go_up(context, client, route, deadline)?.reply,
            (None, [first, ..]) if context.request.command == Command::ResolvePtr => {
                let (ip, peer) = (first.ip(), context.session.peer().ip());
                let name = self.names.name_of(ip, peer, deadline, Some(client.waiting()))?;
                Reply::succeeded(Address { host: Host::Name(name), port: 0 })
            }
            (None, addresses) => {
                // torsocks knows no IPv6 address in an answer.
                let ipv4 = addresses.iter().find(|address| address.is_ipv4());
                let found = ipv4.or(addresses.first());
                let found = found.ok_or_else(|| Error::unresolved(ErrorKind::NotFound))?;
                Reply::succeeded(SocketAddr::new(found.ip(), 0))
            }
        };
        let mut message = Vec::new();
        reply.write_to(&mut message)?;
        farewell(context.session, &message);
        Ok(())
    }
}
