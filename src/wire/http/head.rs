//! The head of a message: its lines, and which of its fields go on to the other side.

use std::io::{self, BufRead, ErrorKind, Read};

use httparse::Header;

use crate::wire::error::Error;

/// The longest head, in octets, and the most fields in it.
pub(super) const LONGEST: usize = 16 * 1024;
pub(super) const MOST_FIELDS: usize = 128;

/// Fields that are for the next hop alone (RFC 9110 section 7.6.1), beside those that Connection names and
/// those that begin with [`PROXY`].
const HOP_BY_HOP: [&str; 4] = ["connection", "keep-alive", "te", "upgrade"];
const PROXY: &str = "proxy-";

/// Fields that Connection may not name.
const NEEDED: [&str; 3] = ["host", "content-length", "transfer-encoding"];

/// Reads up to the empty line that ends a head. Each line ends with CR LF: who takes less for an end reads
/// another request than who does not.
pub(super) fn read(reader: &mut impl BufRead) -> Result<Vec<u8>, Error> {
    let mut head = Vec::with_capacity(LONGEST / 16);
    loop {
        let begin = head.len();
        let left = LONGEST - begin;
        reader.by_ref().take(left as u64).read_until(b'\n', &mut head)?;
        match &head[begin..] {
            b"\r\n" => return Ok(head),
            [.., b'\r', b'\n'] => {}
            [.., b'\n'] => return Err("a line does not end with CR LF".into()),
            line if line.len() == left => return Err(Error::TooLarge),
            _ => return Err(io::Error::from(ErrorKind::UnexpectedEof).into()),
        }
    }
}

/// The values of the fields with this name.
pub(super) fn values<'h>(
    fields: &'h [Header<'h>],
    name: &'static str,
) -> impl Iterator<Item = &'h [u8]> {
    let named = fields.iter().filter(move |field| field.name.eq_ignore_ascii_case(name));
    named.map(|field| field.value)
}

/// The value of the field with this name, of which there is one at the most.
pub(super) fn value<'h>(
    fields: &'h [Header<'h>],
    name: &'static str,
) -> Result<Option<&'h [u8]>, Error> {
    let mut values = values(fields, name);
    match (values.next(), values.next()) {
        (value, None) => Ok(value),
        _ => Err("a field that may be there once is there twice".into()),
    }
}

/// The words of a field whose value is a list.
pub(super) fn words<'h>(
    fields: &'h [Header<'h>],
    name: &'static str,
) -> impl Iterator<Item = &'h [u8]> {
    let lists = values(fields, name).flat_map(|value| value.split(|octet| *octet == b','));
    lists.map(<[u8]>::trim_ascii)
}

