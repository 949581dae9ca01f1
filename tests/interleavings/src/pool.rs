//! The pool: workers and their partners, handed jobs, idle, and ended.

use std::panic::panic_any;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc::{Sender, channel};
use std::thread::{refuse_some, spawn, yield_now};
use std::time::{Duration, Instant};

use crate::Wanted;
use crate::system::pool::{Partner, Pending, Pool};

const MINUTE: Duration = Duration::from_secs(60);

/// Asks until the pool takes the job: a pair is given back a moment after its job has said so.
fn start(pool: &Arc<Pool>, job: impl FnOnce(&Partner) + Send + Clone + 'static) {
    while pool.start(job.clone()).is_err() {
        yield_now();
    }
}

/// A job that has its partner say `number`, and hands that on.
fn asks(number: usize, answers: &Sender<usize>) -> impl FnOnce(&Partner) + Send + Clone + 'static {
    let answers = answers.clone();
    move |partner: &Partner| {
        let answer = partner.start_job(move || number).wait();
        answers.send(answer.expect("no panic")).unwrap();
    }
}

/// Two threads start jobs at once, more than there are pairs.
pub fn a_job_runs_once() {
    let pool = Pool::new(2);
    let busy = Arc::new(AtomicUsize::new(0));
    let (sender, answers) = channel();
    let starters = [0, 1].map(|starter| {
        let (pool, busy, sender) = (Arc::clone(&pool), Arc::clone(&busy), sender.clone());
        spawn(move || {
            let taken = [2 * starter, 2 * starter + 1].map(|number| {
                let (busy, asks) = (Arc::clone(&busy), asks(number, &sender));
                let job = move |partner: &Partner| {
                    assert!(busy.fetch_add(1, SeqCst) < 2, "more jobs than pairs");
                    asks(partner);
                    busy.fetch_sub(1, SeqCst);
                };
                pool.start(job).is_ok()
            });
            taken.into_iter().filter(|taken| *taken).count()
        })
    });
    drop(sender);
    let taken: usize = starters.into_iter().map(|starter| starter.join().unwrap()).sum();
    let mut numbers: Vec<usize> =
        (0..taken).map(|_| answers.recv().expect("a job is lost")).collect();
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers.len(), taken, "a job ran twice");
    assert!(taken >= 2 && pool.threads() <= 4);
}

/// Nobody waits for what the partner does, except that the pair is handed on.
pub fn a_partner_is_done() {
    let pool = Pool::new(1);
    let (sender, overs) = channel();
    let starters = [(); 2].map(|()| {
        let (pool, sender) = (Arc::clone(&pool), sender.clone());
        spawn(move || {
            start(&pool, move |partner| {
                for _ in 0..2 {
                    let over = Arc::new(AtomicBool::new(false));
                    let sets = Arc::clone(&over);
                    drop(partner.start_job(move || {
                        yield_now();
                        sets.store(true, SeqCst);
                    }));
                    sender.send(over.load(SeqCst)).unwrap();
                }
            });
        })
    });
    for starter in starters {
        starter.join().unwrap();
    }
    drop(sender);
    assert_eq!([(); 4].map(|()| overs.recv()), [Ok(true); 4]);
}

/// The partner panics, and then the worker while its partner is at work.
pub fn a_panic_gives_the_pair_back() {
    let pool = Pool::new(1);
    let at_work = Arc::new(AtomicBool::new(false));
    let (sender, answers) = channel();
    start(&pool, {
        let (at_work, sender) = (Arc::clone(&at_work), sender.clone());
        move |partner: &Partner| {
            let panics: Pending<'_, ()> = partner.start_job(|| panic_any(Wanted));
            sender.send(usize::from(panics.wait().is_none())).unwrap();
            let _pending = partner.start_job(move || {
                at_work.store(true, SeqCst);
                yield_now();
                at_work.store(false, SeqCst);
            });
            panic_any(Wanted);
        }
    });
    start(&pool, {
        let asks = asks(7, &sender);
        move |partner: &Partner| {
            assert!(!at_work.load(SeqCst), "the partner is at work");
            asks(partner);
        }
    });
    drop(sender);
    assert_eq!([(); 2].map(|()| answers.recv()), [Ok(1), Ok(7)]);
}

/// Six pairs, of which four stay when it is quiet; and it is not.
pub fn shrinking_loses_no_job() {
    let before = threadpool::live_threads();
    let pool = Pool::new(6);
    let now = Instant::now();
    let open = Arc::new(AtomicBool::new(false));
    for _ in 0..6 {
        let open = Arc::clone(&open);
        start(&pool, move |_| {
            while !open.load(SeqCst) {
                yield_now();
            }
        });
    }
    open.store(true, SeqCst);
    pool.trim(now + MINUTE);
    let (sender, answers) = channel();
    let starter = spawn({
        let pool = Arc::clone(&pool);
        move || (0..3).for_each(|number| start(&pool, asks(number, &sender)))
    });
    pool.trim(now + 2 * MINUTE);
    pool.trim(now + 3 * MINUTE);
    starter.join().unwrap();
    let mut numbers = [(); 3].map(|()| answers.recv().expect("a job is lost"));
    numbers.sort_unstable();
    assert_eq!(numbers, [0, 1, 2]);
    assert!((8..=12).contains(&pool.threads()));
    settle(&pool, before, 4 * MINUTE);
}

/// The system refuses every third thread for a while.
pub fn refused_threads_leave_none_behind() {
    let before = threadpool::live_threads();
    let pool = Pool::new(3);
    let (sender, answers) = channel();
    refuse_some(true);
    let taken = (0..6).filter(|number| pool.start(asks(*number, &sender)).is_ok()).count();
    refuse_some(false);
    start(&pool, asks(6, &sender));
    drop(sender);
    for _ in 0..=taken {
        answers.recv().expect("a job is lost");
    }
    settle(&pool, before, 4 * MINUTE);
}

/// Waits until there are as many threads as the pool says. One that is left over ends with a trim.
fn settle(pool: &Pool, before: usize, later: Duration) {
    let now = Instant::now() + later;
    let are_left_over = || threadpool::live_threads() - before != pool.threads();
    for round in 0..200 {
        if !are_left_over() {
            return;
        }
        pool.trim(now + round * MINUTE);
        yield_now();
    }
    panic!("{} threads, and the pool knows of {}", threadpool::live_threads(), pool.threads());
}
