//! Where the body of a request ends (RFC 9112 section 6).

use crate::wire::error::Error;

/// The most octets around the data of a chunk, and around the trailer section.
const MOST_AROUND: u16 = 8 * 1024;

/// How far a body has come. It is given what arrives, and says how much of that belongs to the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// So many octets are left.
    Length(u64),
    /// It comes in chunks (RFC 9112 section 7.1).
    Chunked(Chunk),
}

/// A chunk as far as it has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk {
    next: Next,
    /// The octets of data that are left.
    size: u64,
    /// The octets around them that have come.
    around: u16,
}

/// What comes next in a chunked body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    FirstDigit,
    Digit,
    Extension,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    TrailerLine,
    TrailerName,
    Trailer,
    TrailerLf,
    LastLf,
    Nothing,
}

impl Body {
    /// No body.
    pub const NONE: Body = Body::Length(0);

    /// A chunked body that has not begun.
    pub const CHUNKED: Body = Body::Chunked(Chunk { next: Next::FirstDigit, size: 0, around: 0 });

    /// Whether all of it has come.
    pub fn is_complete(&self) -> bool {
        matches!(self, Body::Length(0) | Body::Chunked(Chunk { next: Next::Nothing, .. }))
    }

    /// Takes what has arrived, and says how much of it belongs to the body.
    pub fn take(&mut self, octets: &[u8]) -> Result<usize, Error> {
        let mut rest = octets;
        while let (false, Some(&next)) = (self.is_complete(), rest.first()) {
            let taken = match self {
                Body::Length(left) | Body::Chunked(Chunk { next: Next::Data, size: left, .. }) => {
                    let most = usize::try_from(*left).unwrap_or(usize::MAX).min(rest.len());
                    *left -= most as u64;
                    most
                }
                Body::Chunked(chunk) => {
                    chunk.take(next)?;
                    1
                }
            };
            if let Body::Chunked(Chunk { next: next @ Next::Data, size: 0, .. }) = self {
                *next = Next::DataCr;
            }
            rest = &rest[taken..];
        }
        Ok(octets.len() - rest.len())
    }
}

