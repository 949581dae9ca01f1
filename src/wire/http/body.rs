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
                self.size = self.size << 4 | u64::from(digit.unwrap_or_default());
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
            (Next::TrailerLine | Next::Trailer, _) if is_text => Next::Trailer,
            (Next::Trailer, b'\r') => Next::TrailerLf,
            (Next::TrailerLf, b'\n') => Next::TrailerLine,
            (Next::LastLf, b'\n') => Next::Nothing,
            _ => return Err("a chunk of the body is none".into()),
        };
        Ok(())
    }
}
