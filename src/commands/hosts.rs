//! The hosts file (`hosts(5)`): in each line an address, its names, and perhaps a comment.

use std::fs::File;
use std::io::{self, BufRead, BufReader};

const FILE: &str = "/etc/hosts";

/// The hosts file of this machine.
///
/// # Errors
///
/// The error of `open(2)`.
pub(super) fn open() -> io::Result<BufReader<File>> {
    Ok(BufReader::new(File::open(FILE)?))
}

/// The first that `pick` makes of a line's address and names.
///
/// # Errors
///
/// Those of reading.
pub(super) fn find<T>(
    mut hosts: impl BufRead,
    mut pick: impl FnMut(&[u8], &mut dyn Iterator<Item = &[u8]>) -> Option<T>,
) -> io::Result<Option<T>> {
    let mut line = Vec::new();
    while hosts.read_until(b'\n', &mut line)? > 0 {
        let entry = line.split(|&byte| byte == b'#').next().unwrap_or_default();
        let mut words = entry.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
        if let Some(found) = words.next().and_then(|address| pick(address, &mut words)) {
            return Ok(Some(found));
        }
        line.clear();
    }
    Ok(None)
}
