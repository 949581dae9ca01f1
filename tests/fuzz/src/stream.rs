//! A stream in memory that gives its octets in pieces.

use std::fmt::{Debug, Display};
use std::io::{self, ErrorKind, Read, Write};

/// Gives `octets` in pieces of at most the sizes that it is told, in turn; 0 is an interruption.
pub(crate) struct Stream<'a> {
    octets: &'a [u8],
    taken: usize,
    sizes: &'a [u8],
    turn: usize,
    pub(crate) written: Vec<u8>,
}

impl<'a> Stream<'a> {
    pub(crate) fn new(octets: &'a [u8], sizes: &'a [u8]) -> Self {
        Stream { octets, taken: 0, sizes, turn: 0, written: Vec::new() }
    }

    /// How many octets have been taken.
    pub(crate) fn taken(&self) -> usize {
        self.taken
    }
}

impl Read for Stream<'_> {
    fn read(&mut self, place: &mut [u8]) -> io::Result<usize> {
        let size = self.sizes.get(self.turn % self.sizes.len().max(1)).copied().unwrap_or(u8::MAX);
        self.turn += 1;
        // An interruption after another would go on for ever where every size is 0.
        if size == 0 && self.turn % 2 == 1 {
            return Err(ErrorKind::Interrupted.into());
        }
        let rest = &self.octets[self.taken..];
        let length = rest.len().min(place.len()).min(usize::from(size).max(1));
        place[..length].copy_from_slice(&rest[..length]);
        self.taken += length;
        Ok(length)
    }
}

impl Write for Stream<'_> {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.written.write(octets)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Reads a message from whole octets and octet by octet, which has to come to the same, and says how
/// many octets it has taken. What an error shows has to be printable.
pub(crate) fn read<'a, T: Debug, E: Debug + Display>(
    octets: &'a [u8],
    read: impl Fn(&mut Stream<'a>) -> Result<T, E>,
) -> (Result<T, E>, usize) {
    let mut whole = Stream::new(octets, &[]);
    let result = read(&mut whole);
    let mut single = Stream::new(octets, &[1, 0]);
    let again = read(&mut single);
    assert_eq!(format!("{result:?}"), format!("{again:?}"), "octet by octet");
    assert_eq!(whole.taken(), single.taken(), "{result:?}");
    if let Err(error) = &result {
        let shown = error.to_string();
        assert!(is_printable(&shown), "{shown:?}");
    }
    (result, whole.taken())
}

/// Whether a text can be logged as it is.
pub(crate) fn is_printable(text: &str) -> bool {
    text.bytes().all(|octet| octet == b' ' || octet.is_ascii_graphic())
}
