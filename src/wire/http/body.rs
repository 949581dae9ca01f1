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
