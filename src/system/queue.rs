//! How many bytes wait in a connection's send queue, as the system tells who asks by netlink
//! (`sock_diag`, what `ss` uses): the call that asks a socket itself is not to be had without `unsafe`.

use std::io::Cursor;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::OnceLock;

use byteorder::{BigEndian, NativeEndian, ReadBytesExt, WriteBytesExt};
use rustix::net::netlink::{SOCK_DIAG, SocketAddrNetlink};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, sendto, socket_with,
};

/// Type and flag of the message that asks for one socket, and the type of the answer
/// (`linux/sock_diag.h`, `linux/netlink.h`).
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLM_F_REQUEST: u16 = 1;

/// The length of the question: a netlink header, the kind of socket asked for, and its addresses.
const QUESTION: usize = 16 + 8 + 48;

/// Where in the answer the length of the send queue is: behind the header, four states, the
/// addresses, a timer, and the length of the receive queue.
const SEND_QUEUE_AT: u64 = 16 + 4 + 48 + 4 + 4;

/// Where the ports of the connection are: in the question behind the header and the kind, in the answer
/// behind the header and the states.
const PORTS_ASKED: Range<usize> = 24..28;
const PORTS_TOLD: Range<usize> = 20..24;

/// The bytes of `stream` that its peer's system has not acknowledged. `None` where the system does not
/// say so. This never waits: the answer is there when the question has been sent.
pub fn unacknowledged(stream: &TcpStream) -> Option<u32> {
    let socket = socket()?;
    let question = question(stream.local_addr().ok()?, stream.peer_addr().ok()?)?;
    sendto(socket, &question, SendFlags::DONTWAIT, &SocketAddrNetlink::new(0, 0)).ok()?;
    let mut answer = [0; 256];
    let (length, _) = recv(socket, &mut answer[..], RecvFlags::DONTWAIT).ok()?;
    send_queue(&answer[..length], &question)
}

/// The socket to ask by, which is kept. One that cannot be had is asked for again the next time:
/// descriptors may be short for a moment.
fn socket() -> Option<&'static OwnedFd> {
    static SOCKET: OnceLock<OwnedFd> = OnceLock::new();
    if let Some(socket) = SOCKET.get() {
        return Some(socket);
    }
    let flags = SocketFlags::CLOEXEC;
    let made = socket_with(AddressFamily::NETLINK, SocketType::DGRAM, flags, Some(SOCK_DIAG));
    made.ok().map(|made| SOCKET.get_or_init(|| made))
}

fn question(local: SocketAddr, peer: SocketAddr) -> Option<Vec<u8>> {
    let family = if local.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let mut bytes = Vec::with_capacity(QUESTION);
    bytes.write_u32::<NativeEndian>(u32::try_from(QUESTION).ok()?).ok()?;
    bytes.write_u16::<NativeEndian>(SOCK_DIAG_BY_FAMILY).ok()?;
    bytes.write_u16::<NativeEndian>(NLM_F_REQUEST).ok()?;
    bytes.extend([0; 8]);
    bytes.push(u8::try_from(family.as_raw()).ok()?);
    bytes.push(6); // TCP
    bytes.extend([0; 2]);
    bytes.extend([0xff; 4]); // in any state
    bytes.write_u16::<BigEndian>(local.port()).ok()?;
    bytes.write_u16::<BigEndian>(peer.port()).ok()?;
    for address in [local, peer] {
        match address.ip() {
            IpAddr::V4(ip) => bytes.extend([&ip.octets()[..], &[0; 12]].concat()),
            IpAddr::V6(ip) => bytes.extend(ip.octets()),
        }
    }
    let scope = if let SocketAddr::V6(peer) = peer { peer.scope_id() } else { 0 };
    bytes.write_u32::<NativeEndian>(scope).ok()?;
    bytes.extend([0xff; 8]); // whatever its cookie
    Some(bytes)
}

/// What an answer tells, if it is that to `question`: all who ask share a socket.
fn send_queue(mut answer: &[u8], question: &[u8]) -> Option<u32> {
    if answer.get(PORTS_TOLD) != question.get(PORTS_ASKED) {
        return None;
    }
    let mut rest = Cursor::new(answer);
    rest.set_position(SEND_QUEUE_AT);
    answer.read_u32::<NativeEndian>().ok()?;
    let kind = answer.read_u16::<NativeEndian>().ok()?;
    if kind != SOCK_DIAG_BY_FAMILY {
        return None;
    }
    rest.read_u32::<NativeEndian>().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::TcpListener;

    #[test]
    fn an_answer_to_somebody_else_tells_nothing() {
        let [local, peer] = ["127.0.0.1:1080", "127.0.0.1:50000"].map(|it| it.parse().unwrap());
        let question = question(local, peer).unwrap();
        let mut answer = [0; 256];
        answer[4..6].copy_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
        answer[PORTS_TOLD].copy_from_slice(&question[PORTS_ASKED]);
        assert_eq!(send_queue(&answer, &question), Some(0));
        answer[PORTS_TOLD.end - 1] ^= 1;
        assert_eq!(send_queue(&answer, &question), None);
    }

    #[test]
    fn what_the_peer_has_no_room_for_is_in_the_queue() {
        // The last one is a client by IPv4 of a listener for both families.
        for (listen, connect) in [("127.0.0.1", "127.0.0.1"), ("::1", "::1"), ("::", "127.0.0.1")] {
            let [listen, connect] = [listen, connect].map(|ip| ip.parse::<IpAddr>().unwrap());
            // A machine may have no IPv6.
            let Ok(listener) = TcpListener::bind((listen, 0)) else { continue };
            let port = listener.local_addr().unwrap().port();
            let mut reader = TcpStream::connect((connect, port)).unwrap();
            let (mut writer, _) = listener.accept().unwrap();
            assert_eq!(unacknowledged(&writer), Some(0));
            writer.set_nonblocking(true).unwrap();
            let mut sent = 0;
            while let Ok(length) = writer.write(&[0x55; 8 * 1024]) {
                sent += length;
            }
            assert!(unacknowledged(&writer).unwrap() > 0, "{sent} bytes were sent");
            reader.read_exact(&mut vec![0; sent]).unwrap();
            assert_eq!(unacknowledged(&writer), Some(0));
        }
    }
}
