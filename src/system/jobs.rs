//! Which long jobs run, which wait for a thread, and who waits for the answer of each: lookups of names,
//! and verifications of passwords.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::iter::from_fn;
use std::sync::{Arc, OnceLock};

use super::ip::ClientPrefix;
use super::waker::Waker;

/// One who waits for an answer.
pub(crate) struct Waiter<Q, A> {
    /// Its number, in the order in which they came. Many leave at once when a name server is
    /// silent, so nobody is searched for.
    pub(crate) number: u64,
    pub(crate) question: Arc<Q>,
    pub(crate) client: ClientPrefix,
    /// Woken when the answer is there.
    pub(crate) waker: Arc<Waker>,
    pub(crate) answer: OnceLock<A>,
}

/// A job that has a place among those that run.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Job<Q> {
    pub(crate) question: Arc<Q>,
    /// For whom it was asked first.
    pub(crate) client: ClientPrefix,
}

/// The jobs that are asked for now: one for each question, however many wait for it.
pub(crate) struct Jobs<Q, A> {
    max_running: usize,
    /// As many may run for one client.
    of_one: usize,
    running: usize,
    /// The number of the latest waiter.
    latest: u64,
    asked: HashMap<Arc<Q>, Asked<Q, A>>,
    /// Those that have jobs running or waiting.
    clients: HashMap<ClientPrefix, ClientJobs<Q>>,
}

/// A job and those who wait for it.
struct Asked<Q, A> {
    runs: bool,
    waiters: BTreeMap<u64, Arc<Waiter<Q, A>>>,
}

impl<Q, A> Asked<Q, A> {
    const BY_NOBODY: Self = Asked { runs: false, waiters: BTreeMap::new() };
}

struct ClientJobs<Q> {
    running: usize,
    /// The number of the latest waiter when one was started last.
    turn: u64,
    /// The questions whose jobs do not run yet, by the waiter's number.
    waiting: BTreeMap<u64, Arc<Q>>,
}

impl<Q> Clone for Job<Q> {
    fn clone(&self) -> Self {
        Job { question: Arc::clone(&self.question), client: self.client }
    }
}

impl<Q> ClientJobs<Q> {
    const NONE: Self = ClientJobs { running: 0, turn: 0, waiting: BTreeMap::new() };

    /// Since when it is its turn: it has waited since then, and has had nothing.
    fn since(&self) -> u64 {
        self.waiting.first_key_value().map_or(u64::MAX, |(number, _)| self.turn.max(*number))
    }
}

impl<Q: Eq + Hash, A> Jobs<Q, A> {
    /// For so many jobs at once, and so many of one client.
    pub(crate) fn new(max_running: usize, of_one: usize) -> Self {
        let (asked, clients) = (HashMap::new(), HashMap::new());
        Jobs { max_running, of_one, running: 0, latest: 0, asked, clients }
    }

    /// Whether somebody waits for an answer to `question`.
    pub(crate) fn has(&self, question: &Q) -> bool {
        self.asked.contains_key(question)
    }

    /// Adds one who waits, and gives back the job if it has to be started for that.
    pub(crate) fn join(
        &mut self,
        question: Q,
        client: ClientPrefix,
        waker: Arc<Waker>,
    ) -> (Arc<Waiter<Q, A>>, Option<Job<Q>>) {
        // Those who ask the same keep one text.
        let known = self.asked.get_key_value(&question).map(|(question, _)| Arc::clone(question));
        let question = known.unwrap_or_else(|| Arc::new(question));
        self.latest += 1;
        let (number, answer) = (self.latest, OnceLock::new());
        let waiter = Waiter { number, question: Arc::clone(&question), client, waker, answer };
        let waiter = Arc::new(waiter);
        let asked = self.asked.entry(Arc::clone(&question)).or_insert(Asked::BY_NOBODY);
        asked.waiters.insert(number, Arc::clone(&waiter));
        if asked.runs {
            return (waiter, None);
        }
        self.clients.entry(client).or_insert(ClientJobs::NONE).waiting.insert(number, question);
        // Those who waited before could not start, so this is the client's if it is anybody's.
        (waiter, self.start_next())
    }

    /// `waiter` does not wait any more. A job that nobody waits for is not begun.
    pub(crate) fn leave(&mut self, waiter: &Waiter<Q, A>) {
        if let Some(asked) = self.asked.get_mut(&waiter.question) {
            asked.waiters.remove(&waiter.number);
            if !asked.runs && asked.waiters.is_empty() {
                self.asked.remove(&waiter.question);
            }
        }
        stop_waiting(&mut self.clients, waiter);
    }

    /// A job has its answer. Gives back those who wait for it.
    pub(crate) fn answered(&mut self, job: &Job<Q>) -> Vec<Arc<Waiter<Q, A>>> {
        let asked = self.asked.remove(&job.question);
        asked.map_or(Vec::new(), |asked| asked.waiters.into_values().collect())
    }

