//! How what there is too little of is shared among clients: who may have one more, and who gives one up
//! for that. What there is, and how much of it, is in `bounds`.

use std::collections::{BTreeSet, HashMap};

use super::ip::ClientPrefix;

mod bounds;

pub use bounds::{
    Bound, LOG_LINES, LOOKUPS, PASSWORDS, PENDING, PIPES, REMEMBERED_NAMES, TABLE, Thing,
    VERIFICATIONS, VISITORS,
};

/// With fewer things than this there is nothing to share.
pub const SHARED_FROM: usize = 8;

/// Of the clients of one network the largest gives way where it has so many times a fair share. Otherwise
/// the newest does: one host can have a thousand addresses, each with few.
const LOPSIDED: usize = 4;

/// As many as one client has at once without being large: a browser with several pages.
const FEW: usize = 32;

/// Who holds how many of some things. Each thing has a number; the numbers grow.
#[derive(Debug, Default)]
pub struct Holders {
    clients: HashMap<ClientPrefix, Holder>,
    /// How many the clients of each network have.
    networks: HashMap<ClientPrefix, usize>,
    total: usize,
}

#[derive(Debug)]
struct Holder {
    /// The number of the first thing that the client has had without a break.
    since: u64,
    held: BTreeSet<u64>,
}

/// What a client that wants one more gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// One that is free.
    Free,
    /// One that this client has to give up.
    From(ClientPrefix),
    /// None is free, and nobody has to give one up: it has none, and may wait.
    Wait,
    /// None: it has its share.
    Refused,
}

impl Holders {
    /// How many `client` has.
    pub fn of(&self, client: ClientPrefix) -> usize {
        self.clients.get(&client).map_or(0, |holder| holder.held.len())
    }

    /// How many all have.
    pub fn total(&self) -> usize {
        self.total
    }

    /// What `client` has, the oldest first.
    pub fn held_by(&self, client: ClientPrefix) -> impl Iterator<Item = u64> {
        self.clients.get(&client).into_iter().flat_map(|holder| &holder.held).copied()
    }

    /// Whether `client` has the one with this number.
    pub fn has(&self, client: ClientPrefix, number: u64) -> bool {
        self.clients.get(&client).is_some_and(|holder| holder.held.contains(&number))
    }

    /// Since which number `client` has had something.
    pub fn since(&self, client: ClientPrefix) -> Option<u64> {
        self.clients.get(&client).map(|holder| holder.since)
    }

    /// Notes that `client`, which is known since the number `since`, has the one with this number.
    pub fn add(&mut self, client: ClientPrefix, number: u64, since: u64) {
        let holder = self.clients.entry(client);
        let holder = holder.or_insert_with(|| Holder { since, held: BTreeSet::new() });
        if holder.held.insert(number) {
            self.total += 1;
            *self.networks.entry(client.network()).or_default() += 1;
        }
    }

    /// Notes that `client` has it no longer.
    pub fn remove(&mut self, client: ClientPrefix, number: u64) {
        let Some(holder) = self.clients.get_mut(&client) else { return };
        if !holder.held.remove(&number) {
            return;
        }
        if holder.held.is_empty() {
            self.clients.remove(&client);
        }
        self.total -= 1;
        let network = self.networks.entry(client.network()).or_default();
        *network -= 1;
        if *network == 0 {
            self.networks.remove(&client.network());
        }
    }

