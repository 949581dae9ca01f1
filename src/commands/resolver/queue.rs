//! Which lookups run, which wait for a thread, and who waits for each.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, OnceLock};

use super::Answer;
use crate::system::ip::ClientPrefix;
use crate::system::waker::Waker;

/// Lookups of one group of clients that run at once.
const MOST_OF_ONE_GROUP: usize = 16;

/// One who waits for the answer about a name.
pub(super) struct Waiter {
    /// Its number, in the order in which they came. Many leave at once when a name server is
    /// silent, so nobody is searched for.
    pub(super) number: u64,
    /// The name's key.
    pub(super) name: Arc<str>,
    /// Whose lookup it is.
    pub(super) group: ClientPrefix,
    /// Rung when the answer is there.
    pub(super) waker: Arc<Waker>,
    pub(super) answer: OnceLock<Answer>,
}

/// A lookup that has a place among those that run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Job {
    pub(super) name: Arc<str>,
    group: ClientPrefix,
}

/// The lookups that are asked for now: one for each name, however many wait for it.
pub(super) struct Queue {
    most: usize,
    running: usize,
    next: u64,
    names: HashMap<Arc<str>, NameLookup>,
    /// Those that have lookups running or waiting.
    groups: HashMap<ClientPrefix, Lookups>,
}

#[derive(Default)]
struct NameLookup {
    runs: bool,
    waiters: BTreeMap<u64, Arc<Waiter>>,
}

/// Those of one group.
#[derive(Default)]
struct Lookups {
    running: usize,
    /// Those whose names did not run when they asked, the first of them first. Some may run now,
    /// for another group.
    waiting: BTreeMap<u64, Arc<Waiter>>,
}

impl Queue {
    /// A queue for `most` lookups at once.
    pub(super) fn new(most: usize) -> Self {
        Queue { most, running: 0, next: 0, names: HashMap::new(), groups: HashMap::new() }
    }

    /// The name's key, if somebody waits for it already: those who ask for one name keep one text.
    pub(super) fn name(&self, name: &str) -> Option<Arc<str>> {
        self.names.get_key_value(name).map(|(name, _)| Arc::clone(name))
    }

    /// The number of the next one who waits.
    pub(super) fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Lets `waiter` wait, and gives back the lookup if it has to be started for that.
    pub(super) fn join(&mut self, waiter: &Arc<Waiter>) -> Option<Job> {
        let asked = self.names.entry(Arc::clone(&waiter.name)).or_default();
        asked.waiters.insert(waiter.number, Arc::clone(waiter));
        if asked.runs {
            return None;
        }
        let lookups = self.groups.entry(waiter.group).or_default();
        lookups.waiting.insert(waiter.number, Arc::clone(waiter));
        if self.may_start(waiter.group) { self.start_next_of(waiter.group) } else { None }
    }

    /// `waiter` does not wait any more. A lookup that nobody waits for is not begun.
    pub(super) fn leave(&mut self, waiter: &Waiter) {
        if let Some(asked) = self.names.get_mut(&waiter.name) {
            asked.waiters.remove(&waiter.number);
            if !asked.runs && asked.waiters.is_empty() {
                self.names.remove(&waiter.name);
            }
        }
        if let Some(lookups) = self.groups.get_mut(&waiter.group) {
            lookups.waiting.remove(&waiter.number);
            self.drop_idle_group(waiter.group);
        }
    }

    /// A lookup is over. Gives back those who wait for its answer, and the lookups that its place is
    /// for now.
    pub(super) fn finish(&mut self, job: &Job) -> (Vec<Arc<Waiter>>, Vec<Job>) {
        let waiters = self.names.remove(&job.name).map(|asked| asked.waiters.into_values());
        self.running -= 1;
        if let Some(lookups) = self.groups.get_mut(&job.group) {
            lookups.running -= 1;
        }
        self.drop_idle_group(job.group);
        let mut jobs = Vec::new();
        while let Some(group) = self.next_group() {
            jobs.extend(self.start_next_of(group));
        }
        (waiters.into_iter().flatten().collect(), jobs)
    }

    /// Whether there is a place for one more lookup of this group. A group has at most as many more
    /// as stay free, so that one which has none finds a place.
    fn may_start(&self, group: ClientPrefix) -> bool {
        let free = self.most - self.running;
        let its = self.groups.get(&group).map_or(0, |lookups| lookups.running);
        free > 0 && (its == 0 || (its < MOST_OF_ONE_GROUP && its < free / 2))
    }

