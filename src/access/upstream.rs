//! Another SOCKS5 server through which requests go: `socks5://[USER:PASSWORD@]HOST:PORT`.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use super::users::spelling::hexadecimal;
use crate::socks5::{Address, Credentials, Host, Name, Password, is_localhost, parse_port};
use crate::system::ip;

/// What is expected of a URL.
pub const EXPECTED: &str = "socks5://[USER:PASSWORD@]HOST:PORT, where USER and PASSWORD have 1 to 255 \
                            bytes, other bytes than letters and digits as %XX";

const SCHEMES: [&str; 2] = ["socks5", "socks5h"];

/// Another SOCKS5 server. It is shown without its credentials, which are never shown.
pub struct Upstream {
    address: Address,
    credentials: Option<Credentials>,
    shown: Arc<str>,
}

impl Upstream {
    /// Takes a URL, if it is one. Whoever tells of one that is not does not show it: there may be a
    /// password in it.
    pub fn parse(url: &str) -> Option<Self> {
        let (scheme, rest) = url.split_once("://")?;
        if !SCHEMES.iter().any(|known| scheme.eq_ignore_ascii_case(known)) {
            return None;
        }
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (credentials, place) = match rest.rsplit_once('@') {
            Some((credentials, place)) => (Some(parse_credentials(credentials)?), place),
            None => (None, rest),
        };
        let address = parse_address(place)?;
        let shown = address.to_string().into();
        Some(Upstream { address, credentials, shown })
    }

    /// Where it is; a name is yet to be looked up.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// What it gets where it asks for credentials (RFC 1929).
    pub fn credentials(&self) -> Option<&Credentials> {
        self.credentials.as_ref()
    }

    /// `HOST:PORT`.
    pub fn shown(&self) -> &Arc<str> {
        &self.shown
    }

    /// Whether this is a server that listens at `listener`, as far as that can be known without a
    /// lookup. `is_here` says which addresses are this machine's.
    pub fn is_at(&self, listener: SocketAddr, is_here: impl Fn(IpAddr) -> bool) -> bool {
        let here = listener.ip().to_canonical();
        let is_listener = |ip: IpAddr| {
            ip == here || (ip::listens_at(here, ip) && (ip::is_this_machine(ip) || is_here(ip)))
        };
        self.address.port == listener.port()
            && match &self.address.host {
                Host::Ip(ip) => is_listener(*ip),
                Host::Name(name) => {
                    let loopback = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
                    is_localhost(name.as_str()) && loopback.into_iter().any(is_listener)
                }
            }
    }
}

fn parse_credentials(text: &str) -> Option<Credentials> {
    let (name, password) = text.split_once(':')?;
    let name = percent_decoded(name)?;
    let password = Password::new(&percent_decoded(password)?)?;
    (1..=255).contains(&name.len()).then_some(Credentials { name, password })
}

/// `HOST:PORT`, an IPv6 address in brackets.
fn parse_address(text: &str) -> Option<Address> {
    let (host, port) = text.rsplit_once(':')?;
    let port = parse_port(port).filter(|port| *port > 0)?;
    let is_bracketed = host.starts_with('[');
    let host = Host::from(Name::new(host.into()).ok()?);
    let is_plain = match &host {
        Host::Ip(ip) => ip.is_ipv4() || is_bracketed,
        Host::Name(name) => {
            name.as_str().bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
        }
    };
    is_plain.then_some(Address { host, port })
}

/// What a text with `%XX` in it stands for.
fn percent_decoded(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(if byte == b'%' { hexadecimal(&mut rest)? } else { byte });
    }
    Some(bytes)
}

