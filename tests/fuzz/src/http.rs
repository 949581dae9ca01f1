//! The messages of HTTP: what goes on to the other side is what a simple reader of the same octets expects, and
//! nobody finds a second request in it.

use std::io::BufReader;

use tabi::wire::address::Address;
use tabi::wire::error::Error;
use tabi::wire::http::{self, Body, Request, ResponseHead, Target};

use super::stream::{is_printable, read};

/// The longest head, and the most fields in it.
const LONGEST: usize = 16 * 1024;
const MOST_FIELDS: usize = 128;

/// The most octets around the data of a chunk, and around the trailer section.
const MOST_AROUND: usize = 8 * 1024;

/// The sizes of pieces that a body may begin with.
const SIZES: usize = 4;

/// A head as lines, without their ends.
type Lines<'a> = Vec<&'a [u8]>;

/// Where the first empty line ends.
fn end_of_head(octets: &[u8]) -> Option<usize> {
    octets.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4)
}

/// The lines of a head, each of which ends with CR LF, without the empty one.
fn lines(head: &[u8]) -> Lines<'_> {
    let mut lines: Lines<'_> = head
        .split_inclusive(|octet| *octet == b'\n')
        .map(|line| line.strip_suffix(b"\r\n").expect("a line ends otherwise"))
        .collect();
    assert_eq!(lines.pop(), Some(b"".as_slice()));
    for line in &lines {
        assert!(!line.is_empty() && line.iter().all(|octet| is_text(*octet)));
    }
    lines
}

fn is_text(octet: u8) -> bool {
    octet == b'\t' || octet >= b' ' && octet != 0x7f
}

/// The name of a field in small letters, and its value.
fn field(line: &[u8]) -> (String, &[u8]) {
    let colon = line.iter().position(|octet| *octet == b':').expect("there is no colon");
    let name = std::str::from_utf8(&line[..colon]).expect("a name is in ASCII");
    let is_token = |it: char| it.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(it);
    assert!(!name.is_empty() && name.chars().all(is_token), "{name:?}");
    (name.to_ascii_lowercase(), line[colon + 1..].trim_ascii())
}

fn values<'a>(fields: &[&'a [u8]], name: &str) -> Vec<&'a [u8]> {
    let fields = fields.iter().map(|line| field(line));
    fields.filter(|(it, _)| it == name).map(|(_, value)| value).collect()
}

/// Whether a field may not go on.
fn is_for_this_hop(line: &[u8], fields: &[&[u8]]) -> bool {
    let (name, _) = field(line);
    name.starts_with("proxy-")
        || ["connection", "keep-alive", "te", "upgrade", "host"].contains(&&*name)
        || is_named(&name, fields)
}

/// Whether Connection names a field.
fn is_named(name: &str, fields: &[&[u8]]) -> bool {
    let lists = values(fields, "connection").join(&b',').to_ascii_lowercase();
    lists.split(|octet| *octet == b',').any(|word| word.trim_ascii() == name.as_bytes())
}

/// The body that a head announces; `None` where two readers may see different ones.
fn framing(version: u8, fields: &[&[u8]]) -> Option<Body> {
    match (&*values(fields, "content-length"), &*values(fields, "transfer-encoding")) {
        ([], []) => Some(Body::NONE),
        ([digits], []) => {
            let mut length: u64 = 0;
            for digit in *digits {
                let digit = digit.checked_sub(b'0').filter(|digit| *digit < 10)?;
                length = length.checked_mul(10)?.checked_add(digit.into())?;
            }
            (!digits.is_empty()).then_some(Body::Length(length))
        }
        ([], [coding]) if version == 1 => {
            coding.eq_ignore_ascii_case(b"chunked").then_some(Body::CHUNKED)
        }
        _ => None,
    }
}

/// The method, the target and the minor version of a request.
fn request_line<'a>(lines: &[&'a [u8]]) -> (&'a str, &'a str, u8) {
    let line = std::str::from_utf8(lines[0]).expect("a request line is in UTF-8");
    match *line.split(' ').collect::<Vec<_>>() {
        [method, target, "HTTP/1.0"] => (method, target, 0),
        [method, target, "HTTP/1.1"] => (method, target, 1),
        _ => panic!("{line:?} is taken"),
    }
}

