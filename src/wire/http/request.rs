//! A request, and what is asked for in it (RFC 9112 section 3.2).

use std::io::BufRead;
use std::str;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use httparse::Header;

use super::body::Body;
use super::head::{self, append_end, append_end_to_end, value, words};
use crate::wire::address::{Address, Host};
use crate::wire::credentials::{Credentials, Password};
use crate::wire::error::Error;

/// The scheme of what is forwarded, and the port where a URL names none.
const SCHEME: &str = "http://";
const PORT: u16 = 80;

/// The longest name of a user, as in RFC 1929.
const LONGEST_NAME: usize = 255;

/// A request: its head, and how far the body behind it goes.
#[derive(Debug)]
pub struct Request {
    /// What is asked for.
    pub target: Target,
    /// Who asks, as `Proxy-Authorization` says (RFC 7617).
    pub credentials: Option<Credentials>,
    /// Where it ends. What follows a CONNECT is no body of it, but the target's.
    pub body: Body,
    /// No other request can follow it: the client says so, or is of HTTP/1.0 (RFC 9112 section 9.3), or may send
    /// the body or not (RFC 9110 section 10.1.1).
    pub is_last: bool,
}

/// What is asked for.
#[derive(Debug)]
pub enum Target {
    /// A connection: CONNECT, with a target in authority-form.
    Connection(Address),
    /// Something of another server's: a target in absolute-form. This is the head as it goes there.
    Forwarded(Address, Vec<u8>),
    /// Something of this server's: a target in origin-form.
    Page {
        /// The method.
        method: String,
        /// The path, with its query.
        path: String,
        /// Where the client has come to, if it says so.
        host: Option<Address>,
    },
}

impl Request {
    /// Reads a head, and no octet of what follows it.
    pub fn read_from(reader: &mut impl BufRead) -> Result<Self, Error> {
        let octets = head::read(reader)?;
        let mut fields = vec![httparse::EMPTY_HEADER; head::MOST_FIELDS];
        let mut parsed = httparse::Request::new(&mut fields);
        parsed.parse(&octets)?;
        let (Some(method), Some(target), Some(version)) =
            (parsed.method, parsed.path, parsed.version)
        else {
            return Err("an empty line is no request".into());
        };
        let fields = &*parsed.headers;
        let target = match method {
            "CONNECT" => {
                let address = Address::parse(target);
                Target::Connection(address.ok_or("CONNECT needs HOST:PORT")?)
            }
            "TRACE" => return Err("TRACE would show what is not forwarded".into()),
            _ if target.starts_with('/') => Target::Page {
                method: method.into(),
                path: target.into(),
                host: host(fields, version)?.and_then(address),
            },
            _ => {
                host(fields, version)?;
                let (authority, path) = absolute(target)?;
                let address = address(authority);
                let address = address.ok_or("the URL names no HOST:PORT")?;
                // The server itself (RFC 9112 section 3.2.4).
                let path = if path.is_empty() && method == "OPTIONS" { "*" } else { path };
                let slash = if path.starts_with(['/', '*']) { "" } else { "/" };
                let line =
                    format!("{method} {slash}{path} HTTP/1.{version}\r\nHost: {authority}\r\n");
                let mut head = Vec::with_capacity(octets.len() + 64);
                head.extend(line.as_bytes());
                append_end_to_end(&octets, fields, &mut head);
                append_end(version, &mut head);
                Target::Forwarded(address, head)
            }
        };
        head::check_connection(fields)?;
        let body = body(fields, version)?;
        let may_lack_body = value(fields, "expect")?.is_some() && !body.is_complete();
        let closes = version == 0 || words(fields, "connection").any(|word| is(word, "close"));
        let credentials = credentials(fields)?;
        Ok(Request { target, credentials, body, is_last: closes || may_lack_body })
    }
}

