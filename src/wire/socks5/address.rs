//! An address in a message: ATYP, the host, the port (RFC 1928 section 5).

use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use byteorder::{BigEndian, ReadBytesExt};

use super::error::Error;
use crate::wire::address::{Address, Host, Name};

const IPV4: u8 = 0x01;
const NAME: u8 = 0x03;
const IPV6: u8 = 0x04;

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
            Host::Name(name) => {
                let name = name.as_str();
                message.extend([NAME, u8::try_from(name.len()).expect("a longer one is no name")]);
                message.extend(name.as_bytes());
            }
        }
        message.extend(self.port.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::SocketAddr;

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
            assert!(matches!(error, Error::Name(octets) if octets.0 == name));
            assert_eq!(rest, b"payload");
        }
    }

    #[test]
    fn a_name_may_have_255_octets() {
        let name = "a".repeat(255);
        let stream = [b"\x03\xff", name.as_bytes(), b"\x00\x50"].concat();
        let address = Address::read_from(&mut stream.as_slice()).unwrap();
        assert_eq!(address.host, Host::from(Name::new(name.into()).unwrap()));
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
}