    /// A job gives its place up. Gives back the jobs that the place is for now.
    pub(crate) fn release(&mut self, job: &Job<Q>) -> Vec<Job<Q>> {
        self.running -= 1;
        update(&mut self.clients, job.client, |its| its.running -= 1);
        from_fn(|| self.start_next()).collect()
    }

    /// Of the clients that wait, starts for one that has the fewest what it has waited for longest, if
    /// there is a place; of several the one whose turn it has been for longest. A client has at most as many more as stay free, so that one which has none
    /// finds a place; and all of one network at most three times as many.
    fn start_next(&mut self) -> Option<Job<Q>> {
        let free = self.max_running - self.running;
        if free == 0 {
            return None;
        }
        let mut of_networks: HashMap<ClientPrefix, usize> = HashMap::new();
        for (client, its) in &self.clients {
            *of_networks.entry(client.network()).or_default() += its.running;
        }
        let may_run = |(client, its): &(&ClientPrefix, &mut ClientJobs<Q>)| {
            let of_network = of_networks.get(&client.network()).copied().unwrap_or(0);
            !its.waiting.is_empty() && (of_network == 0 || of_network < 3 * free)
        };
        let waiting = self.clients.iter_mut().filter(may_run);
        let (&client, its) = waiting.min_by_key(|(_, its)| (its.running, its.since()))?;
        if its.running > 0 && its.running >= self.of_one.min(free / 2) {
            return None;
        }
        let (_, question) = its.waiting.pop_first()?;
        its.running += 1;
        its.turn = self.latest;
        self.running += 1;
        let asked = self.asked.entry(Arc::clone(&question)).or_insert(Asked::BY_NOBODY);
        asked.runs = true;
        for waiter in asked.waiters.values() {
            stop_waiting(&mut self.clients, waiter);
        }
        Some(Job { question, client })
    }
}

fn stop_waiting<Q, A>(clients: &mut HashMap<ClientPrefix, ClientJobs<Q>>, waiter: &Waiter<Q, A>) {
    update(clients, waiter.client, |its| drop(its.waiting.remove(&waiter.number)));
}

/// Changes what there is of a client, and forgets those that have nothing any more.
fn update<Q>(
    clients: &mut HashMap<ClientPrefix, ClientJobs<Q>>,
    client: ClientPrefix,
    change: impl FnOnce(&mut ClientJobs<Q>),
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

    type Queue = Jobs<String, ()>;
    type Job = super::Job<String>;
    type Waiter = super::Waiter<String, ()>;

    const OF_ONE: usize = 16;

    fn ask(queue: &mut Queue, name: &str, client: u8) -> (Arc<Waiter>, Option<Job>) {
        let waker = Arc::new(Waker::new().unwrap());
        let client = IpAddr::from([192, 0, 2, client]).into();
        queue.join(name.into(), client, waker)
    }

    /// Asks for names of its own until no lookup is started, and gives back those that were.
    fn fill(queue: &mut Queue, client: u8) -> Vec<Job> {
        (0..100).map_while(|number| ask(queue, &format!("{client}.{number}"), client).1).collect()
    }

    fn finish(queue: &mut Queue, job: &Job) -> (Vec<Arc<Waiter>>, Vec<Job>) {
        (queue.answered(job), queue.release(job))
    }

    fn name(job: &Job) -> &str {
        &job.question
    }

    fn is_empty(queue: &Queue) -> bool {
        queue.clients.is_empty() && queue.asked.is_empty() && queue.running == 0
    }

    #[test]
    fn a_name_is_looked_up_once_for_all() {
        let mut queue = Queue::new(64, OF_ONE);
        let job = ask(&mut queue, "a", 1).1.unwrap();
        assert_eq!(ask(&mut queue, "a", 1).1, None);
        assert_eq!(ask(&mut queue, "a", 2).1, None);
        let (waiters, jobs) = finish(&mut queue, &job);
        assert_eq!((waiters.len(), jobs.len()), (3, 0));
        assert!(is_empty(&queue));
    }

    #[test]
    fn names_that_hang_for_four_clients_leave_room_for_a_fifth() {
        let mut queue = Queue::new(64, OF_ONE);
        let counts: Vec<usize> = (1..=4).map(|client| fill(&mut queue, client).len()).collect();
        assert_eq!(counts[..2], [OF_ONE; 2], "{counts:?}");
        assert!(fill(&mut queue, 5).len() >= 4, "a browser opens several connections at once");
        assert_eq!(fill(&mut queue, 6).len().min(1), 1);
    }

    #[test]
    fn a_thousand_addresses_of_one_network_leave_room_for_others() {
        let mut queue = Queue::new(64, OF_ONE);
        let ask_from = |queue: &mut Queue, host: &str, name: u16| {
            let waker = Arc::new(Waker::new().unwrap());
            let client = host.parse::<IpAddr>().unwrap().into();
            queue.join(format!("{name}.example"), client, waker).1.is_some()
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
        let mut queue = Queue::new(64, OF_ONE);
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
        let mut queue = Queue::new(1, OF_ONE);
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
