//! Which lookups run, which wait for a thread, and who waits for each.

use std::collections::{BTreeMap, HashMap};
use std::iter::from_fn;
use std::sync::{Arc, OnceLock};

use super::answer::Answer;
use super::question::Question;
use crate::system::ip::ClientPrefix;
use crate::system::shares::LOOKUPS;
use crate::system::waker::Waker;

/// One who waits for an answer.
pub(super) struct Waiter {
    /// Its number, in the order in which they came. Many leave at once when a name server is
    /// silent, so nobody is searched for.
    number: u64,
    question: Arc<Question>,
    client: ClientPrefix,
    /// Woken when the answer is there.
    pub(super) waker: Arc<Waker>,
    pub(super) answer: OnceLock<Answer>,
}

/// A lookup that has a place among those that run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Job {
    pub(super) question: Arc<Question>,
    /// For whom it was asked first.
    pub(super) client: ClientPrefix,
}

/// The lookups that are asked for now: one for each question, however many wait for it.
pub(super) struct Queue {
    max_running: usize,
    running: usize,
    /// The number of the latest waiter.
    latest: u64,
    lookups: HashMap<Arc<Question>, Lookup>,
    /// Those that have lookups running or waiting.
    clients: HashMap<ClientPrefix, ClientLookups>,
}

#[derive(Default)]
struct Lookup {
    runs: bool,
    waiters: BTreeMap<u64, Arc<Waiter>>,
}

#[derive(Default)]
struct ClientLookups {
    running: usize,
    /// The questions whose lookups do not run yet, by the waiter's number.
    waiting: BTreeMap<u64, Arc<Question>>,
}

impl Queue {
    /// A queue for so many lookups at once.
    pub(super) fn new(max_running: usize) -> Self {
        let (lookups, clients) = (HashMap::new(), HashMap::new());
        Queue { max_running, running: 0, latest: 0, lookups, clients }
    }

    /// Adds one who waits, and gives back the lookup if it has to be started for that.
    pub(super) fn join(
        &mut self,
        question: Question,
        client: ClientPrefix,
        waker: Arc<Waker>,
    ) -> (Arc<Waiter>, Option<Job>) {
        // Those who ask for one name keep one text.
        let known = self.lookups.get_key_value(&question).map(|(question, _)| Arc::clone(question));
        let question = known.unwrap_or_else(|| Arc::new(question));
        self.latest += 1;
        let (number, answer) = (self.latest, OnceLock::new());
        let waiter = Waiter { number, question: Arc::clone(&question), client, waker, answer };
        let waiter = Arc::new(waiter);
        let lookup = self.lookups.entry(Arc::clone(&question)).or_default();
        lookup.waiters.insert(number, Arc::clone(&waiter));
        if lookup.runs {
            return (waiter, None);
        }
        self.clients.entry(client).or_default().waiting.insert(number, question);
        // Those who waited before could not start, so this is the client's if it is anybody's.
        (waiter, self.start_next())
    }

    /// `waiter` does not wait any more. A lookup that nobody waits for is not begun.
    pub(super) fn leave(&mut self, waiter: &Waiter) {
        if let Some(lookup) = self.lookups.get_mut(&waiter.question) {
            lookup.waiters.remove(&waiter.number);
            if !lookup.runs && lookup.waiters.is_empty() {
                self.lookups.remove(&waiter.question);
            }
        }
        stop_waiting(&mut self.clients, waiter);
    }

    /// A lookup has its answer. Gives back those who wait for it.
    pub(super) fn answered(&mut self, job: &Job) -> Vec<Arc<Waiter>> {
        let lookup = self.lookups.remove(&job.question);
        lookup.map_or(Vec::new(), |lookup| lookup.waiters.into_values().collect())
    }

    /// A lookup gives its place up. Gives back the lookups that the place is for now.
    pub(super) fn release(&mut self, job: &Job) -> Vec<Job> {
        self.running -= 1;
        update(&mut self.clients, job.client, |its| its.running -= 1);
        from_fn(|| self.start_next()).collect()
    }

    /// Of the clients that wait, starts for one that has the fewest what it has waited for longest, if
    /// there is a place. A client has at most as many more as stay free, so that one which has none
    /// finds a place; and all of one network at most three times as many.
    fn start_next(&mut self) -> Option<Job> {
        let free = self.max_running - self.running;
        if free == 0 {
            return None;
        }
        let mut of_networks: HashMap<ClientPrefix, usize> = HashMap::new();
        for (client, its) in &self.clients {
            *of_networks.entry(client.network()).or_default() += its.running;
        }
        let may_run = |(client, its): &(&ClientPrefix, &mut ClientLookups)| {
            let of_network = of_networks.get(&client.network()).copied().unwrap_or(0);
            !its.waiting.is_empty() && (of_network == 0 || of_network < 3 * free)
        };
        let waiting = self.clients.iter_mut().filter(may_run);
        let (&client, its) = waiting.min_by_key(|(_, its)| its.running)?;
        if its.running > 0 && its.running >= LOOKUPS.of_one.min(free / 2) {
            return None;
        }
        let (_, question) = its.waiting.pop_first()?;
        its.running += 1;
        self.running += 1;
        let lookup = self.lookups.entry(Arc::clone(&question)).or_default();
        lookup.runs = true;
        for waiter in lookup.waiters.values() {
            stop_waiting(&mut self.clients, waiter);
        }
        Some(Job { question, client })
    }
}

