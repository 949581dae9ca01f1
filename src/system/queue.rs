//! How many bytes wait in a connection's send queue, and how many clients in a listener's backlog, as the
//! system tells who asks by netlink (`sock_diag`, what `ss` uses). The call that asks a socket itself needs `unsafe`, and the package for
//! `sock_diag` needs four others, for what is one message of fixed length here.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::OnceLock;

use nix::net::if_::if_nametoindex;
use rustix::net::netlink::{SOCK_DIAG, SocketAddrNetlink};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, sendto, socket_with,
};
use socket2::SockRef;

/// Type and flag of the message that asks for one socket, the type of the answer, and the kinds of
/// sockets (`linux/sock_diag.h`, `linux/netlink.h`, `linux/socket.h`, `linux/in.h`).
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLM_F_REQUEST: u16 = 1;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const IPPROTO_TCP: u8 = 6;

/// The length of the question: a netlink header, the kind of socket asked for, and its addresses.
const QUESTION: u32 = 16 + 8 + 48;

/// Where the type of a message is.
const TYPE: Range<usize> = 4..6;

/// Where in the answer the lengths of the queues are: behind the header, four states, the addresses, and
/// a timer. The receive queue of a listener is its backlog.
const RECEIVE_QUEUE: Range<usize> = 72..76;
const SEND_QUEUE: Range<usize> = 76..80;

/// Where the ports of the connection are: in the question behind the header and the kind, in the answer
/// behind the header and the states.
const PORTS_IN_QUESTION: Range<usize> = 24..28;
const PORTS_IN_ANSWER: Range<usize> = 20..24;

/// The bytes of `stream` that its peer's system has not acknowledged. `None` where the system does not
/// say so. This never waits: the answer is there when the question has been sent.
pub fn unacknowledged(stream: &TcpStream) -> Option<u32> {
    ask(stream, stream.local_addr().ok()?, stream.peer_addr().ok()?, SEND_QUEUE)
}

/// How many clients have connected to `listener` and were not accepted yet. `None` where the system does
/// not say so.
pub fn backlog(listener: &TcpListener) -> Option<u32> {
    let nobody = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
    ask(listener, listener.local_addr().ok()?, nobody, RECEIVE_QUEUE)
}

fn ask(about: &impl AsFd, local: SocketAddr, peer: SocketAddr, queue: Range<usize>) -> Option<u32> {
    let socket = socket()?;
    let question = question(local, peer, interface(about));
    sendto(socket, &question, SendFlags::DONTWAIT, &SocketAddrNetlink::new(0, 0)).ok()?;
    let mut answer = [0; 256];
    let (length, _) = recv(socket, &mut answer[..], RecvFlags::DONTWAIT).ok()?;
    length_of(queue, &answer[..length], &question)
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

/// The number of the interface that a socket is bound to (`--interface`, a VRF, link-local IPv6), 0
/// if it is bound to none. The system finds only the socket that is asked for with it.
fn interface(socket: &impl AsFd) -> u32 {
    let name = SockRef::from(socket).device().ok().flatten();
    name.and_then(|name| if_nametoindex(&*name).ok()).unwrap_or(0)
}

fn question(local: SocketAddr, peer: SocketAddr, interface: u32) -> Vec<u8> {
    let family = if local.is_ipv4() { AF_INET } else { AF_INET6 };
    [
        &QUESTION.to_ne_bytes()[..],
        &SOCK_DIAG_BY_FAMILY.to_ne_bytes(),
        &NLM_F_REQUEST.to_ne_bytes(),
        &[0; 8],
        &[family, IPPROTO_TCP, 0, 0],
        &[0xff; 4], // in any state
        &local.port().to_be_bytes(),
        &peer.port().to_be_bytes(),
        &padded(local.ip()),
        &padded(peer.ip()),
        &interface.to_ne_bytes(),
        &[0xff; 8], // whatever its cookie
    ]
    .concat()
}

/// The octets of an address, with zeros behind those of IPv4.
fn padded(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(ip) => (u128::from(ip.to_bits()) << 96).to_be_bytes(),
        IpAddr::V6(ip) => ip.octets(),
    }
}

/// The length of `queue` that an answer tells, if it is that to `question`: all who ask share a socket.
fn length_of(queue: Range<usize>, answer: &[u8], question: &[u8]) -> Option<u32> {
    let is_answer = answer.get(TYPE) == question.get(TYPE)
        && answer.get(PORTS_IN_ANSWER) == question.get(PORTS_IN_QUESTION);
    let queued = answer.get(queue).filter(|_| is_answer)?;
    Some(u32::from_ne_bytes(queued.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::TcpListener;

    #[test]
    fn an_answer_to_somebody_else_tells_nothing() {
        let [local, peer] = ["127.0.0.1:1080", "127.0.0.1:50000"].map(|it| it.parse().unwrap());
        let question = question(local, peer, 0);
        let mut answer = [0; 256];
        answer[TYPE].copy_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
        answer[PORTS_IN_ANSWER].copy_from_slice(&question[PORTS_IN_QUESTION]);
        assert_eq!(length_of(SEND_QUEUE, &answer, &question), Some(0));
        answer[PORTS_IN_ANSWER.end - 1] ^= 1;
        assert_eq!(length_of(SEND_QUEUE, &answer, &question), None);
    }

    #[test]
    fn clients_that_were_not_accepted_are_in_the_backlog() {
        for (listen, connect) in [("127.0.0.1", "127.0.0.1"), ("::1", "::1"), ("::", "127.0.0.1")] {
            let [listen, connect] = [listen, connect].map(|ip| ip.parse::<IpAddr>().unwrap());
            // A machine may have no IPv6.
            let Ok(listener) = TcpListener::bind((listen, 0)) else { continue };
            let port = listener.local_addr().unwrap().port();
            assert_eq!(backlog(&listener), Some(0));
            let _clients = [(); 2].map(|()| TcpStream::connect((connect, port)).unwrap());
            assert_eq!(backlog(&listener), Some(2));
            listener.accept().unwrap();
            assert_eq!(backlog(&listener), Some(1));
        }
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
