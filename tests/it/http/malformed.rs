//! What two readers might take for different requests is refused, and nobody is connected to for it.

use std::io::Write;
use std::net::SocketAddr;

use super::{
    assert_first, assert_refused, connect_request, request, rest, saying, told, told_and_logged,
};
use crate::scratch::Program;
use crate::stage::{accept, connect, listen, read_head, start};

/// Requests with something wrong in them. `{T}` stands for the target, which is the right one.
const REFUSED: &[&str] = &[
    // Content-Length and Transfer-Encoding.
    "POST http://{T}/ HTTP/1.1\r\nHost: {T}\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n",
    "POST http://{T}/ HTTP/1.1\r\nHost: {T}\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n",
    "POST http://{T}/ HTTP/1.1\r\nHost: {T}\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\n",
    "POST http://{T}/ HTTP/1.1\r\nHost: {T}\r\nContent-Length: 4, 4\r\n\r\n",
    "POST http://{T}/ HTTP/1.1\r\nHost: {T}\r\nContent-Length: +4\r\n\r\n",
    "POST http://{T}/ HTTP/1.1\r\nHost: {T}\r\nContent-Length: -4\r\n\r\n",
    "POST http://{T}/ HTTP/1.1\r\nHost: {T}\r\nContent-Length: 4 4\r\n\r\n",
    "POST http://{T}/ HTTP/1.1\r\nHost: {T}\r\nContent-Length: 0x4\r\n\r\n",
    "POST http://{T}/ HTTP/1.1\r\nHost: {T}\r\nContent-Length: 4;\r\n\r\n",
    "POST http://{T}/ HTTP/1.1\r\nHost: {T}\r\nContent-Length:\r\n\r\n",
    "POST http://{T}/ HTTP/1.1\r\nHost: {T}\r\nContent-Length: 18446744073709551616\r\n\r\n",
    "POST http://{T}/ HTTP/1.1\r\nHost: {T}\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
    "POST http://{T}/ HTTP/1.1\r\nHost: {T}\r\nTransfer-Encoding: chunked, chunked\r\n\r\n",
    "POST http://{T}/ HTTP/1.1\r\nHost: {T}\r\nTransfer-Encoding: identity\r\n\r\n",
    "POST http://{T}/ HTTP/1.1\r\nHost: {T}\r\nTransfer-Encoding: xchunked\r\n\r\n",
    "POST http://{T}/ HTTP/1.1\r\nHost: {T}\r\nTransfer-Encoding: chunked;x\r\n\r\n",
    "POST http://{T}/ HTTP/1.1\r\nHost: {T}\r\nTransfer-Encoding: \x0bchunked\r\n\r\n",
    "POST http://{T}/ HTTP/1.1\r\nHost: {T}\r\nTransfer-Encoding:\r\n\r\n",
    "POST http://{T}/ HTTP/1.1\r\nHost: {T}\r\nTransfer-Encoding: chunked\r\n\
        Transfer-Encoding: chunked\r\n\r\n",
    "POST http://{T}/ HTTP/1.0\r\nHost: {T}\r\nTransfer-Encoding: chunked\r\n\r\n",
    // Fields and lines.
    "GET http://{T}/ HTTP/1.1\r\nHost : {T}\r\n\r\n",
    "POST http://{T}/ HTTP/1.1\r\nHost: {T}\r\nContent-Length : 4\r\n\r\n",
    "GET http://{T}/ HTTP/1.1\r\nHost: {T}\r\nX: a\r\n b\r\n\r\n",
    "GET http://{T}/ HTTP/1.1\r\nHost: {T}\r\nX: a\r\n\tb: c\r\n\r\n",
    "GET http://{T}/ HTTP/1.1\r\n Host: {T}\r\n\r\n",
    "GET http://{T}/ HTTP/1.1\r\nHost: {T}\r\nX: a\rb\r\n\r\n",
    "GET http://{T}/ HTTP/1.1\r\nHost: {T}\r\nX: a\r\r\n\r\n",
    "GET http://{T}/ HTTP/1.1\nHost: {T}\r\n\r\n",
    "GET http://{T}/ HTTP/1.1\r\nHost: {T}\nX: a\r\n\r\n",
    "GET http://{T}/ HTTP/1.1\r\nHost: {T}\r\n\n",
    "GET http://{T}/ HTTP/1.1\r\nHost: {T}\r\nX: a\0b\r\n\r\n",
    "GET http://{T}/ HTTP/1.1\r\nHost: {T}\r\nX\0: a\r\n\r\n",
    "GET http://{T}/ HTTP/1.1\r\nHost: {T}\r\nnothing\r\n\r\n",
    "GET http://{T}/ HTTP/1.1\r\nHost: {T}\r\n: nothing\r\n\r\n",
    "GET http://{T}/ HTTP/1.1\r\nHost: {T}\r\nX\x7f: a\r\n\r\n",
    "GET http://{T}/ HTTP/1.1\r\nHost: {T}\r\nX: a\x1bb\r\n\r\n",
    // Host.
    "GET http://{T}/ HTTP/1.1\r\n\r\n",
    "GET http://{T}/ HTTP/1.1\r\nHost: {T}\r\nHost: {T}\r\n\r\n",
    "GET http://{T}/ HTTP/1.0\r\nHost: {T}\r\nHost: {T}\r\n\r\n",
    "GET http://{T}/ HTTP/1.1\r\nHost:\r\n\r\n",
    "GET http://{T}/ HTTP/1.1\r\nHost: a b\r\n\r\n",
    "GET http://{T}/ HTTP/1.1\r\nHost: a, b\r\n\r\n",
    "GET http://{T}/ HTTP/1.1\r\nHost: {T}/path\r\n\r\n",
    "GET http://{T}/ HTTP/1.1\r\nHost: alice@{T}\r\n\r\n",
    "GET http://{T}/ HTTP/1.0\r\nHost: http://{T}\r\n\r\n",
    "GET http://{T}/ HTTP/1.1\r\nHost: {T}\r\nConnection: host\r\n\r\n",
    "GET http://{T}/ HTTP/1.1\r\nHost: {T}\r\nConnection: close,Content-Length\r\n\r\n",
    "GET http://{T}/ HTTP/1.1\r\nHost: {T}\r\nConnection: x\r\nConnection: \tTransfer-encoding \r\n\r\n",
    // The line.
    "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "GET http://{T}/ HTTP/2.0\r\nHost: {T}\r\n\r\n",
    "GET http://{T}/ HTTP/1.2\r\nHost: {T}\r\n\r\n",
    "GET http://{T}/ HTTP/0.9\r\nHost: {T}\r\n\r\n",
    "GET http://{T}/\r\n\r\n",
    "GET http://{T}/ http/1.1\r\nHost: {T}\r\n\r\n",
    "GET  http://{T}/ HTTP/1.1\r\nHost: {T}\r\n\r\n",
    "GET http://{T}/ HTTP/1.1 \r\nHost: {T}\r\n\r\n",
    "GET http://{T}/a b HTTP/1.1\r\nHost: {T}\r\n\r\n",
    "GET http://{T}/a\tb HTTP/1.1\r\nHost: {T}\r\n\r\n",
    "GET\thttp://{T}/ HTTP/1.1\r\nHost: {T}\r\n\r\n",
    "G(T http://{T}/ HTTP/1.1\r\nHost: {T}\r\n\r\n",
    "TRACE http://{T}/ HTTP/1.1\r\nHost: {T}\r\n\r\n",
    // The target.
    "GET http://alice@{T}/ HTTP/1.1\r\nHost: {T}\r\n\r\n",
    "GET http://alice:sesame@{T}/ HTTP/1.1\r\nHost: {T}\r\n\r\n",
    "GET http://{T}\\@{T}/ HTTP/1.1\r\nHost: {T}\r\n\r\n",
    "GET http://{T}#x HTTP/1.1\r\nHost: {T}\r\n\r\n",
    "GET http://{T}/#x HTTP/1.1\r\nHost: {T}\r\n\r\n",
    "GET https://{T}/ HTTP/1.1\r\nHost: {T}\r\n\r\n",
    "GET ftp://{T}/ HTTP/1.1\r\nHost: {T}\r\n\r\n",
    "GET http:/{T}/ HTTP/1.1\r\nHost: {T}\r\n\r\n",
    "GET http:{T}/ HTTP/1.1\r\nHost: {T}\r\n\r\n",
    "GET http:///{T}/ HTTP/1.1\r\nHost: {T}\r\n\r\n",
    "GET http://?{T}/ HTTP/1.1\r\nHost: {T}\r\n\r\n",
    "GET {T}/ HTTP/1.1\r\nHost: {T}\r\n\r\n",
    "GET {T} HTTP/1.1\r\nHost: {T}\r\n\r\n",
    "GET * HTTP/1.1\r\nHost: {T}\r\n\r\n",
    "OPTIONS * HTTP/1.1\r\nHost: {T}\r\n\r\n",
    "GET http://localhost:0/ HTTP/1.1\r\nHost: {T}\r\n\r\n",
    "GET http://localhost:/ HTTP/1.1\r\nHost: {T}\r\n\r\n",
    "GET http://localhost:65536/ HTTP/1.1\r\nHost: {T}\r\n\r\n",
    "GET http://[::1/ HTTP/1.1\r\nHost: {T}\r\n\r\n",
    // CONNECT, whose Host alone is anybody's guess.
    "CONNECT {T} HTTP/1.1\nHost: {T}\r\n\r\n",
    "CONNECT {T} HTTP/1.1\r\nHost: {T}\r\nX: a\r\n b\r\n\r\n",
    "CONNECT {T} HTTP/1.1\r\nHost : {T}\r\n\r\n",
    "CONNECT {T}\r\n\r\n",
    "CONNECT {T} HTTP/2.0\r\n\r\n",
    // The body, as far as it has come with the head.
    "POST http://{T}/ HTTP/1.1\r\nHost: {T}\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    "POST http://{T}/ HTTP/1.1\r\nHost: {T}\r\nTransfer-Encoding: chunked\r\n\r\n\r\n",
    "POST http://{T}/ HTTP/1.1\r\nHost: {T}\r\nTransfer-Encoding: chunked\r\n\r\n+1\r\nx",
    "POST http://{T}/ HTTP/1.1\r\nHost: {T}\r\nTransfer-Encoding: chunked\r\n\r\n0x1\r\nx",
    "POST http://{T}/ HTTP/1.1\r\nHost: {T}\r\nTransfer-Encoding: chunked\r\n\r\n1 \r\nx",
    "POST http://{T}/ HTTP/1.1\r\nHost: {T}\r\nTransfer-Encoding: chunked\r\n\r\n1\nx",
    "POST http://{T}/ HTTP/1.1\r\nHost: {T}\r\nTransfer-Encoding: chunked\r\n\r\n1;a\nx",
    "POST http://{T}/ HTTP/1.1\r\nHost: {T}\r\nTransfer-Encoding: chunked\r\n\r\n1;a\rb\r\nx",
    "POST http://{T}/ HTTP/1.1\r\nHost: {T}\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nxx\r\n",
    "POST http://{T}/ HTTP/1.1\r\nHost: {T}\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\n0\r\n\r\n",
    "POST http://{T}/ HTTP/1.1\r\nHost: {T}\r\nTransfer-Encoding: chunked\r\n\r\n\
        10000000000000000\r\nx",
    "POST http://{T}/ HTTP/1.1\r\nHost: {T}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: a\n\r\n",
];

