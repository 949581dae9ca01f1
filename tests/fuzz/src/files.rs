//! The files that people write, and the URL of an upstream.

use tabi::access::rules::RuleFile;
use tabi::access::upstream::Upstream;
use tabi::access::users::Passwords;

/// Lines that an error names at the most.
const MOST_NAMED: usize = 10;

/// An error names the file and the line of each bad line, and shows no control character.
fn check_told(told: &str, file: &str) {
    assert!(told.lines().count() <= MOST_NAMED, "{told}");
    for line in told.lines() {
        assert!(line.starts_with(&format!("{file}:")), "{line}");
        assert!(!line.contains(char::is_control), "{line:?}");
    }
}

fn count_lines(octets: &[u8]) -> usize {
    octets.split(|octet| *octet == b'\n').count()
}

pub(crate) fn upstream_url(octets: &[u8]) {
    let Ok(url) = std::str::from_utf8(octets) else { return };
    let Some(upstream) = Upstream::parse(url) else { return };
    let shown = upstream.to_string();
    assert!(!shown.contains(['@', '/', '%', '\\', ' ']), "{shown}");
    let again = Upstream::parse(&format!("socks5://{shown}")).expect(&shown);
    assert_eq!(again.address(), upstream.address());
    assert!(again.credentials().is_none());
    assert_eq!(upstream.credentials().is_some(), url.contains('@'));
    if let Some(credentials) = upstream.credentials() {
        let length = credentials.name.len();
        assert!((1..=255).contains(&length));
        assert_eq!(format!("{upstream:?}"), format!("Upstream({shown})"));
    }
}

pub(crate) fn rules_file(octets: &[u8]) {
    match RuleFile::parse(octets, "rules") {
        Ok(rules) => assert!(rules.count() <= count_lines(octets)),
        Err(told) => check_told(&told, "rules"),
    }
}

pub(crate) fn users_file(octets: &[u8]) {
    match Passwords::parse(octets, "users") {
        Ok(users) => assert!((1..=count_lines(octets)).contains(&users.count())),
        Err(told) => check_told(&told, "users"),
    }
}
