//! The way of the client's latest datagram, which is usually that of its next one.

use std::net::SocketAddr;
use std::time::Instant;

/// Where the latest datagram of the client went.
#[derive(Default)]
pub(super) struct Route {
    header: Vec<u8>,
    way: Option<(SocketAddr, Option<Instant>)>,
}

impl Route {
    /// The target and the payload of a datagram that has the same header as the latest.
    pub(super) fn follow<'d>(
        &self,
        bytes: &'d [u8],
        now: Instant,
    ) -> Option<(SocketAddr, &'d [u8])> {
        let (target, until) = self.way?;
        let payload = bytes.strip_prefix(self.header.as_slice())?;
        until.is_none_or(|until| now < until).then_some((target, payload))
    }

    /// Keeps where datagrams with this header go, and until when, if there is an end to it.
    pub(super) fn keep(&mut self, header: &[u8], target: SocketAddr, until: Option<Instant>) {
        self.header.clear();
        self.header.extend_from_slice(header);
        self.way = Some((target, until));
    }

    /// The next datagram is looked at anew.
    pub(super) fn forget(&mut self) {
        self.way = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_datagram_like_the_one_before_goes_the_same_way() {
        let now = Instant::now();
        let target = "192.0.2.1:9".parse().unwrap();
        let mut route = Route::default();
        assert_eq!(route.follow(b"header", now), None);
        route.keep(b"header", target, None);
        assert_eq!(route.follow(b"headerpayload", now), Some((target, b"payload".as_slice())));
        assert_eq!(route.follow(b"header", now), Some((target, b"".as_slice())));
        assert_eq!(route.follow(b"heade", now), None);
        assert_eq!(route.follow(b"Header", now), None);
        route.keep(b"header", target, Some(now));
        assert_eq!(route.follow(b"header", now), None, "a name is not good for ever");
        route.keep(b"header", target, None);
        route.forget();
        assert_eq!(route.follow(b"header", now), None);
    }
}
