//! The messages: what is read can be written and reads the same, and no octet behind it is taken.

use std::io::BufReader;
use std::net::{IpAddr, SocketAddr};

use arbitrary::{Arbitrary, Unstructured};
use subtle::ConstantTimeEq;
use tabi::wire;
use tabi::wire::address::{Address, Host, Name};
use tabi::wire::credentials::{Credentials, Password};
use tabi::wire::proxy_protocol::{self, Header};
use tabi::wire::request::{Command, Request};
use tabi::wire::socks4;
use tabi::wire::socks5::{
    AnswerError, Datagram, Error, Greeting, LONGEST_HEADER, Method, Reply, append_header,
    read_selection, read_status, write_selection, write_status,
};

use super::stream::{Stream, is_printable, read};

/// The octets that `write` writes.
fn written<E: std::fmt::Debug>(write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>) -> Vec<u8> {
    let mut octets = Vec::new();
    write(&mut octets).unwrap();
    octets
}

/// How many octets an address takes, its ATYP and port too.
fn address_length(octets: &[u8]) -> usize {
    match octets[0] {
        0x01 => 1 + 4 + 2,
        0x04 => 1 + 16 + 2,
        0x03 => 1 + 1 + usize::from(octets[1]) + 2,
        other => panic!("ATYP {other:#04x} is taken"),
    }
}

fn check_shown(address: &Address) {
    assert!(is_printable(&address.to_string()), "{address:?}");
    let is_mapped = matches!(address.host, Host::Ip(ip) if ip != ip.to_canonical());
    assert!(!is_mapped, "{address:?}");
}

pub(crate) fn greeting(octets: &[u8]) {
    let (result, taken) = read(octets, Greeting::read_from);
    match result {
        Ok(greeting) => {
            assert_eq!(octets[0], 0x05);
            assert_eq!(taken, 2 + usize::from(octets[1]));
            assert_eq!(written(|to| greeting.write_to(to)), octets[..taken]);
            for method in [Method::NoAuthentication, Method::UsernamePassword] {
                assert_eq!(greeting.offers(method), octets[2..taken].contains(&(method as u8)));
            }
        }
        Err(Error::Io(_)) => assert_eq!(taken, octets.len()),
        Err(Error::Version(version)) => {
            assert!(version == octets[0] && version != 0x05 && taken == 1);
        }
        Err(other) => panic!("{other:?}"),
    }
}

pub(crate) fn credentials(octets: &[u8]) {
    let (result, taken) = read(octets, Credentials::read_from);
    match result {
        Ok(credentials) => {
            let name = usize::from(octets[1]);
            assert_eq!(taken, 3 + name + usize::from(octets[2 + name]));
            assert_eq!(credentials.name, octets[2..2 + name]);
            assert_eq!(written(|to| credentials.write_to(to)), octets[..taken]);
        }
        Err(Error::CredentialsVersion(version)) => {
            assert!(version == octets[0] && version != 0x01 && taken == 1);
        }
        Err(Error::Io(_)) => assert_eq!(taken, octets.len()),
        Err(other) => panic!("{other:?}"),
    }
}

pub(crate) fn request(octets: &[u8]) {
    let (result, taken) = read(octets, Request::read_from);
    match result {
        Ok(request) => {
            assert_eq!(taken, 3 + address_length(&octets[3..]));
            check_shown(&request.destination);
            let again = written(|to| request.write_to(to));
            assert_eq!(again[1], octets[1]);
            assert_eq!(Request::read_from(&mut again.as_slice()).unwrap(), request);
            if let Host::Name(name) = &request.destination.host {
                assert_eq!(name.as_str().as_bytes(), &octets[5..taken - 2]);
                assert_eq!(again[3..], octets[3..taken]);
            }
        }
        Err(Error::Version(version)) => assert!(version == octets[0] && taken == 1),
        Err(Error::AddressType(kind)) => assert!(kind == octets[3] && taken == 4),
        Err(Error::Command(_) | Error::Name(_)) => {
            assert_eq!(taken, 3 + address_length(&octets[3..]));
        }
        Err(Error::Io(_)) => assert_eq!(taken, octets.len()),
        Err(other) => panic!("{other:?}"),
    }
}

/// What another server says at last.
pub(crate) fn reply(octets: &[u8]) {
    let (result, taken) = read(octets, Reply::read_from);
    match result {
        Ok(reply) => {
            assert_eq!(taken, 3 + address_length(&octets[3..]));
            assert_eq!(reply.rep(), octets[1]);
            let again = written(|to| reply.write_to(to));
            assert_eq!(Reply::read_from(&mut again.as_slice()).unwrap(), reply);
        }
        Err(AnswerError::Version(version)) => assert!(version == octets[0] && taken == 1),
        Err(AnswerError::Bound(Error::AddressType(kind))) => {
            assert!(kind == octets[3] && taken == 4);
        }
        Err(AnswerError::Bound(Error::Name(_))) => {
            assert_eq!(taken, 3 + address_length(&octets[3..]));
        }
        Err(AnswerError::Io(_)) => assert_eq!(taken, octets.len()),
        Err(other) => panic!("{other:?}"),
    }
}

