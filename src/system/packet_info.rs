//! At which local address a datagram has come, and from which one a datagram is to leave, where the
//! socket is bound to every address (`IP_PKTINFO` in ip(7), `IPV6_RECVPKTINFO` in ipv6(7)). Elsewhere than
//! on Linux the routes choose the address.

#[cfg(not(target_os = "linux"))]
pub use elsewhere::{peek, receive, send};
#[cfg(target_os = "linux")]
pub use linux::{peek, receive, send};

#[cfg(target_os = "linux")]
mod linux {
    use std::io::{self, ErrorKind, IoSlice};
    use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, SocketAddrV6, UdpSocket};
    use std::os::fd::AsRawFd;

    use nix::cmsg_space;
    use nix::libc::{in_addr, in_pktinfo, in6_addr, in6_pktinfo};
    use nix::sys::socket::sockopt::{Ipv4PacketInfo, Ipv6RecvPacketInfo};
    use nix::sys::socket::{
        ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, sendmsg,
        setsockopt,
    };

    /// Has the system tell with each datagram at which address it has come.
    pub fn receive(socket: &UdpSocket) -> io::Result<()> {
        match socket.local_addr()? {
            SocketAddr::V4(_) => setsockopt(socket, Ipv4PacketInfo, &true)?,
            SocketAddr::V6(_) => setsockopt(socket, Ipv6RecvPacketInfo, &true)?,
        }
        Ok(())
    }

    /// Whence and at which local address the next datagram has come. It is not taken.
    pub fn peek(socket: &UdpSocket) -> io::Result<(SocketAddr, IpAddr)> {
        let mut space = cmsg_space!(in6_pktinfo);
        let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
        let message =
            recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut [], Some(&mut space), flags)?;
        let to = message.cmsgs()?.find_map(|message| match message {
            ControlMessageOwned::Ipv4PacketInfo(info) => {
                Some(Ipv4Addr::from(info.ipi_addr.s_addr.to_ne_bytes()).into())
            }
            ControlMessageOwned::Ipv6PacketInfo(info) => Some(info.ipi6_addr.s6_addr.into()),
            _ => None,
        });
        let from = message.address.and_then(of_storage);
        from.zip(to).ok_or_else(|| ErrorKind::InvalidData.into())
    }

    fn of_storage(address: SockaddrStorage) -> Option<SocketAddr> {
        let ipv4 = address.as_sockaddr_in().map(|ipv4| SocketAddrV4::from(*ipv4).into());
        ipv4.or_else(|| address.as_sockaddr_in6().map(|ipv6| SocketAddrV6::from(*ipv6).into()))
    }

    /// Sends a datagram from a local address.
    pub fn send(socket: &UdpSocket, bytes: &[u8], from: IpAddr, to: SocketAddr) -> io::Result<()> {
        // By which interface it leaves is the routes' to say.
        let ipv4 = |ip: Ipv4Addr| in_pktinfo {
            ipi_ifindex: 0,
            ipi_spec_dst: in_addr { s_addr: u32::from_ne_bytes(ip.octets()) },
            ipi_addr: in_addr { s_addr: 0 },
        };
        let (of_ipv4, of_ipv6);
        let info = match from {
            IpAddr::V4(ip) => {
                of_ipv4 = ipv4(ip);
                ControlMessage::Ipv4PacketInfo(&of_ipv4)
            }
            IpAddr::V6(ip) => {
                of_ipv6 =
                    in6_pktinfo { ipi6_addr: in6_addr { s6_addr: ip.octets() }, ipi6_ifindex: 0 };
                ControlMessage::Ipv6PacketInfo(&of_ipv6)
            }
        };
        let (bytes, to) = ([IoSlice::new(bytes)], SockaddrStorage::from(to));
        sendmsg(socket.as_raw_fd(), &bytes, &[info], MsgFlags::empty(), Some(&to))?;
        Ok(())
    }
}

#[cfg(not(target_os = "linux"))]
mod elsewhere {
    use std::io::{self, ErrorKind};
    use std::net::{IpAddr, SocketAddr, UdpSocket};

    pub fn receive(_: &UdpSocket) -> io::Result<()> {
        Ok(())
    }

    pub fn peek(_: &UdpSocket) -> io::Result<(SocketAddr, IpAddr)> {
        Err(ErrorKind::Unsupported.into())
    }

    pub fn send(socket: &UdpSocket, bytes: &[u8], _: IpAddr, to: SocketAddr) -> io::Result<()> {
        socket.send_to(bytes, to).map(drop)
    }
}
