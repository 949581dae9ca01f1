//! Questions to the routing tables, and notices of changes (rtnetlink(7)). The packages for this need
//! several others, for what is one message of fixed length here.

use std::net::IpAddr;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, recv, sendto, socket_with,
};

// Of linux/netlink.h, linux/rtnetlink.h and linux/socket.h.
const NLM_F_REQUEST: u16 = 1;
const NLMSG_ERROR: u16 = 2;
const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
const RTM_GETROUTE: u16 = 26;
const RTA_DST: u16 = 1;
const RTN_LOCAL: u8 = 2;
const RTN_ANYCAST: u8 = 4;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const RTMGRP_LINK: u32 = 0x1;
const RTMGRP_IPV4_ROUTE: u32 = 0x40;
const RTMGRP_IPV6_ROUTE: u32 = 0x400;

/// Bytes of a question without the address: a netlink header, a `rtmsg`, and the header of an attribute.
const QUESTION: u8 = 16 + 12 + 4;

/// Where the number of an error is: behind the netlink header.
const ERROR: usize = 16;

/// Where the type of a route is: in the `rtmsg` behind the netlink header.
const TYPE_OF_ROUTE: usize = 16 + 7;

/// Of an answer or a notice no more is read.
const BEGINNING: usize = 64;

/// Whether the route to `ip` ends on this machine. This never waits: the answer is there when the question
/// has been sent.
pub(super) fn is_local_route(ip: IpAddr) -> Option<bool> {
    let netlink = open()?;
    sendto(&netlink, &question(ip), SendFlags::DONTWAIT, &SocketAddrNetlink::new(0, 0)).ok()?;
    let mut answer = [0; BEGINNING];
    let (length, _) = recv(&netlink, &mut answer[..], RecvFlags::DONTWAIT).ok()?;
    let answer = &answer[..length];
    match kind(answer)? {
        RTM_NEWROUTE => Some(is_local(answer)),
        NLMSG_ERROR => leads_nowhere(answer).then_some(false),
        _ => None,
    }
}

/// Whether the error is that there is no route, or one that ends there (blackhole, prohibit, throw).
fn leads_nowhere(answer: &[u8]) -> bool {
    let number = answer.get(ERROR..).and_then(|rest| rest.first_chunk());
    let error = number.map(|number| Errno::from_raw_os_error(-i32::from_ne_bytes(*number)));
    matches!(
        error,
        Some(Errno::NETUNREACH | Errno::HOSTUNREACH | Errno::INVAL | Errno::ACCESS | Errno::AGAIN)
    )
}

fn question(ip: IpAddr) -> Vec<u8> {
    let (family, bytes, address) = match ip {
        IpAddr::V4(ip) => (AF_INET, 4, ip.octets().to_vec()),
        IpAddr::V6(ip) => (AF_INET6, 16, ip.octets().to_vec()),
    };
    [
        &u32::from(QUESTION + bytes).to_ne_bytes()[..],
        &RTM_GETROUTE.to_ne_bytes(),
        &NLM_F_REQUEST.to_ne_bytes(),
        &[0; 8],
        &[family, 8 * bytes, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        &u16::from(4 + bytes).to_ne_bytes(),
        &RTA_DST.to_ne_bytes(),
        &address,
    ]
    .concat()
}

fn kind(message: &[u8]) -> Option<u16> {
    message.get(4..6)?.try_into().map(u16::from_ne_bytes).ok()
}

/// Whether a message is about a route that ends on this machine.
fn is_local(message: &[u8]) -> bool {
    message.get(TYPE_OF_ROUTE).is_some_and(|kind| [RTN_LOCAL, RTN_ANYCAST].contains(kind))
}

fn open() -> Option<OwnedFd> {
    let flags = SocketFlags::CLOEXEC;
    // NETLINK_ROUTE is protocol 0.
    socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None).ok()
}

/// Where the kernel tells of changes.
#[derive(Debug)]
pub(super) struct Notices(OwnedFd);

impl Notices {
    /// Of links, and of the routes of both families: each address has a route of its own, but those of a
    /// link that goes down end without a notice.
    pub(super) fn open() -> Option<Self> {
        let groups = RTMGRP_LINK | RTMGRP_IPV4_ROUTE | RTMGRP_IPV6_ROUTE;
        let netlink = open()?;
        bind(&netlink, &SocketAddrNetlink::new(0, groups)).ok()?;
        Some(Notices(netlink))
    }

    /// Takes the notices that are there, and says whether one is about what is local.
    pub(super) fn have_come(&self) -> bool {
        let mut notice = [0; BEGINNING];
        let mut have_come = false;
        loop {
            have_come |= match recv(&self.0, &mut notice[..], RecvFlags::DONTWAIT) {
                Ok((length, _)) => match kind(&notice[..length]) {
                    Some(RTM_NEWROUTE | RTM_DELROUTE) => is_local(&notice[..length]),
                    _ => true,
                },
                Err(Errno::AGAIN) => return have_come,
                // There were too many to keep.
                Err(Errno::NOBUFS) => true,
                Err(_) => return true,
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_knows_itself_and_nobody_else() {
        for (ip, local) in [
            ("127.0.0.1", true),
            ("127.77.88.99", true),
            ("192.0.2.77", false),
            ("255.255.255.255", false),
            ("224.0.0.1", false),
        ] {
            assert_eq!(is_local_route(ip.parse().unwrap()), Some(local), "{ip}");
        }
        assert_ne!(is_local_route("2001:db8::77".parse().unwrap()), Some(true));
    }

    #[test]
    fn the_question_is_the_one_of_ip_route_get() {
        let asked = question("192.0.2.1".parse().unwrap());
        assert_eq!((asked.len(), asked[16..18].to_vec()), (36, vec![AF_INET, 32]));
        assert_eq!(asked[32..], [192, 0, 2, 1]);
        let asked = question("2001:db8::1".parse().unwrap());
        assert_eq!((asked.len(), asked[16..18].to_vec()), (48, vec![AF_INET6, 128]));
    }

    #[test]
    fn an_error_is_no_answer_unless_there_is_no_route() {
        let error = |errno: Errno| {
            let number = (-errno.raw_os_error()).to_ne_bytes();
            leads_nowhere(&[&[0; ERROR][..], &number].concat())
        };
        assert!(error(Errno::NETUNREACH) && error(Errno::HOSTUNREACH) && error(Errno::ACCESS));
        assert!(!error(Errno::PERM) && !error(Errno::OPNOTSUPP) && !error(Errno::NOMEM));
        assert!(!leads_nowhere(&[0; ERROR]));
    }
}