impl fmt::Display for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl fmt::Debug for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Upstream({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use subtle::ConstantTimeEq;

    #[test]
    fn every_form_of_a_url() {
        for (url, shown) in [
            ("socks5://127.0.0.1:9050", "127.0.0.1:9050"),
            ("SOCKS5://[::1]:1080/", "[::1]:1080"),
            ("socks5h://proxy.example:1080", "proxy.example:1080"),
            ("socks5://nas:1080", "nas:1080"),
        ] {
            let upstream = Upstream::parse(url).unwrap();
            assert_eq!(upstream.to_string(), shown);
            assert!(upstream.credentials().is_none());
        }
    }

    #[test]
    fn credentials_are_decoded_and_not_shown() {
        for (credentials, name, password) in [
            ("alice:sesame", b"alice".as_slice(), b"sesame".as_slice()),
            ("al%69ce:p%40ss%3a%2F%25", b"alice", b"p@ss:/%"),
            ("a:b:c@d", b"a", b"b:c@d"),
            ("%ff:%00", b"\xff", b"\0"),
        ] {
            let url = format!("socks5://{credentials}@proxy.example:1080");
            let upstream = Upstream::parse(&url).unwrap();
            let decoded = upstream.credentials().unwrap();
            assert_eq!(decoded.name, name);
            assert!(bool::from(decoded.password.ct_eq(&Password::new(password).unwrap())));
            let text = format!("{upstream} {upstream:?} {:?}", upstream.shown());
            assert!(!text.contains(credentials) && !text.contains("sesame"), "{text}");
        }
    }

    #[test]
    fn what_is_no_url_of_an_upstream() {
        let long = "a".repeat(256);
        for url in [
            "",
            "127.0.0.1:9050",
            "http://127.0.0.1:9050",
            "socks4://127.0.0.1:9050",
            "socks5://",
            "socks5://127.0.0.1",
            "socks5://127.0.0.1:",
            "socks5://127.0.0.1:0",
            "socks5://127.0.0.1:+80",
            "socks5://127.0.0.1:65536",
            "socks5://::1:1080",
            "socks5://[::1:1080",
            "socks5://:1080",
            "socks5://a/b:1080",
            "socks5://a b:1080",
            "socks5://proxy.example:1080/path",
            "socks5://b\u{fc}cher.example:1080",
            "socks5://alice@proxy.example:1080",
            "socks5://alice:@proxy.example:1080",
            "socks5://:sesame@proxy.example:1080",
            "socks5://alice:%4@proxy.example:1080",
            "socks5://alice:%zz@proxy.example:1080",
            "socks5://alice:%+1@proxy.example:1080",
            &format!("socks5://{long}:sesame@proxy.example:1080"),
            &format!("socks5://alice:{long}@proxy.example:1080"),
        ] {
            assert!(Upstream::parse(url).is_none(), "{url}");
        }
    }

    #[test]
    fn a_server_knows_itself() {
        let is_here = |ip: IpAddr| ip == IpAddr::from([192, 168, 1, 2]);
        let is_at = |url: &str, listener: &str| {
            let upstream = Upstream::parse(&format!("socks5://{url}")).unwrap();
            upstream.is_at(listener.parse().unwrap(), is_here)
        };
        for (url, listener) in [
            ("127.0.0.1:1080", "127.0.0.1:1080"),
            ("127.1:1080", "127.0.0.1:1080"),
            ("localhost:1080", "127.0.0.1:1080"),
            ("LocalHost.:1080", "[::1]:1080"),
            ("localhost:1080", "[::]:1080"),
            ("127.0.0.1:1080", "[::]:1080"),
            ("127.9.9.9:1080", "0.0.0.0:1080"),
            ("192.168.1.2:1080", "[::]:1080"),
            ("192.168.1.2:1080", "192.168.1.2:1080"),
            ("0.0.0.0:1080", "0.0.0.0:1080"),
        ] {
            assert!(is_at(url, listener), "{url} {listener}");
        }
        for (url, listener) in [
            ("127.0.0.1:1081", "127.0.0.1:1080"),
            ("127.0.0.2:1080", "127.0.0.1:1080"),
            ("[::1]:1080", "0.0.0.0:1080"),
            ("192.168.1.3:1080", "[::]:1080"),
            ("localhost:1080", "192.168.1.2:1080"),
            ("proxy.example:1080", "[::]:1080"),
        ] {
            assert!(!is_at(url, listener), "{url} {listener}");
        }
    }
}
