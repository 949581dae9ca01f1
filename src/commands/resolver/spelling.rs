//! How a client's name is put to the system's resolver.
//!
//! The resolver completes a name that it does not find with the search list of `resolv.conf`:
//! `secret.corp` may become `secret.corp.lan`, which a rule about that name has not seen. So a name
//! with a dot is asked for with a dot at its end, which says that it is complete. Names without a
//! dot (`nas`) are completed, as their users expect.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::net::IpAddr;

const HOSTS: &str = "/etc/hosts";

/// What the key of an address begins with. No name has a space.
const NAME_OF: &str = "name of ";

/// The spelling under which a name is remembered: two names with the same key have the same
/// addresses.
pub(super) fn key(name: &str) -> String {
    let name = name.to_ascii_lowercase();
    match name.strip_suffix('.') {
        Some(rest) if rest.contains('.') => rest.to_owned(),
        Some(_) | None => name,
    }
}

/// The spelling under which the name of an address is remembered.
pub(super) fn key_of_address(ip: IpAddr) -> String {
    format!("{NAME_OF}{ip}")
}

/// The address whose name this key stands for, if it is one's.
pub(super) fn address(key: &str) -> Option<IpAddr> {
    key.strip_prefix(NAME_OF)?.parse().ok()
}

/// What the resolver is asked for the name with this key.
pub(super) fn question(key: &str) -> Cow<'_, str> {
    question_beside(key, || File::open(HOSTS).map(BufReader::new))
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

/// Whether a line of `hosts` (hosts(5): an address, its names, perhaps a comment) has this name.
fn names(mut hosts: impl BufRead, name: &str) -> io::Result<bool> {
    let mut line = Vec::new();
    while hosts.read_until(b'\n', &mut line)? > 0 {
        let entry = line.split(|&byte| byte == b'#').next().unwrap_or_default();
        let words = entry.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
        if words.skip(1).any(|word| word.eq_ignore_ascii_case(name.as_bytes())) {
            return Ok(true);
        }
        line.clear();
    }
    Ok(false)
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
    fn the_key_of_an_address_is_that_of_no_name() {
        for ip in ["192.0.2.1", "2001:db8::1"] {
            let ip: IpAddr = ip.parse().unwrap();
            assert_eq!(address(&key_of_address(ip)), Some(ip));
            assert_eq!(address(&key(&ip.to_string())), None);
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
