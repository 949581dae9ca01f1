//! What wrong passwords cost, so that guessing takes long. Nobody is made to wait on a connection: that
//! would hold a worker. Who has failed too often is refused, and the password is not looked at.
//!
//! Failures are counted for a client and a name together. So a guesser cannot wipe them out by
//! logging in with a name of its own, and a device with an old password shuts out nobody else at its
//! address. A client as a whole is refused for trying many names, which no forgotten password does;
//! even then whoever has logged in from there before may do so again. And who guesses at a name from the
//! address of its user, such as that of a NAT, does not shut that user out: a client and name that have
//! logged in before get a look each second.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::net::IpAddr;
use std::sync::MutexGuard;
use std::time::{Duration, Instant};

use crate::system::ip::ClientPrefix;
use crate::system::lru::LruMap;
use crate::system::shares::PASSWORDS;
use crate::system::sync::Mutex;

/// Failures without consequence: anyone mistypes a password.
const FREE_FAILURES: u32 = 4;

/// All neighbours in one IPv6 network together have so many times what one client has: one host can have any
/// number of addresses there.
const NETWORK: u32 = 16;

/// For so long the fifth failure in a row refuses a client and name; each further one doubles it, unless
/// they have logged in before. A guesser has 5 guesses at once, 6 more in the first minute, and then one a
/// minute; from the address of a user at that user's name one a second.
const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(60);

/// After this time without a failure, a client and name start anew.
const FORGET_AFTER: Duration = Duration::from_secs(10 * 60);

/// Names with which a client may fail at once, more than there are people with old passwords behind
/// one address of a home or office network.
const FREE_NAMES: u32 = 32;

/// For each name with which it fails a client has to pay back so much time: from the 33rd on it may
/// try one new name in half a minute.
const EACH_NAME: Duration = Duration::from_secs(30);

/// What is remembered: at about 110 bytes each, 0.8 MB.
const MOST_PAIRS: usize = PASSWORDS.all;
const MOST_CLIENTS: usize = 1024;
const MOST_TRUSTED: usize = 2048;

/// The clients and names that have failed of late, and those that have succeeded.
#[derive(Debug)]
pub(super) struct LoginPenalties {
    /// Keys are hashes that nobody can predict.
    hasher: RandomState,
    tables: Mutex<Tables>,
}

/// Each gives up the entry that was written least recently: to read one does not count.
#[derive(Debug)]
struct Tables {
    pairs: LruMap<u64, Failures>,
    /// When a client will have paid back for all names with which it has failed.
    clients: LruMap<u64, Instant>,
    /// Clients and names that have succeeded, and the clients of these.
    trusted: LruMap<u64, ()>,
}

/// The keys of an attempt.
#[derive(Clone, Copy)]
struct Keys {
    /// A client and a name.
    pair: u64,
    client: u64,
}

/// How often a client and name have failed in a row, and when they did last.
#[derive(Clone, Copy, Debug)]
struct Failures {
    count: u32,
    last: Instant,
}

impl Default for LoginPenalties {
    fn default() -> Self {
        let tables = Tables {
            pairs: LruMap::new(MOST_PAIRS),
            clients: LruMap::new(MOST_CLIENTS),
            trusted: LruMap::new(MOST_TRUSTED),
        };
        LoginPenalties { hasher: RandomState::new(), tables: Mutex::new(tables) }
    }
}

impl LoginPenalties {
    /// How long `client` is refused whatever its name, if it is: it, or its network, has failed with too many
    /// names, and it has succeeded with none.
    pub(super) fn left(&self, client: IpAddr, now: Instant) -> Option<Duration> {
        let (keys, network) = self.keys(client.into(), b"");
        let tables = self.tables.lock();
        let left = tables.client_left(keys.client, now);
        let left = left.max(network.and_then(|network| tables.client_left(network.client, now)));
        left.filter(|_| tables.trusted.peek(&keys.client).is_none())
    }

    /// Those of `client` and `name`, and the same of its network, if that is not the client itself.
    fn keys(&self, client: ClientPrefix, name: &[u8]) -> (Keys, Option<Keys>) {
        let of = |it: ClientPrefix| Keys {
            pair: self.hasher.hash_one((it, name)),
            client: self.hasher.hash_one(it),
        };
        let network = Some(client.network()).filter(|network| *network != client);
        (of(client), network.map(of))
    }

    /// How `client` and `name` stand, under the lock.
    pub(super) fn standing(&self, client: IpAddr, name: &[u8], now: Instant) -> Standing<'_> {
        let (keys, network) = self.keys(client.into(), name);
        Standing { tables: self.tables.lock(), keys, network, now }
    }
}

