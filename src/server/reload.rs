//! Users and rules, read again while the server runs.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use log::{error, info, warn};

use super::notify::Notify;
use super::predecessors::Predecessors;
use super::shutdown::counted;
use crate::access::in_force::AccessFiles;
use crate::access::rules::RuleFile;
use crate::access::users::Passwords;
use crate::config::doubts;
use crate::proxy::Proxy;
use crate::report::Logger;

/// Reads the files of a server again.
pub struct Reloader {
    pub(super) proxy: Arc<Proxy>,
    pub(super) notify: Arc<Notify>,
    pub(super) predecessors: Arc<Predecessors>,
    pub(super) logger: Option<Logger>,
}

impl Reloader {
    /// Opens the log anew, and reads users and rules again. Requests and datagrams are judged by them from now on. Live tunnels
    /// go on, but those of users who are gone or have another password end. If one file is bad nothing
    /// changes; the log names file and line.
    ///
    /// This takes as long as the files take to be read.
    pub fn reload(&self) {
        self.notify.reloading();
        self.open_log_anew();
        self.read_again();
        self.predecessors.reload();
        self.notify.ready();
    }

    /// Does so after another process, which serves the clients now.
    pub(super) fn follow(&self) {
        self.open_log_anew();
        let config = &self.proxy.config;
        if config.rules_file.is_some() || config.users_file.is_some() {
            self.read_again();
        }
    }

    fn open_log_anew(&self) {
        for error in self.logger.iter().filter_map(|logger| logger.reopen().err()) {
            error!("cannot open the log anew: {error}");
        }
    }

    fn read_again(&self) {
        let earlier = self.proxy.policy.in_force().get();
        let config = &self.proxy.config;
        let rules = again("--rules", config.rules_file.as_deref(), |path| {
            let rules = RuleFile::load(path, earlier.rules.length)?;
            self.proxy.policy.upstream_is_self(&rules).map_or(Ok(rules), Err)
        });
        let length = earlier.users.as_ref().map_or(0, |users| users.length);
        let users =
            again("--users", config.users_file.as_deref(), |path| Passwords::load(path, length));
        self.proxy.metrics.reloaded(rules.is_ok() && users.is_ok());
        match (rules, users) {
            (Ok(rules), Ok(users)) => self.take_over(&earlier, rules, users),
            (rules, users) => {
                for line in [rules.err(), users.err()].iter().flatten().flatten() {
                    error!("cannot reload {line}");
                }
                error!("nothing has changed: users and rules are those from before the reload");
            }
        }
    }

    fn take_over(&self, earlier: &AccessFiles, rules: Option<RuleFile>, users: Option<Passwords>) {
        let mut done = Vec::new();
        if let Some(rules) = &rules {
            done.push(format!("{} (--rules)", counted(rules.count(), "rule")));
        }
        if let Some(users) = &users {
            done.push(format!("{} (--users)", counted(users.count(), "user")));
        }
        if done.is_empty() {
            done.push("no users or rules to read".into());
        }
        let files = AccessFiles { users, rules: rules.unwrap_or_default() };
        let mut doubts = doubts(&self.proxy.policy, &files);
        if earlier.rules.count() > 0 && files.rules.count() == 0 {
            let had = counted(earlier.rules.count(), "rule");
            doubts.push(format!("{}: no rule is left of {had} (--rules)", files.rules.name()));
        }
        let in_force = self.proxy.policy.in_force();
        in_force.replace(files);
        self.proxy.limit_again();
        // Whoever asks for something from now on is judged by the new files. Who has asked before is here.
        let now = in_force.get();
        let ended = self.proxy.sessions.end_revoked(|user| now.revoked(user));
        if ended > 0 {
            let sessions = counted(ended, "session");
            done.push(format!("{sessions} ended whose users are gone or have another password"));
        }
        info!("reloaded: {}", done.join(", "));
        for doubt in doubts {
            warn!("{doubt}");
        }
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
) -> Result<Option<T>, Vec<String>> {
    let Some(path) = path else { return Ok(None) };
    let is_special = fs::metadata(path).is_ok_and(|found| !found.is_file());
    let loaded = if is_special {
        Err(format!("{}: it is no regular file, and cannot be read twice", path.display()))
    } else {
        load(path)
    };
    loaded
        .map(Some)
        .map_err(|message| message.lines().map(|line| format!("{option} {line}")).collect())
}
