//! Another SOCKS5 server through which requests go: `socks5://[USER:PASSWORD@]HOST:PORT`.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use subtle::ConstantTimeEq;

use crate::socks5::{Address, Credentials, Host, Name, Password};

/// What is expected of a URL.
pub const EXPECTED: &str = "socks5://[USER:PASSWORD@]HOST:PORT, where USER and PASSWORD have 1 to 255 \
                            bytes, other bytes than letters and digits as %XX";

const SCHEMES: [&str; 2] = ["socks5://", "socks5h://"];

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
        let scheme = SCHEMES.into_iter().find(|scheme| {
            url.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme))
        })?;
        let rest = &url[scheme.len()..];
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

    /// What it is told where it wants to know (RFC 1929).
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
            // An unspecified address listens for every one of its family, that of IPv6 for all.
            let whole = here.is_unspecified() && (here.is_ipv6() || ip.is_ipv4());
            ip == here || (whole && (ip.is_loopback() || ip.is_unspecified() || is_here(ip)))
        };
        self.address.port == listener.port()
            && match &self.address.host {
                Host::Ip(ip) => is_listener(*ip),
                Host::Name(name) => {
                    let loopback: [IpAddr; 2] =
                        [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
                    name.is_localhost() && loopback.into_iter().any(is_listener)
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
    let port = port.bytes().all(|byte| byte.is_ascii_digit()).then(|| port.parse().ok())??;
    if port == 0 {
        return None;
    }
    let host = Host::from(Name::new(host.into()).ok()?);
    let is_plain = match &host {
        Host::Ip(ip) => ip.is_ipv4() || host_is_bracketed(text),
        Host::Name(name) => {
            name.as_str().bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
        }
    };
    is_plain.then_some(Address { host, port })
}

fn host_is_bracketed(text: &str) -> bool {
    text.starts_with('[')
}

/// What a text with `%XX` in it stands for.
fn percent_decoded(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, others @ ..] = rest {
        rest = others;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let [high, low, others @ ..] = rest else { return None };
        let digit = |byte: u8| char::from(byte).to_digit(16);
        bytes.push(u8::try_from(digit(*high)? * 16 + digit(*low)?).ok()?);
        rest = others;
    }
    Some(bytes)
}

impl PartialEq for Upstream {
    fn eq(&self, other: &Self) -> bool {
        let same = |(mine, theirs): (&Credentials, &Credentials)| {
            mine.name == theirs.name && bool::from(mine.password.ct_eq(&theirs.password))
        };
        self.address == other.address
            && self.credentials.is_some() == other.credentials.is_some()
            && self.credentials.iter().zip(&other.credentials).all(same)
    }
}

impl Eq for Upstream {}

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
            let told = format!("{upstream} {upstream:?} {:?}", upstream.shown());
            assert!(!told.contains(credentials) && !told.contains("sesame"), "{told}");
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
