//! What was looked up a moment ago.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::answer::{Answer, Found};
use super::question::Question;
use crate::system::ip::ClientPrefix;
use crate::system::lru::LruMap;
use crate::system::shares::REMEMBERED_NAMES;

/// How long a failed lookup is remembered, at the most.
const FAILURE_TTL: Duration = Duration::from_secs(5);

/// How long the winner of a race goes first, at the most: addresses that take turns get theirs.
const WINNER_TTL: Duration = Duration::from_secs(60);

/// What one entry costs besides its name and its addresses, in bytes: its places in the two tables of
/// the map and in that of owners (104, 16 and 32, and as much again, as each is half full at worst), and
/// what the allocator adds to question, name and addresses (96).
const ENTRY: usize = 2 * (104 + 16 + 32) + 96;
const ADDRESS: usize = size_of::<SocketAddr>();

/// Bytes of all entries: those of 4,096 names of 40 bytes with two addresses each. Of the network that has
/// most of them, and there of the client that has most, the one that was not asked for longest goes:
/// whoever makes names up forgets its own.
const MAX_BYTES: usize = REMEMBERED_NAMES.all * (ENTRY + 40 + 2 * ADDRESS);

/// A bounded memory of answers.
pub(super) struct Memory {
    ttl: Duration,
    /// Who has asked for it first.
    owners: HashMap<Arc<Question>, ClientPrefix>,
    /// What each has asked for, unless another one had before.
    clients: HashMap<ClientPrefix, LruMap<Arc<Question>, Remembered>>,
    /// Bytes of the entries of each network's clients.
    networks: HashMap<ClientPrefix, usize>,
    /// Bytes of all entries.
    bytes: usize,
}

struct Remembered {
    answer: Answer,
    until: Instant,
    /// The winner of the latest race, and until when it goes first.
    winner: Option<(IpAddr, Instant)>,
}

impl Memory {
    /// A memory that keeps an answer for so long; not at all if that is zero.
    pub(super) fn new(ttl: Duration) -> Self {
        let (owners, clients, networks) = (HashMap::new(), HashMap::new(), HashMap::new());
        Memory { ttl, owners, clients, networks, bytes: 0 }
    }

    /// The answer to `question`, if it is still good, with the winner of the latest race first.
    pub(super) fn recall(&mut self, question: &Question, now: Instant) -> Option<Answer> {
        let known = self.find(question).filter(|known| now < known.until)?;
        let mut answer = known.answer.clone();
        if let Some((winner, _)) = known.winner.filter(|(_, until)| now < *until) {
            put_first(&mut answer, winner);
        }
        Some(answer)
    }

    fn find(&mut self, question: &Question) -> Option<&mut Remembered> {
        self.clients.get_mut(self.owners.get(question)?)?.get(question)
    }

    /// Remembers the answer that was looked up for `client`, and forgets what was learnt of an earlier one.
    pub(super) fn keep(
        &mut self,
        question: &Arc<Question>,
        client: ClientPrefix,
        answer: &Answer,
        now: Instant,
    ) {
        if self.ttl.is_zero() {
            return;
        }
        let ttl = if answer.is_ok() { self.ttl } else { self.ttl.min(FAILURE_TTL) };
        let known = Remembered { answer: answer.clone(), until: now + ttl, winner: None };
        self.forget(question);
        let cost = cost(question, answer);
        let its = self.clients.entry(client).or_insert_with(|| LruMap::new(usize::MAX));
        its.insert(Arc::clone(question), known, cost);
        self.owners.insert(Arc::clone(question), client);
        *self.networks.entry(client.network()).or_default() += cost;
        self.bytes += cost;
        while self.bytes > MAX_BYTES {
            let Some(oldest) = self.gives_way().map(Arc::clone) else { break };
            self.forget(&oldest);
        }
    }