/// Reads again what httparse reads as a head, whole.
fn check_with_httparse(head: &[u8], is_request: bool) {
    let mut fields = [httparse::EMPTY_HEADER; MOST_FIELDS + 3];
    let parsed = if is_request {
        httparse::Request::new(&mut fields).parse(head)
    } else {
        httparse::Response::new(&mut fields).parse(head)
    };
    assert_eq!(parsed, Ok(httparse::Status::Complete(head.len())), "{}", head.escape_ascii());
}

pub(crate) fn http_request(octets: &[u8]) {
    let (result, taken) =
        read(octets, |stream| Request::read_from(&mut BufReader::with_capacity(1, stream)));
    let mut rest = octets;
    assert_eq!(format!("{:?}", Request::read_from(&mut rest)), format!("{result:?}"));
    assert_eq!(octets.len() - rest.len(), taken);
    let end = end_of_head(octets);
    match result {
        Ok(request) => {
            assert_eq!(Some(taken), end);
            check_request(&octets[..taken], &request);
        }
        Err(Error::Io(_)) => assert_eq!((taken, end), (octets.len(), None)),
        Err(_) => assert!(taken <= end.unwrap_or(octets.len()).min(LONGEST), "{taken} octets"),
    }
}

fn check_request(head: &[u8], request: &Request) {
    let lines = lines(head);
    let (method, target, version) = request_line(&lines);
    let fields = &lines[1..];
    assert!(fields.len() <= MOST_FIELDS && head.len() <= LONGEST && method != "TRACE");
    assert_eq!(Some(request.body), framing(version, fields));
    for name in ["content-length", "transfer-encoding", "host"] {
        assert!(!is_named(name, fields), "Connection names {name}");
    }
    let hosts = values(fields, "host").len();
    assert!(method == "CONNECT" || hosts == 1 || hosts == 0 && version == 0);
    if let Some(credentials) = &request.credentials {
        assert_eq!(values(fields, "proxy-authorization").len(), 1);
        assert!(credentials.name.len() <= 255 && !credentials.name.contains(&b':'));
    }
    match &request.target {
        Target::Connection(address) => {
            assert_eq!(method, "CONNECT");
            check_address(address, target);
            assert!(target.ends_with(|last: char| last.is_ascii_digit()) && address.port > 0);
        }
        Target::Forwarded(address, forwarded) => check_forwarded(&lines, address, forwarded),
        Target::Page { method: it, path, host } => {
            assert_eq!((&**it, &**path), (method, target));
            assert!(path.starts_with('/') && method != "CONNECT");
            let place = host.as_ref().map_or("box:1".into(), ToString::to_string);
            check_page(&http::answer(method, path, &place).octets, method);
        }
    }
}

/// What is shown of an address is what was written, but for the spelling of an IP address and of a port.
fn check_address(address: &Address, authority: &str) {
    assert!(is_printable(&address.to_string()), "{address:?}");
    if let Some(name) = address.host.name() {
        let port = authority.strip_prefix(name).expect(authority).strip_prefix(':');
        let port = port.map_or(80, |port| port.parse().unwrap());
        assert_eq!(port, address.port);
        assert!(!name.contains(|it: char| "@/\\:?#[]%,".contains(it)), "{name}");
    }
}

/// What goes to the target is the same request in origin-form.
fn check_forwarded(came: &[&[u8]], address: &Address, forwarded: &[u8]) {
    check_with_httparse(forwarded, true);
    assert_eq!(end_of_head(forwarded), Some(forwarded.len()));
    let (lines, fields) = (lines(forwarded), &came[1..]);
    let (method, target, version) = request_line(came);
    let (same_method, path, same_version) = request_line(&lines);
    assert_eq!((method, version), (same_method, same_version));
    let host = lines[1].strip_prefix(b"Host: ").expect("Host comes first");
    let host = std::str::from_utf8(host).unwrap();
    check_address(address, host);
    assert_eq!(values(&lines[1..], "host").len(), 1);

    let (scheme, rest) = target.split_at("http://".len());
    assert!(scheme.eq_ignore_ascii_case("http://") && !target.contains('#'));
    let asked = rest.strip_prefix(host).expect("Host is another than the target's");
    match (asked, method) {
        ("", "OPTIONS") => assert_eq!(path, "*"),
        _ if asked.starts_with('/') => assert_eq!(path, asked),
        _ => {
            assert!(asked.is_empty() || asked.starts_with('?'), "{asked}");
            assert_eq!(path.strip_prefix('/'), Some(asked));
        }
    }
    let mut expected: Lines<'_> = fields.to_vec();
    expected.retain(|line| !is_for_this_hop(line, fields));
    let via = format!("Via: 1.{version} tabi");
    expected.extend([via.as_bytes(), b"Connection: close"]);
    assert_eq!(lines[2..], expected);
    assert_eq!(framing(version, &lines[1..]), framing(version, fields));
}

