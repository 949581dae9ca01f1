//! The negotiation as a client sees it (RFC 1928 sections 3 to 6).

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener};
use std::thread;
use std::time::Duration;

use crate::stage::{
    GREETING, accept, ask, at_end, connect, echo, listen, nobody_listens, reply, request,
    request_by_name, start, start_on, take, tunnel,
};

/// Everything that the server says until it closes.
fn last_words(server: SocketAddr, said: &[u8]) -> Vec<u8> {
    let mut client = connect(server);
    client.write_all(said).unwrap();
    let mut words = Vec::new();
    client.read_to_end(&mut words).unwrap();
    words
}

#[test]
fn messages_split_octet_by_octet() {
    let server = start(&[]);
    let target = echo();
    let mut client = connect(server.address);
    client.set_nodelay(true).unwrap();
    for octet in [GREETING, &request(target), b"payload"].concat() {
        client.write_all(&[octet]).unwrap();
        thread::sleep(Duration::from_millis(2));
    }
    assert_eq!(take(&mut client), *b"\x05\x00");
    assert_eq!(reply(&mut client).0, 0x00);
    assert_eq!(take(&mut client), *b"payload");
}

#[test]
fn greeting_request_and_payload_in_one_segment() {
    let server = start(&[]);
    let mut client = connect(server.address);
    client.write_all(&[GREETING, &request(echo()), b"payload"].concat()).unwrap();
    assert_eq!(take(&mut client), *b"\x05\x00");
    assert_eq!(reply(&mut client).0, 0x00);
    assert_eq!(take(&mut client), *b"payload");
}

#[test]
fn a_client_may_send_everything_and_its_end_of_file_at_once() {
    let server = start(&[]);
    let mut client = connect(server.address);
    client.write_all(&[GREETING, &request(echo()), b"payload"].concat()).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let mut said = Vec::new();
    client.read_to_end(&mut said).unwrap();
    assert_eq!(&said[..4], b"\x05\x00\x05\x00");
    assert_eq!(&said[12..], b"payload");
}

#[test]
fn the_bound_address_is_that_of_the_outgoing_connection() {
    let server = start(&[]);
    let (listener, target) = listen();
    let mut client = connect(server.address);
    client.write_all(&[GREETING, &request(target)].concat()).unwrap();
    take::<2>(&mut client);
    let (rep, bound) = reply(&mut client);
    assert_eq!(rep, 0x00);
    assert_eq!(bound, accept(&listener).peer_addr().unwrap());
}

#[test]
fn ipv6_targets_and_clients() {
    let Ok(listener) = TcpListener::bind("[::1]:0") else {
        // A machine without IPv6 has nothing to test here.
        return;
    };
    let target = listener.local_addr().unwrap();
    let server = start_on("[::1]:0", &[]);
    let mut client = connect(server.address);
    client.write_all(&[GREETING, &request(target)].concat()).unwrap();
    let said: [u8; 6] = take(&mut client);
    assert_eq!(said, *b"\x05\x00\x05\x00\x00\x04");
    let bound: [u8; 18] = take(&mut client);
    let far = accept(&listener);
    assert_eq!(bound[16..], far.peer_addr().unwrap().port().to_be_bytes());
    assert_eq!(bound[..16], std::net::Ipv6Addr::LOCALHOST.octets());
}

#[test]
fn the_default_address_serves_both_families_as_what_they_are() {
    let server = start_on("0", &[]);
    let port = server.address.port();
    for host in ["127.0.0.1", "[::1]"] {
        if host == "[::1]" && TcpListener::bind("[::1]:0").is_err() {
            continue;
        }
        let mut client = connect(format!("{host}:{port}").parse().unwrap());
        client.write_all(&[GREETING, &request(echo())].concat()).unwrap();
        take::<2>(&mut client);
        assert_eq!(reply(&mut client).0, 0x00);
    }
}

#[test]
fn names_and_literals_in_the_name_field() {
    let server = start(&[]);
    let target = echo();
    for name in ["localhost", "LOCALHOST", "127.0.0.1", "127.1", "[::ffff:127.0.0.1]"] {
        let (rep, mut client) = ask(&server, &request_by_name(name.as_bytes(), target.port()));
        assert_eq!(rep, 0x00, "{name}");
        client.write_all(b"payload").unwrap();
        assert_eq!(take(&mut client), *b"payload");
    }
}

