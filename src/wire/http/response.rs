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
        // What `httparse` skips: empty lines in front of the head.
        let octets = octets[..length].trim_ascii_start();
        let version = parsed.version.unwrap_or(1);
        let is_interim = parsed.code.is_some_and(|code| (100..200).contains(&code) && code != 101);
        let line = octets.split_inclusive(|octet| *octet == b'\n').next().unwrap_or_default();
        let mut forwarded = [line.trim_ascii_end(), b"\r\n"].concat();
        append_end_to_end(octets, parsed.headers, &mut forwarded);
        if is_interim {
            forwarded.extend(b"\r\n");
        } else {
            append_end(version, &mut forwarded);
        }
        Ok(Some(ResponseHead { forwarded, is_interim, length }))
    }
}
