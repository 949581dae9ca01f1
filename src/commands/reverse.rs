//! Addresses to names, for Tor's `RESOLVE_PTR`: the hosts file, then the name servers of
//! `resolv.conf`. std has no call for it, and that of the C library could not be given up on.

use std::fmt::Write;
use std::fs;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{self, BufRead, Cursor, ErrorKind, Read};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::str;
use std::sync::Arc;
use std::time::{Duration, Instant};

use byteorder::{BigEndian, ReadBytesExt};

use super::hosts;
use super::lookup::Error;
use super::waiting::{News, Waiting, wait_for};
use crate::socks5::Name;

const NAME_SERVERS: &str = "/etc/resolv.conf";

/// Name servers that are asked one after the other, as the C library does, and how long each has.
const MOST_SERVERS: usize = 3;
const PATIENCE: Duration = Duration::from_secs(3);

/// The longest message without EDNS (RFC 1035 section 4.2.1).
const LONGEST: usize = 512;

const DNS_PORT: u16 = 53;
const PTR: u16 = 12;

/// The name of the host with this address. Waits until `deadline` at the latest, and for as long as
/// `client`, if it is given, has not left.
///
/// # Errors
///
/// See [`Error`].
pub fn name_of(ip: IpAddr, deadline: Instant, client: Option<&Waiting<'_>>) -> Result<Name, Error> {
    if let Some(name) = hosts::open().ok().and_then(|hosts| name_in(hosts, ip)) {
        return Ok(name);
    }
    let servers = fs::read_to_string(NAME_SERVERS).unwrap_or_default();
    ask(&servers_in(&servers), ip, deadline, client)
}

/// The first name in a hosts file's line for this address.
fn name_in(hosts: impl BufRead, ip: IpAddr) -> Option<Name> {
    let name = hosts::find(hosts, |address, names| {
        let address: IpAddr = str::from_utf8(address).ok()?.parse().ok()?;
        let name = names.next().filter(|_| address.to_canonical() == ip.to_canonical())?;
        Name::new(name.into()).ok()
    });
    name.ok()?
}

/// The name servers of a `resolv.conf`, this machine if there are none.
fn servers_in(file: &str) -> Vec<SocketAddr> {
    let server = |line: &str| {
        let mut words = line.split_whitespace();
        let ip: IpAddr =
            words.next().filter(|word| *word == "nameserver").and(words.next())?.parse().ok()?;
        Some(SocketAddr::new(ip, DNS_PORT))
    };
    let servers: Vec<_> = file.lines().filter_map(server).take(MOST_SERVERS).collect();
    if servers.is_empty() { vec![(Ipv4Addr::LOCALHOST, DNS_PORT).into()] } else { servers }
}

/// Asks one name server after the other.
fn ask(
    servers: &[SocketAddr],
    ip: IpAddr,
    deadline: Instant,
    client: Option<&Waiting<'_>>,
) -> Result<Name, Error> {
    let mut failure = Error::TimedOut;
    for server in servers {
        let limit = deadline.min(Instant::now() + PATIENCE);
        match ask_one(*server, ip, limit, client) {
            Err(Error::TimedOut) => {}
            Err(Error::Unresolved(error)) if error.kind() != ErrorKind::NotFound => {
                failure = Error::Unresolved(error);
            }
            answer => return answer,
        }
    }
    Err(failure)
}

fn ask_one(
    server: SocketAddr,
    ip: IpAddr,
    limit: Instant,
    client: Option<&Waiting<'_>>,
) -> Result<Name, Error> {
    let failed = |error: io::Error| Error::Unresolved(Arc::new(error));
    // Whoever does not see the question is not to guess it.
    let id = RandomState::new().build_hasher().finish().to_ne_bytes();
    let question = question([id[0], id[1]], ip);
    let socket = connected(server).map_err(failed)?;
    socket.send(&question).map_err(failed)?;
    let mut octets = [0; LONGEST];
    loop {
        wait(&socket, limit, client)?;
        match socket.recv(&mut octets) {
            Ok(length) if is_answer(&octets[..length], &question) => {
                let name = first_name(&octets[..length], question.len()).ok().flatten();
                return name.ok_or_else(|| failed(ErrorKind::NotFound.into()));
            }
            // Somebody else says something.
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(failed(error)),
        }
    }
}

