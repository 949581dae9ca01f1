//! Which lookups run, which wait for a thread, and who waits for each.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, OnceLock};

use super::{Answer, Bell};
use crate::group::Group;

/// Lookups of one group of clients that run at once.
const MOST_OF_ONE_GROUP: usize = 16;

/// One who waits for the answer about a name.
pub(super) struct Waiter {
    /// The name's key.
    pub(super) name: Arc<str>,
    /// Whose lookup it is.
    pub(super) group: Group,
    /// Rung when the answer is there.
    pub(super) bell: Arc<Bell>,
    pub(super) answer: OnceLock<Answer>,
}

/// A lookup that has a place among those that run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Job {
    pub(super) name: Arc<str>,
    group: Group,
}

/// The lookups that are asked for now: one for each name, however many wait for it.
pub(super) struct Queue {
    most: usize,
    running: usize,
    names: HashMap<Arc<str>, Asked>,
    /// Those that have lookups running or waiting.
    groups: HashMap<Group, Share>,
}

#[derive(Default)]
struct Asked {
    runs: bool,
    waiters: Vec<Arc<Waiter>>,
}

#[derive(Default)]
struct Share {
    running: usize,
    /// Those whose names did not run when they asked, the first of them first. Some may run now,
    /// for another group.
    waiting: VecDeque<Arc<Waiter>>,
}

impl Queue {
    /// A queue for `most` lookups at once.
    pub(super) fn new(most: usize) -> Self {
        Queue { most, running: 0, names: HashMap::new(), groups: HashMap::new() }
    }

    /// The name's key, if somebody waits for it already: those who ask for one name keep one text.
    pub(super) fn name(&self, name: &str) -> Option<Arc<str>> {
        self.names.get_key_value(name).map(|(name, _)| Arc::clone(name))
    }

    /// Lets `waiter` wait, and gives back the lookup if it has to be started for that.
    pub(super) fn join(&mut self, waiter: &Arc<Waiter>) -> Option<Job> {
        let asked = self.names.entry(Arc::clone(&waiter.name)).or_default();
        asked.waiters.push(Arc::clone(waiter));
        if asked.runs {
            return None;
        }
        self.groups.entry(waiter.group).or_default().waiting.push_back(Arc::clone(waiter));
        if self.may_start(waiter.group) { self.start_next_of(waiter.group) } else { None }
    }

    /// `waiter` does not wait any more. A lookup that nobody waits for is not begun.
    pub(super) fn leave(&mut self, waiter: &Arc<Waiter>) {
        if let Some(asked) = self.names.get_mut(&waiter.name) {
            asked.waiters.retain(|other| !Arc::ptr_eq(other, waiter));
            if !asked.runs && asked.waiters.is_empty() {
                self.names.remove(&waiter.name);
            }
        }
        if let Some(group) = self.groups.get_mut(&waiter.group) {
            group.waiting.retain(|other| !Arc::ptr_eq(other, waiter));
            self.drop_idle_group(waiter.group);
        }
    }

    /// A lookup is over. Gives back those who wait for its answer, and the lookups that its place is
    /// for now.
    pub(super) fn finish(&mut self, job: &Job) -> (Vec<Arc<Waiter>>, Vec<Job>) {
        let waiters = self.names.remove(&job.name).map_or(Vec::new(), |asked| asked.waiters);
        self.running -= 1;
        if let Some(group) = self.groups.get_mut(&job.group) {
            group.running -= 1;
        }
        self.drop_idle_group(job.group);
        let mut jobs = Vec::new();
        while let Some(group) = self.next_group() {
            jobs.extend(self.start_next_of(group));
        }
        (waiters, jobs)
    }

    /// Whether there is a place for one more lookup of this group. A group has at most as many more
    /// as stay free, so that one which has none finds a place.
    fn may_start(&self, group: Group) -> bool {
        let free = self.most - self.running;
        let its = self.groups.get(&group).map_or(0, |group| group.running);
        free > 0 && (its == 0 || (its < MOST_OF_ONE_GROUP && its < free / 2))
    }

    /// Of the groups that wait and may start a lookup, one that has the fewest.
    fn next_group(&self) -> Option<Group> {
        let waiting = self.groups.iter().filter(|(_, group)| !group.waiting.is_empty());
        let (address, _) = waiting.min_by_key(|(_, group)| group.running)?;
        self.may_start(*address).then_some(*address)
    }

    /// Starts what has waited longest in this group, if it does not run already.
    fn start_next_of(&mut self, address: Group) -> Option<Job> {
        let group = self.groups.get_mut(&address)?;
        while let Some(waiter) = group.waiting.pop_front() {
            match self.names.get_mut(&waiter.name) {
                Some(asked) if !asked.runs && waiter.answer.get().is_none() => {
                    asked.runs = true;
                    group.running += 1;
                    self.running += 1;
                    return Some(Job { name: Arc::clone(&waiter.name), group: address });
                }
                // It runs for another group, or is over.
                Some(_) | None => {}
            }
        }
        self.drop_idle_group(address);
        None
    }

    fn drop_idle_group(&mut self, address: Group) {
        let is_idle = |share: &Share| share.running == 0 && share.waiting.is_empty();
        if self.groups.get(&address).is_some_and(is_idle) {
            self.groups.remove(&address);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::IpAddr;

    fn waiter(name: &str, group: u8) -> Arc<Waiter> {
        Arc::new(Waiter {
            name: name.into(),
            group: IpAddr::from([192, 0, 2, group]).into(),
            bell: Arc::new(Bell::new().unwrap()),
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
        first.answer.set(Ok([].into())).unwrap();
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