/// The answer of this server has the length that it says.
fn check_page(page: &[u8], method: &str) {
    let (head, body) = page.split_at(end_of_head(page).expect("the answer has no end"));
    check_with_httparse(head, false);
    let lines = lines(head);
    let length = values(&lines[1..], "content-length");
    if method != "HEAD" {
        assert_eq!(length, [body.len().to_string().as_bytes()]);
    }
    assert!(length.len() == 1 && (method != "HEAD" || body.is_empty()));
    assert_eq!(values(&lines[1..], "connection"), [b"close"]);
}

/// The first octet says whether the body is chunked, or how long it is; the next ones the sizes of the pieces; the
/// rest is what the client sends.
pub(crate) fn http_body(octets: &[u8]) {
    let Some((&kind, octets)) = octets.split_first() else { return };
    let Some((sizes, sent)) = octets.split_at_checked(SIZES) else { return };
    let body = if kind >= 0x80 { Body::CHUNKED } else { Body::Length(kind.into()) };
    let expected = match body {
        Body::Length(length) => {
            let length = usize::try_from(length).unwrap();
            Ok(Some(length).filter(|length| *length <= sent.len()))
        }
        Body::Chunked(_) => chunked(sent),
    };
    for sizes in [sizes, &[u8::MAX], &[1]] {
        let came = take(body, sent, sizes);
        let shown = sent.escape_ascii();
        match expected {
            Ok(Some(length)) => assert_eq!(came, Ok((length, true)), "{shown}"),
            Ok(None) => assert_eq!(came, Ok((sent.len(), false)), "{shown}"),
            Err(Malformed) => assert_eq!(came, Err(Malformed), "{shown}"),
        }
    }
}

/// What a message cannot be.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Malformed;

/// Takes a body in pieces: how many octets reach the target, and whether that is all. Nothing behind it does.
fn take(mut body: Body, sent: &[u8], sizes: &[u8]) -> Result<(usize, bool), Malformed> {
    let (mut taken, mut rest, mut turn) = (0, sent, 0);
    while !rest.is_empty() {
        let size = usize::from(sizes[turn % sizes.len()]).max(1).min(rest.len());
        turn += 1;
        let (piece, behind) = rest.split_at(size);
        rest = behind;
        let was_complete = body.is_complete();
        let of_piece = body.take(piece).map_err(|_| Malformed)?;
        assert!(of_piece <= piece.len() && (of_piece == 0 || !was_complete));
        assert!(of_piece == piece.len() || body.is_complete());
        taken += of_piece;
    }
    Ok((taken, body.is_complete()))
}

/// Where a chunked body ends (RFC 9112 section 7.1), `None` if it does not end yet.
fn chunked(sent: &[u8]) -> Result<Option<usize>, Malformed> {
    let mut rest = sent;
    loop {
        let (line, behind) = line(rest)?;
        let size = size(line, behind.is_some() || rest.ends_with(b"\r"))?;
        let tail = match behind {
            Some(behind) if size == 0 => {
                let left = trailer(rest, behind)?;
                return Ok(left.map(|left| sent.len() - left));
            }
            Some(behind) => {
                behind.get(usize::try_from(size).unwrap_or(usize::MAX)..).unwrap_or_default()
            }
            None => b"",
        };
        let before = rest.len() - behind.map_or(0, <[u8]>::len);
        if before + tail.len().min(2) > MOST_AROUND {
            return Err(Malformed);
        }
        match tail.strip_prefix(b"\r\n") {
            Some(next) => rest = next,
            None if b"\r\n".starts_with(tail) => return Ok(None),
            None => return Err(Malformed),
        }
    }
}

