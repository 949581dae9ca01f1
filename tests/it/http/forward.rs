//! Requests that are passed on (RFC 9112 section 3.2.2): what the target gets.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener};
use std::thread;

use super::{ANSWER, ANSWERED, assert_silent, exchange, forwarded, get, request, rest, saying};
use crate::namespace::alone;
use crate::stage::{
    accept, at_end, connect, expect, listen, pattern, read_head, send, start, take,
};

const MIB: usize = 1024 * 1024;

/// A chunked body with all that there can be in one.
const CHUNKS: &str = "4\r\nWiki\r\n00A;name=\"a;b\";other\r\n0123456789\r\nb\r\n\r\n0\r\n\r\nabcd\r\n\
    0\r\nTrailer-One: 1\r\nTrailer-Two: \t 2\r\n\r\n";

/// What the target gets of a request with this line and these fields, up to the end of the head.
fn arrives(line: &str, fields: &str) -> String {
    let server = start(&[]);
    let (listener, target) = listen();
    let said = format!("{line}\r\n{fields}\r\n").replace("TARGET", &target.to_string());
    let mut client = saying(server.address, said);
    let mut far = accept(&listener);
    let head = read_head(&mut far).replace(&target.to_string(), "TARGET");
    far.write_all(ANSWER.as_bytes()).unwrap();
    drop(far);
    assert!(rest(&mut client).ends_with("\r\n\r\npong"));
    head
}

#[test]
fn a_request_arrives_in_origin_form_and_all_else_as_it_came() {
    let line = "GET http://TARGET/a%20b/../c?d=e&f=%00 HTTP/1.1";
    let fields = "Host: TARGET\r\n\
        X-Tight:value\r\n\
        x-loose:   two  words\r\n\
        Cookie: a=b; c=d\r\n\
        COOKIE: e=f\r\n\
        X-Empty:\r\n\
        Authorization: Basic dGFyZ2V0OnNlY3JldA==\r\n\
        Accept-Encoding: gzip, br\r\n\
        Via: 1.0 fred, 1.1 p.example\r\n";
    let (host, others) = fields.split_once("\r\n").unwrap();
    let expected = format!(
        "GET /a%20b/../c?d=e&f=%00 HTTP/1.1\r\n{host}\r\n{others}Via: 1.1 tabi\r\nConnection: close\r\n\r\n"
    );
    assert_eq!(arrives(line, fields), expected);
}

#[test]
fn octets_that_are_no_text_arrive_too() {
    let server = start(&[]);
    let (listener, target) = listen();
    let odd = b"X-Odd: \xff\xfe\x80 caf\xe9\r\n";
    let line = format!("GET http://{target}/ HTTP/1.1\r\nHost: {target}\r\n");
    let _client = saying(server.address, [line.as_bytes(), odd, b"\r\n"].concat());
    let mut far = accept(&listener);
    let expected = format!("GET / HTTP/1.1\r\nHost: {target}\r\n");
    let mut octets = vec![0; expected.len() + odd.len()];
    far.read_exact(&mut octets).unwrap();
    assert_eq!(octets, [expected.as_bytes(), odd].concat());
}

#[test]
fn what_is_for_this_hop_alone_does_not_go_on() {
    let fields = "Host: TARGET\r\n\
        Connection: X-Named, keep-alive\r\n\
        X-Named: gone\r\n\
        x-NAMED: gone, too\r\n\
        Keep-Alive: timeout=5\r\n\
        TE: trailers\r\n\
        Upgrade: h2c\r\n\
        Proxy-Connection: keep-alive\r\n\
        Proxy-Authorization: Basic YWxpY2U6c2VzYW1l\r\n\
        PROXY-Whatever: x\r\n\
        Kept: yes\r\n\
        connection: close, TE,,x-other\r\n\
        X-Other: gone\r\n";
    let expected = "GET / HTTP/1.1\r\nHost: TARGET\r\nKept: yes\r\nVia: 1.1 tabi\r\n\
        Connection: close\r\n\r\n";
    assert_eq!(arrives("GET http://TARGET/ HTTP/1.1", fields), expected);
}

