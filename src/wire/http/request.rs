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

/// Fields that Connection may not name: without them another request would arrive.
const NEEDED: [&str; 3] = ["host", "content-length", "transfer-encoding"];

/// A request: its head, and how far the body behind it goes.
#[derive(Debug)]
pub struct Request {
    /// What is asked for.
    pub target: Target,
    /// Who asks, as `Proxy-Authorization` says (RFC 7617).
    pub credentials: Option<Credentials>,
    /// Where it ends. What follows a CONNECT is no body of it, but the target's.
    pub body: Body,
    /// The client waits for an answer before it sends the body (RFC 9110 section 10.1.1).
    pub expects_continue: bool,
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
        if words(fields, "connection").any(|word| NEEDED.iter().any(|it| is(word, it))) {
            return Err("Connection names a field that says what the request is".into());
        }
        Ok(Request {
            target,
            credentials: credentials(fields)?,
            body: body(fields, version)?,
            expects_continue: value(fields, "expect")?.is_some(),
        })
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
        let colon = decoded.iter().position(|octet| *octet == b':')?;
        let password = Password::new(&decoded[colon + 1..]).unwrap_or(Password::NONE);
        Some(Credentials { name: decoded[..colon].into(), password })
    }))
}

/// Whether they are the same but for the case of letters.
fn is(octets: &[u8], word: &str) -> bool {
    octets.eq_ignore_ascii_case(word.as_bytes())
}