/// How much is left behind the trailer section of `last`, the last chunk, `None` if it does not end yet.
fn trailer(last: &[u8], mut rest: &[u8]) -> Result<Option<usize>, Malformed> {
    loop {
        let (line, behind) = line(rest)?;
        let name = line.split(|octet| *octet == b':').next().unwrap_or_default();
        let may_go_on = line.len() == rest.len();
        let has_colon = name.len() < line.len() && !name.is_empty();
        let is_field =
            name.iter().all(u8::is_ascii_graphic) && (has_colon || may_go_on && name == line);
        rest = behind.unwrap_or_default();
        if !(line.is_empty() || is_field) || last.len() - rest.len() > MOST_AROUND {
            return Err(Malformed);
        }
        match behind {
            None => return Ok(None),
            Some(behind) if line.is_empty() => return Ok(Some(behind.len())),
            Some(_) => {}
        }
    }
}

/// A line without its end, and what is behind it if it has come to an end.
fn line(octets: &[u8]) -> Result<(&[u8], Option<&[u8]>), Malformed> {
    let end = octets.iter().position(|octet| !is_text(*octet)).unwrap_or(octets.len());
    let (line, behind) = octets.split_at(end);
    match behind {
        [] | [b'\r'] => Ok((line, None)),
        [b'\r', b'\n', behind @ ..] => Ok((line, Some(behind))),
        _ => Err(Malformed),
    }
}

/// The size that begins a chunk, as far as it has come.
fn size(line: &[u8], is_whole: bool) -> Result<u64, Malformed> {
    let line: String = line.iter().copied().map(char::from).collect();
    let (digits, extension) = match line.split_once(';') {
        Some((digits, extension)) => (digits, Some(extension)),
        None => (&*line, None),
    };
    if digits.is_empty() && !is_whole && extension.is_none() {
        return Ok(0);
    }
    let are_digits = digits.chars().all(|digit| digit.is_ascii_hexdigit());
    are_digits.then(|| u64::from_str_radix(digits, 16).ok()).flatten().ok_or(Malformed)
}

pub(crate) fn http_response(octets: &[u8]) {
    let read = |octets: &[u8]| format!("{:?}", ResponseHead::read(octets));
    match ResponseHead::read(octets) {
        Ok(Some(head)) => {
            let (whole, length) = (format!("Ok({:?})", Some(&head)), head.length);
            assert_eq!(read(&octets[..length]), whole);
            assert!(matches!(ResponseHead::read(&octets[..length - 1]), Ok(None)));
            check_response(&octets[..length], &head);
        }
        Ok(None) => assert!(octets.len() < LONGEST),
        Err(error) => {
            assert!(is_printable(&error.to_string()));
            assert_eq!(read(&[octets, b"\r\n\r\n"].concat()), format!("Err({error:?})"));
        }
    }
}

fn check_response(octets: &[u8], head: &ResponseHead) {
    check_with_httparse(&head.forwarded, false);
    assert_eq!(end_of_head(&head.forwarded), Some(head.forwarded.len()));
    let came = octets.trim_ascii_start().split(|octet| *octet == b'\n');
    let mut came: Lines<'_> = came.map(|line| line.strip_suffix(b"\r").unwrap_or(line)).collect();
    assert_eq!(came.split_off(came.len() - 2), [b"", b""]);
    let (first, fields) = came.split_first().unwrap();
    let lines = lines(&head.forwarded);
    assert_eq!(lines[0], *first);
    let status = std::str::from_utf8(&first[.."HTTP/1.1 200".len()]).unwrap();
    let (version, code) = status.split_once(' ').unwrap();
    assert!(["HTTP/1.0", "HTTP/1.1"].contains(&version));
    assert_eq!(head.is_interim, code.starts_with('1') && code != "101");

    let mut expected: Lines<'_> = fields.to_vec();
    expected.retain(|line| !is_for_this_hop(line, fields));
    let via = format!("Via: {} tabi", version.trim_start_matches("HTTP/"));
    if !head.is_interim {
        expected.extend([via.as_bytes(), b"Connection: close"]);
    }
    assert_eq!(lines[1..], expected);
}
