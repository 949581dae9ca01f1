//! The lines of a file that people edit, and the errors about them.

/// Bad lines that are named in one error.
pub(super) const MOST_NAMED: usize = 10;

/// What some editors put at the start of a file in UTF-8.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Gives `take` each line of `file` with its number, from 1. A byte order mark at the start is no
/// part of the first line, and lines may end in CR LF.
///
/// # Errors
///
/// `FILE:LINE: ` and the error of `take` for up to ten lines, one below the other.
pub(super) fn each(
    bytes: &[u8],
    file: &str,
    mut take: impl FnMut(u32, &[u8]) -> Result<(), String>,
) -> Result<(), String> {
    let bytes = bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(bytes);
    let mut bad = Vec::new();
    for (number, line) in (1..).zip(bytes.split(|byte| *byte == b'\n')) {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if let Err(error) = take(number, line) {
            bad.push(format!("{file}:{number}: {error}"));
        }
        if bad.len() == MOST_NAMED {
            break;
        }
    }
    if bad.is_empty() { Ok(()) } else { Err(bad.join("\n")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(bytes: &[u8]) -> Vec<(u32, Vec<u8>)> {
        let mut lines = Vec::new();
        each(bytes, "file", |number, line| {
            lines.push((number, line.to_vec()));
            Ok(())
        })
        .unwrap();
        lines
    }

    #[test]
    fn lines_have_their_numbers_and_no_ends() {
        let expected = [(1, b"a\r".to_vec()), (2, b" b".to_vec()), (3, b"".to_vec())];
        assert_eq!(lines(b"a\r\r\n b\n"), expected);
    }

    #[test]
    fn a_byte_order_mark_is_skipped_at_the_start_alone() {
        assert_eq!(lines(b"\xef\xbb\xbfa\r\n\xef\xbb\xbfb")[0].1, b"a");
        assert_eq!(lines(b"\xef\xbb\xbfa\r\n\xef\xbb\xbfb")[1].1, b"\xef\xbb\xbfb");
        assert_eq!(lines(b"\xef\xbb\xbf"), [(1, vec![])]);
    }

    #[test]
    fn ten_bad_lines_are_named_and_no_more() {
        let error = each(&b"x\n".repeat(1000), "file", |_, _| Err("bad".into())).unwrap_err();
        assert_eq!(error.lines().count(), 10);
        assert_eq!(error.lines().last(), Some("file:10: bad"));
    }
}