    /// What is forgotten where there is too much.
    fn gives_way(&self) -> Option<&Arc<Question>> {
        let (network, _) = self.networks.iter().max_by_key(|(_, bytes)| **bytes)?;
        let of_network = self.clients.iter().filter(|(client, _)| client.network() == *network);
        let (_, most) = of_network.max_by_key(|(_, its)| its.weight())?;
        most.oldest().map(|(oldest, _)| oldest)
    }

    fn forget(&mut self, question: &Arc<Question>) {
        let Some(client) = self.owners.remove(question) else { return };
        let Some(its) = self.clients.get_mut(&client) else { return };
        let cost = its.remove(question).map_or(0, |known| cost(question, &known.answer));
        if its.len() == 0 {
            self.clients.remove(&client);
        }
        self.bytes -= cost;
        let of_network = self.networks.entry(client.network()).or_default();
        *of_network -= cost;
        if *of_network == 0 {
            self.networks.remove(&client.network());
        }
    }

    /// Notes which address has won a race.
    pub(super) fn won(&mut self, question: &Question, winner: IpAddr, now: Instant) {
        if let Some(known) = self.find(question) {
            known.winner = Some((winner, now + WINNER_TTL));
        }
    }
}

fn cost(question: &Question, answer: &Answer) -> usize {
    let name = match question {
        Question::Addresses(name) => name.len(),
        Question::Name(_) => 0,
    };
    let found = match answer {
        Ok(Found::Addresses(addresses)) => ADDRESS * addresses.len(),
        Ok(Found::Name(name)) => name.as_str().len(),
        // A text of up to 128 bytes.
        Err(_) => 128,
    };
    ENTRY + name + found
}