fn connected(server: SocketAddr) -> io::Result<UdpSocket> {
    let unspecified: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((unspecified, 0))?;
    socket.set_nonblocking(true)?;
    socket.connect(server)?;
    Ok(socket)
}

/// Waits until there is something to receive.
fn wait(socket: &UdpSocket, limit: Instant, client: Option<&Waiting<'_>>) -> Result<(), Error> {
    let failed = |error: io::Error| Error::Unresolved(Arc::new(error));
    loop {
        let left = limit.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Error::TimedOut);
        }
        match wait_for(socket, client, left).map_err(failed)? {
            News::Answer => return Ok(()),
            News::ClientLeft => return Err(Error::ClientLeft),
            News::Nothing => {}
        }
    }
}

/// A question for the PTR records of an address (RFC 1035 section 3.5, RFC 3596 section 2.5).
fn question(id: [u8; 2], ip: IpAddr) -> Vec<u8> {
    let mut name = String::new();
    match ip {
        IpAddr::V4(ip) => {
            for octet in ip.octets().iter().rev() {
                let _ = write!(name, "{octet}.");
            }
            name.push_str("in-addr.arpa");
        }
        IpAddr::V6(ip) => {
            for octet in ip.octets().iter().rev() {
                let _ = write!(name, "{:x}.{:x}.", octet & 0xf, octet >> 4);
            }
            name.push_str("ip6.arpa");
        }
    }
    // RD is set, and there is one question.
    let mut message = [&id[..], &[0x01, 0x00, 0, 1, 0, 0, 0, 0, 0, 0]].concat();
    for label in name.split('.') {
        message.push(u8::try_from(label.len()).expect("no label has more than 7 octets"));
        message.extend(label.as_bytes());
    }
    message.extend([0, 0, 12, 0, 1]);
    message
}

/// Whether a message answers this question.
fn is_answer(message: &[u8], question: &[u8]) -> bool {
    message.len() >= question.len()
        && message[..2] == question[..2]
        && message[2] & 0x80 != 0
        && message[4..6] == question[4..6]
        && message[12..question.len()].eq_ignore_ascii_case(&question[12..])
}

/// The first PTR record behind the question.
fn first_name(message: &[u8], behind: usize) -> io::Result<Option<Name>> {
    let mut reader = Cursor::new(message);
    reader.set_position(6);
    let answers = reader.read_u16::<BigEndian>()?;
    reader.set_position(behind as u64);
    for _ in 0..answers {
        read_name(&mut reader)?;
        let kind = reader.read_u16::<BigEndian>()?;
        let _class_and_ttl = (reader.read_u16::<BigEndian>()?, reader.read_u32::<BigEndian>()?);
        let end = u64::from(reader.read_u16::<BigEndian>()?) + reader.position();
        if kind == PTR {
            return Ok(Name::new(read_name(&mut reader)?).ok());
        }
        reader.set_position(end);
    }
    Ok(None)
}

