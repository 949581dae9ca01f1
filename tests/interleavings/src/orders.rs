//! Where tabi's threads meet, tried in thousands of orders.
//!
//! The files under test are tabi's own, as they are; they are only given another `std`. Not tried
//! here is what waits inside a system call, which would stop everybody: the bytes of a tunnel, a
//! resolver, and the `poll` of who waits for it, in whose place `waiting` looks again and again.
//! Memory is strongly ordered here; for the rest there is `memory`.

// What the files of tabi, and those here, find under these names.
extern crate shuttled as portable_atomic;
extern crate shuttled as std;
extern crate shuttled as threadpool;

use std::any::Any;
use std::panic::{self, AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::thread::refuse_some;
use std::time::{SystemTime, stand_still};

use shuttle::scheduler::{PctScheduler, RandomScheduler, Scheduler};
use shuttle::{Config, Runner};

mod lookups;
mod machine;
mod pool;
mod sessions;

// ---- tabi ---------------------------------------------------------------------------------------

#[allow(dead_code, unused_imports)]
#[path = "../../../src"]
mod tabi {
    pub mod sessions;
    pub mod wire;
}
use tabi::wire;

#[allow(dead_code, unused_imports)]
#[path = "../../../src/system"]
mod system {
    pub use crate::machine::{links, memory};

    pub mod address_space;
    pub mod deadline;
    pub mod descriptors;
    pub mod ip;
    pub mod jobs;
    pub mod lru;
    pub mod poll;
    pub mod pool;
    pub mod rate;
    pub mod shares;
    pub mod sync;
    pub mod usage;
    pub mod waker;

    pub mod hosts {
        /// A file without a name.
        pub struct Hosts;

        impl Hosts {
            pub fn of_this_machine() -> &'static Self {
                &Hosts
            }

            pub fn lists(&self, _name: &str) -> bool {
                false
            }
        }
    }

    pub mod queue {
        /// The far ends of the sockets here are in the same process: nothing is on its way.
        pub fn unacknowledged(_stream: &std::net::TcpStream) -> Option<u32> {
            None
        }
    }
}

#[allow(dead_code, unused_imports)]
#[path = "../../../src/commands"]
mod commands {
    #[path = "../../tests/interleavings/src/waiting.rs"]
    pub mod client_watch;
    pub mod error;
    mod families;
    pub mod resolver;
}

#[allow(dead_code, unused_imports)]
#[path = "../../../src/report"]
mod report {
    #[path = "../../tests/interleavings/src/log.rs"]
    pub mod log;
    mod queue;
}

// ---- The checks ---------------------------------------------------------------------------------

const CHECKS: [(&str, fn()); 19] = [
    ("pool: a job runs once, with a partner of its own", pool::a_job_runs_once),
    ("pool: a pair is handed on only when its partner is done", pool::a_partner_is_done),
    ("pool: a panic gives the pair back", pool::a_panic_gives_the_pair_back),
    ("pool: shrinking loses no job", pool::shrinking_loses_no_job),
    ("pool: refused threads leave none behind", pool::refused_threads_leave_none_behind),
    ("lookup: one question for all who ask", lookups::one_question_for_all),
    ("lookup: no more run than may, and all are answered", lookups::all_are_answered),
    ("lookup: each gets a thread, one after the other", lookups::each_lookup_gets_a_thread),
    ("lookup: who gives up leaves nothing behind", lookups::who_gives_up_leaves_nothing),
    ("lookup: a refused thread is an answer", lookups::a_refused_thread_is_an_answer),
    ("log: each line is written or counted", report::log::each_line_is_written_or_counted),
    ("log: a line is written without a flush", report::log::lines_are_written_unasked),
    ("log: a flush does not wait for lines to gather", report::log::a_flush_does_not_wait),
    ("session: the first ending counts, and what is concluded arrives", sessions::first_counts),
    ("session: a failure resets both sides", sessions::a_failure_resets_both_sides),
    ("session: an end that meets a new target stops the relay", sessions::an_end_meets_a_target),
    ("session: each is counted once, and who waits gets its place", sessions::counted_once),
    ("session: a stop ends every wait", sessions::a_stop_ends_every_wait),
    ("session: the watch sees who comes", sessions::the_watch_sees_who_comes),
];

/// This one writes a megabyte each time, and is tried a tenth as often.
const SLOW: &str = "log: each line";

/// Steps after which threads are said to go in circles.
const MOST_STEPS: usize = 50_000;

/// How many times the priorities of threads change in one run (see `PctScheduler`).
const DEPTH: usize = 3;

/// A panic that a check wants.
struct Wanted;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let runs = arguments.next().map_or(2000_usize, |runs| runs.parse().expect("RUNS is a number"));
    let seed = arguments.next().map_or(1, |seed| seed.parse().expect("SEED is a number"));
    let only = arguments.next().unwrap_or_default();
    be_silent_about_wanted_panics();
    let mut failed = 0;
    for (name, check) in CHECKS.into_iter().filter(|(name, _)| name.contains(&only)) {
        let runs = if name.starts_with(SLOW) { runs.div_ceil(10) } else { runs };
        let begin = SystemTime::now();
        let holds = run(RandomScheduler::new_from_seed(seed, runs), check)
            && run(PctScheduler::new_from_seed(seed, DEPTH, runs), check);
        let outcome = if holds { "ok" } else { "FAILED" };
        let seconds = begin.elapsed().unwrap_or_default().as_secs_f32();
        println!("{name:<64} {:>7} orders {seconds:>5.1} s  {outcome}", 2 * runs);
        failed += u8::from(!holds);
    }
    ExitCode::from(failed)
}

fn run(scheduler: impl Scheduler + 'static, check: fn()) -> bool {
    stand_still(false);
    refuse_some(false);
    let mut config = Config::new();
    config.stack_size = 256 * 1024;
    config.max_steps = shuttle::MaxSteps::FailAfter(MOST_STEPS);
    config.silence_warnings = true;
    config.failure_persistence = shuttle::FailurePersistence::None;
    let runner = Runner::new(scheduler, config);
    catch_unwind(AssertUnwindSafe(|| runner.run(check))).is_ok()
}

fn be_silent_about_wanted_panics() {
    // shuttle puts its own hook in at its first run.
    run(RandomScheduler::new(1), || ());
    let hook = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        let is_wanted = <dyn Any>::is::<Wanted>(info.payload());
        if !is_wanted && !system::pool::panic_is_expected() {
            hook(info);
        }
    }));
}
