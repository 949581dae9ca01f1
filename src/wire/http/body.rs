//! Where the body of a request ends (RFC 9112 section 6).

use super::error::Error;

/// The most octets of a line, or of a trailer section, in a chunked body.
const LONGEST_LINE: u16 = 8 * 1024;

/// A chunk's size has at most so many digits: more do not fit into 64 bits.
const MOST_DIGITS: u8 = 16;

/// How far a body has come. It is given what arrives, and says how much of that belongs to the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// So many octets are left.
    Length(u64),
    /// Chunks, of which this comes next.
    Chunked(Chunk),
}

/// What comes next in a chunked body (RFC 9112 section 7.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chunk {
    /// The next digit of a size.
    Size {
        /// The size as far as it is known.
        size: u64,
        /// The digits that have come.
        digits: u8,
    },
    /// The rest of a chunk extension, after so many octets.
    Extension {
        /// The size of the chunk.
        size: u64,
        /// The octets that have come.
        length: u16,
    },
    /// The LF behind a size.
    SizeEnd(u64),
    /// So many octets of data.
    Data(u64),
    /// The CR and the LF behind data.
    DataEnd(u8),
    /// A line of the trailer section, after so many octets of all its lines.
    Trailer {
        /// The octets that have come.
        length: u16,
        /// Nothing of this line has come.
        is_empty: bool,
    },
    /// The LF of a line of the trailer section.
    TrailerEnd {
        /// The octets that have come.
        length: u16,
        /// The line is empty, and ends the body.
        is_empty: bool,
    },
    /// Nothing more.
    End,
}

impl Body {
    /// No body.
    pub const NONE: Body = Body::Length(0);

    /// A chunked body that has not begun.
    pub const CHUNKED: Body = Body::Chunked(Chunk::Size { size: 0, digits: 0 });

    /// Whether all of it has come.
    pub fn is_complete(&self) -> bool {
        matches!(self, Body::Length(0) | Body::Chunked(Chunk::End))
    }

    /// Takes what has arrived, and says how much of it belongs to the body.
    pub fn take(&mut self, octets: &[u8]) -> Result<usize, Error> {
        let mut rest = octets;
        while let (false, Some(&next)) = (self.is_complete(), rest.first()) {
            let taken = match self {
                Body::Length(left) | Body::Chunked(Chunk::Data(left)) => {
                    let most = usize::try_from(*left).unwrap_or(usize::MAX).min(rest.len());
                    *left -= most as u64;
                    most
                }
                Body::Chunked(chunk) => {
                    *chunk = chunk.after(next)?;
                    1
                }
            };
            if *self == Body::Chunked(Chunk::Data(0)) {
                *self = Body::Chunked(Chunk::DataEnd(b'\r'));
            }
            rest = &rest[taken..];
        }
        Ok(octets.len() - rest.len())
    }
}

impl Chunk {
    /// What comes next after `octet`.
    fn after(self, octet: u8) -> Result<Self, Error> {
        match (self, octet) {
            (Chunk::Size { size, digits }, _)
                if octet.is_ascii_hexdigit() && digits < MOST_DIGITS =>
            {
                let digit = char::from(octet).to_digit(16).unwrap_or_default();
                Ok(Chunk::Size { size: size << 4 | u64::from(digit), digits: digits + 1 })
            }
            (Chunk::Size { size, digits: 1.. } | Chunk::Extension { size, .. }, b'\r') => {
                Ok(Chunk::SizeEnd(size))
            }
            (Chunk::Size { size, digits: 1.. }, b';') => Ok(Chunk::Extension { size, length: 0 }),
            (Chunk::Extension { size, length }, _) if is_text(octet) && length < LONGEST_LINE => {
                Ok(Chunk::Extension { size, length: length + 1 })
            }
            (Chunk::SizeEnd(0), b'\n') => Ok(Chunk::Trailer { length: 0, is_empty: true }),
            (Chunk::SizeEnd(size), b'\n') => Ok(Chunk::Data(size)),
            (Chunk::DataEnd(b'\r'), b'\r') => Ok(Chunk::DataEnd(b'\n')),
            (Chunk::DataEnd(b'\n'), b'\n') => Ok(Chunk::Size { size: 0, digits: 0 }),
            (Chunk::Trailer { length, is_empty }, b'\r') => {
                Ok(Chunk::TrailerEnd { length, is_empty })
            }
            (Chunk::Trailer { length, .. }, _) if is_text(octet) && length < LONGEST_LINE => {
                Ok(Chunk::Trailer { length: length + 1, is_empty: false })
            }
            (Chunk::TrailerEnd { is_empty: true, .. }, b'\n') => Ok(Chunk::End),
            (Chunk::TrailerEnd { length, .. }, b'\n') => {
                Ok(Chunk::Trailer { length, is_empty: true })
            }
            _ => Err(Error::Malformed("a chunk of the body is none")),
        }
    }
}

/// Whether an octet may be in a line: no control character but the tabulator.
fn is_text(octet: u8) -> bool {
    octet == b'\t' || !octet.is_ascii_control()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A chunked body with all that there can be in one.
    const CHUNKS: &[u8] = b"5\r\nhello\r\n0A;n=\"v;\xff\";\t x\r\n0\r\n\r\n56789\r\n\
        000;\r\nExpires: a\r\n  b\xff:\t\r\n\r\n";

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
        for size in ["ffffffffffffffff", "FFFFFFFFFFFFFFFF"] {
            let octets = format!("{size}\r\nabc");
            let (_, body) = take(Body::CHUNKED, octets.as_bytes()).unwrap();
            assert_eq!(body, Body::Chunked(Chunk::Data(largest - 3)));
        }
        let octets = b"0000000000000001\r\na\r\n0000000000000000\r\n\r\n";
        assert!(take(Body::CHUNKED, octets).unwrap().1.is_complete());
        is_malformed(b"10000000000000000");
        is_malformed(b"00000000000000001");
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
    fn a_trailer_section_has_lines_that_end_with_cr_lf() {
        for octets in [
            b"0\r\n\n".as_slice(),
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
    fn an_extension_and_a_trailer_section_have_8_kib_at_the_most() {
        let most = usize::from(LONGEST_LINE);
        let extension = |length: usize| format!("0;{}\r\n\r\n", "x".repeat(length)).into_bytes();
        assert!(take(Body::CHUNKED, &extension(most)).unwrap().1.is_complete());
        is_malformed(extension(most + 1).strip_suffix(b"\r\n\r\n").unwrap());
        let line = "a".repeat(most / 4);
        let trailer = format!("0\r\n{}", format!("{line}\r\n").repeat(4));
        let whole = format!("{trailer}\r\n");
        assert!(take(Body::CHUNKED, whole.as_bytes()).unwrap().1.is_complete());
        is_malformed(format!("{trailer}a").as_bytes());
    }
}
