//! A host and a port, whatever protocol they come by.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;

/// SOCKS5 has one octet for the length.
const LONGEST_NAME: usize = 255;

/// A host and a port, as a client asks for them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Address {
    /// The host, by address or by name.
    pub host: Host,
    /// The TCP or UDP port.
    pub port: u16,
}

/// A host, by address or by name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Host {
    /// An address; an IPv4-mapped one is kept as the IPv4 address that it is.
    Ip(IpAddr),
    /// A name that is yet to be resolved.
    Name(Name),
}

/// A host name of 1 to 255 visible ASCII characters. It is safe to log as it is. No backslash is
/// among them: resolvers read `ex\097mple.org` as `example.org`, and a rule would not.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Name(String);

/// The octets of a name that no host can have.
#[derive(Debug, PartialEq, Eq)]
pub struct InvalidName(pub Vec<u8>);

impl fmt::Display for InvalidName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A quotation mark stands for itself nowhere, so that the log can put one around it.
        let spelled = self.0.escape_ascii().to_string().replace("\\\"", "\\x22");
        write!(f, "no host is named '{spelled}'")
    }
}

impl Name {
    /// Takes the octets of a name, if it is neither empty nor too long and has no octet that no host name
    /// has.
    pub fn new(octets: Vec<u8>) -> Result<Self, InvalidName> {
        if !(1..=LONGEST_NAME).contains(&octets.len())
            || !octets.iter().all(|octet| octet.is_ascii_graphic() && *octet != b'\\')
        {
            return Err(InvalidName(octets));
        }
        String::from_utf8(octets).map(Name).map_err(|error| InvalidName(error.into_bytes()))
    }

    /// The name as the client spelled it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The same name as an absolute one (RFC 1034 section 3.1): the dot at its end keeps a resolver from
    /// completing it. A name without another dot stays as it is, and so does an address with a zone, such
    /// as `fe80::1%eth0.5`: a colon is in no name.
    pub fn absolute(&self) -> Self {
        let name = self.as_str();
        let is_relative = name.contains('.') && !name.ends_with('.') && !name.contains(':');
        // A name that has become too long is in no name server.
        let absolute = is_relative.then(|| Name::new(format!("{name}.").into()).ok()).flatten();
        absolute.unwrap_or_else(|| self.clone())
    }

    /// The address, if the name spells one in any way that `getaddrinfo` understands without asking
    /// anyone. curl and others send `[::1]` as a name.
    fn literal(&self) -> Option<IpAddr> {
        let name = self.as_str();
        match name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            Some(inside) => inside.parse().ok().map(IpAddr::V6),
            None => name.parse().ok().or_else(|| numeric(name).map(IpAddr::V4)),
        }
    }
}

impl Address {
    /// Takes `HOST:PORT`, an IPv6 address in brackets, as in the authority of a URL (RFC 3986 section 3.2).
    /// `None` where it is not so, or the port is 0.
    pub fn parse(text: &str) -> Option<Self> {
        let (host, port) = text.rsplit_once(':')?;
        let port = parse_port(port).filter(|port| *port > 0)?;
        Some(Address { host: Host::parse(host)?, port })
    }
}

/// Whether a name is that of the machine itself, wherever it is looked up (RFC 6761 section 6.3); beside
/// that, what the hosts files of common systems say.
pub fn is_localhost(name: &str) -> bool {
    const HOSTS: [&str; 8] = [
        "localhost",
        "localhost4",
        "localhost6",
        "localhost.localdomain",
        "localhost4.localdomain4",
        "localhost6.localdomain6",
        "ip6-localhost",
        "ip6-loopback",
    ];
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    HOSTS.contains(&&*name) || name.ends_with(".localhost")
}

/// Whether a name is that of a service in Tor, which no name server knows (RFC 7686).
pub fn is_onion(name: &str) -> bool {
    name.trim_end_matches('.')
        .rsplit_once('.')
        .is_some_and(|(_, last)| last.eq_ignore_ascii_case("onion"))
}

/// The address that a text spells as `inet_aton(3)` reads it: one to four numbers, the last of which
/// fills what the others leave (`127.1`, `0x7f.1`, `2130706433`).
fn numeric(text: &str) -> Option<Ipv4Addr> {
    let numbers: Vec<u32> = text.split('.').map(number).collect::<Option<_>>()?;
    let (&last, first) = numbers.split_last()?;
    let bits_left = 32_u32.checked_sub(8 * u32::try_from(first.len()).ok()?)?;
    if bits_left == 0 || u64::from(last) >> bits_left != 0 {
        return None;
    }
    let mut address = last;
    for (&number, place) in first.iter().zip([24, 16, 8]) {
        address |= u32::from(u8::try_from(number).ok()?) << place;
    }
    Some(address.into())
}

/// A number as C spells it: `0x` is hexadecimal, `0` octal.
fn number(digits: &str) -> Option<u32> {
    let (digits, radix) = match digits.as_bytes() {
        [b'0', b'x' | b'X', ..] => (&digits[2..], 16),
        [b'0', _, ..] => (&digits[1..], 8),
        _ => (digits, 10),
    };
    let is_plain = digits.bytes().all(|digit| digit.is_ascii_alphanumeric());
    is_plain.then(|| u32::from_str_radix(digits, radix).ok()).flatten()
}

/// A port as people write it: decimal digits alone.
pub fn parse_port(digits: &str) -> Option<u16> {
    digits.bytes().all(|digit| digit.is_ascii_digit()).then(|| digits.parse().ok())?
}

/// A port, or the first and the last of several, as in `8000-8999`.
pub fn parse_ports(text: &str) -> Option<RangeInclusive<u16>> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let ports = parse_port(first)?..=parse_port(last)?;
    (!ports.is_empty()).then_some(ports)
}

