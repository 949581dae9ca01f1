//! Where two of tabi's threads meet, tried in every order, and with every value that a load may
//! find on a machine whose memory is as weakly ordered as Rust allows it to be.
//!
//! The files under test are tabi's own, as they are; they are only given another `std`. What two
//! threads do to a socket loom does not see, and tries only the orders that matter to what it sees:
//! for the others there is `orders`.

// What the files of tabi, and those here, find under these names.
extern crate loomed as portable_atomic;
extern crate loomed as std;
extern crate loomed as threadpool;

use std::io::Read;
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread::spawn;
use std::time::{Duration, Instant};

use loom::model::Builder;
use socket2::SockRef;

use system::descriptors::Descriptors;
use tabi::sessions::{Ending, Limits, Session, SessionState, Sessions, Stage};
use tabi::wire;

mod machine;

// ---- tabi ---------------------------------------------------------------------------------------

#[allow(dead_code, unused_imports)]
#[path = "../../../src"]
mod tabi {
    pub mod sessions;
    pub mod wire;
}

#[allow(dead_code, unused_imports)]
#[path = "../../../src/system"]
mod system {
    pub use crate::machine::{links, memory};

    pub mod deadline;
    pub mod descriptors;
    pub mod ip;
    pub mod poll;
    pub mod rate;
    pub mod shares;
    pub mod sync;

    pub mod pool {
        pub mod partner;
        mod thread;

        pub fn partner() -> partner::Partner {
            partner::Partner(thread::Thread::start(&threadpool::ThreadPool))
        }
    }

    pub mod queue {
        pub fn unacknowledged(_stream: &std::net::TcpStream) -> Option<u32> {
            None
        }
    }
}

// ---- The checks ---------------------------------------------------------------------------------

const CHECKS: [(&str, fn()); 3] = [
    ("pool: a partner gets its jobs, and the worker what comes of them", jobs_are_handed_over),
    ("session: what is concluded arrives, whoever comes first", concluded_arrives),
    ("session: an end that meets a new target stops the relay", an_end_meets_a_target),
];

fn main() -> ExitCode {
    let mut failed = 0;
    for (name, check) in CHECKS {
        let begin = Instant::now();
        let runs = Arc::new(std::Count::new(0));
        let counted = Arc::clone(&runs);
        let holds = catch_unwind(AssertUnwindSafe(|| {
            Builder::new().check(move || {
                counted.fetch_add(1, std::Ordering::Relaxed);
                check();
            });
        }));
        let (runs, seconds) = (runs.load(std::Ordering::Relaxed), begin.elapsed().as_secs_f32());
        let outcome = if holds.is_ok() { "ok" } else { "FAILED" };
        println!("{name:<64} {runs:>7} orders {seconds:>5.1} s  {outcome}");
        failed += u8::from(holds.is_err());
    }
    ExitCode::from(failed)
}

fn jobs_are_handed_over() {
    let partner = system::pool::partner();
    for number in [1, 2] {
        let said = Arc::new(AtomicUsize::new(0));
        let says = Arc::clone(&said);
        partner.start_job(move || says.store(number, Relaxed)).wait();
        assert_eq!(said.load(Relaxed), number);
    }
}

/// A session before it has a target, and its client.
fn session() -> (Session, UnixStream) {
    let limits = Limits {
        sessions: 1,
        pairs: 8,
        per_client: 1,
        handshake: Duration::MAX,
        idle: Duration::MAX,
    };
    let sessions = Sessions::new(limits, Descriptors::new(usize::MAX));
    let (stream, client) = connection();
    let session = sessions.open(([192, 0, 2, 1], 5000).into(), false, stream, || ()).unwrap();
    (session, client)
}

/// A connection, and its far end. Options and states of sockets are the system's own here.
fn connection() -> (TcpStream, UnixStream) {
    let (near, far) = UnixStream::pair().unwrap();
    (OwnedFd::from(near).into(), far)
}

fn connect(account: &SessionState) -> UnixStream {
    let (stream, target) = connection();
    account.connected(stream, ([192, 0, 2, 9], 80).into());
    account.enter(Stage::Relay);
    target
}

/// Whether closing the target's connection will send a reset.
fn target_is_reset(account: &SessionState) -> bool {
    let stream = account.target().stream().unwrap();
    SockRef::from(stream).linger().unwrap() == Some(Duration::ZERO)
}

fn concluded_arrives() {
    let (session, _client) = session();
    let account = session.state();
    let _target = connect(account);
    let ends = spawn({
        let account = Arc::clone(account);
        move || account.end(Ending::Evicted("for others"))
    });
    account.pass_on_fin(account.client(), account.target());
    ends.join().unwrap();
    let is_passed_on = account.client().fin_passed_on();
    assert_eq!(target_is_reset(account), !is_passed_on, "passed on and cut off, or neither");
}

fn an_end_meets_a_target() {
    let (session, _client) = session();
    let account = session.state();
    let ends = spawn({
        let account = Arc::clone(account);
        move || account.end(Ending::Stopped)
    });
    let _target = connect(account);
    // `relay` gives up here.
    let relays = account.ending().is_none();
    ends.join().unwrap();
    let mut stream = account.target().stream().unwrap();
    stream.set_nonblocking(true).unwrap();
    let is_woken = stream.read(&mut [0]).is_ok_and(|length| length == 0);
    assert!(!relays || (is_woken && target_is_reset(account)), "the relay goes on");
}