/// The authority and the path of a URL.
fn absolute(target: &str) -> Result<(&str, &str), Error> {
    let scheme = target.get(..SCHEME.len()).filter(|it| it.eq_ignore_ascii_case(SCHEME));
    if scheme.is_none() || target.contains('#') {
        return Err("the target is neither http://HOST nor a path".into());
    }
    let rest = &target[SCHEME.len()..];
    Ok(rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len())))
}

/// A host with or without a port.
fn address(authority: &str) -> Option<Address> {
    let without_port = || Some(Address { host: Host::parse(authority)?, port: PORT });
    Address::parse(authority).or_else(without_port)
}

/// Host: one, and HTTP/1.0 may leave it out (RFC 9112 section 3.2).
fn host<'h>(fields: &'h [Header<'h>], version: u8) -> Result<Option<&'h str>, Error> {
    let Some(value) = value(fields, "host")? else {
        return if version == 0 { Ok(None) } else { Err("there is no Host".into()) };
    };
    let host = str::from_utf8(value).ok().filter(|host| address(host).is_some());
    Ok(Some(host.ok_or("Host is no HOST or HOST:PORT")?))
}

/// Where the body ends (RFC 9112 section 6.3). What another reader might read otherwise is refused.
fn body(fields: &[Header<'_>], version: u8) -> Result<Body, Error> {
    let length = value(fields, "content-length")?;
    match (length, value(fields, "transfer-encoding")?) {
        (None, None) => Ok(Body::NONE),
        (Some(digits), None) => {
            let digits = str::from_utf8(digits).ok();
            let digits = digits.filter(|it| it.bytes().all(|octet| octet.is_ascii_digit()));
            let length = digits.and_then(|digits| digits.parse().ok());
            Ok(Body::Length(length.ok_or("Content-Length is no number")?))
        }
        (None, Some(coding)) if is(coding, "chunked") && version == 1 => Ok(Body::CHUNKED),
        (None, Some(_)) => Err("a Transfer-Encoding other than chunked".into()),
        (Some(_), Some(_)) => Err("both Content-Length and Transfer-Encoding".into()),
    }
}

/// A name and a password. What is none, or another scheme's, is no login.
fn credentials(fields: &[Header<'_>]) -> Result<Option<Credentials>, Error> {
    let Some(value) = value(fields, "proxy-authorization")? else { return Ok(None) };
    let decoded = value.split_at_checked("Basic ".len()).and_then(|(scheme, text)| {
        is(scheme, "basic ").then(|| STANDARD.decode(text.trim_ascii()).ok()).flatten()
    });
    Ok(decoded.and_then(|decoded| {
        let colon = decoded.iter().take(LONGEST_NAME + 1).position(|octet| *octet == b':')?;
        let password = Password::new(&decoded[colon + 1..]).unwrap_or(Password::NONE);
        Some(Credentials { name: decoded[..colon].into(), password })
    }))
}

/// Whether they are the same but for the case of letters.
fn is(octets: &[u8], word: &str) -> bool {
    octets.eq_ignore_ascii_case(word.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::BufReader;

    /// A request with fields besides Host.
    fn get(fields: &str) -> String {
        format!("GET http://a.example/b HTTP/1.1\r\nHost: a.example\r\n{fields}\r\n")
    }

    /// Reads a request, octet by octet too, which takes its head and nothing behind it.
    fn read(head: impl AsRef<[u8]>) -> Result<Request, Error> {
        let stream = [head.as_ref(), b"GET http://behind/ HTTP/1.1\r\n\r\n"].concat();
        let mut rest = stream.as_slice();
        let whole = Request::read_from(&mut rest);
        let mut single = BufReader::with_capacity(1, stream.as_slice());
        assert_eq!(format!("{:?}", Request::read_from(&mut single)), format!("{whole:?}"));
        assert_eq!(*single.get_ref(), rest);
        if whole.is_ok() {
            assert_eq!(rest, b"GET http://behind/ HTTP/1.1\r\n\r\n");
        }
        whole
    }

    /// Where a request goes that is forwarded, and what.
    #[track_caller]
    fn forwarded(head: impl AsRef<[u8]>) -> (String, String) {
        match read(head).unwrap().target {
            Target::Forwarded(address, head) => {
                (address.to_string(), head.escape_ascii().to_string().replace("\\r\\n", "\r\n"))
            }
            other => panic!("{other:?}"),
        }
    }

    #[track_caller]
    fn is_malformed(head: impl AsRef<[u8]>, why: &str) {
        let shown = head.as_ref().escape_ascii().to_string();
        match read(head) {
            Err(Error::Malformed(it)) => assert_eq!(it, why, "{shown}"),
            other => panic!("{shown}: {other:?}"),
        }
    }

    const NO_TOKEN: &str = "invalid token";
    const NO_VERSION: &str = "invalid HTTP version";
    const NO_END: &str = "invalid new line";
    const NO_NAME: &str = "invalid header name";
    const NO_VALUE: &str = "invalid header value";
    const BARE_LF: &str = "a line does not end with CR LF";
    const TWICE: &str = "a field that may be there once is there twice";

    #[test]
    fn connect_names_a_host_and_a_port_and_its_host_is_not_looked_at() {
        for (target, address) in [
            ("a.example:443", "a.example:443"),
            ("A.example.:1", "A.example.:1"),
            ("192.0.2.1:65535", "192.0.2.1:65535"),
            ("[2001:DB8::1]:0443", "[2001:db8::1]:443"),
            ("[::ffff:192.0.2.1]:80", "192.0.2.1:80"),
        ] {
            for rest in [
                "HTTP/1.1\r\n\r\n",
                "HTTP/1.0\r\n\r\n",
                "HTTP/1.1\r\nHost: b:1\r\n\r\n",
                "HTTP/1.1\r\nHost: a b\r\nHost:\r\nhost: @\r\n\r\n",
                "HTTP/1.1\r\nUser-Agent: a\r\nProxy-Connection: keep-alive\r\n\r\n",
            ] {
                match read(format!("CONNECT {target} {rest}")).unwrap().target {
                    Target::Connection(it) => assert_eq!(it.to_string(), address, "{rest}"),
                    other => panic!("{other:?}"),
                }
            }
        }
        for target in [
            "a.example",
            "a.example:",
            "a.example:0",
            "a.example:65536",
            "a.example:+80",
            "a.example:https",
            "a.example:443/",
            "a:80:80",
            ":443",
            "[]:443",
            "[::1]",
            "::1:443",
            "::ffff:192.0.2.1:443",
            "[192.0.2.1]:443",
            "[fe80::1%25eth0]:443",
            "me@a.example:443",
            "http://a.example:443",
            "http://a.example/",
            "a,b:443",
            "a%2e:443",
            "*",
            "/",
        ] {
            let head = format!("CONNECT {target} HTTP/1.1\r\nHost: a.example:443\r\n\r\n");
            is_malformed(head, "CONNECT needs HOST:PORT");
        }
        let head = "connect a.example:443 HTTP/1.1\r\nHost: a\r\n\r\n";
        is_malformed(head, "the target is neither http://HOST nor a path");
    }

    #[test]
    fn a_url_becomes_a_path_and_its_host_is_the_targets() {
        for (target, address, path, host) in [
            ("http://a.example/", "a.example:80", "/", "a.example"),
            ("http://a.example", "a.example:80", "/", "a.example"),
            ("HTTP://A.Example./b", "A.Example.:80", "/b", "A.Example."),
            ("hTtP://a.example:8080/b?c=d", "a.example:8080", "/b?c=d", "a.example:8080"),
            ("http://a.example?b/c", "a.example:80", "/?b/c", "a.example"),
            ("http://[::1]", "[::1]:80", "/", "[::1]"),
            ("http://[2001:DB8::1]:81/", "[2001:db8::1]:81", "/", "[2001:DB8::1]:81"),
            ("http://192.0.2.1:080/", "192.0.2.1:80", "/", "192.0.2.1:080"),
            ("http://a//b/../c%2F;d", "a:80", "//b/../c%2F;d", "a"),
            ("http://a/http://b/@:", "a:80", "/http://b/@:", "a"),
            ("http://a/*?\\^|`{}\"<>", "a:80", "/*?\\\\^|`{}\\\"<>", "a"),
            ("http://a/\u{e4}", "a:80", "/\\xc3\\xa4", "a"),
        ] {
            for method in ["GET", "HEAD", "POST", "get", "M-SEARCH"] {
                let head = format!("{method} {target} HTTP/1.1\r\nHost: other:1\r\nA: b\r\n\r\n");
                let expected = format!(
                    "{method} {path} HTTP/1.1\r\nHost: {host}\r\nA: b\r\n\
                     Via: 1.1 tabi\r\nConnection: close\r\n\r\n"
                );
                assert_eq!(forwarded(head), (address.into(), expected));
            }
        }
    }

    #[test]
    fn what_is_no_url_of_http_is_malformed() {
        for target in [
            "https://a.example/",
            "ftp://a.example/",
            "http:/a.example/",
            "http:a.example",
            "http//a.example/",
            "a.example",
            "a.example:80",
            "*",
            "?a",
            "ws://a.example/",
            "http://a.example/#b",
            "http://a.example#",
            "#http://a.example/",
            "\u{e4}ttp://a/",
        ] {
            let head = format!("GET {target} HTTP/1.1\r\nHost: a.example\r\n\r\n");
            is_malformed(head, "the target is neither http://HOST nor a path");
        }
        for authority in [
            "",
            ":80",
            "a.example:",
            "a.example:0",
            "a.example:65536",
            "a.example:-1",
            "a.example:80:80",
            "me@a.example",
            "me:word@a.example:80",
            "@a.example",
            "::1",
            "::ffff:192.0.2.1",
            "fe80::1",
            "[::1",
            "[192.0.2.1]",
            "[v1.a]",
            "[fe80::1%25eth0]",
            "a%2eexample",
            "a\\b",
            "a,b",
            "\u{e4}.example",
        ] {
            for behind in ["/", "", "?b"] {
                let head = format!("GET http://{authority}{behind} HTTP/1.1\r\nHost: a\r\n\r\n");
                is_malformed(head, "the URL names no HOST:PORT");
            }
        }
    }

    #[test]
    fn options_without_a_path_asks_for_the_whole_server() {
        let first = |target: &str| {
            let (_, head) = forwarded(format!("OPTIONS {target} HTTP/1.1\r\nHost: a\r\n\r\n"));
            head.lines().next().unwrap().to_owned()
        };
        assert_eq!(first("http://a"), "OPTIONS * HTTP/1.1");
        assert_eq!(first("http://a/"), "OPTIONS / HTTP/1.1");
        assert_eq!(first("http://a?b"), "OPTIONS /?b HTTP/1.1");
        assert_eq!(first("http://a/*"), "OPTIONS /* HTTP/1.1");
    }

    #[test]
    fn another_version_another_protocol_and_trace_are_malformed() {
        for version in ["HTTP/2.0", "HTTP/1.2", "HTTP/0.9", "HTTP/1.", "HTTP/11", "http/1.1", "H"] {
            let head = format!("GET http://a/ {version}\r\nHost: a\r\n\r\n");
            is_malformed(head, NO_VERSION);
        }
        is_malformed("PRI * HTTP/2.0\r\n\r\n", NO_VERSION);
        for (line, why) in [
            ("GET http://a/", NO_TOKEN),
            ("GET /", NO_TOKEN),
            ("GET", NO_TOKEN),
            ("GET  http://a/ HTTP/1.1", NO_TOKEN),
            ("GET\thttp://a/ HTTP/1.1", NO_TOKEN),
            ("GET http://a/\tHTTP/1.1", NO_TOKEN),
            ("GET http://a/b\0 HTTP/1.1", NO_TOKEN),
            ("GET http://a/b\x7f HTTP/1.1", NO_TOKEN),
            ("GET http://a/\r HTTP/1.1", NO_TOKEN),
            ("G(T http://a/ HTTP/1.1", NO_TOKEN),
            (" GET http://a/ HTTP/1.1", NO_TOKEN),
            ("EHLO a.example", NO_TOKEN),
            ("GET http://a/ b HTTP/1.1", NO_VERSION),
            ("GET http://a/  HTTP/1.1", NO_VERSION),
            ("GET http://a/ HTTP/1.1 ", NO_END),
            ("GET http://a/ HTTP/1.1\r", NO_END),
        ] {
            is_malformed(format!("{line}\r\nHost: a\r\n\r\n"), why);
        }
        is_malformed(b"GET http://a/\xe4 HTTP/1.1\r\nHost: a\r\n\r\n", NO_TOKEN);
        is_malformed("\r\n", "an empty line is no request");
        for target in ["http://a/", "/", "http://a"] {
            let head = format!("TRACE {target} HTTP/1.1\r\nHost: a\r\n\r\n");
            is_malformed(head, "TRACE would show what is not forwarded");
        }
    }

    #[test]
    fn what_is_no_field_is_malformed() {
        for (fields, why) in [
            ("A : b\r\n", NO_NAME),
            ("A\t: b\r\n", NO_NAME),
            ("Content-Length : 5\r\n", NO_NAME),
            (" A: b\r\n", NO_NAME),
            ("A: b\r\n c\r\n", NO_NAME),
            ("A: b\r\n\tc\r\n", NO_NAME),
            ("A\r\n", NO_NAME),
            (": b\r\n", NO_NAME),
            ("\u{e4}: b\r\n", NO_NAME),
            ("A\0: b\r\n", NO_NAME),
            ("A\r: b\r\n", NO_NAME),
            ("A: b\rc\r\n", NO_VALUE),
            ("A: b\r\r\n", NO_VALUE),
            ("A: \0\r\n", NO_VALUE),
            ("A: b\x0b\r\n", NO_VALUE),
            ("A: b\x7f\r\n", NO_VALUE),
            ("A: b\nC: d\r\n", BARE_LF),
            ("A: b\n\r\n", BARE_LF),
            ("\n", BARE_LF),
        ] {
            is_malformed(get(fields), why);
        }
        let folded = "GET http://a/ HTTP/1.1\r\n Host: a\r\nHost: a\r\n\r\n";
        is_malformed(folded, NO_NAME);
    }

    #[test]
    fn host_is_there_once_and_names_a_host() {
        const NONE: &str = "there is no Host";
        const RUBBISH: &str = "Host is no HOST or HOST:PORT";
        for target in ["http://a/", "/proxy.pac", "/"] {
            for (version, fields, why) in [
                (1, "", Some(NONE)),
                (1, "X-Host: a\r\n", Some(NONE)),
                (0, "", None),
                (1, "HOST: a\r\n", None),
                (1, "Host: [::1]:1\r\n", None),
            ] {
                let head = format!("GET {target} HTTP/1.{version}\r\n{fields}\r\n");
                match why {
                    Some(why) => is_malformed(head, why),
                    None => assert!(read(&head).is_ok(), "{head}"),
                }
            }
            for version in [0, 1] {
                for (fields, why) in [
                    ("Host: a\r\nHost: a\r\n", TWICE),
                    ("Host: a\r\nX: b\r\nhOST: b\r\n", TWICE),
                    ("Host:\r\n", RUBBISH),
                    ("Host: a b\r\n", RUBBISH),
                    ("Host: a, b\r\n", RUBBISH),
                    ("Host: me@a\r\n", RUBBISH),
                    ("Host: a:0\r\n", RUBBISH),
                    ("Host: a:b\r\n", RUBBISH),
                    ("Host: a/b\r\n", RUBBISH),
                    ("Host: http://a\r\n", RUBBISH),
                    ("Host: ::1\r\n", RUBBISH),
                    ("Host: <a>\r\n", RUBBISH),
                    ("Host: \u{e4}\r\n", RUBBISH),
                ] {
                    is_malformed(format!("GET {target} HTTP/1.{version}\r\n{fields}\r\n"), why);
                }
            }
        }
        is_malformed(b"GET / HTTP/1.1\r\nHost: \xff\r\n\r\n", RUBBISH);
    }

    #[test]
    fn a_path_is_a_page_and_host_says_where_it_was_asked_for() {
        for (head, expected) in [
            (
                "GET /proxy.pac HTTP/1.1\r\nHost: Box:1080\r\n\r\n",
                ("GET", "/proxy.pac", "Box:1080"),
            ),
            ("HEAD / HTTP/1.1\r\nHost: [fd00::1]\r\n\r\n", ("HEAD", "/", "[fd00::1]:80")),
            ("GET //a?b HTTP/1.0\r\nHost: 192.0.2.1\r\n\r\n", ("GET", "//a?b", "192.0.2.1:80")),
            ("POST /#a HTTP/1.0\r\n\r\n", ("POST", "/#a", "")),
        ] {
            let Target::Page { method, path, host } = read(head).unwrap().target else {
                panic!("{head}");
            };
            let host = host.map(|host| host.to_string()).unwrap_or_default();
            assert_eq!((&*method, &*path, &*host), expected);
        }
    }

    #[test]
    fn the_body_is_as_long_as_the_head_says() {
        for (fields, body) in [
            ("", Body::NONE),
            ("Content-Length: 0\r\n", Body::NONE),
            ("Content-Length: 5\r\n", Body::Length(5)),
            ("content-length:\t0005 \t\r\n", Body::Length(5)),
            ("Content-Length: 18446744073709551615\r\n", Body::Length(u64::MAX)),
            ("Transfer-Encoding: chunked\r\n", Body::CHUNKED),
            ("transfer-ENCODING:ChunkeD \r\n", Body::CHUNKED),
        ] {
            for method in ["GET", "POST", "DELETE"] {
                let head = get(fields).replace("GET", method);
                assert_eq!(read(&head).unwrap().body, body, "{head}");
                let (_, forwarded) = forwarded(&head);
                assert!(forwarded.contains(&fields.replace('\t', "\\t")), "{forwarded}");
            }
        }
    }

    #[test]
    fn a_body_that_two_readers_may_take_for_different_ones_is_malformed() {
        const NO_NUMBER: &str = "Content-Length is no number";
        const CODING: &str = "a Transfer-Encoding other than chunked";
        const BOTH: &str = "both Content-Length and Transfer-Encoding";
        for (fields, why) in [
            ("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", BOTH),
            ("Transfer-Encoding: chunked\r\nContent-Length: 0\r\n", BOTH),
            ("Transfer-Encoding: identity\r\nContent-Length: 5\r\n", BOTH),
            ("Content-Length: 5\r\nContent-Length: 6\r\n", TWICE),
            ("Content-Length: 5\r\ncontent-length: 5\r\n", TWICE),
            ("Content-Length: 5, 5\r\n", NO_NUMBER),
            ("Content-Length: 5,6\r\n", NO_NUMBER),
            ("Content-Length: +5\r\n", NO_NUMBER),
            ("Content-Length: -0\r\n", NO_NUMBER),
            ("Content-Length:\r\n", NO_NUMBER),
            ("Content-Length: \t\r\n", NO_NUMBER),
            ("Content-Length: 0x5\r\n", NO_NUMBER),
            ("Content-Length: 5 5\r\n", NO_NUMBER),
            ("Content-Length: 5.0\r\n", NO_NUMBER),
            ("Content-Length: \"5\"\r\n", NO_NUMBER),
            ("Content-Length: \u{665}\r\n", NO_NUMBER),
            ("Content-Length: 18446744073709551616\r\n", NO_NUMBER),
            ("Transfer-Encoding: gzip\r\n", CODING),
            ("Transfer-Encoding: gzip, chunked\r\n", CODING),
            ("Transfer-Encoding: chunked, gzip\r\n", CODING),
            ("Transfer-Encoding: chunked, chunked\r\n", CODING),
            ("Transfer-Encoding: chunked,\r\n", CODING),
            ("Transfer-Encoding: chunked;a=b\r\n", CODING),
            ("Transfer-Encoding: xchunked\r\n", CODING),
            ("Transfer-Encoding: chunkedx\r\n", CODING),
            ("Transfer-Encoding: \"chunked\"\r\n", CODING),
            ("Transfer-Encoding: \u{b}chunked\r\n", NO_VALUE),
            ("Transfer-Encoding: identity\r\n", CODING),
            ("Transfer-Encoding:\r\n", CODING),
            ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", TWICE),
            ("Transfer-Encoding: gzip\r\nTransfer-encoding: chunked\r\n", TWICE),
        ] {
            is_malformed(get(fields), why);
            let connect = format!("CONNECT a:443 HTTP/1.1\r\n{fields}\r\n");
            is_malformed(connect, why);
            is_malformed(format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n"), why);
        }
        let old = "POST http://a/ HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n";
        is_malformed(old, CODING);
    }

    #[test]
    fn connection_may_not_name_what_says_what_the_request_is() {
        for name in ["Host", "Content-Length", "Transfer-Encoding", "hOST", "TRANSFER-ENCODING"] {
            for connection in [
                format!("Connection: {name}\r\n"),
                format!("Connection: close, {name}\r\n"),
                format!("connection: ,{name}\t,close\r\n"),
                format!("Connection: close\r\nConnection:{name}\r\n"),
            ] {
                let why = "Connection names a field that says what the message is";
                is_malformed(get(&connection), why);
                is_malformed(get(&format!("Content-Length: 5\r\n{connection}")), why);
                is_malformed(format!("CONNECT a:443 HTTP/1.1\r\n{connection}\r\n"), why);
                is_malformed(format!("GET / HTTP/1.1\r\nHost: a\r\n{connection}\r\n"), why);
            }
        }
        assert!(read(get("Connection: hosts, content, close\r\n")).is_ok());
    }

    #[test]
    fn the_head_goes_on_without_what_was_for_this_hop_and_says_through_whom() {
        let fields = "Via: 1.0 b\r\nAccept:\r\nProxy-Authorization: Basic YTpi\r\n\
            Connection: keep-alive, x\r\nX: y\r\nCookie:  c \r\nUpgrade: h2c\r\n";
        let (_, head) = forwarded(get(fields));
        let expected = "GET /b HTTP/1.1\r\nHost: a.example\r\nVia: 1.0 b\r\nAccept:\r\n\
            Cookie:  c \r\nVia: 1.1 tabi\r\nConnection: close\r\n\r\n";
        assert_eq!(head, expected);
        let (_, head) = forwarded("GET http://a:8080 HTTP/1.0\r\n\r\n");
        let expected = "GET / HTTP/1.0\r\nHost: a:8080\r\n\
            Via: 1.0 tabi\r\nConnection: close\r\n\r\n";
        assert_eq!(head, expected);
    }

    #[test]
    fn a_head_has_128_fields_at_the_most() {
        assert!(read(get(&"A: b\r\n".repeat(127))).is_ok());
        assert!(matches!(read(get(&"A: b\r\n".repeat(128))), Err(Error::TooLarge)));
        let long = get(&format!("A: {}\r\n", "b".repeat(head::LONGEST)));
        assert!(matches!(read(long), Err(Error::TooLarge)));
    }

    #[test]
    fn every_truncation_is_an_error() {
        let head = get("Content-Length: 5\r\nProxy-Authorization: Basic YTpi\r\n");
        for length in 0..head.len() {
            let error = Request::read_from(&mut &head.as_bytes()[..length]).unwrap_err();
            assert!(matches!(error, Error::Io(_)), "cut to {length}: {error:?}");
        }
    }

    /// The name and the password of a login.
    fn login(value: &str) -> Option<(Vec<u8>, Vec<u8>)> {
        let request = read(get(&format!("pROXY-authorization:{value}\r\n"))).unwrap();
        assert!(!format!("{request:?}").contains("open sesame"));
        request.credentials.map(|it| (it.name, it.password.octets().into()))
    }

    #[test]
    fn a_login_is_a_name_a_colon_and_a_password() {
        for (text, name, password) in [
            ("alice:open sesame", "alice", "open sesame"),
            ("alice:open:sesame:", "alice", "open:sesame:"),
            ("alice:", "alice", ""),
            (":open sesame", "", "open sesame"),
            (":", "", ""),
            ("\u{e4}\0\n:\u{fc}", "\u{e4}\0\n", "\u{fc}"),
        ] {
            let encoded = STANDARD.encode(text);
            let expected = Some((name.into(), password.into()));
            for spelled in [
                format!(" Basic {encoded}"),
                format!("bASIC {encoded}"),
                format!("\tBASIC   {encoded} \t"),
                format!(" basic \t{encoded}"),
            ] {
                assert_eq!(login(&spelled), expected, "{spelled}");
            }
        }
        assert_eq!(read(get("")).unwrap().credentials.map(|it| it.name), None);
    }

    #[test]
    fn what_is_no_login_by_name_and_password_is_none() {
        for value in [
            "",
            " Basic",
            " Basic ",
            " Basic :",
            " BasicYTpi",
            " Basic\tYTpi",
            " Basic YTpi YTpi",
            " Basic YTpi,",
            " Basic YTp",
            " Basic YWI6Yw",
            " Basic YWI6Yx==",
            " Basic YTpi=",
            " Basic YT-_",
            " Basic \u{e4}\u{e4}\u{e4}",
            " Basic YWxpY2U=",
            " Bearer YTpi",
            " Digest username=\"a\"",
            " Negotiate YTpi",
            " YTpi",
        ] {
            assert_eq!(login(value), None, "{value}");
        }
        for (name, value) in [("Authorization", "Basic YTpi"), ("Proxy-Authenticate", "Basic YTpi")]
        {
            assert!(read(get(&format!("{name}: {value}\r\n"))).unwrap().credentials.is_none());
        }
        let twice = "Proxy-Authorization: Basic YTpi\r\nproxy-authorization: Basic YTpi\r\n";
        is_malformed(get(twice), TWICE);
    }

    #[test]
    fn names_and_passwords_have_255_octets_at_the_most() {
        let of = |name: usize, password: usize| {
            let text = format!("{}:{}", "n".repeat(name), "p".repeat(password));
            login(&format!(" Basic {}", STANDARD.encode(text)))
        };
        assert_eq!(of(255, 255), Some((vec![b'n'; 255], vec![b'p'; 255])));
        assert_eq!(of(256, 1), None);
        assert_eq!(of(4000, 0), None);
        // Nobody has an empty password: a wrong login.
        assert_eq!(of(1, 256), Some((vec![b'n'], vec![])));
    }

    #[test]
    fn another_request_may_follow_unless_the_client_closes_or_may_lack_the_body() {
        for (fields, is_last) in [
            ("", false),
            ("Connection: keep-alive\r\n", false),
            ("Connection: keep-alive, Close\r\n", true),
            ("Proxy-Connection: close\r\n", false),
            ("Content-Length: 5\r\n", false),
            ("Expect: 100-continue\r\n", false),
            ("Expect: 100-continue\r\nContent-Length: 5\r\n", true),
            ("Transfer-Encoding: chunked\r\nexpect: 100-Continue\r\n", true),
        ] {
            assert_eq!(read(get(fields)).unwrap().is_last, is_last, "{fields}");
        }
        let old = "CONNECT a:443 HTTP/1.0\r\nConnection: keep-alive\r\n\r\n";
        assert!(read(old).unwrap().is_last);
        is_malformed(get("Expect: a\r\nExpect: a\r\n"), TWICE);
    }
}