    /// Of the groups that wait and may start a lookup, one that has the fewest.
    fn next_group(&self) -> Option<ClientPrefix> {
        let waiting = self.groups.iter().filter(|(_, lookups)| !lookups.waiting.is_empty());
        let (group, _) = waiting.min_by_key(|(_, lookups)| lookups.running)?;
        self.may_start(*group).then_some(*group)
    }

    /// Starts what has waited longest in this group, if it does not run already.
    fn start_next_of(&mut self, group: ClientPrefix) -> Option<Job> {
        let lookups = self.groups.get_mut(&group)?;
        while let Some((_, waiter)) = lookups.waiting.pop_first() {
            match self.names.get_mut(&waiter.name) {
                Some(asked) if !asked.runs && waiter.answer.get().is_none() => {
                    asked.runs = true;
                    lookups.running += 1;
                    self.running += 1;
                    return Some(Job { name: Arc::clone(&waiter.name), group });
                }
                // It runs for another group, or is over.
                Some(_) | None => {}
            }
        }
        self.drop_idle_group(group);
        None
    }

    fn drop_idle_group(&mut self, group: ClientPrefix) {
        let is_idle = |lookups: &Lookups| lookups.running == 0 && lookups.waiting.is_empty();
        if self.groups.get(&group).is_some_and(is_idle) {
            self.groups.remove(&group);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::resolver::Found;
    use portable_atomic::{AtomicU64, Ordering};
    use std::net::IpAddr;

    fn waiter(name: &str, group: u8) -> Arc<Waiter> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Arc::new(Waiter {
            number: NEXT.fetch_add(1, Ordering::Relaxed),
            name: name.into(),
            group: IpAddr::from([192, 0, 2, group]).into(),
            waker: Arc::new(Waker::new().unwrap()),
            answer: OnceLock::new(),
        })
    }

    /// Asks for names of its own until no lookup is started, and says how many were.
    fn fill(queue: &mut Queue, group: u8) -> Vec<Job> {
        let ask = |number| queue.join(&waiter(&format!("{group}.{number}"), group));
        (0..100).map_while(ask).collect()
    }

    #[test]
    fn a_name_is_looked_up_once_for_all() {
        let mut queue = Queue::new(64);
        let waiters = [waiter("a", 1), waiter("a", 1), waiter("a", 2)];
        let job = queue.join(&waiters[0]).unwrap();
        assert_eq!(queue.join(&waiters[1]), None);
        assert_eq!(queue.join(&waiters[2]), None);
        let (told, jobs) = queue.finish(&job);
        assert_eq!((told.len(), jobs.len()), (3, 0));
        assert!(queue.groups.is_empty() && queue.names.is_empty() && queue.running == 0);
    }

    #[test]
    fn names_that_hang_for_four_clients_leave_room_for_a_fifth() {
        let mut queue = Queue::new(64);
        let counts: Vec<usize> = (1..=4).map(|group| fill(&mut queue, group).len()).collect();
        assert_eq!(counts[..2], [MOST_OF_ONE_GROUP; 2], "{counts:?}");
        assert!(fill(&mut queue, 5).len() >= 4, "a browser opens several connections at once");
        assert_eq!(fill(&mut queue, 6).len().min(1), 1);
    }

    #[test]
    fn a_name_that_waits_for_one_client_starts_for_another() {
        let mut queue = Queue::new(64);
        let jobs = fill(&mut queue, 1);
        let (first, second) = (waiter("a", 1), waiter("a", 2));
        assert_eq!(queue.join(&first), None);
        let job = queue.join(&second).unwrap();
        assert_eq!(queue.finish(&job).0.len(), 2);
        first.answer.set(Ok(Found::Addresses([].into()))).unwrap();
        let (_, next) = queue.finish(&jobs[0]);
        assert_eq!(&*next[0].name, "1.16", "what is over is not started again");
    }

    #[test]
    fn who_has_fewest_is_next_and_who_leaves_is_forgotten() {
        let mut queue = Queue::new(1);
        let job = queue.join(&waiter("a", 1)).unwrap();
        let (gone, greedy, modest) = (waiter("b", 1), waiter("c", 1), waiter("d", 2));
        for waiter in [&gone, &greedy, &modest] {
            assert_eq!(queue.join(waiter), None);
        }
        queue.leave(&gone);
        let (_, jobs) = queue.finish(&job);
        assert_eq!(jobs.len(), 1);
        let (_, more) = queue.finish(&jobs[0]);
        let mut names = [&*jobs[0].name, &*more[0].name];
        names.sort_unstable();
        assert_eq!(names, ["c", "d"]);
        queue.finish(&more[0]);
        for waiter in [greedy, modest] {
            queue.leave(&waiter);
        }
        assert!(queue.groups.is_empty() && queue.names.is_empty() && queue.running == 0);
    }
}
