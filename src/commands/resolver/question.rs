//! What is looked up, and how it is put to the system's resolver, which completes a name by the search
//! list of `resolv.conf` as it does for every program, unless there is a dot at the name's end.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};

use super::answer::Found;
use crate::system::hosts::Hosts;
use crate::wire::address::{Name, is_onion};

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
                let mut addresses = resolve(as_asked(name, Hosts::of_this_machine()))?;
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
fn as_asked<'a>(name: &'a str, hosts: &Hosts) -> &'a str {
    let relative = name.strip_suffix('.').filter(|relative| relative.contains('.'));
    relative.filter(|relative| hosts.lists(relative)).unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the system's resolver is asked where this is the hosts file.
    fn asked(name: &str, hosts: &str) -> String {
        let file = format!("tabi-question-{}-{name}", std::process::id());
        let file = std::env::temp_dir().join(file);
        std::fs::write(&file, hosts).unwrap();
        let asked = match Question::from(&Name::new(name.into()).unwrap()) {
            Question::Addresses(name) => as_asked(&name, &Hosts::in_file(file.clone())).into(),
            Question::Name(ip) => panic!("{ip}"),
        };
        std::fs::remove_file(file).unwrap();
        asked
    }

    #[test]
    fn a_name_is_asked_for_as_it_stands() {
        let hosts = "192.0.2.2 nas\n";
        for name in ["secret.corp", "secret.corp.", "1.2.3.999", "nas", "nas.", "fe80::1%eth0.5"] {
            assert_eq!(asked(name, hosts), name);
        }
        assert_eq!(asked("Secret.Corp.", hosts), "secret.corp.");
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
        let hosts = "192.0.2.2\tnas.home.lan nas # not.this\n192.0.2.3 Printer.home.lan\r\n";
        assert_eq!(asked("NAS.home.lan.", hosts), "nas.home.lan");
        assert_eq!(asked("printer.home.lan.", hosts), "printer.home.lan");
        for name in ["not.this.", "192.0.2.2.", "home.lan."] {
            assert_eq!(asked(name, hosts), name);
        }
        assert_eq!(asked("nas.home.lan.", ""), "nas.home.lan.");
    }
}