/// How a client and name stand. Nothing changes meanwhile: of many attempts at once none is looked at before the
/// failures of the others count.
pub(super) struct Standing<'a> {
    tables: MutexGuard<'a, Tables>,
    keys: Keys,
    network: Option<Keys>,
    now: Instant,
}

impl Standing<'_> {
    /// How long they are still refused, if they are.
    pub(super) fn left(&self) -> Option<Duration> {
        self.tables.left(self.keys, self.network, self.now)
    }

    /// Counts a failure.
    pub(super) fn failed(&mut self) {
        self.tables.failed(self.keys, EACH_NAME, self.now);
        if let Some(network) = self.network {
            self.tables.failed(network, EACH_NAME / NETWORK, self.now);
        }
    }

    /// Notes a success, which forgives this client and name, and nothing else.
    pub(super) fn succeeded(&mut self) {
        self.tables.forgive(self.keys, EACH_NAME);
        self.tables.trusted.insert(self.keys.pair, (), 1);
        self.tables.trusted.insert(self.keys.client, (), 1);
    }

    /// The same of an attempt that was counted as a failure until then, also of the network.
    pub(super) fn succeeded_after_all(&mut self) {
        self.succeeded();
        if let Some(network) = self.network {
            self.tables.forgive(network, EACH_NAME / NETWORK);
        }
    }
}

impl Tables {
    /// How long this client and name are still refused, with those of its network.
    fn left(&self, keys: Keys, network: Option<Keys>, now: Instant) -> Option<Duration> {
        if self.trusted.peek(&keys.pair).is_some() {
            return self.pair_left(keys.pair, FREE_FAILURES, SHORTEST, now);
        }
        let left = |keys: Keys, free| {
            // A time is more than none.
            self.pair_left(keys.pair, free, LONGEST, now).max(self.client_left(keys.client, now))
        };
        let in_network = network.and_then(|network| left(network, NETWORK * FREE_FAILURES));
        left(keys, FREE_FAILURES).max(in_network)
    }

    /// How long the client and name are still refused for their failures, where so many are free, and for how
    /// long at the most.
    fn pair_left(&self, pair: u64, free: u32, longest: Duration, now: Instant) -> Option<Duration> {
        let Failures { count, last } = self.pairs.peek(&pair)?;
        let doublings = count.checked_sub(free + 1)?;
        let penalty = SHORTEST.saturating_mul(2_u32.saturating_pow(doublings)).min(longest);
        penalty.checked_sub(now.duration_since(*last)).filter(|left| !left.is_zero())
    }

    /// How long the client is still refused for all the names with which it has failed.
    fn client_left(&self, client: u64, now: Instant) -> Option<Duration> {
        let owed = self.clients.peek(&client)?.saturating_duration_since(now);
        owed.checked_sub(FREE_NAMES * EACH_NAME).filter(|left| !left.is_zero())
    }

    /// Notes a failure; a client that fails with a name for the first time owes this time for it.
    fn failed(&mut self, Keys { pair, client }: Keys, owed: Duration, now: Instant) {
        if self.count(pair, now) == 1 {
            let paid_back = self.clients.peek(&client).map_or(now, |at| now.max(*at));
            self.clients.insert(client, paid_back + owed, 1);
        }
    }

    /// Counts a failure of `pair`, and says how many there were in a row.
    fn count(&mut self, pair: u64, now: Instant) -> u32 {
        let earlier = self.pairs.peek(&pair);
        let earlier = earlier.filter(|failures| now.duration_since(failures.last) < FORGET_AFTER);
        let count = earlier.map_or(0, |failures| failures.count).saturating_add(1);
        self.pairs.insert(pair, Failures { count, last: now }, 1);
        count
    }

