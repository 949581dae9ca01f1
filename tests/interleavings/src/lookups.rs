//! The lookups: many who ask, few who look up.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::panic::panic_any;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::thread::{JoinHandle, refuse_some, spawn, yield_now};
use std::time::{Duration, FOREVER, stand_still};

use crate::Wanted;
use crate::commands::client_watch::ClientWatch;
use crate::commands::error::Error;
use crate::commands::resolver::Resolver;
use crate::system::deadline::Deadline;
use crate::system::descriptors::Descriptors;
use crate::wire::address::Name;

/// Enough descriptors for so many lookups at once.
fn names(
    lasts: Duration,
    most: usize,
    resolver: impl Fn(&str) -> io::Result<Vec<SocketAddr>> + Send + Sync + 'static,
) -> Arc<Resolver> {
    Resolver::with_resolver(lasts, &Descriptors::new(16 * most), resolver)
}

fn found() -> io::Result<Vec<SocketAddr>> {
    Ok(vec![([192, 0, 2, 1], 0).into()])
}

fn asker(number: u8) -> IpAddr {
    [192, 0, 2, number].into()
}

/// A client of its own that asks.
fn ask(
    names: &Arc<Resolver>,
    host: &str,
    number: u8,
) -> JoinHandle<Result<Vec<SocketAddr>, Error>> {
    let (names, host) = (Arc::clone(names), Name::new(host.into()).unwrap());
    let stays = Arc::default();
    spawn(move || {
        let (deadline, client) = (Deadline::after(FOREVER), ClientWatch::new(&stays));
        Ok(names.resolve(&host, asker(number), deadline, &client)?.with_port(80))
    })
}

/// Three ask for one name. Time stands still: whoever waits has to be told, also of the end.
pub fn one_question_for_all() {
    stand_still(true);
    let questions = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&questions);
    let names = names(FOREVER, 4, move |_| {
        counted.fetch_add(1, SeqCst);
        yield_now();
        found()
    });
    let askers = [1, 1, 2].map(|number| ask(&names, "a.example", number));
    for asker in askers {
        assert_eq!(asker.join().unwrap().unwrap(), [([192, 0, 2, 1], 80).into()]);
    }
    assert_eq!(questions.load(SeqCst), 1);
    assert_eq!(names.counts().found, 1);
}

/// Three clients ask for more names than may be looked up at once; one name's lookup panics.
pub fn all_are_answered() {
    stand_still(false);
    let running = Arc::new(AtomicUsize::new(0));
    let too_many = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&too_many);
    let names = names(Duration::ZERO, 2, move |name| {
        if running.fetch_add(1, SeqCst) >= 2 {
            seen.store(true, SeqCst);
        }
        yield_now();
        running.fetch_sub(1, SeqCst);
        if name == "bad.example" {
            panic_any(Wanted);
        }
        found()
    });
    let asked = [("a", 1), ("b", 1), ("bad", 1), ("b", 2), ("c", 3)];
    let askers = asked.map(|(name, number)| ask(&names, &format!("{name}.example"), number));
    for ((name, _), asker) in asked.into_iter().zip(askers) {
        assert_eq!(asker.join().unwrap().is_ok(), name != "bad");
    }
    assert!(!too_many.load(SeqCst), "more lookups than may be");
}

/// One after the other asks. Time stands still: whoever waits has to be told.
pub fn each_lookup_gets_a_thread() {
    stand_still(true);
    let names = names(Duration::ZERO, 2, |_| found());
    let askers = [1, 2].map(|number| {
        let names = Arc::clone(&names);
        spawn(move || {
            for host in ["a.example", "b.example"] {
                let host = Name::new(host.into()).unwrap();
                let (deadline, stays) = (Deadline::after(FOREVER), Arc::default());
                let client = ClientWatch::new(&stays);
                names.resolve(&host, asker(number), deadline, &client).unwrap();
            }
        })
    });
    for asker in askers {
        asker.join().unwrap();
    }
}

/// A client leaves, another's time is up, and a third waits for one of the same names.
pub fn who_gives_up_leaves_nothing() {
    stand_still(false);
    let names = names(Duration::ZERO, 1, |_| {
        yield_now();
        found()
    });
    let left = Arc::new(AtomicBool::new(false));
    let leaves = spawn({
        let (names, left) = (Arc::clone(&names), Arc::clone(&left));
        move || {
            let (host, client) = (Name::new("a.example".into()).unwrap(), ClientWatch::new(&left));
            let found = names.resolve(&host, asker(1), Deadline::after(FOREVER), &client);
            assert!(matches!(found, Ok(_) | Err(Error::ClientLeft)));
        }
    });
    let is_late = spawn({
        let names = Arc::clone(&names);
        move || {
            let (host, second) = (Name::new("b.example".into()).unwrap(), Duration::from_secs(1));
            let (deadline, stays) = (Deadline::after(second), Arc::default());
            let found = names.resolve(&host, asker(2), deadline, &ClientWatch::new(&stays));
            assert!(matches!(found, Ok(_) | Err(Error::Unreachable(_))));
        }
    });
    let stays = ask(&names, "b.example", 3);
    left.store(true, SeqCst);
    leaves.join().unwrap();
    is_late.join().unwrap();
    assert!(stays.join().unwrap().is_ok());
    assert!(ask(&names, "a.example", 1).join().unwrap().is_ok());
}

/// The system refuses some of the threads.
pub fn a_refused_thread_is_an_answer() {
    stand_still(false);
    let names = names(Duration::ZERO, 1, |_| found());
    refuse_some(true);
    let askers = [("a.example", 1), ("b.example", 1), ("b.example", 2)]
        .map(|(name, number)| ask(&names, name, number));
    for asker in askers {
        assert!(matches!(asker.join().unwrap(), Ok(_) | Err(Error::Unresolved(_))));
    }
    refuse_some(false);
    assert!(ask(&names, "a.example", 1).join().unwrap().is_ok());
}
