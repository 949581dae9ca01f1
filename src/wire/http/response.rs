//! The head of a target's response, as it goes on to the client.

use super::head::{self, append_end, append_end_to_end};
use crate::wire::error::Error;

/// The head of a response.
#[derive(Debug)]
pub struct ResponseHead {
    /// As the client gets it.
    pub forwarded: Vec<u8>,
    /// Another one follows (1xx, RFC 9110 section 15.2).
    pub is_interim: bool,
    /// Its length as it came.
    pub length: usize,
}

impl ResponseHead {
    /// Reads a head at the start of `octets`. `None` while it is not complete.
    pub fn read(octets: &[u8]) -> Result<Option<Self>, Error> {
        let mut fields = vec![httparse::EMPTY_HEADER; head::MOST_FIELDS];
        let mut parsed = httparse::Response::new(&mut fields);
        let length = match parsed.parse(octets)? {
            httparse::Status::Complete(length) if length <= head::LONGEST => length,
            httparse::Status::Partial if octets.len() < head::LONGEST => return Ok(None),
            _ => return Err(Error::TooLarge),
        };
        // Some servers send an empty line first, and httparse reads over it.
        let octets = octets[..length].trim_ascii_start();
        let (fields, version) = (&*parsed.headers, parsed.version.unwrap_or(1));
        head::check_connection(fields)?;
        let length_too = head::value(fields, "content-length")?.is_some();
        if length_too && head::values(fields, "transfer-encoding").next().is_some() {
            return Err("both Content-Length and Transfer-Encoding".into());
        }
        let is_interim = parsed.code.is_some_and(|code| (100..200).contains(&code) && code != 101);
        let line = octets.split(|octet| *octet == b'\n').next().unwrap_or_default();
        let mut forwarded = [line.strip_suffix(b"\r").unwrap_or(line), b"\r\n"].concat();
        append_end_to_end(octets, fields, &mut forwarded);
        if is_interim {
            forwarded.extend(b"\r\n");
        } else {
            append_end(version, &mut forwarded);
        }
        Ok(Some(ResponseHead { forwarded, is_interim, length }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads a head with something behind it.
    fn read(head: impl AsRef<[u8]>) -> Result<Option<ResponseHead>, Error> {
        ResponseHead::read(&[head.as_ref(), b"HTTP/1.1 200 OK\r\n\r\n\0\xff"].concat())
    }

    /// What the client gets, and whether another head follows.
    #[track_caller]
    fn forwarded(head: &[u8]) -> (String, bool) {
        let response = read(head).unwrap().expect("it is incomplete");
        assert_eq!(response.length, head.len(), "{}", head.escape_ascii());
        let shown = response.forwarded.escape_ascii().to_string().replace("\\r\\n", "\r\n");
        (shown, response.is_interim)
    }

    const END: &str = "Via: 1.1 tabi\r\nConnection: close\r\n\r\n";

    #[test]
    fn the_head_goes_on_without_what_was_for_this_hop() {
        let head =
            b"HTTP/1.1 200 All  right\r\nContent-Length: 5\r\nconnection: X-A, keep-alive\r\n\
            Set-Cookie: a=\xff \r\nKeep-Alive: timeout=5\r\nProxy-Authenticate: Basic\r\nx-a: b\r\n\
            Via: 1.0 c\r\nUpgrade: h2\r\nEmpty:\r\n\r\n";
        let expected = "HTTP/1.1 200 All  right\r\nContent-Length: 5\r\nSet-Cookie: a=\\xff \r\n\
            Via: 1.0 c\r\nEmpty:\r\n";
        assert_eq!(forwarded(head), (format!("{expected}{END}"), false));
    }

    #[test]
    fn what_two_clients_might_end_at_different_places_does_not_go_on() {
        for fields in [
            "Content-Length: 5\r\nContent-Length: 6\r\n",
            "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
            "Content-Length: 5\r\nConnection: content-length\r\n",
            "Transfer-Encoding: chunked\r\nConnection: a, Transfer-Encoding\r\n",
        ] {
            let head = format!("HTTP/1.1 200 OK\r\n{fields}\r\n");
            assert!(matches!(read(head), Err(Error::Malformed(_))), "{fields}");
        }
        assert!(
            forwarded(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n")
                .0
                .contains("gzip")
        );
    }

    #[test]
    fn the_status_line_goes_on_as_it_came() {
        for line in [
            "HTTP/1.1 200 ",
            "HTTP/1.1 200",
            "HTTP/1.1 999 \t ",
            "HTTP/1.1 000 a",
            "HTTP/1.1 404 b ",
        ] {
            let expected = format!("{line}\r\n{END}").replace('\t', "\\t");
            let head = format!("{line}\r\n\r\n");
            assert_eq!(forwarded(head.as_bytes()), (expected, false));
        }
        let (shown, _) = forwarded(b"HTTP/1.1 200 \xff\r\n\r\n");
        assert_eq!(shown, format!("HTTP/1.1 200 \\xff\r\n{END}"));
        let (shown, _) = forwarded(b"HTTP/1.0 200 OK\r\nVia: 1.1 a\r\n\r\n");
        assert_eq!(
            shown,
            "HTTP/1.0 200 OK\r\nVia: 1.1 a\r\nVia: 1.0 tabi\r\nConnection: close\r\n\r\n"
        );
    }

    #[test]
    fn an_interim_response_goes_on_and_another_head_follows() {
        for code in ["100", "102", "103", "199"] {
            let head = format!("HTTP/1.1 {code} a\r\nLink: b\r\nConnection: c\r\nC: d\r\n\r\n");
            let expected = format!("HTTP/1.1 {code} a\r\nLink: b\r\n\r\n");
            assert_eq!(forwarded(head.as_bytes()), (expected, true));
        }
        for code in ["099", "101", "200", "204", "304"] {
            assert!(!forwarded(format!("HTTP/1.1 {code} a\r\n\r\n").as_bytes()).1, "{code}");
        }
    }

    #[test]
    fn empty_lines_before_it_and_lines_with_lf_alone_change_nothing() {
        let head = "HTTP/1.1 200 OK\r\nConnection: a\r\nA: b\r\nC: d\r\n\r\n";
        let expected = (format!("HTTP/1.1 200 OK\r\nC: d\r\n{END}"), false);
        for before in ["", "\r\n", "\r\n\r\n\n", "\n"] {
            let head = format!("{before}{head}");
            assert_eq!(forwarded(head.as_bytes()), expected);
            assert_eq!(forwarded(head.replace("\r\n", "\n").as_bytes()), expected);
        }
    }

    #[test]
    fn no_truncation_is_complete() {
        let head = b"\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\nA:\r\n\r\n";
        for length in 0..head.len() {
            assert!(ResponseHead::read(&head[..length]).unwrap().is_none(), "cut to {length}");
        }
    }

    #[test]
    fn what_is_no_response_is_malformed() {
        for head in [
            b"HTTP/2.0 200 OK\r\n\r\n".as_slice(),
            b"HTTP/1.2 200 OK\r\n\r\n",
            b"ICY 200 OK\r\n\r\n",
            b"SSH-2.0-OpenSSH\r\n",
            b"<html>\r\n",
            b"HTTP/1.1 20 OK\r\n\r\n",
            b"HTTP/1.1  200 OK\r\n\r\n",
            b"HTTP/1.1 2000\r\n\r\n",
            b"HTTP/1.1 200 \0\r\n\r\n",
            b"HTTP/1.1 200 O\rK\r\n\r\n",
            b"HTTP/1.1 200 OK\r\n A: b\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nA : b\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nA: b\rc\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nA: \0\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nA\r\n\r\n",
        ] {
            let error = read(head).unwrap_err();
            assert!(matches!(error, Error::Malformed(_)), "{}", head.escape_ascii());
        }
    }

    #[test]
    fn a_head_has_16_kib_and_128_fields_at_the_most() {
        let of = |length: usize| {
            let frame = "HTTP/1.1 200 OK\r\nA: \r\n\r\n".len();
            format!("HTTP/1.1 200 OK\r\nA: {}\r\n\r\n", "b".repeat(length - frame)).into_bytes()
        };
        let (most, longest) = (head::LONGEST, of(head::LONGEST));
        assert_eq!(ResponseHead::read(&longest).unwrap().unwrap().length, most);
        assert_eq!(read(&longest).unwrap().unwrap().length, most);
        assert!(ResponseHead::read(&longest[..most - 1]).unwrap().is_none());
        let too_long = of(most + 1);
        assert!(matches!(read(&too_long), Err(Error::TooLarge)));
        assert!(matches!(ResponseHead::read(&too_long[..most]), Err(Error::TooLarge)));
        let with = |fields: usize| format!("HTTP/1.1 200 OK\r\n{}\r\n", "A: b\r\n".repeat(fields));
        assert!(read(with(128)).unwrap().is_some());
        assert!(matches!(read(with(129)), Err(Error::TooLarge)));
    }
}