/// All that another server says, one answer after the other.
pub(crate) fn answers(octets: &[u8]) {
    let (selection, mut taken) = read(octets, read_selection);
    let Ok(method) = selection else { return };
    assert_eq!(taken, 2);
    assert_eq!(written(|to| write_selection(method, to)), octets[..taken]);
    if method == Some(Method::UsernamePassword) {
        let (status, more) = read(&octets[taken..], read_status);
        let Ok(success) = status else { return };
        assert_eq!((more, success), (2, octets[3] == 0x00));
        let again = written(|to| write_status(success, to));
        assert_eq!(read_status(&mut again.as_slice()).unwrap(), success);
        taken += more;
    }
    reply(&octets[taken..]);
}

pub(crate) fn datagram(octets: &[u8]) {
    let Ok(datagram) = Datagram::read(octets) else { return };
    let length = 3 + address_length(&octets[3..]);
    assert_eq!((datagram.header, datagram.payload), octets.split_at(length));
    assert_eq!(datagram.frag, octets[2]);
    check_shown(&datagram.destination);
    if let Host::Ip(ip) = datagram.destination.host {
        let source = SocketAddr::new(ip, datagram.destination.port);
        let mut message = Vec::new();
        append_header(source, &mut message);
        assert!(message.len() <= LONGEST_HEADER);
        message.extend(datagram.payload);
        let again = Datagram::read(&message).unwrap();
        assert_eq!(again.destination, datagram.destination);
        assert_eq!((again.frag, again.payload), (0, datagram.payload));
    }
}

pub(crate) fn socks4(octets: &[u8]) {
    let (result, taken) =
        read(octets, |stream| socks4::read_request(&mut BufReader::with_capacity(1, stream)));
    // What of the texts has come, and whether an end of each.
    let mut texts = octets.get(8..).unwrap_or_default().splitn(3, |octet| *octet == 0);
    let (user, name) = (texts.next().unwrap_or_default(), texts.next());
    let by_name = matches!(octets.get(4..8), Some([0, 0, 0, 1..=255]));
    let length = match name {
        Some(name) if by_name => 8 + user.len() + 1 + name.len() + 1,
        _ => 8 + user.len() + 1,
    };
    match result {
        Ok((Request { command, destination }, who)) => {
            assert_eq!((taken, who.as_slice()), (length, user));
            assert_eq!(octets[1], if command == Command::Connect { 1 } else { 2 });
            assert_eq!(destination.port.to_be_bytes(), octets[2..4]);
            check_shown(&destination);
            match &destination.host {
                Host::Name(host) => assert!(by_name && name == Some(host.as_str().as_bytes())),
                Host::Ip(IpAddr::V4(ip)) if !by_name => assert_eq!(ip.octets(), octets[4..8]),
                Host::Ip(_) => assert!(by_name),
            }
            let reply = socks4::success(&destination);
            assert_eq!((&reply[..2], &reply[2..4], reply.len()), (&[0, 90][..], &octets[2..4], 8));
        }
        Err(wire::error::Error::Malformed(_)) => {
            assert!(![1, 2].contains(&octets[1]) || by_name);
            assert_eq!(taken, length);
        }
        Err(wire::error::Error::TooLarge) => {
            let is_long = |text: &[u8]| text.len() > 255;
            assert!(is_long(user) || by_name && name.is_some_and(is_long));
            assert!(taken <= 8 + 256 + 256);
        }
        Err(wire::error::Error::Io(_)) => assert_eq!(taken, octets.len()),
    }
}

pub(crate) fn proxy_header(octets: &[u8]) {
    let (result, taken) = read(octets, Header::read_from);
    let most = match octets.first() {
        // The longest line of version 1.
        Some(b'P') => 107,
        Some(b'\r') if octets.len() >= 16 => {
            16 + usize::from(u16::from_be_bytes([octets[14], octets[15]]))
        }
        Some(_) | None => octets.len().min(15),
    };
    assert!(taken <= most, "{taken} octets: {result:?}");
    match result {
        Ok(header) => {
            if octets[0] == b'P' {
                assert!(octets[..taken].ends_with(b"\r\n"));
            } else {
                assert_eq!(taken, most);
            }
            if let Header::Client(client) = header {
                assert_eq!(client.ip(), client.ip().to_canonical());
            }
        }
        Err(proxy_protocol::Error::Io(_)) => assert_eq!(taken, octets.len()),
        Err(_) => {}
    }
}

