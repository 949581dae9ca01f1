//! Who moves most now: each client and each user, with what it has moved within the last second.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use crate::sessions::{Account, Accounts};

/// As many are shown.
const MOST: usize = 50;
const MOST_OF_ALL: usize = 10;

/// Somebody's account, and how many bytes a second went up and down lately.
pub(super) struct Rated<K> {
    pub(super) who: K,
    pub(super) account: Account,
    pub(super) rates: [u64; 2],
}

/// Those who move most, in that order.
pub(super) struct Rates {
    last: (Instant, Accounts),
    pub(super) clients: Vec<Rated<IpAddr>>,
    pub(super) users: Vec<Rated<Arc<str>>>,
}

impl Rates {
    pub(super) fn new(now: Instant) -> Self {
        Rates { last: (now, Accounts::default()), clients: Vec::new(), users: Vec::new() }
    }

    /// Takes what everybody has moved until this moment.
    pub(super) fn note(&mut self, now: Instant, accounts: Accounts) {
        let (before, earlier) = &self.last;
        let seconds = now.saturating_duration_since(*before).as_secs_f64();
        self.clients = rate(&accounts.clients, &earlier.clients, seconds);
        self.users = rate(&accounts.users, &earlier.users, seconds);
        self.last = (now, accounts);
    }
}

fn rate<K: Clone + Eq + Hash + Ord>(
    accounts: &HashMap<K, Account>,
    earlier: &HashMap<K, Account>,
    seconds: f64,
) -> Vec<Rated<K>> {
    #[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss, clippy::cast_sign_loss)]
    let rate = |now: u64, before: u64| (now.saturating_sub(before) as f64 / seconds) as u64;
    let rated = |(who, account): (&K, &Account)| {
        let before = earlier.get(who).copied().unwrap_or_default();
        let rates = [rate(account.up, before.up), rate(account.down, before.down)];
        Rated { who: who.clone(), account: *account, rates }
    };
    let mut all: Vec<_> = accounts.iter().map(rated).collect();
    all.sort_unstable_by(|a, b| {
        let weight = |it: &Rated<K>| (it.rates[0] + it.rates[1], it.account.bytes());
        weight(b).cmp(&weight(a)).then_with(|| a.who.cmp(&b.who))
    });
    // Those who have moved most of all are among those who are shown, though they rest.
    if let Some(rest) = all.get_mut(MOST - MOST_OF_ALL..) {
        rest.sort_by_key(|it| Reverse(it.account.bytes()));
    }
    all.truncate(MOST);
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn accounts(of_users: &[(&str, u64, u64)]) -> Accounts {
        let users = of_users.iter().map(|&(user, up, down)| {
            let live = usize::from(up > 0);
            (user.into(), Account { live, up, down })
        });
        Accounts { users: users.collect(), ..Accounts::default() }
    }

    #[test]
    fn whoever_moves_most_now_stands_first() {
        let begin = Instant::now();
        let mut rates = Rates::new(begin);
        rates.note(
            begin + Duration::from_secs(1),
            accounts(&[("alice", 10, 90_000), ("bob", 0, 1_000), ("carol", 0, 1_000)]),
        );
        rates.note(
            begin + Duration::from_secs(3),
            accounts(&[("alice", 10, 90_000), ("bob", 200, 1_400), ("carol", 0, 1_000)]),
        );
        let shown: Vec<_> = rates.users.iter().map(|it| (&*it.who, it.rates)).collect();
        assert_eq!(shown, [("bob", [100, 200]), ("alice", [0, 0]), ("carol", [0, 0])]);
    }

    #[test]
    fn who_has_moved_most_of_all_is_shown_though_it_rests() {
        let begin = Instant::now();
        let mut rates = Rates::new(begin);
        let names: Vec<_> =
            (0..3 * MOST as u64).map(|number| (number, number.to_string())).collect();
        let accounts_at = |second: u64| {
            let of_one = |(number, name): &'_ (u64, String)| {
                let rests = *number < 10;
                (name.clone(), if rests { 1_000_000 + number } else { number * second })
            };
            let all: Vec<_> = names.iter().map(of_one).collect();
            accounts(&all.iter().map(|(name, bytes)| (&**name, *bytes, 0)).collect::<Vec<_>>())
        };
        rates.note(begin + Duration::from_secs(1), accounts_at(1));
        rates.note(begin + Duration::from_secs(2), accounts_at(2));
        let shown: Vec<_> = rates.users.iter().map(|it| &*it.who).collect();
        assert_eq!(shown[..2], ["149", "148"], "who moves most now stands first");
        assert!((0..10).all(|number: u64| shown.contains(&&*number.to_string())), "{shown:?}");
    }

    #[test]
    fn no_more_are_shown_than_a_page_has_room_for_and_none_has_a_negative_rate() {
        let begin = Instant::now();
        let mut rates = Rates::new(begin);
        let many: Vec<_> = (1..=2 * MOST as u64).map(|bytes| (bytes.to_string(), bytes)).collect();
        let many: Vec<_> = many.iter().map(|(user, bytes)| (&**user, *bytes, 0)).collect();
        rates.note(begin + Duration::from_secs(1), accounts(&many));
        assert_eq!(rates.users.len(), MOST);
        // It was forgotten, and counts anew.
        rates.note(begin + Duration::from_secs(2), accounts(&[("100", 1, 0)]));
        assert_eq!(rates.users[0].rates, [0, 0]);
    }
}