/// Reads a name, which may go on elsewhere in the message (RFC 1035 section 4.1.4). It is empty where
/// it has an octet that no host name has.
fn read_name(reader: &mut Cursor<&[u8]>) -> io::Result<Vec<u8>> {
    let mut name: Vec<u8> = Vec::new();
    let mut behind = None;
    // Each step takes an octet or more of a name of 255, or jumps: a circle ends here.
    for _ in 0..256 {
        let length = reader.read_u8()?;
        match length {
            0 => {
                if let Some(behind) = behind {
                    reader.set_position(behind);
                }
                let is_plain = name
                    .iter()
                    .all(|octet| octet.is_ascii_alphanumeric() || b"-_.".contains(octet));
                return Ok(if is_plain { name } else { Vec::new() });
            }
            0xc0.. => {
                let low = reader.read_u8()?;
                behind = behind.or(Some(reader.position()));
                reader.set_position((u64::from(length & 0x3f) << 8) | u64::from(low));
            }
            1..=63 => {
                let mut label = vec![0; usize::from(length)];
                reader.read_exact(&mut label)?;
                if label.contains(&b'.') {
                    // A dot inside a label is none between labels.
                    label.fill(b' ');
                }
                if !name.is_empty() {
                    name.push(b'.');
                }
                name.extend(label);
            }
            64..=0xbf => break,
        }
    }
    Err(ErrorKind::InvalidData.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    const LONG: Duration = Duration::from_secs(20);

    fn ip(ip: &str) -> IpAddr {
        ip.parse().unwrap()
    }

    /// A name server that answers its first question with what `records` says.
    fn server(count: u8, records: &'static [u8]) -> (thread::JoinHandle<Vec<u8>>, SocketAddr) {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(LONG)).unwrap();
        let address = socket.local_addr().unwrap();
        let answering = thread::spawn(move || {
            let mut octets = [0; LONGEST];
            let (length, from) = socket.recv_from(&mut octets).unwrap();
            let question = octets[..length].to_vec();
            let mut message = [&question, records].concat();
            // What comes from someone who has not seen the question is no answer.
            message[1] ^= 1;
            message[2] |= 0x80;
            message[7] = count;
            socket.send_to(&message, from).unwrap();
            message[1] ^= 1;
            socket.send_to(&message, from).unwrap();
            question
        });
        (answering, address)
    }

    #[test]
    fn a_name_server_is_asked_for_the_reversed_address() {
        let record = b"\xc0\x0c\x00\x05\x00\x01\0\0\0\x09\x00\x04\x01a\xc0\x0c\
            \xc0\x0c\x00\x0c\x00\x01\0\0\0\x09\x00\x0d\x04host\x07example\x00";
        let (asked, server) = server(2, record);
        let name = ask(&[server], ip("192.0.2.7"), Instant::now() + LONG, None).unwrap();
        assert_eq!(name.as_str(), "host.example");
        let question = asked.join().unwrap();
        assert_eq!(
            question[2..],
            *b"\x01\x00\0\x01\0\0\0\0\0\0\x017\x012\x010\x03192\x07in-addr\x04arpa\0\0\x0c\0\x01"
        );
    }

    #[test]
    fn no_answer_and_no_name_are_told_apart() {
        let (_asked, none) = server(0, b"");
        let unresolved = ask(&[none], ip("2001:db8::1"), Instant::now() + LONG, None);
        assert!(matches!(unresolved, Err(Error::Unresolved(_))));
        let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
        let soon = Instant::now() + Duration::from_millis(100);
        let late = ask(&[silent.local_addr().unwrap()], ip("192.0.2.7"), soon, None);
        assert!(matches!(late, Err(Error::TimedOut)));
    }

    #[test]
    fn no_message_is_too_strange() {
        let question = question([1, 2], ip("2001:db8::1"));
        for records in [
            b"\xc0\x0c\x00\x0c\x00\x01\0\0\0\x09\x00\x02\xc0".as_slice(),
            // A name that goes on at itself, one behind the end, one with a space and one with a dot.
            b"\xc0\x0c\x00\x0c\x00\x01\0\0\0\x09\x00\x02\xc0\x66",
            b"\xc0\x0c\x00\x0c\x00\x01\0\0\0\x09\x00\x02\xff\xff",
            b"\xc0\x0c\x00\x0c\x00\x01\0\0\0\x09\x00\x05\x03a b\x00",
            b"\xc0\x0c\x00\x0c\x00\x01\0\0\0\x09\x00\x05\x03a.b\x00",
            b"\x80",
        ] {
            let mut message = [&question, records].concat();
            message[2] |= 0x80;
            message[7] = 1;
            for length in 0..=message.len() {
                let message = &message[..length];
                assert_eq!(is_answer(message, &question), length >= question.len());
                let name = first_name(message, question.len());
                assert!(!matches!(name, Ok(Some(_))), "{}", records.escape_ascii());
            }
        }
        assert!(!is_answer(&question, &question));
    }

    #[test]
    fn files() {
        let hosts = "# 192.0.2.1 a\n192.0.2.1\tb.example c # d\n2001:db8::1 e\n192.0.2.2 # f\n";
        let name =
            |address| name_in(hosts.as_bytes(), ip(address)).map(|name| name.as_str().to_owned());
        assert_eq!(name("192.0.2.1").as_deref(), Some("b.example"));
        assert_eq!(name("2001:db8::1").as_deref(), Some("e"));
        assert_eq!((name("192.0.2.2"), name("192.0.2.3")), (None, None));
        let servers =
            servers_in("search lan\nnameserver 192.0.2.1\n#nameserver 192.0.2.9\nnameserver ::1\n");
        assert_eq!(servers, ["192.0.2.1:53".parse().unwrap(), "[::1]:53".parse().unwrap()]);
        assert_eq!(servers_in(""), ["127.0.0.1:53".parse().unwrap()]);
    }
}