impl Chunk {
    /// Takes an octet that is no data.
    fn take(&mut self, octet: u8) -> Result<(), Error> {
        let is_text = octet == b'\t' || !octet.is_ascii_control();
        let digit = char::from(octet).to_digit(16);
        self.around += 1;
        self.next = match (self.next, octet) {
            _ if self.around > MOST_AROUND => return Err(Error::TooLarge),
            (Next::FirstDigit | Next::Digit, _) if digit.is_some() && self.size >> 60 == 0 => {
                self.size = (self.size << 4) | u64::from(digit.unwrap_or_default());
                Next::Digit
            }
            (Next::Digit, b';') => Next::Extension,
            (Next::Digit | Next::Extension, b'\r') => Next::SizeLf,
            (Next::Extension, _) if is_text => Next::Extension,
            (Next::SizeLf, b'\n') if self.size == 0 => Next::TrailerLine,
            (Next::SizeLf, b'\n') => Next::Data,
            (Next::DataCr, b'\r') => Next::DataLf,
            (Next::DataLf, b'\n') => {
                self.around = 0;
                Next::FirstDigit
            }
            (Next::TrailerLine, b'\r') => Next::LastLf,
            // Each line is a field: a server that knows no trailer section would take it for a request.
            (Next::TrailerName, b':') => Next::Trailer,
            (Next::TrailerLine | Next::TrailerName, b'!'..=b'9' | b';'..=b'~') => Next::TrailerName,
            (Next::Trailer, _) if is_text => Next::Trailer,
            (Next::Trailer, b'\r') => Next::TrailerLf,
            (Next::TrailerLf, b'\n') => Next::TrailerLine,
            (Next::LastLf, b'\n') => Next::Nothing,
            _ => return Err("a chunk of the body is none".into()),
        };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A chunked body with all that there can be in one.
    const CHUNKS: &[u8] = b"5\r\nhello\r\n0A;n=\"v;\xff\";\t x\r\n0\r\n\r\n56789\r\n\
        000;\r\nExpires: a\r\nb:\xff:\t\r\n\r\n";

    /// Takes a body in pieces of each size, which all come to the same: how much is its own, and how far it has
    /// come. `None` where it is malformed.
    fn take(body: Body, octets: &[u8]) -> Option<(usize, Body)> {
        let in_pieces = |size: usize| {
            let (mut body, mut taken) = (body, 0);
            for piece in octets.chunks(size) {
                let of_piece = body.take(piece).ok()?;
                assert!(of_piece == piece.len() || body.is_complete());
                taken += of_piece;
            }
            Some((taken, body))
        };
        let whole = in_pieces(octets.len().max(1));
        for size in 1..octets.len().min(64) {
            assert_eq!(in_pieces(size), whole, "{} by {size}", octets.escape_ascii());
        }
        whole
    }

    #[track_caller]
    fn is_malformed(octets: &[u8]) {
        assert_eq!(take(Body::CHUNKED, octets), None, "{}", octets.escape_ascii());
        // Up to the octet before there is nothing wrong.
        let before = &octets[..octets.len() - 1];
        let (taken, body) = take(Body::CHUNKED, before).expect("it is malformed before");
        assert!(taken == before.len() && !body.is_complete(), "{}", octets.escape_ascii());
    }

    #[test]
    fn takes_exactly_its_octets() {
        let behind = b"GET / HTTP/1.1\r\n\r\n";
        for (body, octets) in [
            (Body::NONE, b"".as_slice()),
            (Body::Length(1), b"5"),
            (Body::Length(6), b"\r\n\r\n\0\xff"),
            (Body::CHUNKED, b"0\r\n\r\n"),
            (Body::CHUNKED, CHUNKS),
        ] {
            let stream = [octets, behind].concat();
            let (taken, end) = take(body, &stream).unwrap();
            assert_eq!((taken, end.is_complete()), (octets.len(), true), "{body:?}");
            assert_eq!(take(end, behind), Some((0, end)));
        }
    }

    #[test]
    fn no_truncation_is_complete() {
        for (body, octets) in [(Body::Length(4), b"abcd".as_slice()), (Body::CHUNKED, CHUNKS)] {
            for length in 0..octets.len() {
                let (taken, cut) = take(body, &octets[..length]).unwrap();
                assert!(taken == length && !cut.is_complete(), "cut to {length}");
            }
        }
    }

    #[test]
    fn data_is_not_looked_at() {
        let data: Vec<u8> = (0..=0xff).collect();
        let octets = [b"100\r\n", &data[..], b"\r\n0\r\n\r\n"].concat();
        assert_eq!(take(Body::CHUNKED, &octets).unwrap().0, octets.len());
        assert_eq!(take(Body::Length(256), &data).unwrap().0, 256);
    }

    #[test]
    fn the_largest_sizes_are_no_others() {
        let largest = u64::MAX;
        assert_eq!(take(Body::Length(largest), b"abc"), Some((3, Body::Length(largest - 3))));
        for size in ["ffffffffffffffff", "00FFFFFFFFFFFFFFFF"] {
            let octets = format!("{size}\r\nabc");
            let Some((_, Body::Chunked(chunk))) = take(Body::CHUNKED, octets.as_bytes()) else {
                panic!("{size}");
            };
            assert_eq!((chunk.next, chunk.size), (Next::Data, largest - 3));
        }
        let octets = b"00000000000000001\r\na\r\n00000000000000000\r\n\r\n";
        assert!(take(Body::CHUNKED, octets).unwrap().1.is_complete());
        is_malformed(b"10000000000000000");
        is_malformed(b"0fffffffffffffffff");
    }

    #[test]
    fn what_two_readers_may_take_for_different_sizes_is_malformed() {
        for octets in [
            b"\r".as_slice(),
            b"\n",
            b";",
            b" ",
            b"+",
            b"-",
            b"0x",
            b"5 ",
            b"5\t",
            b"5_",
            b"g",
            b"\xb2",
            b"5\n",
            b"5\r\r",
            b"5\rh",
            b"5;a\n",
            b"5;a\0",
            b"5;a\x7f",
            b"5;\r ",
        ] {
            is_malformed(octets);
            is_malformed(&[b"1\r\na\r\n", octets].concat());
        }
    }

    #[test]
    fn data_that_is_longer_or_shorter_than_its_size_is_malformed() {
        for octets in [
            b"2\r\nabc".as_slice(),
            b"2\r\nab\n",
            b"2\r\nab\rc",
            b"2\r\nab\r\r",
            b"3\r\nab\r\n",
            b"4\r\nab\r\n0",
        ] {
            is_malformed(octets);
        }
    }

    #[test]
    fn a_trailer_section_has_fields_that_end_with_cr_lf() {
        for octets in [
            b"0\r\nGET ".as_slice(),
            b"0\r\nA\r",
            b"0\r\nA\t",
            b"0\r\nA\xff",
            b"0\r\n:",
            b"0\r\nA: b\r\n ",
            b"0\r\n\n",
            b"0\r\n\r\r",
            b"0\r\n\ra",
            b"0\r\nA: b\n",
            b"0\r\nA: b\rc",
            b"0\r\nA: \0",
            b"0\r\nA: \x7f",
            b"0\r\nA: b\r\n\n",
        ] {
            is_malformed(octets);
        }
    }

    #[test]
    fn what_is_around_the_data_of_a_chunk_has_8_kib_at_the_most() {
        let most = usize::from(MOST_AROUND);
        // Around each of these there is so much.
        let chunk = |around: usize| format!("1;{}\r\na\r\n", "x".repeat(around - 6));
        let end = |around: usize| format!("0;{}\r\n\r\n", "x".repeat(around - 6));
        let trailer = |around: usize| format!("0\r\nA: b\r\n{}:\r\n\r\n", "x".repeat(around - 14));
        for end in [end(most), trailer(most), format!("{}\r\n\r\n", "0".repeat(most - 4))] {
            let octets = format!("{}{}{end}", chunk(most), chunk(most));
            assert!(take(Body::CHUNKED, octets.as_bytes()).unwrap().1.is_complete());
        }
        for octets in [chunk(most + 1), end(most + 1), trailer(most + 1)] {
            is_malformed(octets.as_bytes());
            let mut body = Body::CHUNKED;
            assert!(matches!(body.take(octets.as_bytes()), Err(Error::TooLarge)));
        }
    }
}
