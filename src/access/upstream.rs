//! Another SOCKS5 server through which requests go: `socks5://[USER:PASSWORD@]HOST:PORT`, or `socks5h://`, as
//! curl has these words.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::users::spelling::hexadecimal;
use crate::system::ip::LOOPBACK;
use crate::wire::address::{Address, Host, Name, is_localhost};
use crate::wire::credentials::{Credentials, Password};
use crate::wire::request::Command;

/// What is expected of a URL.
pub const EXPECTED: &str = "socks5://[USER:PASSWORD@]HOST:PORT, or socks5h:// where names are to be resolved \
                            there; USER and PASSWORD have 1 to 255 bytes, other bytes than letters and \
                            digits as %XX";

/// The schemes, and whether names go up with them.
const SCHEMES: [(&str, bool); 2] = [("socks5", false), ("socks5h", true)];

/// Another SOCKS5 server. It is shown without its credentials, which are never shown.
pub struct Upstream {
    address: Address,
    credentials: Option<Credentials>,
    takes_names: bool,
    shown: Arc<str>,
}

impl Upstream {
    /// Takes a URL, if it is one. Whoever tells of one that is not does not show it: there may be a
    /// password in it.
    pub fn parse(url: &str) -> Option<Self> {
        let (scheme, rest) = url.split_once("://")?;
        let is_scheme = |(known, _): &&(&str, bool)| scheme.eq_ignore_ascii_case(known);
        let (_, takes_names) = *SCHEMES.iter().find(is_scheme)?;
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (credentials, place) = match rest.rsplit_once('@') {
            Some((credentials, place)) => (Some(parse_credentials(credentials)?), place),
            None => (None, rest),
        };
        let address = Address::parse(place)?;
        let shown = address.to_string().into();
        Some(Upstream { address, credentials, takes_names, shown })
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

    /// Whether it gets names as they are (`socks5h`). Otherwise they are resolved here, and it gets
    /// addresses.
    pub fn takes_names(&self) -> bool {
        self.takes_names
    }

    /// Whether a request for a known address goes there: what a name's address is, is known then, and the
    /// name of an address is asked of the one that is also asked for those of names.
    pub(super) fn carries(&self, command: Command) -> bool {
        match command {
            Command::Resolve => false,
            Command::ResolvePtr => self.takes_names,
            Command::Connect | Command::Http | Command::Bind | Command::UdpAssociate => true,
        }
    }

    /// Where it is, as far as that is known without a lookup.
    pub fn known_addresses(&self) -> Vec<SocketAddr> {
        let ips = match &self.address.host {
            Host::Ip(ip) => vec![*ip],
            Host::Name(name) => spelled(name),
        };
        ips.into_iter().map(|ip| SocketAddr::new(ip, self.address.port)).collect()
    }
}

/// The addresses that a name spells, as `localhost` or but for a zone or dots at its end: another server may
/// take it for them.
pub(super) fn spelled(name: &Name) -> Vec<IpAddr> {
    if is_localhost(name.as_str()) {
        return LOOPBACK.to_vec();
    }
    let text = name.as_str().trim_start_matches('[').trim_end_matches(['.', ']']);
    let text = text.split('%').next().unwrap_or_default();
    match Name::new(text.into()).map(Host::from) {
        Ok(Host::Ip(ip)) => vec![ip],
        Ok(Host::Name(_)) | Err(_) => Vec::new(),
    }
}

fn parse_credentials(text: &str) -> Option<Credentials> {
    let (name, password) = text.split_once(':')?;
    let name = percent_decoded(name)?;
    let password = Password::new(&percent_decoded(password)?)?;
    (1..=255).contains(&name.len()).then_some(Credentials { name, password })
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
        for (url, shown, takes_names) in [
            ("socks5://127.0.0.1:9050", "127.0.0.1:9050", false),
            ("SOCKS5://[::1]:1080/", "[::1]:1080", false),
            ("socks5h://proxy.example:1080", "proxy.example:1080", true),
            ("Socks5H://nas:1080", "nas:1080", true),
        ] {
            let upstream = Upstream::parse(url).unwrap();
            assert_eq!(upstream.to_string(), shown);
            assert_eq!(upstream.takes_names(), takes_names, "{url}");
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
}
