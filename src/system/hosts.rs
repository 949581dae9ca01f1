//! The names that this machine gives itself and others: its host name, and those of its hosts file.

use std::collections::HashSet;
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock};

use super::sync::Mutex;

const FILE: &str = "/etc/hosts";

static THIS_MACHINE: LazyLock<Hosts> = LazyLock::new(|| Hosts::in_file(FILE.into()));

/// The names that need no name server. The file is read again when it has changed.
#[derive(Debug)]
pub struct Hosts {
    file: PathBuf,
    latest: Mutex<Snapshot>,
}

/// What was in the file at one moment.
#[derive(Clone, Debug, Default)]
struct Snapshot {
    /// The file's number, length and time of change: `None` where there is no file.
    version: Option<[i128; 4]>,
    /// In lower case.
    names: Arc<HashSet<Box<str>>>,
}

impl Hosts {
    /// Those of this machine.
    pub fn of_this_machine() -> &'static Self {
        &THIS_MACHINE
    }

    /// The names of this file, and the host name.
    pub fn in_file(file: PathBuf) -> Self {
        Hosts { file, latest: Mutex::default() }
    }

    /// Whether this machine itself says what addresses `name` has.
    pub fn has(&self, name: &str) -> bool {
        is_host_name(name) || self.lists(name.trim_end_matches('.'))
    }

    /// Whether the file has `name`, as it stands but for its letter case.
    pub fn lists(&self, name: &str) -> bool {
        self.names().contains(&*name.to_ascii_lowercase())
    }

    /// The names of the file. Whoever finds that it has changed reads it, and waits for nobody.
    fn names(&self) -> Arc<HashSet<Box<str>>> {
        let version = fs::metadata(&self.file).ok().map(|found| version(&found));
        let latest = self.latest.lock().clone();
        if latest.version == version {
            return latest.names;
        }
        let names = Arc::new(names(&fs::read(&self.file).unwrap_or_default()));
        *self.latest.lock() = Snapshot { version, names: Arc::clone(&names) };
        names
    }
}

fn version(found: &Metadata) -> [i128; 4] {
    [found.ino().into(), found.len().into(), found.mtime().into(), found.mtime_nsec().into()]
}

/// The names in a hosts file (hosts(5): an address, its names, perhaps a comment).
fn names(file: &[u8]) -> HashSet<Box<str>> {
    let lines = file.split(|byte| *byte == b'\n');
    let entries = lines.filter_map(|line| line.split(|byte| *byte == b'#').next());
    let names = entries.flat_map(|entry| {
        entry.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()).skip(1)
    });
    names.map(|name| String::from_utf8_lossy(name).to_ascii_lowercase().into()).collect()
}

/// Whether `name` is that of this machine: whole, or its first label, alone or with the domain of multicast
/// DNS (RFC 6762).
pub fn is_host_name(name: &str) -> bool {
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    let uname = rustix::system::uname();
    let host = uname.nodename().to_string_lossy().to_ascii_lowercase();
    let label = host.split('.').next().unwrap_or_default();
    !label.is_empty() && (name == host || name.strip_suffix(".local").unwrap_or(&name) == label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_file_as_it_is_now() {
        let path = std::env::temp_dir().join(format!("tabi-hosts-{}", std::process::id()));
        let hosts = Hosts::in_file(path.clone());
        assert!(!hosts.has("nas.home.lan"), "there is no file");
        let text = "127.0.0.1 localhost4\n# 192.0.2.1 a.comment\n\
            192.0.2.2\tnas.home.lan NAS # not.this\n\n192.0.2.3 Printer.home.lan\r\n";
        fs::write(&path, text).unwrap();
        for name in ["localhost4", "nas.home.lan", "NAS.home.lan.", "nas", "printer.HOME.lan"] {
            assert!(hosts.has(name), "{name}");
        }
        for name in ["a.comment", "not.this", "192.0.2.2", "home.lan", "#", ""] {
            assert!(!hosts.has(name), "{name}");
        }
        fs::write(&path, "192.0.2.4 camera\n").unwrap();
        assert_eq!(["camera", "nas"].map(|name| hosts.has(name)), [true, false]);
        fs::remove_file(path).unwrap();
        assert!(!hosts.has("camera"));
    }

    #[test]
    fn the_host_name_is_one_of_them() {
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let label = host.split('.').next().unwrap();
        for name in [&*host, label, &format!("{label}.local"), &host.to_uppercase()] {
            assert!(is_host_name(name), "{name}");
        }
        assert!(!is_host_name(&format!("{label}.example")));
        assert!(!is_host_name(""));
    }
}