    /// Forgets the failures of a client and name, for which so much time was owed.
    fn forgive(&mut self, Keys { pair, client }: Keys, owed: Duration) {
        if self.pairs.remove(&pair).is_some() {
            let paid_back = self.clients.peek(&client).and_then(|it| it.checked_sub(owed));
            if let Some(paid_back) = paid_back {
                self.clients.insert(client, paid_back, 1);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOME: &str = "192.168.0.7";

    /// Penalties, and a clock.
    struct Stage {
        penalties: LoginPenalties,
        now: Instant,
    }

    impl Stage {
        fn new() -> Self {
            Stage { penalties: LoginPenalties::default(), now: Instant::now() }
        }

        /// Whether the attempt is looked at.
        fn attempt(&self, client: &str, name: &str, right: bool) -> bool {
            let client = client.parse().unwrap();
            let mut standing = self.penalties.standing(client, name.as_bytes(), self.now);
            let is_looked_at = standing.left().is_none();
            match (is_looked_at, right) {
                (false, _) => {}
                (true, true) => standing.succeeded(),
                (true, false) => standing.failed(),
            }
            is_looked_at
        }

        fn fail(&self, client: &str, name: &str) -> bool {
            self.attempt(client, name, false)
        }

        fn succeed(&self, client: &str, name: &str) -> bool {
            self.attempt(client, name, true)
        }

        fn left(&self, client: &str) -> Option<Duration> {
            self.penalties.left(client.parse().unwrap(), self.now)
        }

        fn wait(&mut self, time: Duration) {
            self.now += time;
        }
    }

    #[test]
    fn the_time_doubles_from_the_fifth_failure_on() {
        let mut stage = Stage::new();
        for _ in 0..4 {
            assert!(stage.fail(HOME, "alice"));
        }
        for seconds in [1, 2, 4, 8, 16, 32, 60, 60] {
            assert!(stage.fail(HOME, "alice"));
            stage.wait(Duration::from_millis(seconds * 1000 - 1));
            assert!(!stage.succeed(HOME, "alice"), "{seconds}");
            stage.wait(Duration::from_millis(1));
        }
        assert!(stage.succeed(HOME, "alice"));
        assert_eq!(stage.left(HOME), None);
    }

    #[test]
    fn who_guesses_from_the_address_of_a_user_does_not_shut_that_user_out() {
        let mut stage = Stage::new();
        assert!(stage.succeed(HOME, "alice"));
        let mut looked_at = 0;
        for _ in 0..60 * 100 {
            looked_at += u32::from(stage.fail(HOME, "alice"));
            stage.wait(Duration::from_millis(10));
        }
        assert_eq!(looked_at, 5 + 59, "five at once, then one a second");
        stage.wait(SHORTEST);
        assert!(stage.succeed(HOME, "alice"));
        for _ in 0..20 {
            stage.fail(HOME, "bob");
            stage.wait(SHORTEST);
        }
        assert!(!stage.succeed(HOME, "bob"), "he has not logged in from there before");
    }

    #[test]
    fn what_is_refused_does_not_count() {
        let mut stage = Stage::new();
        for _ in 0..1000 {
            stage.fail(HOME, "alice");
        }
        stage.wait(SHORTEST);
        assert!(stage.succeed(HOME, "alice"));
    }

    #[test]
    fn it_is_forgotten() {
        let mut stage = Stage::new();
        for _ in 0..5 {
            stage.fail(HOME, "alice");
        }
        stage.wait(FORGET_AFTER);
        for _ in 0..5 {
            assert!(stage.fail(HOME, "alice"));
        }
        assert!(!stage.fail(HOME, "alice"));
    }

    #[test]
    fn a_password_of_ones_own_gives_no_guesses_at_anothers() {
        let mut stage = Stage::new();
        let mut looked_at = 0;
        for _ in 0..6 * 1000 {
            looked_at += u32::from(stage.fail(HOME, "alice"));
            assert!(stage.succeed(HOME, "mallory"));
            stage.wait(Duration::from_millis(1));
        }
        assert_eq!(looked_at, 7, "five at once, and after 1 and 3 seconds");
    }

    #[test]
    fn an_old_password_on_one_device_shuts_nobody_else_out() {
        let mut stage = Stage::new();
        for _ in 0..77 {
            for _ in 0..10 {
                stage.fail(HOME, "bob");
            }
            assert!(stage.succeed(HOME, "alice"));
            assert!(stage.succeed("192.168.0.8", "bob"));
            assert_eq!(stage.left(HOME), None);
            stage.wait(Duration::from_millis(500));
        }
    }

    #[test]
    fn old_passwords_on_thirty_devices_shut_nobody_else_out() {
        let mut stage = Stage::new();
        for _ in 0..100 {
            for device in 0..30 {
                stage.fail(HOME, &format!("device {device}"));
            }
            assert_eq!(stage.left(HOME), None);
            // They come back for a new count just when the last one is forgotten.
            stage.wait(FORGET_AFTER + Duration::from_secs(300));
        }
        assert!(stage.succeed(HOME, "alice"));
    }

    #[test]
    fn one_who_tries_many_names_is_rejected_and_who_has_logged_in_before_is_not() {
        let mut stage = Stage::new();
        assert!(stage.succeed(HOME, "alice"));
        let tried = |stage: &Stage, client| {
            (0..1000).filter(|n| stage.fail(client, &format!("name {n}"))).count()
        };
        assert_eq!(tried(&stage, HOME), PASSWORDS.of_one);
        assert_eq!(tried(&stage, "192.168.0.8"), PASSWORDS.of_one);
        assert_eq!(stage.left("192.168.0.8"), Some(EACH_NAME));
        assert_eq!(stage.left(HOME), None, "alice may come in");
        assert!(stage.succeed(HOME, "alice"));
        assert!(!stage.succeed(HOME, "bob"), "he has not logged in from there before");
        assert!(!stage.succeed("192.168.0.8", "alice"), "nor has she from there");
        assert!(stage.succeed("192.168.0.9", "bob"), "a neighbour");
        stage.wait(EACH_NAME);
        assert_eq!(stage.left("192.168.0.8"), None);
        let later = (0..1000).filter(|n| stage.fail("192.168.0.8", &format!("later {n}"))).count();
        assert_eq!(later, 1);
    }

    #[test]
    fn who_mistypes_and_then_logs_in_has_tried_no_name() {
        let stage = Stage::new();
        for person in 0..1000 {
            let name = format!("person {person}");
            assert!(stage.fail(HOME, &name));
            assert!(stage.succeed(HOME, &name));
        }
        assert_eq!(stage.left(HOME), None);
    }

    #[test]
    fn an_ipv6_network_elsewhere_counts_as_one_client() {
        let stage = Stage::new();
        for host in 0..5 {
            assert!(stage.fail(&format!("2001:db8:0:1::{host}"), "alice"));
        }
        assert!(!stage.succeed("2001:db8:0:1::99", "alice"));
        assert!(stage.succeed("2001:db8:0:2::99", "alice"));
        for _ in 0..5 {
            stage.fail("::ffff:192.0.2.1", "alice");
        }
        assert!(!stage.succeed("192.0.2.1", "alice"));
    }

    #[test]
    fn who_guesses_from_one_address_of_a_network_shuts_no_neighbour_out() {
        let stage = Stage::new();
        for network in ["fd00:0:0:1", "fe80:0:0:0"] {
            for _ in 0..1000 {
                stage.fail(&format!("{network}::2"), "alice");
            }
            assert!(stage.succeed(&format!("{network}::9"), "alice"));
        }
    }

    #[test]
    fn guesses_from_a_thousand_addresses_of_a_network_count_together() {
        let stage = Stage::new();
        assert!(stage.succeed("fd00::9", "alice"));
        let looked_at = (0..1000).filter(|host| stage.fail(&format!("fd00::1:{host}"), "alice"));
        assert_eq!(looked_at.count(), 65);
        assert!(stage.succeed("fd00::9", "alice"), "she has logged in from there before");
        assert!(stage.succeed("fd00::1:7", "bob"), "nobody guesses at him");
    }

    #[test]
    fn no_more_is_remembered_than_the_constants_say() {
        let penalties = LoginPenalties::default();
        for client in 0..20_000_u32 {
            let client = IpAddr::V4((0x0a00_0000 + client).into());
            penalties.standing(client, b"alice", Instant::now()).failed();
            penalties.standing(client, b"bob", Instant::now()).succeeded();
        }
        let tables = penalties.tables.lock();
        let counts = [tables.pairs.len(), tables.clients.len(), tables.trusted.len()];
        assert_eq!(counts, [MOST_PAIRS, MOST_CLIENTS, MOST_TRUSTED]);
    }

    #[test]
    fn a_host_with_any_number_of_addresses_makes_no_failure_forgotten() {
        let stage = Stage::new();
        assert!(stage.succeed("fd00::9", "alice"));
        for host in 0..100 {
            stage.fail(&format!("fd00::1:{host:x}"), "alice");
        }
        let looked_at = (0..10_000)
            .filter(|host| stage.fail(&format!("fd00::2:{host:x}"), &format!("name {host}")));
        assert_eq!(looked_at.count(), 16 * 32, "alice is one of 513");
        assert!(!stage.fail("fd00::3:1", "alice"));
        assert!(stage.left("fd00::4:1").is_some(), "whoever comes new from there");
        assert_eq!(stage.left("fd00::9"), None, "she has logged in from there before");
        assert!(stage.succeed("fd00::9", "alice"));
        assert!(stage.succeed("fd01::1", "bob"), "another network");
    }

    #[test]
    fn a_flood_from_few_clients_makes_no_failure_forgotten() {
        let stage = Stage::new();
        for _ in 0..12 {
            stage.fail(HOME, "alice");
        }
        for attacker in 0..10 {
            for name in 0..1000 {
                stage.fail(&format!("10.0.0.{attacker}"), &format!("name {name}"));
            }
        }
        assert!(!stage.succeed(HOME, "alice"));
    }
}
