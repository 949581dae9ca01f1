//! Users and rules, read again while the server runs.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use log::{error, info, warn};

use super::config::doubts;
use super::counted;
use super::notify::Notify;
use crate::access::rules::RuleFile;
use crate::access::users::Passwords;
use crate::proxy::Proxy;

/// Reads the files of a server again.
pub struct Reloader {
    pub(super) proxy: Arc<Proxy>,
    pub(super) notify: Arc<Notify>,
    /// Where the server listens.
    pub(super) addresses: Vec<SocketAddr>,
    pub(super) rules: Option<PathBuf>,
    pub(super) users: Option<PathBuf>,
}

/// The files that were read; none of those that there are not.
struct Read {
    rules: Option<Arc<RuleFile>>,
    users: Option<Arc<Passwords>>,
}

impl Reloader {
    /// Reads users and rules again. New requests and datagrams are judged by them from now on, and
    /// live tunnels go on. If one file is bad nothing changes; the log names file and line.
    ///
    /// This takes as long as the files take to be read.
    pub fn reload(&self) {
        self.notify.reloading();
        let read = self.read();
        self.proxy.metrics.reloaded(read.is_ok());
        match read {
            Ok(read) => self.take_over(read),
            Err(bad) => {
                for told in bad {
                    error!("cannot reload {told}");
                }
                error!("nothing has changed: users and rules are those from before the reload");
            }
        }
        self.notify.ready();
    }

    fn read(&self) -> Result<Read, Vec<String>> {
        let mut bad = Vec::new();
        let mut note = |option: &str, told: &str| {
            bad.extend(told.lines().map(|line| format!("{option} {line}")));
        };
        let rules = self.rules.as_deref().map(|path| {
            let rules = again(path, RuleFile::load)?;
            self.proxy.rules.upstream_is_self(&rules, &self.addresses).map_or(Ok(rules), Err)
        });
        let rules = rules.transpose().inspect_err(|told| note("--rules", told));
        let users = self.users.as_deref().map(|path| again(path, Passwords::load)).transpose();
        let users = users.inspect_err(|told| note("--users", told));
        match (rules, users) {
            (Ok(rules), Ok(users)) => {
                Ok(Read { rules: rules.map(Arc::new), users: users.map(Arc::new) })
            }
            (Ok(_) | Err(_), Err(_)) | (Err(_), Ok(_)) => Err(bad),
        }
    }

    fn take_over(&self, Read { rules, users }: Read) {
        let doubts = rules.as_deref().map(|rules| doubts(rules, users.as_deref()));
        let mut read = Vec::new();
        // A user who is new may be in a rule that is new: rules first.
        if let Some(rules) = rules {
            read.push(format!("{} (--rules)", counted(rules.count(), "rule")));
            self.proxy.rules.replace_file(rules);
        }
        if let Some(users) = users {
            read.push(format!("{} (--users)", counted(users.count(), "user")));
            self.proxy.users.replace(users);
        }
        if read.is_empty() {
            read.push("no users or rules to read".into());
        }
        info!("reloaded: {}", read.join(", "));
        doubts.iter().flatten().for_each(|doubt| warn!("{doubt}"));
    }
}

/// Reads a file that was read before. What is no regular file is empty the second time, as the pipe
/// of a shell's `<(…)`, or waits for somebody to write: neither is what was meant.
fn again<T>(path: &Path, load: impl FnOnce(&Path) -> Result<T, String>) -> Result<T, String> {
    match fs::metadata(path) {
        Ok(found) if !found.is_file() => {
            Err(format!("{}: it is no regular file, and cannot be read twice", path.display()))
        }
        Ok(_) | Err(_) => load(path),
    }
}
