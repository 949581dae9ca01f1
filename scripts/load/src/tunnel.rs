//! A connection to a target, through a proxy or straight.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};
use std::time::Duration;

use crate::head;
use crate::sockets::{PATIENCE, dial};
use crate::socks::{self, CONNECT, Target};

/// How a client tells a proxy its target.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum By {
    Socks5,
    HttpConnect,
    /// In the request itself, which is in absolute-form.
    PlainHttp,
}

impl By {
    pub(crate) const ALL: &[By] = &[By::Socks5, By::HttpConnect, By::PlainHttp];
    pub(crate) const HTTP: &[By] = &[By::HttpConnect, By::PlainHttp];
}

impl fmt::Display for By {
    fn fmt(&self, text: &mut fmt::Formatter<'_>) -> fmt::Result {
        text.write_str(match self {
            By::Socks5 => "SOCKS5",
            By::HttpConnect => "HTTP CONNECT",
            By::PlainHttp => "plain HTTP",
        })
    }
}

/// Where a proxy is, what it is spoken to, and whether it asks who comes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    pub(crate) by: By,
    pub(crate) users: bool,
}

/// A connection to `target`: through the proxy, or straight to it where there is none. By plain HTTP it
/// is one to the proxy, and the request has to name the target.
pub(crate) fn open(proxy: Option<Proxy>, target: SocketAddrV4) -> io::Result<TcpStream> {
    open_from(Ipv4Addr::LOCALHOST, proxy, target.into(), PATIENCE)
}

/// The same from a client address of one's own, to a target that may be a name, which without a proxy
/// it may not. Nothing is waited for longer than `patience`.
pub(crate) fn open_from(
    client: Ipv4Addr,
    proxy: Option<Proxy>,
    target: Target<'_>,
    patience: Duration,
) -> io::Result<TcpStream> {
    let to = match (proxy, target) {
        (Some(proxy), _) => proxy.address,
        (None, Target::Address(address)) => address.into(),
        (None, Target::Name(..)) => return Err(io::Error::other("only a proxy knows names")),
    };
    let mut stream = dial(client, to, patience)?;
    if let Some(proxy) = proxy {
        ask(&mut stream, proxy, target)?;
    }
    Ok(stream)
}

/// Asks for `target`, where that is not left to the request.
pub(crate) fn ask(stream: &mut TcpStream, proxy: Proxy, target: Target<'_>) -> io::Result<()> {
    match proxy.by {
        By::Socks5 => socks::negotiate(stream, proxy.users, CONNECT, target).map(drop),
        By::HttpConnect => head::connect(stream, proxy.users, target),
        By::PlainHttp => Ok(()),
    }
}