    /// Decides about one more for `client` while `free` of `all` are.
    ///
    /// Each may come to a fair share, which is an equal part with one kept for the next that comes, and
    /// beyond that have as many as are free. The clients of one IPv6 network may have three times as many
    /// together as are free. Where that is not so, one of them gives one up; and where none is free, the
    /// largest client, but never so that it falls below its fair share.
    pub fn turn(&self, client: ClientPrefix, all: usize, free: usize) -> Turn {
        let (has, fair) = (self.of(client), self.fair(all));
        let none = if has == 0 || all < SHARED_FROM { Turn::Wait } else { Turn::Refused };
        if has >= free && has >= fair && all >= SHARED_FROM {
            return Turn::Refused;
        }
        if self.fills_network(client, all, free) {
            return self.of_network(client).map_or(none, Turn::From);
        }
        if free > 0 {
            return Turn::Free;
        }
        let may_lose = |client: &ClientPrefix| all >= SHARED_FROM && self.of(*client) > fair;
        self.largest().filter(may_lose).map_or(none, Turn::From)
    }

    /// Who gives one up for `client` where nobody is refused: nobody while there are enough of `all`, and
    /// otherwise who has most, perhaps the client itself.
    pub fn too_many(&self, client: ClientPrefix, all: usize) -> Option<ClientPrefix> {
        let free = all.saturating_sub(self.total);
        if self.fills_network(client, all, free) {
            return self.of_network(client).or(Some(client));
        }
        if free == 0 { self.largest() } else { None }
    }

    fn fair(&self, all: usize) -> usize {
        (all / (self.networks.len() + 1)).max(1)
    }

    /// The client that has most.
    pub fn largest(&self) -> Option<ClientPrefix> {
        let largest = self.clients.iter().max_by_key(|(_, holder)| holder.held.len());
        largest.map(|(client, _)| *client)
    }

    /// Whether the clients of this one's network have together what they may have.
    fn fills_network(&self, client: ClientPrefix, all: usize, free: usize) -> bool {
        let network = client.network();
        let has = self.networks.get(&network).copied().unwrap_or(0);
        let is_full = has >= free.saturating_mul(3) && has >= self.fair(all);
        network != client && all >= SHARED_FROM && is_full
    }