#[test]
fn names_that_lead_nowhere() {
    let server = start(&[]);
    let rep = |name: &[u8]| ask(&server, &request_by_name(name, 80)).0;
    assert_eq!(rep(b"name.invalid"), 0x04);
    for bad in [b"".as_slice(), b"a b", b"a\nb", b"a\0", b"\xff\xfe"] {
        assert_eq!(rep(bad), 0x01, "{bad:?}");
    }
}

#[test]
fn a_refused_connection() {
    let server = start(&[]);
    let (_socket, address) = nobody_listens();
    let (rep, mut client) = ask(&server, &request(address));
    assert_eq!(rep, 0x05);
    assert!(at_end(&mut client));
}

#[test]
fn what_is_not_served_is_told_so() {
    let server = start(&["--protocols", "socks5"]);
    let socks4 = last_words(server.address, b"\x04\x01\x00\x50\x7f\x00\x00\x01user\x00");
    assert_eq!(socks4, b"\x00\x5b\x00\x00\x00\x00\x00\x00");
    for method in ["GET http://example.org/", "POST /", "CONNECT example.org:443"] {
        let said = format!("{method} HTTP/1.1\r\nHost: example.org\r\n\r\n");
        let words = String::from_utf8(last_words(server.address, said.as_bytes())).unwrap();
        assert!(words.starts_with("HTTP/1.1 400 ") && words.contains("SOCKS5"), "{words}");
    }
    assert_eq!(last_words(server.address, b"\x16"), b"");
    assert_eq!(last_words(server.address, b"\x00"), b"");
    let others = start(&["--protocols", "http,socks4"]);
    assert_eq!(last_words(others.address, GREETING), b"\x05\xff");
}

#[test]
fn no_acceptable_method() {
    let server = start(&[]);
    for greeting in [b"\x05\x00".as_slice(), b"\x05\x01\x02", b"\x05\x03\x01\x02\x80"] {
        let said = [greeting, &request(echo())].concat();
        assert_eq!(last_words(server.address, &said), b"\x05\xff");
    }
}

#[test]
fn bad_requests() {
    let server = start(&[]);
    let request = request(echo());
    let changed = |index: usize, octet: u8| {
        let mut changed = request.clone();
        changed[index] = octet;
        ask(&server, &changed).0
    };
    assert_eq!(changed(1, 0x09), 0x07, "unknown CMD");
    assert_eq!(changed(1, 0x00), 0x07, "unknown CMD");
    assert_eq!(changed(3, 0x02), 0x08, "unknown ATYP");
    assert_eq!(changed(0, 0x04), 0x01, "another VER");
    assert_eq!(changed(2, 0xaa), 0x00, "any RSV");
}

#[test]
fn a_failing_reply_reaches_a_client_that_has_sent_more() {
    let server = start(&[]);
    let mut bad = request(echo());
    bad[1] = 0x09;
    for _ in 0..20 {
        let mut client = connect(server.address);
        client.write_all(&[GREETING, &bad, &vec![0x55; 100_000]].concat()).unwrap();
        let mut words = Vec::new();
        client.read_to_end(&mut words).unwrap();
        assert_eq!(words[..4], *b"\x05\x00\x05\x07");
        assert_eq!(words.len(), 12);
    }
}

#[test]
fn a_client_that_leaves_midway_leaves_nothing_behind() {
    let server = start(&["--max-connections", "1"]);
    let whole = [GREETING, &request(echo())].concat();
    for length in 0..whole.len() {
        let mut attacker = connect(server.address);
        attacker.write_all(&whole[..length]).unwrap();
    }
    tunnel(&server, echo());
}

#[test]
fn the_source_address_is_as_the_option_says() {
    let server = start(&["--source", "127.0.0.3"]);
    let (listener, target) = listen();
    let _client = tunnel(&server, target);
    assert_eq!(accept(&listener).peer_addr().unwrap().ip().to_string(), "127.0.0.3");
}