/// An IPv4-mapped address becomes the IPv4 address that it is.
impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Address { host: Host::Ip(address.ip().to_canonical()), port: address.port() }
    }
}

impl Host {
    /// The name, where it is one, as the client spelled it.
    pub fn name(&self) -> Option<&str> {
        match self {
            Host::Ip(_) => None,
            Host::Name(name) => Some(name.as_str()),
        }
    }

    /// Takes an IPv4 address, an IPv6 address in brackets, or a name of letters, digits, hyphens, underscores
    /// and dots.
    pub fn parse(text: &str) -> Option<Self> {
        let host = Host::from(Name::new(text.into()).ok()?);
        let is_plain = match &host {
            Host::Ip(_) => text.starts_with('[') || !text.contains(':'),
            Host::Name(name) => {
                let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
                name.as_str().bytes().all(is_plain)
            }
        };
        is_plain.then_some(host)
    }

    /// Whether this is nobody in particular: BIND for any peer, or UDP ASSOCIATE before the client
    /// knows where it will send from (RFC 1928 section 7). Some clients say `0` by name.
    pub fn is_unspecified(&self) -> bool {
        matches!(self, Host::Ip(ip) if ip.is_unspecified())
    }
}

impl From<Name> for Host {
    fn from(name: Name) -> Self {
        match name.literal() {
            Some(ip) => Host::Ip(ip.to_canonical()),
            None => Host::Name(name),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Ip(ip) => SocketAddr::new(*ip, self.port).fmt(f),
            Host::Name(name) => write!(f, "{}:{}", name.as_str(), self.port),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_absolute_name_has_a_dot_at_its_end() {
        for (name, absolute) in [
            ("db.prod", "db.prod."),
            ("Db.Prod.", "Db.Prod."),
            ("nas", "nas"),
            ("nas.", "nas."),
            ("fe80::1%eth0.5", "fe80::1%eth0.5"),
        ] {
            assert_eq!(Name::new(name.into()).unwrap().absolute().as_str(), absolute);
        }
        let longest = Name::new(b"a.".repeat(LONGEST_NAME)[..LONGEST_NAME].into()).unwrap();
        assert_eq!(longest.absolute(), longest);
    }

    #[test]
    fn every_spelling_of_an_address_is_one() {
        let literal = |name: &str| Name::new(name.into()).unwrap().literal();
        for spelling in
            ["127.1", "127.0.1", "2130706433", "0x7f.1", "0x7f000001", "0177.0.0.1", "127.0.0.0x1"]
        {
            assert_eq!(literal(spelling), Some(Ipv4Addr::LOCALHOST.into()), "{spelling}");
        }
        assert_eq!(literal("255.255.255.255"), Some(Ipv4Addr::BROADCAST.into()));
        for name in [
            ".",
            "1.",
            ".1",
            "256.1",
            "1.2.3.256",
            "1.2.3.4.5",
            "4294967296",
            "0x",
            "08",
            "-1",
            "+1",
            "0x+1",
            "1e1",
            "127.1.",
            "a",
            "127.1.example",
        ] {
            assert_eq!(literal(name), None, "{name}");
        }
    }

    #[test]
    fn an_ipv6_address_beside_a_port_is_in_brackets() {
        for (text, shown) in [
            ("[::1]:80", "[::1]:80"),
            ("[::ffff:1.2.3.4]:80", "1.2.3.4:80"),
            ("127.1:65535", "127.0.0.1:65535"),
            ("Nas_2.lan.:1", "Nas_2.lan.:1"),
        ] {
            let address = Address::parse(text).unwrap_or_else(|| panic!("{text}"));
            assert_eq!(address.to_string(), shown);
        }
        for text in [
            "::1:80",
            "::ffff:1.2.3.4:80",
            "[::1]",
            "[::1:80",
            "::1]:80",
            "[1.2.3.4]:80",
            "[fe80::1%25eth0]:80",
            "[]:80",
            "nas",
            "nas:",
            ":80",
            "nas:0",
            "nas:65536",
            "nas:+80",
            "nas:80:80",
            "me@nas:80",
            "nas/:80",
            "n\u{e4}s:80",
            "na s:80",
            "n%61s:80",
            "",
        ] {
            assert_eq!(Address::parse(text), None, "{text}");
        }
    }

    #[test]
    fn names_of_the_machine_itself() {
        for name in ["localhost", "LocalHost.", "a.localhost", "ip6-localhost", "localhost4"] {
            assert!(is_localhost(name), "{name}");
        }
        for name in ["localhost.example", "notlocalhost", "local.host"] {
            assert!(!is_localhost(name), "{name}");
        }
    }

    #[test]
    fn a_port_is_decimal_digits_alone() {
        assert_eq!(["0", "080", "65535"].map(parse_port), [Some(0), Some(80), Some(65535)]);
        for text in ["", "+80", "-80", " 80", "80 ", "65536", "0x50", "\u{661}"] {
            assert_eq!(parse_port(text), None, "{text}");
        }
        assert_eq!(parse_ports("80"), Some(80..=80));
        assert_eq!(parse_ports("0-65535"), Some(0..=65535));
        for text in ["", "-", "80-", "-80", "81-80", "80-81-82", "80-+81"] {
            assert_eq!(parse_ports(text), None, "{text}");
        }
    }

    #[test]
    fn what_a_client_chose_is_escaped_in_an_error() {
        let error = InvalidName(b"a\nb\x1b[31m\xff".to_vec());
        assert_eq!(error.to_string(), r"no host is named 'a\nb\x1b[31m\xff'");
    }
}