fn put_first(answer: &mut Answer, first: IpAddr) {
    let Ok(Found::Addresses(addresses)) = answer else { return };
    if let Some(place @ 1..) = addresses.iter().position(|address| address.ip() == first) {
        let mut order = addresses.to_vec();
        order[..=place].rotate_right(1);
        *addresses = order.into();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{self, ErrorKind};

    const TTL: Duration = Duration::from_secs(30);

    fn name(name: &str) -> Arc<Question> {
        Arc::new(Question::Addresses(name.into()))
    }

    fn client(number: u8) -> ClientPrefix {
        IpAddr::from([192, 0, 2, number]).into()
    }

    fn addresses(list: &[&str]) -> Found {
        Found::Addresses(list.iter().map(|ip| SocketAddr::new(ip.parse().unwrap(), 0)).collect())
    }

    fn shown(answer: Option<Answer>) -> Vec<String> {
        let found = answer.unwrap().unwrap();
        found.with_port(0).iter().map(|address| address.ip().to_string()).collect()
    }

    #[test]
    fn an_answer_is_good_for_a_while_and_a_failure_for_less() {
        let (mut memory, now) = (Memory::new(TTL), Instant::now());
        memory.keep(&name("a"), client(1), &Ok(addresses(&["192.0.2.1"])), now);
        let failure = Err(Arc::new(io::Error::from(ErrorKind::NotFound)));
        memory.keep(&name("b"), client(1), &failure, now);
        let later = |seconds: u64| now + Duration::from_millis(seconds * 1000 - 1);
        assert_eq!(shown(memory.recall(&name("a"), later(30))), ["192.0.2.1"]);
        assert!(memory.recall(&name("a"), now + TTL).is_none());
        assert!(memory.recall(&name("b"), later(5)).unwrap().is_err());
        assert!(memory.recall(&name("b"), now + FAILURE_TTL).is_none());
        assert!(memory.recall(&name("c"), now).is_none());
        let mut off = Memory::new(Duration::ZERO);
        off.keep(&name("a"), client(1), &Ok(addresses(&["192.0.2.1"])), now);
        assert!(off.recall(&name("a"), now).is_none());
    }

    #[test]
    fn the_winner_goes_first_for_a_minute_and_not_when_the_name_is_looked_up_again() {
        let (mut memory, now) = (Memory::new(10 * WINNER_TTL), Instant::now());
        let all = ["2001:db8::1", "192.0.2.1", "192.0.2.2"];
        memory.keep(&name("a"), client(1), &Ok(addresses(&all)), now);
        memory.won(&name("a"), "192.0.2.2".parse().unwrap(), now);
        let order = ["192.0.2.2", "2001:db8::1", "192.0.2.1"];
        let later = now + WINNER_TTL.checked_sub(Duration::from_millis(1)).unwrap();
        assert_eq!(shown(memory.recall(&name("a"), later)), order);
        assert_eq!(shown(memory.recall(&name("a"), now + WINNER_TTL)), all);
        memory.won(&name("a"), "192.0.2.1".parse().unwrap(), now);
        memory.keep(&name("a"), client(1), &Ok(addresses(&all)), now);
        assert_eq!(shown(memory.recall(&name("a"), now)), all);
    }

    #[test]
    fn the_name_that_was_not_asked_for_longest_goes() {
        let (mut memory, now) = (Memory::new(TTL), Instant::now());
        let long = |number: usize| name(&format!("{number:0>40}"));
        let answer = || Ok(addresses(&["192.0.2.1", "2001:db8::1"]));
        for number in 0..4096 {
            memory.keep(&long(number), client(1), &answer(), now);
        }
        assert!(memory.recall(&long(0), now).is_some());
        memory.keep(&long(4096), client(1), &answer(), now);
        assert!(memory.recall(&long(1), now).is_none());
        for number in [0, 2, 4095, 4096] {
            assert!(memory.recall(&long(number), now).is_some(), "{number}");
        }
    }

    #[test]
    fn a_million_names_take_no_more_than_four_thousand() {
        let (mut memory, now) = (Memory::new(TTL), Instant::now());
        for number in 0..100_000 {
            let long = name(&format!("{number:0>255}"));
            memory.keep(&long, client(1), &Ok(addresses(&["192.0.2.1", "2001:db8::1"])), now);
        }
        assert!((2048..4096).contains(&memory.owners.len()));
        let its = memory.clients.get_mut(&client(1)).unwrap();
        let costs = its.iter_mut().map(|(name, known)| cost(name, &known.answer));
        assert_eq!(costs.sum::<usize>(), memory.bytes);
        assert!(memory.bytes <= MAX_BYTES);
        const { assert!(MAX_BYTES < 2 * 1024 * 1024) };
    }

    #[test]
    fn who_makes_names_up_forgets_its_own() {
        let (mut memory, now) = (Memory::new(TTL), Instant::now());
        let failure = Err(Arc::new(io::Error::from(ErrorKind::NotFound)));
        for number in 0..50 {
            let found = Ok(addresses(&["192.0.2.1"]));
            memory.keep(&name(&format!("{number}.example")), client(1), &found, now);
        }
        for number in 0..20_000_u16 {
            let made_up = name(&format!("{number}.invalid"));
            // Every second one is of a host with a thousand addresses.
            let attacker = match number % 2 {
                0 => client(2),
                _ => IpAddr::from([0xfd77, 0, 0, 0, 0, 0, 0, number % 1000]).into(),
            };
            memory.keep(&made_up, attacker, &failure, now);
        }
        for number in 0..50 {
            let known = memory.recall(&name(&format!("{number}.example")), now);
            assert!(known.is_some(), "{number}");
        }
        assert!(memory.bytes <= MAX_BYTES && memory.owners.len() > 2000);
        // A name that another one asks for again is that one's.
        memory.keep(&name("0.example"), client(9), &failure, now);
        assert!(memory.recall(&name("0.example"), now).unwrap().is_err());
        let all: usize = memory.clients.values().map(LruMap::len).sum();
        assert_eq!(all, memory.owners.len());
        assert_eq!(memory.networks.values().sum::<usize>(), memory.bytes);
        assert_eq!(memory.networks.len(), 4);
    }
}
