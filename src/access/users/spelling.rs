//! How a user name is spelled in the log and in rules. A client may send any octets as its name;
//! spelled, they are one word of visible ASCII that nothing else is spelled as.

const HEX: [char; 16] =
    ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f'];

/// Spells a name. Octets that are no visible ASCII become `\xNN`, and so does a quotation mark; a
/// backslash is doubled. The name `-` becomes `\x2d`: a mere `-` means no name at all.
#[must_use]
pub fn spell(name: &[u8]) -> String {
    let mut spelled = String::with_capacity(name.len());
    for &octet in name {
        match octet {
            b'\\' => spelled.push_str(r"\\"),
            b'"' => spelled.push_str(r"\x22"),
            b'-' if name.len() == 1 => spelled.push_str(r"\x2d"),
            b'!'..=b'~' => spelled.push(char::from(octet)),
            _ => {
                spelled.push_str(r"\x");
                spelled.extend([octet >> 4, octet & 0x0f].map(|digit| HEX[usize::from(digit)]));
            }
        }
    }
    spelled
}

/// Reads what [`spell`] has written; octets that it would have escaped may stand for themselves.
/// `None` when a backslash is followed by something else than `\` or `xNN`.
#[must_use]
pub fn read(spelled: &[u8]) -> Option<Vec<u8>> {
    let mut name = Vec::with_capacity(spelled.len());
    let mut rest = spelled;
    loop {
        rest = match rest {
            [] => return Some(name),
            [b'\\', b'\\', rest @ ..] => {
                name.push(b'\\');
                rest
            }
            [b'\\', b'x', high, low, rest @ ..] => {
                let digit = |octet: u8| char::from(octet).to_digit(16);
                name.push(u8::try_from(digit(*high)? << 4 | digit(*low)?).ok()?);
                rest
            }
            [b'\\', ..] => return None,
            [octet, rest @ ..] => {
                name.push(*octet);
                rest
            }
        };
    }
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
    fn every_octet_is_read_back() {
        let all: Vec<u8> = (0..=255).collect();
        let spelled = spell(&all);
        assert!(spelled.bytes().all(|octet| octet.is_ascii_graphic()));
        assert_eq!(read(spelled.as_bytes()).unwrap(), all);
    }

    #[test]
    fn a_lone_backslash_is_refused() {
        for spelled in [r"HOME\alice", r"a\", r"a\x", r"a\x2", r"a\xg0", r"a\x+1"] {
            assert_eq!(read(spelled.as_bytes()), None, "{spelled}");
        }
    }
}