/// Whether Connection names none of the fields without which another message would arrive.
pub(super) fn check_connection(fields: &[Header<'_>]) -> Result<(), Error> {
    let is_needed = |word: &[u8]| NEEDED.iter().any(|it| word.eq_ignore_ascii_case(it.as_bytes()));
    if words(fields, "connection").any(is_needed) {
        return Err("Connection names a field that says what the message is".into());
    }
    Ok(())
}

/// Appends the lines of a head that go on, as they came: `fields` are what is in them.
pub(super) fn append_end_to_end(lines: &[u8], fields: &[Header<'_>], to: &mut Vec<u8>) {
    let lines = lines.split(|octet| *octet == b'\n').skip(1);
    for (line, field) in lines.zip(fields) {
        let is = |name: &str| field.name.eq_ignore_ascii_case(name);
        let is_proxys =
            field.name.get(..PROXY.len()).is_some_and(|it| it.eq_ignore_ascii_case(PROXY));
        let mut named = words(fields, "connection");
        let is_named = named.any(|word| word.eq_ignore_ascii_case(field.name.as_bytes()));
        if !is_proxys && !is_named && !HOP_BY_HOP.iter().any(|name| is(name)) && !is("host") {
            to.extend(line.strip_suffix(b"\r").unwrap_or(line));
            to.extend(b"\r\n");
        }
    }
}

/// Appends what a proxy adds, and the end of the head.
pub(super) fn append_end(version: u8, to: &mut Vec<u8>) {
    to.extend(format!("Via: 1.{version} tabi\r\nConnection: close\r\n\r\n").as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::BufReader;

    const HEAD: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";

    /// Reads a head, octet by octet too, and gives what is left.
    fn read_head(octets: &[u8]) -> (Result<Vec<u8>, Error>, &[u8]) {
        let mut rest = octets;
        let whole = read(&mut rest);
        let mut single = BufReader::with_capacity(1, octets);
        assert_eq!(format!("{:?}", read(&mut single)), format!("{whole:?}"));
        assert_eq!(*single.get_ref(), rest);
        (whole, rest)
    }

    /// The lines of a head that go on.
    fn end_to_end(lines: &[u8]) -> Vec<u8> {
        let head = [b"GET / HTTP/1.1\r\n", lines, b"\r\n"].concat();
        let mut fields = [httparse::EMPTY_HEADER; 16];
        let mut parsed = httparse::Request::new(&mut fields);
        assert!(parsed.parse(&head).unwrap().is_complete(), "{}", lines.escape_ascii());
        let mut to = Vec::new();
        append_end_to_end(&head, parsed.headers, &mut to);
        to
    }

    #[track_caller]
    fn goes_on(lines: &[u8], which: &[u8]) {
        assert_eq!(end_to_end(lines).escape_ascii().to_string(), which.escape_ascii().to_string());
    }

    #[test]
    fn reads_exactly_its_octets() {
        for behind in [b"".as_slice(), b"\x16\x03\x01", b"\r\n", b"GET / HTTP/1.1\r\n\r\n"] {
            let stream = [HEAD, behind].concat();
            let (head, rest) = read_head(&stream);
            assert_eq!((head.unwrap().as_slice(), rest), (HEAD, behind));
        }
        assert_eq!(read_head(b"\r\nGET").0.unwrap(), b"\r\n");
    }

    #[test]
    fn every_truncation_is_an_error() {
        for length in 0..HEAD.len() {
            let (error, rest) = read_head(&HEAD[..length]);
            assert!(matches!(error, Err(Error::Io(_))), "cut to {length}");
            assert_eq!(rest, b"");
        }
    }

    #[test]
    fn a_line_that_ends_with_lf_alone_is_malformed_and_nothing_behind_it_is_read() {
        for head in [
            b"\nHost: a\r\n\r\n".as_slice(),
            b"GET / HTTP/1.1\nHost: a\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\n\n",
            b"GET / HTTP/1.1\n\n",
        ] {
            let (error, rest) = read_head(head);
            assert!(matches!(error, Err(Error::Malformed(_))), "{}", head.escape_ascii());
            let is_bare = |at: &usize| head[*at] == b'\n' && (*at == 0 || head[at - 1] != b'\r');
            let bare = (0..head.len()).find(is_bare).unwrap();
            assert_eq!(rest, &head[bare + 1..]);
        }
    }

    #[test]
    fn a_head_has_16_kib_at_the_most() {
        let head = |length: usize| {
            let frame = b"GET / HTTP/1.1\r\nA: \r\n\r\n".len();
            format!("GET / HTTP/1.1\r\nA: {}\r\n\r\n", "b".repeat(length - frame)).into_bytes()
        };
        let longest = [&head(LONGEST)[..], b"tail"].concat();
        let (read, rest) = read_head(&longest);
        assert_eq!((read.unwrap().len(), rest), (16 * 1024, b"tail".as_slice()));
        for too_long in
            [head(LONGEST + 1), head(LONGEST + 2), head(LONGEST + 9), vec![b'a'; 40_000]]
        {
            let (error, rest) = read_head(&too_long);
            assert!(matches!(error, Err(Error::TooLarge)));
            assert_eq!(rest.len(), too_long.len() - LONGEST);
        }
        let short_lines = b"A: b\r\n".repeat(LONGEST);
        assert!(matches!(read_head(&short_lines).0, Err(Error::TooLarge)));
    }

    #[test]
    fn what_is_for_this_hop_stays_here_in_letters_of_any_case() {
        for line in [
            "Connection: close",
            "cOnNeCtIoN:",
            "Keep-Alive: timeout=5, max=1000",
            "KEEP-ALIVE:",
            "TE: trailers",
            "te: gzip",
            "Upgrade: h2c",
            "upgrade:websocket",
            "Proxy-Connection: keep-alive",
            "Proxy-Authorization: Basic YWxpY2U6b3BlbiBzZXNhbWU=",
            "proxy-authorization: x",
            "PROXY-anything: x",
            "Proxy-: x",
            "Host: a",
            "hOST: a",
        ] {
            goes_on(format!("{line}\r\n").as_bytes(), b"");
            let between = format!("Accept: */*\r\n{line}\r\nUser-Agent: b\r\n");
            goes_on(between.as_bytes(), b"Accept: */*\r\nUser-Agent: b\r\n");
        }
    }

    #[test]
    fn what_connection_names_stays_here_wherever_it_stands() {
        for connection in [
            "Connection: x-a, X-B\r\n",
            "Connection: close,x-A,,x-B\r\n",
            "connection: ,\t X-a ,close\t,x-b,\r\n",
            "Connection: X-A\r\nConnection: X-B\r\n",
            "Connection: X-A\r\nCONNECTION:\r\nconnection:x-b\r\n",
        ] {
            let before = format!("{connection}X-A: 1\r\nX-C: 2\r\nx-b: 3\r\n");
            let behind = format!("X-A: 1\r\nX-C: 2\r\nx-b: 3\r\n{connection}");
            for lines in [before, behind] {
                goes_on(lines.as_bytes(), b"X-C: 2\r\n");
            }
        }
        goes_on(b"Connection: \"x\", x y\r\nx: 1\r\ny: 2\r\n", b"x: 1\r\ny: 2\r\n");
        goes_on(b"Connection:\r\nConnection: ,,\r\nx: 1\r\n", b"x: 1\r\n");
    }

    #[test]
    fn all_else_goes_on_octet_for_octet() {
        for lines in [
            b"".as_slice(),
            b"A:b\r\n",
            b"A:  \t b  c \t \r\n",
            b"A:\r\na: \r\nA:\t\r\n",
            b"A: \x80\xff\xc3\xa4\r\n",
            b"Via: 1.0 b, 1.1 c (d)\r\nVia: 1.1 e\r\n",
            b"!#$%&'*+-.^_`|~: b\r\n",
            b"Cookie: c=\"a\\\"\"; d\r\n",
            b"Content-Length: 5\r\nContent-Type: a/b\r\n",
            b"Transfer-Encoding: chunked\r\nTrailer: X\r\n",
            b"Ho: st\r\nHosts: a\r\nX-Host: a\r\nProxy: a\r\nProxied-By: a\r\nKeepAlive: a\r\n",
            b"TEA: a\r\nUpgrade-Insecure-Requests: 1\r\nX-Proxy-Authorization: a\r\n",
            b"Expect: 100-continue\r\nAuthorization: Basic b\r\n",
        ] {
            goes_on(lines, lines);
        }
    }

    #[test]
    fn lines_that_end_with_lf_alone_go_on_with_cr_lf() {
        let head = b"HTTP/1.1 200 \nA: b \nConnection: x\nx: y\nC:\r\n\n";
        let mut fields = [httparse::EMPTY_HEADER; 16];
        let mut parsed = httparse::Response::new(&mut fields);
        assert!(parsed.parse(head).unwrap().is_complete());
        let mut to = Vec::new();
        append_end_to_end(head, parsed.headers, &mut to);
        assert_eq!(to, b"A: b \r\nC:\r\n");
    }

    #[test]
    fn a_field_that_may_be_there_once_is_not_there_twice() {
        let field = |name, value| Header { name, value };
        let fields = [field("A", b"1".as_slice()), field("b", b"2, ,3"), field("B", b"")];
        assert_eq!(value(&fields, "a").unwrap(), Some(b"1".as_slice()));
        assert_eq!(value(&fields, "c").unwrap(), None);
        assert!(matches!(value(&fields, "b"), Err(Error::Malformed(_))));
        assert_eq!(words(&fields, "B").collect::<Vec<_>>(), [b"2".as_slice(), b"", b"3", b""]);
    }
}