#[test]
fn what_is_ambiguous_is_refused_and_nobody_is_connected_to() {
    let mut program = Program::start(&["-v"]);
    let (listener, target) = listen();
    for said in REFUSED {
        let said = said.replace("{T}", &target.to_string());
        let (answer, line) = told_and_logged(&mut program, said);
        assert_refused(&answer, 400);
        assert!(line.contains(" protocol=http command=- dest=- reached=- up=0 down=0 "), "{line}");
        assert!(line.contains(" outcome=bad-request why=\""), "{line}");
    }
    assert_first(&listener, b"nobody");
}

#[test]
fn a_head_may_have_16_kib_and_128_fields_and_no_more() {
    let server = start(&[]);
    let (listener, target) = listen();
    let long = |length: usize| {
        let without = request("GET", target, "X: \r\n").len();
        request("GET", target, &format!("X: {}\r\n", "x".repeat(length - without)))
    };
    // Host is one of them.
    let many = |fields: usize| request("GET", target, &"X: x\r\n".repeat(fields - 1));
    for said in [long(16 * 1024 + 1), many(129), long(1024 * 1024)] {
        assert_refused(&told_though_unread(server.address, &said), 431);
    }
    let without_end = format!("GET http://{target}/{}", "x".repeat(20_000));
    assert_refused(&told_though_unread(server.address, &without_end), 431);
    let connect_with = connect_request(target).replace("\r\n\r\n", "\r\nX: ");
    assert_refused(&told_though_unread(server.address, &(connect_with + &"x".repeat(20_000))), 431);
    for said in [long(16 * 1024), many(128)] {
        let _client = saying(server.address, said);
        read_head(&mut accept(&listener));
    }
}

/// The same as [`told`] of one who sends more than is read, and may find the connection closed.
fn told_though_unread(server: SocketAddr, said: &str) -> String {
    let mut client = connect(server);
    let _ = client.write_all(said.as_bytes());
    rest(&mut client)
}

#[test]
fn what_is_no_http_is_closed_without_a_word() {
    let server = start(&[]);
    for said in ["get http://localhost/ HTTP/1.1\r\n\r\n", "\r\nGET / HTTP/1.1\r\n\r\n", " GET /"] {
        assert_eq!(told(server.address, said), "");
    }
    assert_refused(&told(server.address, "ANYTHING\r\n\r\n"), 400);
}
