//! How a user name is written in the log and in rules. A client may send any bytes as its name; each
//! name has one spelling, a word of visible ASCII.

use std::fmt::Write;

/// Spells a name. A byte that is not visible ASCII becomes `\xNN`, and so does a quotation mark; a
/// backslash is doubled. The name `-` becomes `\x2d`, since the log writes `-` for no name.
pub fn spell(name: &[u8]) -> String {
    let mut spelled = String::with_capacity(name.len());
    for &byte in name {
        match byte {
            b'\\' => spelled.push_str(r"\\"),
            b'!'..=b'~' if byte != b'"' && name != b"-" => spelled.push(char::from(byte)),
            _ => write!(spelled, r"\x{byte:02x}").expect("memory takes every name"),
        }
    }
    spelled
}

/// Reads what [`spell`] has written; a byte that it escapes may also stand for itself. `None` if a
/// backslash is not followed by `\` or `xNN`.
pub(in crate::access) fn read(spelled: &[u8]) -> Option<Vec<u8>> {
    let mut name = Vec::with_capacity(spelled.len());
    let mut rest = spelled.iter().copied();
    while let Some(byte) = rest.next() {
        name.push(match byte {
            b'\\' => match rest.next()? {
                b'\\' => b'\\',
                b'x' => hexadecimal(&mut rest)?,
                _ => return None,
            },
            _ => byte,
        });
    }
    Some(name)
}

/// The byte that the next two hexadecimal digits stand for.
pub(in crate::access) fn hexadecimal(digits: &mut impl Iterator<Item = u8>) -> Option<u8> {
    let mut digit = || char::from(digits.next()?).to_digit(16);
    u8::try_from((digit()? << 4) | digit()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_spelled_as_one_word_of_visible_ascii() {
        for (name, spelled) in [
            (b"alice".as_slice(), "alice"),
            (b"alice@example.org", "alice@example.org"),
            (b"alice smith", r"alice\x20smith"),
            (b"HOME\\alice", r"HOME\\alice"),
            (b"a\r\nb\x1b\"", r"a\x0d\x0ab\x1b\x22"),
            (b"ren\xc3\xa9e", r"ren\xc3\xa9e"),
            (b"-", r"\x2d"),
            (b"--", "--"),
            (b"", ""),
        ] {
            assert_eq!(spell(name), spelled);
            assert_eq!(read(spelled.as_bytes()).unwrap(), name, "{spelled}");
        }
    }

    #[test]
    fn every_byte_is_read_back() {
        let all: Vec<u8> = (0..=255).collect();
        let spelled = spell(&all);
        assert!(spelled.bytes().all(|byte| byte.is_ascii_graphic()));
        assert_eq!(read(spelled.as_bytes()).unwrap(), all);
    }

    #[test]
    fn a_lone_backslash_is_refused() {
        for spelled in [r"HOME\alice", r"a\", r"a\x", r"a\x2", r"a\xg0", r"a\x+1"] {
            assert_eq!(read(spelled.as_bytes()), None, "{spelled}");
        }
    }
}
