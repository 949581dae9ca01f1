//! How a port of our own is closed: first nobody begins to connect any more, then nobody waits at it.

use std::net::{Shutdown, TcpListener};

use socket2::SockRef;

/// Workers that wait for a client at the same time. With one, each client costs a hand-over: the
/// worker that leaves has to wake the next.
pub(super) const MOST_WAITING: usize = 4;

/// Makes the system ignore those who begin to connect from now on. Who has begun already comes
/// through. Where the system cannot do that, or not for an ordinary user, clients get in until the
/// listener is closed, a moment later.
pub(super) fn let_nobody_begin(listener: &TcpListener) {
    #[cfg(target_os = "linux")]
    let _ = SockRef::from(listener).attach_filter(&linux::NO_FIRST_SEGMENT);
    #[cfg(not(target_os = "linux"))]
    let _ = listener;
}

#[cfg(target_os = "linux")]
mod linux {
    use socket2::SockFilter;

    /// Where a TCP segment has its flags, and those of the first segment of a connection: SYN
    /// without ACK (RFC 9293 section 3.1).
    const FLAGS: u32 = 13;
    const SYN: u32 = 0x02;
    const ACK: u32 = 0x10;

    /// A program for the kernel (`linux/filter.h`) that is run on every segment for the listener. It
    /// drops those that begin a connection.
    pub(super) const NO_FIRST_SEGMENT: [SockFilter; 5] = [
        // ldb [FLAGS]
        SockFilter::new(0x30, 0, 0, FLAGS),
        // and #SYN|ACK
        SockFilter::new(0x54, 0, 0, SYN | ACK),
        // jeq #SYN: the next one, or the one behind it
        SockFilter::new(0x15, 0, 1, SYN),
        // ret #0: none of its bytes
        SockFilter::new(0x06, 0, 0, 0),
        // ret #-1: all of its bytes
        SockFilter::new(0x06, 0, 0, u32::MAX),
    ];
}

/// Closes the port and wakes the threads that are blocked in `accept`.
pub(super) fn close(listener: &TcpListener) {
    let _ = SockRef::from(listener).shutdown(Shutdown::Both);
    #[cfg(not(target_os = "linux"))]
    elsewhere::wake(listener);
}

/// Where closing a listener does not wake who is blocked in `accept`, only a client does.
#[cfg(not(target_os = "linux"))]
mod elsewhere {
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
    use std::time::Duration;

    use super::MOST_WAITING;

    pub(super) fn wake(listener: &TcpListener) {
        let Ok(address) = listener.local_addr() else { return };
        for _ in 0..MOST_WAITING {
            let _ = TcpStream::connect_timeout(&reachable(address), Duration::from_millis(20));
        }
    }

    fn reachable(address: SocketAddr) -> SocketAddr {
        match address.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => (Ipv4Addr::LOCALHOST, address.port()).into(),
            IpAddr::V6(ip) if ip.is_unspecified() => (Ipv6Addr::LOCALHOST, address.port()).into(),
            _ => address,
        }
    }
}
