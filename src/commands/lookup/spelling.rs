//! How a client's name is put to the system's resolver.
//!
//! The resolver completes a name that it does not find with the search list of `resolv.conf`:
//! `secret.corp` may become `secret.corp.lan`, which a rule about that name has not seen. So a name
//! with a dot is asked for with a dot at its end, which says that it is complete. Names without a
//! dot (`nas`) are completed, as their users expect.

use std::borrow::Cow;
use std::io::{self, BufRead};

use crate::commands::hosts;

/// The spelling under which a name is remembered: two names with the same key have the same
/// addresses.
pub(super) fn key(name: &str) -> String {
    let name = name.to_ascii_lowercase();
    match name.strip_suffix('.') {
        Some(rest) if rest.contains('.') => rest.to_owned(),
        Some(_) | None => name,
    }
}

/// What the resolver is asked for the name with this key.
pub(super) fn question(key: &str) -> Cow<'_, str> {
    question_beside(key, hosts::open)
}

fn question_beside<R: BufRead>(key: &str, hosts: impl FnOnce() -> io::Result<R>) -> Cow<'_, str> {
    // A name of the hosts file is found only as it stands, without a dot at the end. A colon is in no
    // name, but in an address with a zone, such as `fe80::1%eth0.5`.
    let is_complete = key.contains('.') && !key.ends_with('.') && !key.contains(':');
    if !is_complete || hosts().and_then(|hosts| names(hosts, key)).unwrap_or(false) {
        return Cow::Borrowed(key);
    }
    Cow::Owned(format!("{key}."))
}

/// Whether a line of `hosts` has this name.
fn names(hosts: impl BufRead, name: &str) -> io::Result<bool> {
    let is_it = |word: &[u8]| word.eq_ignore_ascii_case(name.as_bytes());
    let found = hosts::find(hosts, |_, mut names| Iterator::any(&mut names, is_it).then_some(()));
    Ok(found?.is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(name: &str) -> String {
        let hosts: &[u8] = b"127.0.0.1 localhost\n# 192.0.2.1 a.comment\n\
            192.0.2.2\tnas.home.lan nas # not.this\n\n192.0.2.3 Printer.home.lan\r\n";
        question_beside(&key(name), || Ok(hosts)).into_owned()
    }

    #[test]
    fn the_search_list_completes_no_name_with_a_dot() {
        for (name, question) in [
            ("secret.corp", "secret.corp."),
            ("Secret.Corp.", "secret.corp."),
            ("1.2.3.999", "1.2.3.999."),
            ("nas", "nas"),
            ("nas.", "nas."),
            ("fe80::1%eth0.5", "fe80::1%eth0.5"),
        ] {
            assert_eq!(asked(name), question);
        }
    }

    #[test]
    fn names_in_the_hosts_file_are_found_there() {
        for name in ["nas.home.lan", "NAS.home.lan.", "printer.home.lan"] {
            assert_eq!(asked(name), key(name), "the resolver finds it without a dot at the end");
        }
        for name in ["a.comment", "not.this", "192.0.2.2", "home.lan"] {
            assert!(asked(name).ends_with('.'), "{name}");
        }
        let missing = || Err::<&[u8], _>(io::ErrorKind::NotFound.into());
        assert_eq!(question_beside("nas.home.lan", missing), "nas.home.lan.");
    }
}
