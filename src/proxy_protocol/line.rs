//! A version 1 header: a line of text (section 2.1).

use std::io::Read;
use std::net::IpAddr;
use std::str;

use byteorder::ReadBytesExt;

use super::{Error, Header, client};

/// What it begins with.
pub(super) const WORD: &[u8] = b"PROXY ";

/// The octets of the longest one, with its line end.
pub(super) const LONGEST: usize = 107;

/// Reads the rest of a version 1 line.
pub(super) fn read(reader: &mut impl Read) -> Result<Header, Error> {
    let mut line = [0; LONGEST - WORD.len()];
    for length in 1..=line.len() {
        line[length - 1] = reader.read_u8()?;
        if let [text @ .., b'\r', b'\n'] = &line[..length] {
            let text = str::from_utf8(text).map_err(|_| Error::Line)?;
            return parse(text).ok_or(Error::Line);
        }
    }
    Err(Error::Line)
}

/// Takes what a version 1 line has behind its first word.
fn parse(text: &str) -> Option<Header> {
    let mut words = text.split(' ');
    let is_ipv4 = match words.next()? {
        "TCP4" => true,
        "TCP6" => false,
        // What follows has no meaning (section 2.1).
        "UNKNOWN" => return Some(Header::Balancer),
        _ => return None,
    };
    let address = |word: &str| word.parse::<IpAddr>().ok().filter(|ip| ip.is_ipv4() == is_ipv4);
    let source = address(words.next()?)?;
    address(words.next()?)?;
    let port = port(words.next()?)?;
    self::port(words.next()?)?;
    words.next().is_none().then(|| client(source, port))
}

/// A port in decimal, without a sign or a leading zero.
fn port(word: &str) -> Option<u16> {
    let is_plain = word.bytes().all(|octet| octet.is_ascii_digit())
        && (word.len() == 1 || !word.starts_with('0'));
    if is_plain { word.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(octets: &[u8]) -> Error {
        let mut stream = octets;
        let header = Header::read_from(&mut stream);
        header.expect_err(&format!("'{}' is taken", octets.escape_ascii()))
    }

    #[test]
    fn a_line_that_is_not_as_the_protocol_says_is_refused() {
        for line in [
            "PROXY TCP4 192.0.2.7 198.51.100.1 50000\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 50000 1080 1\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 50000 1080 \r\n",
            "PROXY TCP4  192.0.2.7 198.51.100.1 50000 1080\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 +50000 1080\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 050000 1080\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 50000 65536\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1  1080\r\n",
            "PROXY TCP4 192.0.2.07 198.51.100.1 50000 1080\r\n",
            "PROXY TCP4 192.0.2 198.51.100.1 50000 1080\r\n",
            "PROXY TCP4 2001:db8::7 2001:db8::1 50000 1080\r\n",
            "PROXY TCP6 192.0.2.7 198.51.100.1 50000 1080\r\n",
            "PROXY TCP6 fe80::1%eth0 2001:db8::1 50000 1080\r\n",
            "PROXY TCP6 [2001:db8::7] 2001:db8::1 50000 1080\r\n",
            "PROXY UDP4 192.0.2.7 198.51.100.1 50000 1080\r\n",
            "PROXY UNIX /a /b\r\n",
            "PROXY tcp4 192.0.2.7 198.51.100.1 50000 1080\r\n",
            "PROXY UNKNOWNS\r\n",
            "PROXY \r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 50000 1080\r\r\n",
        ] {
            assert_eq!(refusal(line.as_bytes()), Error::Line, "{line:?}");
        }
        assert_eq!(refusal(b"PROXY TCP4 192.0.2.7 \xff 50000 1080\r\n"), Error::Line);
    }

    #[test]
    fn a_line_without_an_end_is_given_up() {
        let mut stream = [WORD, &[b'x'; 200]].concat();
        assert_eq!(refusal(&stream), Error::Line);
        // A line feed alone is no end of a line.
        stream[50] = b'\n';
        assert_eq!(refusal(&stream), Error::Line);
        let mut rest = stream.as_slice();
        let _ = Header::read_from(&mut rest);
        assert_eq!(stream.len() - rest.len(), LONGEST);
    }
}