fn stop_waiting(clients: &mut HashMap<ClientPrefix, ClientLookups>, waiter: &Waiter) {
    update(clients, waiter.client, |its| drop(its.waiting.remove(&waiter.number)));
}

/// Changes what there is of a client, and forgets those that have nothing any more.
fn update(
    clients: &mut HashMap<ClientPrefix, ClientLookups>,
    client: ClientPrefix,
    change: impl FnOnce(&mut ClientLookups),
) {
    if let Some(its) = clients.get_mut(&client) {
        change(its);
        if its.running == 0 && its.waiting.is_empty() {
            clients.remove(&client);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::IpAddr;

    fn ask(queue: &mut Queue, name: &str, client: u8) -> (Arc<Waiter>, Option<Job>) {
        let waker = Arc::new(Waker::new().unwrap());
        let client = IpAddr::from([192, 0, 2, client]).into();
        queue.join(Question::Addresses(name.into()), client, waker)
    }

    /// Asks for names of its own until no lookup is started, and gives back those that were.
    fn fill(queue: &mut Queue, client: u8) -> Vec<Job> {
        (0..100).map_while(|number| ask(queue, &format!("{client}.{number}"), client).1).collect()
    }

    fn finish(queue: &mut Queue, job: &Job) -> (Vec<Arc<Waiter>>, Vec<Job>) {
        (queue.answered(job), queue.release(job))
    }

    fn name(job: &Job) -> &str {
        match &*job.question {
            Question::Addresses(name) => name,
            Question::Name(ip) => panic!("{ip}"),
        }
    }

    fn is_empty(queue: &Queue) -> bool {
        queue.clients.is_empty() && queue.lookups.is_empty() && queue.running == 0
    }

    #[test]
    fn a_name_is_looked_up_once_for_all() {
        let mut queue = Queue::new(64);
        let job = ask(&mut queue, "a", 1).1.unwrap();
        assert_eq!(ask(&mut queue, "a", 1).1, None);
        assert_eq!(ask(&mut queue, "a", 2).1, None);
        let (waiters, jobs) = finish(&mut queue, &job);
        assert_eq!((waiters.len(), jobs.len()), (3, 0));
        assert!(is_empty(&queue));
    }

    #[test]
    fn names_that_hang_for_four_clients_leave_room_for_a_fifth() {
        let mut queue = Queue::new(64);
        let counts: Vec<usize> = (1..=4).map(|client| fill(&mut queue, client).len()).collect();
        assert_eq!(counts[..2], [LOOKUPS.of_one; 2], "{counts:?}");
        assert!(fill(&mut queue, 5).len() >= 4, "a browser opens several connections at once");
        assert_eq!(fill(&mut queue, 6).len().min(1), 1);
    }

    #[test]
    fn a_thousand_addresses_of_one_network_leave_room_for_others() {
        let mut queue = Queue::new(64);
        let ask_from = |queue: &mut Queue, host: &str, name: u16| {
            let waker = Arc::new(Waker::new().unwrap());
            let client = host.parse::<IpAddr>().unwrap().into();
            queue
                .join(Question::Addresses(format!("{name}.example").into()), client, waker)
                .1
                .is_some()
        };
        let started = |queue: &mut Queue, from: &str, names: std::ops::Range<u16>| {
            names
                .filter(|name| ask_from(queue, &from.replace('*', &name.to_string()), *name))
                .count()
        };
        assert_eq!(started(&mut queue, "fd00::*", 0..100), 48);
        assert!(started(&mut queue, "192.0.2.1", 100..120) >= 4);
        assert!(started(&mut queue, "fd00:0:0:1::*", 200..300) > 0);
    }

    #[test]
    fn a_name_that_waits_for_one_client_starts_for_another() {
        let mut queue = Queue::new(64);
        let jobs = fill(&mut queue, 1);
        assert_eq!(ask(&mut queue, "a", 1).1, None);
        let job = ask(&mut queue, "a", 2).1.unwrap();
        assert_eq!(finish(&mut queue, &job).0.len(), 2);
        let (_, next) = finish(&mut queue, &jobs[0]);
        assert_eq!(name(&next[0]), "1.16", "what is over is not started again");
        let (_, next) = finish(&mut queue, &jobs[1]);
        assert_eq!(next, [], "nor is it in the queue any more");
    }

    #[test]
    fn who_has_fewest_is_next_and_who_leaves_is_forgotten() {
        let mut queue = Queue::new(1);
        let job = ask(&mut queue, "a", 1).1.unwrap();
        let waiters = [("b", 1), ("c", 1), ("d", 2)].map(|(name, client)| {
            let (waiter, job) = ask(&mut queue, name, client);
            assert_eq!(job, None);
            waiter
        });
        queue.leave(&waiters[0]);
        let (_, jobs) = finish(&mut queue, &job);
        assert_eq!(jobs.len(), 1);
        let (_, more) = finish(&mut queue, &jobs[0]);
        let mut names = [name(&jobs[0]), name(&more[0])];
        names.sort_unstable();
        assert_eq!(names, ["c", "d"]);
        finish(&mut queue, &more[0]);
        for waiter in &waiters[1..] {
            queue.leave(waiter);
        }
        assert!(is_empty(&queue));
    }
}
