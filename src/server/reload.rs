//! Users and rules, read again while the server runs.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use log::{error, info, warn};

use super::notify::Notify;
use super::predecessors::Predecessors;
use super::shutdown::counted;
use crate::access::rules::RuleFile;
use crate::access::users::Passwords;
use crate::config::doubts;
use crate::proxy::Proxy;

/// Reads the files of a server again.
pub struct Reloader {
    pub(super) proxy: Arc<Proxy>,
    pub(super) notify: Arc<Notify>,
    pub(super) predecessors: Arc<Predecessors>,
}

impl Reloader {
    /// Reads users and rules again. New requests and datagrams are judged by them from now on, and
    /// live tunnels go on. If one file is bad nothing changes; the log names file and line.
    ///
    /// This takes as long as the files take to be read.
    pub fn reload(&self) {
        self.notify.reloading();
        self.read_again();
        self.predecessors.reload();
        self.notify.ready();
    }

    /// Reads them after another process has done so, which serves the clients now.
    pub(super) fn follow(&self) {
        let config = &self.proxy.config;
        if config.rules_file.is_some() || config.users_file.is_some() {
            self.read_again();
        }
    }

    fn read_again(&self) {
        let config = &self.proxy.config;
        let rules = again("--rules", config.rules_file.as_deref(), |path| {
            let rules = RuleFile::load(path)?;
            self.proxy.policy.upstream_is_self(&rules).map_or(Ok(rules), Err)
        });
        let users = again("--users", config.users_file.as_deref(), Passwords::load);
        self.proxy.metrics.reloaded(rules.is_ok() && users.is_ok());
        match (rules, users) {
            (Ok(rules), Ok(users)) => self.take_over(rules, users),
            (rules, users) => {
                for line in [rules.err(), users.err()].iter().flatten().flatten() {
                    error!("cannot reload {line}");
                }
                error!("nothing has changed: users and rules are those from before the reload");
            }
        }
    }

    fn take_over(&self, rules: Option<Arc<RuleFile>>, users: Option<Arc<Passwords>>) {
        let doubts =
            rules.as_deref().map(|rules| doubts(&self.proxy.policy, rules, users.as_deref()));
        let mut read = Vec::new();
        // A user who is new may be in a rule that is new: rules first.
        if let Some(rules) = rules {
            read.push(format!("{} (--rules)", counted(rules.count(), "rule")));
            self.proxy.policy.replace_file(rules);
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

/// Reads the file of an option again, if there is one. Each line of what is wrong with it names the
/// option.
///
/// What is no regular file is empty the second time, as the pipe of a shell's `<(…)`, or waits for
/// somebody to write: neither is what was meant.
fn again<T>(
    option: &str,
    path: Option<&Path>,
    load: impl FnOnce(&Path) -> Result<T, String>,
) -> Result<Option<Arc<T>>, Vec<String>> {
    let Some(path) = path else { return Ok(None) };
    let is_special = fs::metadata(path).is_ok_and(|found| !found.is_file());
    let loaded = if is_special {
        Err(format!("{}: it is no regular file, and cannot be read twice", path.display()))
    } else {
        load(path)
    };
    loaded
        .map(|file| Some(Arc::new(file)))
        .map_err(|message| message.lines().map(|line| format!("{option} {line}")).collect())
}
