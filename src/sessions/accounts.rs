//! What each client and each user has moved, with its live sessions and with those that are over.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::Arc;

use super::state::SessionState;

/// Clients of whom it is remembered what they have moved in sessions that are over. Users are not forgotten:
/// there are no more than the users file has had.
const REMEMBERED: usize = 1024;

/// What somebody has moved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// Live sessions.
    pub live: usize,
    /// Bytes from the client.
    pub up: u64,
    /// Bytes to the client.
    pub down: u64,
}

impl Account {
    /// Bytes both ways.
    pub fn bytes(&self) -> u64 {
        self.up + self.down
    }
}

/// What everybody has moved.
#[derive(Clone, Debug, Default)]
pub struct Accounts {
    /// By the client's address.
    pub clients: HashMap<IpAddr, Account>,
    /// By the name that the client has authenticated with.
    pub users: HashMap<Arc<str>, Account>,
}

impl Accounts {
    /// Adds a session that is live.
    pub(super) fn add_live(&mut self, session: &SessionState) {
        self.each_of(session, |account| account.live += 1);
    }

    /// Adds a session that is over. Whoever has moved least is forgotten where there are too many.
    pub(super) fn add_ended(&mut self, session: &SessionState) {
        if session.client().sent() + session.target().sent() > 0 {
            self.each_of(session, |_| ());
            forget_least(&mut self.clients);
        }
    }

    fn each_of(&mut self, session: &SessionState, change: impl Fn(&mut Account)) {
        let (up, down) = (session.client().sent(), session.target().sent());
        let add = |account: &mut Account| {
            account.up += up;
            account.down += down;
            change(account);
        };
        add(self.clients.entry(session.peer().ip()).or_default());
        if let Some(user) = session.login() {
            add(self.users.entry(Arc::clone(user)).or_default());
        }
    }
}

fn forget_least<K: Clone + Eq + Hash>(accounts: &mut HashMap<K, Account>) {
    if accounts.len() > REMEMBERED {
        let least = accounts.iter().min_by_key(|(_, account)| account.bytes());
        if let Some(least) = least.map(|(key, _)| key.clone()) {
            accounts.remove(&least);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_has_moved_least_is_forgotten() {
        let account = |down| Account { down, ..Account::default() };
        let most = REMEMBERED as u64;
        let mut accounts: HashMap<u64, Account> = (0..=most).map(|it| (it, account(it))).collect();
        forget_least(&mut accounts);
        assert_eq!(accounts.len(), REMEMBERED);
        assert!(!accounts.contains_key(&0) && accounts.contains_key(&most));
        forget_least(&mut accounts);
        assert_eq!(accounts.len(), REMEMBERED, "there are not too many");
    }
}