    /// Which client of this one's network gives way to it: the largest, if it is much larger than others,
    /// or else the newest that has a fair share, if that is more than the client has. To a client that has
    /// few a newer one gives way in any case.
    fn of_network(&self, client: ClientPrefix) -> Option<ClientPrefix> {
        let network = client.network();
        let (has, since) = (self.of(client), self.since(client).unwrap_or(u64::MAX));
        let all = || {
            let all = self.clients.iter().filter(|(other, _)| other.network() == network);
            all.map(|(other, holder)| (*other, holder.held.len(), holder.since))
        };
        let fair = (self.networks.get(&network)? / (all().count() + 1)).max(1);
        let (largest, most, _) = all().max_by_key(|(_, count, _)| *count)?;
        if most > has && most > FEW.max(LOPSIDED * fair) {
            return Some(largest);
        }
        let gives_way = |(other, count, its_since): &(ClientPrefix, usize, u64)| {
            let is_larger = *count >= fair && *count > has;
            *other != client && (is_larger || (has < FEW && *its_since > since))
        };
        let newest =
            all().filter(gives_way).max_by_key(|(_, count, since)| (*count >= fair, *since));
        newest.map(|(newest, ..)| newest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::IpAddr;

    fn client(ip: &str) -> ClientPrefix {
        ip.parse::<IpAddr>().unwrap().into()
    }

    #[test]
    fn each_thing_has_its_row() {
        assert!((0..).zip(&TABLE).all(|(index, row)| row.thing as i32 == index));
    }

    /// Things that clients take one after the other, and those who have to give one up for that.
    struct Stage {
        holders: Holders,
        all: usize,
        next: u64,
    }

    impl Stage {
        fn new(all: usize) -> Self {
            Stage { holders: Holders::default(), all, next: 0 }
        }

        fn take(&mut self, ip: &str) -> bool {
            let client = client(ip);
            match self.holders.turn(client, self.all, self.all - self.holders.total()) {
                Turn::Free => {}
                Turn::From(loser) => {
                    let oldest = self.holders.held_by(loser).next().unwrap();
                    self.holders.remove(loser, oldest);
                }
                Turn::Wait | Turn::Refused => return false,
            }
            self.next += 1;
            self.holders.add(client, self.next, self.next);
            true
        }

        fn of(&self, ip: &str) -> usize {
            self.holders.of(client(ip))
        }
    }

    #[test]
    fn one_client_has_half_and_gives_of_it_to_those_who_have_less() {
        let mut stage = Stage::new(4096);
        while stage.take("192.0.2.1") {}
        assert_eq!(stage.of("192.0.2.1"), 2048);
        for other in 2..=13 {
            while stage.take(&format!("192.0.2.{other}")) {}
        }
        while stage.of("192.0.2.99") < 100 {
            assert!(stage.take("192.0.2.99"), "{}", stage.of("192.0.2.99"));
        }
        assert!((1..=13).all(|one| stage.of(&format!("192.0.2.{one}")) >= 4096 / 15));
    }

    #[test]
    fn a_neighbour_with_many_leaves_the_others_of_its_network_theirs() {
        let mut stage = Stage::new(4096);
        while stage.take("fd77::2") {}
        for _ in 0..100 {
            assert!(stage.take("fd77::9"));
        }
    }

    #[test]
    fn of_a_thousand_addresses_the_newest_give_way_first() {
        let mut stage = Stage::new(4096);
        for _ in 0..5 {
            assert!(stage.take("fd77::9"));
        }
        for round in 0..5 {
            for host in 0..2000 {
                stage.take(&format!("fd77::1:{host}"));
                assert!(stage.of("fd77::9") >= 5, "{round} {host}");
            }
        }
        assert_eq!(stage.holders.networks[&client("fd77::9").network()], 4096 * 3 / 4);
        for _ in 0..20 {
            assert!(stage.take("fd77::9"), "who was there before gets more");
        }
        for number in 0..20 {
            assert!(stage.take("192.0.2.1"), "others have room: {number}");
        }
        assert!(stage.take("fd77::99"), "a new one gets one");
    }

    #[test]
    fn a_network_of_honest_hosts_beside_a_large_one_keeps_its_own() {
        let mut stage = Stage::new(1024);
        for host in 0..50 {
            for _ in 0..4 {
                assert!(stage.take(&format!("fd77::1:{host}")));
            }
        }
        for host in 0..8 {
            while stage.take(&format!("fd77::2:{host}"))
                && stage.of(&format!("fd77::2:{host}")) < 300
            {}
        }
        for host in 0..50 {
            assert!(stage.of(&format!("fd77::1:{host}")) >= 4, "{host}");
            assert!(stage.take(&format!("fd77::1:{host}")), "{host}");
        }
    }

    #[test]
    fn where_there_are_too_many_who_has_most_gives_way() {
        let mut holders = Holders::default();
        for number in 0..100 {
            holders.add(
                client(if number < 30 { "192.0.2.1" } else { "192.0.2.2" }),
                number,
                number,
            );
        }
        assert_eq!(holders.too_many(client("192.0.2.3"), 101), None);
        assert_eq!(holders.too_many(client("192.0.2.3"), 100), Some(client("192.0.2.2")));
        for number in 100..1000 {
            holders.add(client(&format!("fd77::1:{number}")), number, number);
        }
        assert_eq!(holders.too_many(client("192.0.2.1"), 1200), None, "there is room beside it");
        let newest = holders.too_many(client("fd77::9"), 1200);
        assert_eq!(newest, Some(client("fd77::1:999")));
    }

    #[test]
    fn what_was_given_back_is_forgotten() {
        let mut stage = Stage::new(100);
        for ip in ["192.0.2.1", "fd77::1", "2001:db8::1"] {
            assert!(stage.take(ip));
            stage.holders.remove(client(ip), stage.next);
            stage.holders.remove(client(ip), stage.next);
        }
        let Holders { clients, networks, total } = &stage.holders;
        assert_eq!((clients.len(), networks.len(), *total), (0, 0, 0));
    }
}
