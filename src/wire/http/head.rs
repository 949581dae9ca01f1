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

/// Appends the lines of a head that go on, as they came: `fields` are what is in them.
pub(super) fn append_end_to_end(lines: &[u8], fields: &[Header<'_>], to: &mut Vec<u8>) {
    let lines = lines.split_inclusive(|octet| *octet == b'\n').skip(1);
    for (line, field) in lines.zip(fields) {
        let is = |name: &str| field.name.eq_ignore_ascii_case(name);
        let is_proxys =
            field.name.get(..PROXY.len()).is_some_and(|it| it.eq_ignore_ascii_case(PROXY));
        let mut named = words(fields, "connection");
        let is_named = named.any(|word| word.eq_ignore_ascii_case(field.name.as_bytes()));
        if !is_proxys && !is_named && !HOP_BY_HOP.iter().any(|name| is(name)) && !is("host") {
            to.extend(line.trim_ascii_end());
            to.extend(b"\r\n");
        }
    }
}

/// Appends what a proxy adds, and the end of the head.
pub(super) fn append_end(version: u8, to: &mut Vec<u8>) {
    to.extend(format!("Via: 1.{version} tabi\r\nConnection: close\r\n\r\n").as_bytes());
}