#[test]
fn the_path_and_the_host_are_made_from_the_target() {
    for (line, host, expected, version) in [
        ("GET http://TARGET HTTP/1.1", "Host: TARGET\r\n", "GET / HTTP/1.1", 1),
        ("GET HTTP://TARGET?a/b HTTP/1.1", "Host: TARGET\r\n", "GET /?a/b HTTP/1.1", 1),
        ("OPTIONS http://TARGET HTTP/1.1", "Host: TARGET\r\n", "OPTIONS * HTTP/1.1", 1),
        ("OPTIONS http://TARGET/ HTTP/1.1", "Host: TARGET\r\n", "OPTIONS / HTTP/1.1", 1),
        ("GET http://TARGET/ HTTP/1.1", "Host: elsewhere.example:81\r\n", "GET / HTTP/1.1", 1),
        ("GET http://TARGET/ HTTP/1.0", "", "GET / HTTP/1.0", 0),
        ("PROPFIND http://TARGET/%ff HTTP/1.1", "hOST: x\r\n", "PROPFIND /%ff HTTP/1.1", 1),
    ] {
        let head = format!(
            "{expected}\r\nHost: TARGET\r\nVia: 1.{version} tabi\r\nConnection: close\r\n\r\n"
        );
        assert_eq!(arrives(line, host), head, "{line}");
    }
}

#[test]
fn a_url_without_a_port_means_port_80() {
    alone(|| {
        let listener = TcpListener::bind("127.0.0.1:80").unwrap();
        let server = start(&[]);
        for host in ["localhost", "127.1", "127.0.0.1:80", "LocalHost"] {
            let _client = saying(server.address, get(host));
            assert_eq!(read_head(&mut accept(&listener)), forwarded("GET", host, ""));
        }
    });
}

#[test]
fn a_url_may_have_an_ipv6_address() {
    let Ok(listener) = TcpListener::bind("[::1]:0") else { return };
    let target = listener.local_addr().unwrap();
    let server = start(&[]);
    let _client = saying(server.address, get(target));
    assert_eq!(read_head(&mut accept(&listener)), forwarded("GET", target, ""));
}

#[test]
fn a_head_may_come_octet_by_octet_and_its_body_too() {
    let server = start(&[]);
    let (listener, target) = listen();
    let fields = "Transfer-Encoding: chunked\r\n";
    let said = request("POST", target, fields) + CHUNKS;
    let mut client = connect(server.address);
    client.set_nodelay(true).unwrap();
    let far = thread::spawn(move || {
        let mut far = accept(&listener);
        assert_eq!(read_head(&mut far), forwarded("POST", target, fields));
        let mut body = vec![0; CHUNKS.len()];
        far.read_exact(&mut body).unwrap();
        far.write_all(ANSWER.as_bytes()).unwrap();
        String::from_utf8(body).unwrap()
    });
    for octet in said.bytes() {
        client.write_all(&[octet]).unwrap();
    }
    assert_eq!(far.join().unwrap(), CHUNKS);
    assert_eq!(rest(&mut client), ANSWERED);
}

#[test]
fn exactly_one_request_reaches_the_target_however_much_is_sent_behind_it() {
    let server = start(&[]);
    let (other, elsewhere) = listen();
    let second = request("GET", elsewhere, "X-Smuggled: yes\r\n");
    for (method, fields, body) in [
        ("GET", "", ""),
        ("HEAD", "", ""),
        ("DELETE", "Content-Length: 0\r\n", ""),
        ("POST", "Content-Length: 11\r\n", "hello world"),
        ("GET", "Content-Length: 00002\r\n", "hi"),
        ("PUT", "Transfer-Encoding: chunked\r\n", CHUNKS),
        ("POST", "Transfer-Encoding: Chunked\r\n", "0\r\n\r\n"),
    ] {
        for together in [true, false] {
            let (listener, target) = listen();
            let head = request(method, target, fields);
            let said = [body, &second, &second].concat();
            let mut client = connect(server.address);
            if together {
                client.write_all((head + &said).as_bytes()).unwrap();
            } else {
                client.write_all(head.as_bytes()).unwrap();
            }
            let mut far = accept(&listener);
            assert_eq!(read_head(&mut far), forwarded(method, target, fields));
            if !together {
                client.write_all(said.as_bytes()).unwrap();
            }
            let mut came = vec![0; body.len()];
            far.read_exact(&mut came).unwrap();
            assert_eq!(came, body.as_bytes());
            far.write_all(ANSWER.as_bytes()).unwrap();
            far.shutdown(Shutdown::Write).unwrap();
            assert_eq!(rest(&mut client), ANSWERED, "{method} {fields}");
            drop(client);
            assert_eq!(rest(&mut far), "", "{method} {fields}");
        }
    }
    super::assert_first(&other, b"nobody");
}