/// What is written reads back, and what stands behind it is left.
fn reads_back(input: &mut Unstructured<'_>) -> arbitrary::Result<()> {
    let rest: Vec<u8> = Vec::arbitrary(input)?.into_iter().take(8).collect();
    let source = SocketAddr::new(ip(input)?, u16::arbitrary(input)?);
    let canonical = SocketAddr::new(source.ip().to_canonical(), source.port());
    let port = u16::arbitrary(input)?;
    let host = match name(input)? {
        Some(name) if bool::arbitrary(input)? => Host::from(name),
        Some(_) | None => Host::Ip(source.ip().to_canonical()),
    };
    let command = *input.choose(&[Command::Connect, Command::Bind, Command::UdpAssociate])?;
    let request = Request { command, destination: Address { host, port } };
    let octets = written(|to| request.write_to(to));
    assert_eq!(back(&octets, &rest, |stream| Request::read_from(stream)).unwrap(), request);

    let reply = Reply::succeeded(source);
    let octets = written(|to| reply.write_to(to));
    assert_eq!(back(&octets, &rest, |stream| Reply::read_from(stream)).unwrap(), reply);

    let mut message = Vec::new();
    append_header(source, &mut message);
    message.extend(&rest);
    let datagram = Datagram::read(&message).unwrap();
    assert_eq!((datagram.destination, datagram.payload), (canonical.into(), &*rest));

    let name: Vec<u8> = Vec::arbitrary(input)?.into_iter().take(255).collect();
    let secret: Vec<u8> = Vec::arbitrary(input)?.into_iter().take(255).collect();
    if let Some(password) = Password::new(&secret) {
        let octets = written(|to| {
            Credentials { name: name.clone(), password: password.clone() }.write_to(to)
        });
        let again = back(&octets, &rest, |stream| Credentials::read_from(stream)).unwrap();
        assert!(again.name == name && bool::from(again.password.ct_eq(&password)));
    }
    for octets in headers(source, SocketAddr::new(ip(input)?, port), &secret) {
        let header = back(&octets, &rest, |stream| Header::read_from(stream)).unwrap();
        assert_eq!(header, Header::Client(canonical));
    }
    Ok(())
}

pub(crate) fn written_messages(octets: &[u8]) {
    // Too few octets make no message.
    let _ = reads_back(&mut Unstructured::new(octets));
}

/// Reads `octets` with `rest` behind them, in every way that [`read`] tries.
fn back<T: std::fmt::Debug, E: std::fmt::Debug + std::fmt::Display>(
    octets: &[u8],
    rest: &[u8],
    reader: impl Fn(&mut Stream<'_>) -> Result<T, E>,
) -> Result<T, E> {
    let message = [octets, rest].concat();
    let (result, taken) = read(&message, reader);
    assert_eq!(taken, octets.len(), "{result:?}");
    result
}

fn ip(input: &mut Unstructured<'_>) -> arbitrary::Result<IpAddr> {
    Ok(match u8::arbitrary(input)? % 3 {
        0 => <[u8; 4]>::arbitrary(input)?.into(),
        1 => <[u8; 16]>::arbitrary(input)?.into(),
        _ => std::net::Ipv4Addr::from(<[u8; 4]>::arbitrary(input)?).to_ipv6_mapped().into(),
    })
}

fn name(input: &mut Unstructured<'_>) -> arbitrary::Result<Option<Name>> {
    let octets = Vec::<u8>::arbitrary(input)?;
    let visible = octets.iter().map(|octet| b'!' + octet % (b'~' - b'!' + 1));
    Ok(Name::new(visible.take(255).collect()).ok())
}

/// PROXY headers of both versions that say that `source` has come to `target`.
fn headers(source: SocketAddr, target: SocketAddr, tlv: &[u8]) -> Vec<Vec<u8>> {
    let families = |source: IpAddr, target: IpAddr| match (source, target) {
        (IpAddr::V4(_), IpAddr::V4(_)) => (source, target, 4),
        (source, target) => (to_ipv6(source), to_ipv6(target), 6),
    };
    let (from, to, family) = families(source.ip(), target.ip());
    let line = format!("PROXY TCP{family} {from} {to} {} {}\r\n", source.port(), target.port());
    let mut block = Vec::new();
    for ip in [from, to] {
        match ip {
            IpAddr::V4(ip) => block.extend(ip.octets()),
            IpAddr::V6(ip) => block.extend(ip.octets()),
        }
    }
    block.extend(source.port().to_be_bytes());
    block.extend(target.port().to_be_bytes());
    block.extend([0xee, 0, u8::try_from(tlv.len()).unwrap()]);
    block.extend(tlv);
    let kind = if family == 4 { 0x11 } else { 0x21 };
    let length = u16::try_from(block.len()).unwrap().to_be_bytes();
    let head = [b"\r\n\r\n\0\r\nQUIT\n\x21".as_slice(), &[kind], &length].concat();
    vec![line.into_bytes(), [head, block].concat()]
}

fn to_ipv6(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().into(),
        IpAddr::V6(_) => ip,
    }
}
