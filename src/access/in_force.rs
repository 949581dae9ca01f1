//! What the files of users and rules say. It is exchanged as a whole while the server runs.

use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::rules::RuleFile;
use super::users::passwords::Passwords;
use crate::system::sync::Mutex;

/// Users and rules of one moment.
#[derive(Debug, Default)]
pub struct AccessFiles {
    /// `None` where nobody has to authenticate: that is an option's to say, and no reload changes it.
    pub users: Option<Passwords>,
    /// Without any, the default access alone decides.
    pub rules: RuleFile,
}

impl AccessFiles {
    /// Why who has logged in as `user` may do nothing more, if it is so: [`Passwords::revoked`].
    pub fn revoked(&self, user: &Arc<str>) -> Option<&'static str> {
        self.users.as_ref()?.revoked(user)
    }
}

/// The users and rules that are in force. Whoever judges by them takes them once and goes on with those,
/// so nothing is judged by some of the old ones and some of the new.
#[derive(Debug, Default)]
pub struct InForce {
    files: Mutex<Arc<AccessFiles>>,
    generation: AtomicUsize,
}

impl InForce {
    /// Begins with `files`.
    pub fn new(files: Arc<AccessFiles>) -> Self {
        InForce { files: Mutex::new(files), generation: AtomicUsize::new(0) }
    }

    /// Users and rules as they are now.
    pub fn get(&self) -> Arc<AccessFiles> {
        Arc::clone(&self.files.lock())
    }

    /// Puts others into force. Who has logged in stays so where name and password are the same.
    pub fn replace(&self, mut files: AccessFiles) {
        if let (Some(users), Some(earlier)) = (&mut files.users, &self.get().users) {
            users.keep_logins_of(earlier);
        }
        let earlier = mem::replace(&mut *self.files.lock(), Arc::new(files));
        // Who sees the new number gets the new files.
        self.generation.fetch_add(1, Ordering::Release);
        // A long list takes a while to free: not under the lock.
        drop(earlier);
    }

    /// Another number than before once the files were replaced.
    pub(super) fn generation(&self) -> usize {
        self.generation.load(Ordering::Acquire)
    }
}
