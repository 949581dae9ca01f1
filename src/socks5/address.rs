//! An address on the wire: ATYP, the host, the port (RFC 1928 section 5).

use std::fmt;
use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;

use byteorder::{BigEndian, ReadBytesExt};

use super::error::Error;

const IPV4: u8 = 0x01;
const NAME: u8 = 0x03;
const IPV6: u8 = 0x04;

/// The length stands in one octet.
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

impl Name {
    /// Takes the octets of a name; [`Error::Name`] where it is empty or too long, or has an octet that
    /// no host name has.
    pub fn new(octets: Vec<u8>) -> Result<Self, Error> {
        if !(1..=LONGEST_NAME).contains(&octets.len())
            || !octets.iter().all(|octet| octet.is_ascii_graphic() && *octet != b'\\')
        {
            return Err(Error::Name(octets));
        }
        String::from_utf8(octets).map(Name).map_err(|error| Error::Name(error.into_bytes()))
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
    /// Reads ATYP, the host and the port, the port also behind a name that no host can have.
    pub fn read_from(reader: &mut impl Read) -> Result<Self, Error> {
        let host = match reader.read_u8()? {
            IPV4 => Ok(Host::Ip(Ipv4Addr::from(reader.read_u32::<BigEndian>()?).into())),
            IPV6 => {
                let address = Ipv6Addr::from(reader.read_u128::<BigEndian>()?);
                Ok(Host::Ip(IpAddr::V6(address).to_canonical()))
            }
            NAME => {
                let mut octets = vec![0; usize::from(reader.read_u8()?)];
                reader.read_exact(&mut octets)?;
                Name::new(octets).map(Host::from)
            }
            other => return Err(Error::AddressType(other)),
        };
        let port = reader.read_u16::<BigEndian>()?;
        Ok(Address { host: host?, port })
    }

    /// Appends ATYP, the host and the port.
    pub(super) fn append_to(&self, message: &mut Vec<u8>) {
        match &self.host {
            Host::Ip(IpAddr::V4(ip)) => {
                message.push(IPV4);
                message.extend(ip.octets());
            }
            Host::Ip(IpAddr::V6(ip)) => {
                message.push(IPV6);
                message.extend(ip.octets());
            }
            Host::Name(Name(name)) => {
                message.extend([NAME, u8::try_from(name.len()).expect("a longer one is no name")]);
                message.extend(name.as_bytes());
            }
        }
        message.extend(self.port.to_be_bytes());
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

    const WIRE: [(&[u8], &str); 7] = [
        (b"\x01\xc0\x00\x02\x07\x00\x50", "192.0.2.7:80"),
        (b"\x04\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01\x01\xbb", "[2001:db8::1]:443"),
        (b"\x04\0\0\0\0\0\0\0\0\0\0\xff\xff\x7f\0\0\x01\x00\x16", "127.0.0.1:22"),
        (b"\x03\x0bexample.org\x00\x50", "example.org:80"),
        (b"\x03\x09192.0.2.7\x00\x50", "192.0.2.7:80"),
        (b"\x03\x05[::1]\x1f\x90", "[::1]:8080"),
        (b"\x03\x03::1\x1f\x90", "[::1]:8080"),
    ];

    #[test]
    fn reads_exactly_its_octets() {
        for (octets, shown) in WIRE {
            let stream = [octets, b"payload"].concat();
            let mut rest = stream.as_slice();
            assert_eq!(Address::read_from(&mut rest).unwrap().to_string(), shown);
            assert_eq!(rest, b"payload", "{shown}");
        }
    }

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
    fn what_is_read_can_be_written() {
        let written = |address: &Address| {
            let mut octets = Vec::new();
            address.append_to(&mut octets);
            octets
        };
        for (octets, shown) in WIRE {
            let address = Address::read_from(&mut &octets[..]).unwrap();
            let again = Address::read_from(&mut written(&address).as_slice()).unwrap();
            assert_eq!(again, address, "{shown}");
        }
        for index in [0, 1, 3] {
            let address = Address::read_from(&mut &WIRE[index].0[..]).unwrap();
            assert_eq!(written(&address), WIRE[index].0, "{address}");
        }
        assert!(Name::new(vec![b'a'; 256]).is_err());
    }

    #[test]
    fn every_truncation_is_an_error() {
        for (octets, shown) in WIRE {
            for length in 0..octets.len() {
                let error = Address::read_from(&mut &octets[..length]).unwrap_err();
                assert!(matches!(error, Error::Io(_)), "{shown} cut to {length}: {error}");
            }
        }
    }

    #[test]
    fn an_unknown_type_is_an_error() {
        for atyp in [0x00, 0x02, 0x05, 0xff] {
            let error = Address::read_from(&mut [atyp, 1, 2, 3, 4, 0, 80].as_slice()).unwrap_err();
            assert!(matches!(error, Error::AddressType(octet) if octet == atyp));
        }
    }

    #[test]
    fn a_name_that_no_host_has_is_read_whole_and_refused() {
        for name in
            [b"".as_slice(), b"a b", b"a\0b", b"a\nb", b"caf\xc3\xa9", b"\x7f", b"ex\\097mple.org"]
        {
            let length = [u8::try_from(name.len()).unwrap()];
            let stream = [b"\x03", length.as_slice(), name, b"\x00\x50payload"].concat();
            let mut rest = stream.as_slice();
            let error = Address::read_from(&mut rest).unwrap_err();
            assert!(matches!(error, Error::Name(octets) if octets == name));
            assert_eq!(rest, b"payload");
        }
    }

    #[test]
    fn a_name_may_have_255_octets() {
        let name = "a".repeat(255);
        let stream = [b"\x03\xff", name.as_bytes(), b"\x00\x50"].concat();
        let address = Address::read_from(&mut stream.as_slice()).unwrap();
        assert_eq!(address.host, Host::Name(Name(name)));
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
    fn names_of_the_machine_itself() {
        for name in ["localhost", "LocalHost.", "a.localhost", "ip6-localhost", "localhost4"] {
            assert!(is_localhost(name), "{name}");
        }
        for name in ["localhost.example", "notlocalhost", "local.host"] {
            assert!(!is_localhost(name), "{name}");
        }
    }

    #[test]
    fn nobody_in_particular_has_three_spellings() {
        for octets in [
            b"\x01\0\0\0\0\0\0".as_slice(),
            b"\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
            b"\x03\x010\0\0",
        ] {
            assert!(Address::read_from(&mut &octets[..]).unwrap().host.is_unspecified());
        }
        for (octets, shown) in WIRE {
            let address = Address::read_from(&mut &octets[..]).unwrap();
            assert!(!address.host.is_unspecified(), "{shown}");
        }
    }

    #[test]
    fn a_mapped_address_is_written_as_ipv4() {
        let mut message = Vec::new();
        Address::from("[::ffff:192.0.2.7]:80".parse::<SocketAddr>().unwrap())
            .append_to(&mut message);
        assert_eq!(message, WIRE[0].0);
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
}
