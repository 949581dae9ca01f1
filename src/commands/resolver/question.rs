//! What is looked up, and how it is put to the system's resolver, which completes a name by the search
//! list of `resolv.conf` as it does for every program, unless there is a dot at the name's end.

use std::fs::File;
use std::io::{self, BufRead, BufReader, ErrorKind};
use std::net::{IpAddr, SocketAddr};

use super::answer::Found;
use crate::socks5::{Name, is_onion};

const HOSTS: &str = "/etc/hosts";

/// Addresses of one name that are used. CONNECT dials 16 at the most.
const MAX_ADDRESSES: usize = 64;

/// What the system's resolver does: a name, as it is to be asked for, to its addresses.
pub(super) type ResolveFn = dyn Fn(&str) -> io::Result<Vec<SocketAddr>> + Send + Sync;

/// What is looked up. Two names that are the same here have the same addresses.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Question {
    /// The addresses of a name, in lower case.
    Addresses(Box<str>),
    /// The name of an address.
    Name(IpAddr),
}

impl From<&Name> for Question {
    fn from(name: &Name) -> Self {
        Question::Addresses(name.as_str().to_ascii_lowercase().into())
    }
}

impl Question {
    /// Asks the system, and `resolve` for addresses.
    pub(super) fn look_up(&self, resolve: &ResolveFn) -> io::Result<Found> {
        match self {
            Question::Addresses(name) if is_onion(name) => {
                Err(io::Error::other("no name server is asked for .onion (RFC 7686 section 2)"))
            }
            Question::Addresses(name) => {
                let hosts = || File::open(HOSTS).map(BufReader::new);
                let mut addresses = resolve(as_asked(name, hosts))?;
                addresses.truncate(MAX_ADDRESSES);
                if addresses.is_empty() {
                    return Err(ErrorKind::NotFound.into());
                }
                Ok(Found::Addresses(addresses.into()))
            }
            // As getnameinfo(3) finds it: from the hosts file, a name server, or whatever else this
            // machine has been told to ask.
            Question::Name(ip) => {
                let name = dns_lookup::lookup_addr(ip)?;
                // What it is instead may be long, and an error is remembered.
                let is_none = |_| io::Error::other("it has a name that is no host's");
                Name::new(name.into()).map(Found::Name).map_err(is_none)
            }
        }
    }
}

/// The name without the dot at its end where the hosts file has it: there it is found only so.
fn as_asked<R: BufRead>(name: &str, hosts: impl FnOnce() -> io::Result<R>) -> &str {
    let relative = name.strip_suffix('.').filter(|relative| relative.contains('.'));
    let in_hosts = |name: &&str| hosts().and_then(|hosts| has_name(hosts, name)).unwrap_or(false);
    relative.filter(in_hosts).unwrap_or(name)
}

/// Whether a line of `hosts` (hosts(5): an address, its names, perhaps a comment) has this name.
fn has_name(mut hosts: impl BufRead, name: &str) -> io::Result<bool> {
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
        match Question::from(&Name::new(name.into()).unwrap()) {
            Question::Addresses(name) => as_asked(&name, || Ok(hosts)).into(),
            Question::Name(ip) => panic!("{ip}"),
        }
    }

    #[test]
    fn a_name_is_asked_for_as_it_stands() {
        for name in ["secret.corp", "secret.corp.", "1.2.3.999", "nas", "nas.", "fe80::1%eth0.5"] {
            assert_eq!(asked(name), name);
        }
        assert_eq!(asked("Secret.Corp."), "secret.corp.");
    }

    #[test]
    fn no_name_server_hears_of_an_onion_service() {
        let nobody = |name: &str| panic!("{name} is asked for");
        for name in ["abc.onion", "www.ABC.Onion.", "onion.example"] {
            let question = Question::from(&Name::new(name.into()).unwrap());
            let answer = std::panic::catch_unwind(|| question.look_up(&nobody).is_err());
            assert_eq!(answer.is_err(), name == "onion.example", "{name}");
        }
    }

    #[test]
    fn absolute_names_in_the_hosts_file_are_found_there() {
        for (name, as_found) in
            [("NAS.home.lan.", "nas.home.lan"), ("printer.home.lan.", "printer.home.lan")]
        {
            assert_eq!(asked(name), as_found);
        }
        for name in ["a.comment.", "not.this.", "192.0.2.2.", "home.lan."] {
            assert_eq!(asked(name), name);
        }
        let missing = || Err::<&[u8], _>(io::ErrorKind::NotFound.into());
        assert_eq!(as_asked("nas.home.lan.", missing), "nas.home.lan.");
    }
}
