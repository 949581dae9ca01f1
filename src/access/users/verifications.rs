//! Passwords that are compared with hashes, which takes long: on threads of their own, few at once. Whoever
//! waits for one has not sent its request, and is bounded with all others that have not.

use std::hash::{Hash as HashTrait, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;

use super::hash::{Hash, KnownBy};
use crate::system::address_space;
use crate::system::ip::ClientPrefix;
use crate::system::jobs::{Job, Jobs};
use crate::system::shares::VERIFICATIONS;
use crate::system::sync::Mutex;
use crate::wire::credentials::Password;

/// Stack of a thread, in bytes. bcrypt has 4 KiB there.
const STACK: usize = 256 * 1024;

/// How little a thread gets of a core that others want: a tenth (`sched(7)`).
const NICE: i32 = 10;

/// A password that a client has sent, and what it is compared with.
pub(super) struct Guess {
    pub(super) client: ClientPrefix,
    pub(super) name: Box<[u8]>,
    pub(super) password: Password,
    pub(super) known_by: KnownBy,
    pub(super) hash: Arc<Hash>,
    /// Whose password it is if it is right. `None` if there is no such user.
    pub(super) user: Option<Arc<str>>,
}

impl Guess {
    /// However many connections of a client send one password for one name: it is one guess.
    fn id(&self) -> (ClientPrefix, &[u8], &KnownBy, *const Hash) {
        (self.client, &self.name, &self.known_by, Arc::as_ptr(&self.hash))
    }

    /// Whose password it is, which takes long to say.
    pub(super) fn find_user(&self) -> Option<Arc<str>> {
        let is_right = self.hash.is_of(&self.password);
        let user = self.user.clone().filter(|_| is_right)?;
        self.hash.remember(self.known_by);
        Some(user)
    }
}

impl PartialEq for Guess {
    fn eq(&self, other: &Self) -> bool {
        self.id() == other.id()
    }
}

impl Eq for Guess {}

impl HashTrait for Guess {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.id().hash(state);
    }
}

/// Whose password it is; `Err` where there is no thread to find out.
type Answer = Result<Option<Arc<str>>, ()>;

/// The passwords that are being compared, and those that wait for it.
pub(super) struct Verifications(pub(super) Mutex<Jobs<Guess, Answer>>);

impl Default for Verifications {
    fn default() -> Self {
        // One core is left to those who are served.
        let cores = thread::available_parallelism().map_or(1, |cores| (cores.get() - 1).max(1));
        Verifications(Mutex::new(Jobs::new(cores, VERIFICATIONS.of_one)))
    }
}

impl Verifications {
    /// Starts a thread for each of these. One that the system refuses is the answer.
    pub(super) fn start(self: &Arc<Self>, mut jobs: Vec<Job<Guess>>) {
        while let Some(job) = jobs.pop() {
            let (verifications, first) = (Arc::clone(self), job.clone());
            let thread = thread::Builder::new().name("tabi login".into()).stack_size(STACK);
            let started = address_space::room_for(STACK)
                .and_then(|()| thread.spawn(move || verifications.run(first)));
            if started.is_err() {
                jobs.extend(self.conclude(&job, &Err(())));
            }
        }
    }

    /// Does one after the other for as long as more wait than may run.
    fn run(self: Arc<Self>, job: Job<Guess>) {
        // Only Linux can say so of one thread.
        #[cfg(target_os = "linux")]
        let _ = rustix::process::setpriority_process(None, NICE);
        let mut next = Some(job);
        while let Some(job) = next {
            let user = catch_unwind(AssertUnwindSafe(|| job.question.find_user()));
            let mut jobs = self.conclude(&job, &user.map_err(drop));
            next = jobs.pop();
            self.start(jobs);
        }
    }

    /// Gives the answer to all who wait for it, and says what begins in its place.
    fn conclude(&self, job: &Job<Guess>, answer: &Answer) -> Vec<Job<Guess>> {
        let mut jobs = self.0.lock();
        for waiter in jobs.answered(job) {
            let _ = waiter.answer.set(answer.clone());
            waiter.waker.wake();
        }
        jobs.release(job)
    }
}
