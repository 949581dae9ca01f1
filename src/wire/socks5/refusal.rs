//! What a client that speaks SOCKS5 is told of its request.

use std::io;

use super::greeting::write_selection;
use super::reply::Reply;
use super::userpass::write_status;
use crate::wire::address::Address;
use crate::wire::refusal::Refusal;

/// The message for each refusal: the selection of no method, a status, or a reply.
pub fn refusal(refusal: &Refusal) -> Vec<u8> {
    match refusal {
        Refusal::NotServed | Refusal::NoLogin => written(|octets| write_selection(None, octets)),
        Refusal::WrongLogin => written(|octets| write_status(false, octets)),
        Refusal::Upstream(reply) => written(|octets| reply.write_to(octets)),
        refusal => written(|octets| Reply::failed(refusal).write_to(octets)),
    }
}

/// The reply that says where this server is seen.
pub fn success(bound: &Address) -> Vec<u8> {
    written(|octets| Reply::succeeded(bound.clone()).write_to(octets))
}

fn written(write: impl FnOnce(&mut Vec<u8>) -> io::Result<()>) -> Vec<u8> {
    let mut octets = Vec::new();
    write(&mut octets).expect("memory takes every message");
    octets
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kind_of_message_is_that_for_which_the_client_waits() {
        assert_eq!(refusal(&Refusal::NoLogin), b"\x05\xff");
        assert_eq!(refusal(&Refusal::WrongLogin), b"\x01\x01");
        assert_eq!(refusal(&Refusal::Denied), b"\x05\x02\x00\x01\0\0\0\0\0\0");
        let own = b"\x05\xf0\x00\x03\x0bexample.org\x00\x50";
        let reply = Reply::read_from(&mut own.as_slice()).unwrap();
        assert_eq!(refusal(&Refusal::Upstream(Box::new(reply))), own);
    }
}