#[test]
fn a_large_body_streams_in_both_framings_while_nothing_is_answered() {
    let server = start(&[]);
    let length = 24 * MIB;
    let fields = format!("Content-Length: {length}\r\n");
    let (mut client, mut target) = exchange(server.address, "POST", &fields);
    thread::scope(|scope| {
        scope.spawn(|| send(&mut client, pattern(1, length)).unwrap());
        expect(&mut target, pattern(1, length));
    });
    target.write_all(ANSWER.as_bytes()).unwrap();
    drop(target);
    assert_eq!(rest(&mut client), ANSWERED);

    let fields = "Transfer-Encoding: chunked\r\n";
    let (mut client, mut target) = exchange(server.address, "POST", fields);
    thread::scope(|scope| {
        scope.spawn(|| {
            for seed in 0..24 {
                client.write_all(b"100000;n=v\r\n").unwrap();
                send(&mut client, pattern(seed, MIB)).unwrap();
                client.write_all(b"\r\n").unwrap();
            }
            client.write_all(b"0\r\nLast: x\r\n\r\nGET http://x/ HTTP/1.1\r\n").unwrap();
        });
        for seed in 0..24 {
            assert_eq!(take(&mut target), *b"100000;n=v\r\n");
            expect(&mut target, pattern(seed, MIB));
            assert_eq!(take(&mut target), *b"\r\n");
        }
        assert_eq!(take(&mut target), *b"0\r\nLast: x\r\n\r\n");
    });
    target.write_all(ANSWER.as_bytes()).unwrap();
    target.shutdown(Shutdown::Write).unwrap();
    assert_eq!(rest(&mut client), ANSWERED);
    drop(client);
    assert!(at_end(&mut target));
}

/// Some servers take a half-close for a client that has left.
#[test]
fn the_target_has_no_end_of_file_before_it_has_answered() {
    let server = start(&[]);
    for (fields, body) in [("", ""), ("Content-Length: 4\r\n", "body")] {
        let (mut client, mut target) = exchange(server.address, "POST", fields);
        client.write_all(body.as_bytes()).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let mut came = [0; 4];
        target.read_exact(&mut came[..body.len()]).unwrap();
        // Once this has gone through, so would have an end of file.
        for _ in 0..3 {
            target.write_all(b"HTTP/1.1 103 Early Hints\r\n\r\n").unwrap();
            assert_eq!(read_head(&mut client), "HTTP/1.1 103 Early Hints\r\n\r\n");
            assert_silent(&target);
        }
        target.write_all(ANSWER.as_bytes()).unwrap();
        drop(target);
        assert_eq!(rest(&mut client), ANSWERED);
    }
}

#[test]
fn who_expects_100_continue_has_what_the_target_says() {
    const EXPECT: &str = "Expect: 100-continue\r\nContent-Length: 4\r\n";
    let server = start(&[]);
    // It says so.
    let (mut client, mut target) = exchange(server.address, "PUT", EXPECT);
    target.write_all(b"HTTP/1.1 100 Continue\r\nX-Note: go\r\n\r\n").unwrap();
    assert_eq!(read_head(&mut client), "HTTP/1.1 100 Continue\r\nX-Note: go\r\n\r\n");
    client.write_all(b"body").unwrap();
    assert_eq!(take(&mut target), *b"body");
    target.write_all(ANSWER.as_bytes()).unwrap();
    drop(target);
    assert_eq!(rest(&mut client), ANSWERED);
    // It says nothing, and the client has waited long enough.
    let (mut client, mut target) = exchange(server.address, "PUT", EXPECT);
    client.write_all(b"body").unwrap();
    assert_eq!(take(&mut target), *b"body");
    target.write_all(ANSWER.as_bytes()).unwrap();
    drop(target);
    assert_eq!(rest(&mut client), ANSWERED);
    // It does not want the body, which then never comes.
    let (mut client, mut target) = exchange(server.address, "PUT", EXPECT);
    let failed = ANSWER.replace("200 OK", "417 Expectation Failed");
    target.write_all(failed.as_bytes()).unwrap();
    target.shutdown(Shutdown::Write).unwrap();
    assert_eq!(rest(&mut client), ANSWERED.replace("200 OK", "417 Expectation Failed"));
}
