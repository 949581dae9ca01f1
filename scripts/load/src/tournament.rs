//! Every contender does every work in every round, in turn, so that what disturbs one disturbs all.

use std::fs;
use std::io;
use std::thread;
use std::time::{Duration, Instant};

use crate::association::Association;
use crate::backend::Backend;
use crate::contender::{Contender, Kind};
use crate::digest;
use crate::options::Options;
use crate::results::Results;
use crate::room;
use crate::work::Work;

/// What the last contender has left to the kernel is cleared away in this time.
const PAUSE: Duration = Duration::from_millis(100);

pub(crate) fn play(options: &Options) -> io::Result<Results> {
    let mut contenders = options.contenders().map_err(io::Error::other)?;
    let mut works = options.works().map_err(io::Error::other)?;
    fs::create_dir_all(&options.out)?;
    let begun = Instant::now();
    let backend = Backend::start()?;
    let shown = contenders.iter_mut().map(|contender| relays(contender, &backend));
    let shown: Vec<_> = shown.collect();
    let mut results = Results::new(contenders);
    for (place, outcome) in shown.into_iter().enumerate() {
        let label = results.contenders[place].label.clone();
        match outcome {
            Ok(()) => eprintln!("{label} relays"),
            Err(error) => {
                eprintln!("{label} FAILED: {error}");
                results.fail(None, &label, error.to_string());
            }
        }
    }
    if works.iter().any(|work| work.needs_room()) {
        if let Err(error) = room::inside(|| Ok(())) {
            let reason = format!("the works about names, which need a private network: {error}");
            eprintln!("left out: {reason}");
            results.left_out = Some(reason);
            works.retain(|work| !work.needs_room());
        }
    }
    for round in 0..options.rounds {
        results.rounds = round + 1;
        for work in &works {
            for lap in round * work.laps()..(round + 1) * work.laps() {
                if !take_turns(*work, lap, &backend, options, &mut results, begun) {
                    eprintln!("the time limit is reached, in round {}", round + 1);
                    results.cut_short = true;
                    return Ok(results);
                }
            }
        }
    }
    Ok(results)
}

/// Every contender does a work once, another one first each time. False where time is up.
fn take_turns(
    work: Work,
    lap: u32,
    backend: &Backend,
    options: &Options,
    results: &mut Results,
    begun: Instant,
) -> bool {
    let count = results.contenders.len();
    for turn in 0..count {
        if begun.elapsed() > options.limit() {
            return false;
        }
        let contender = results.contenders[(turn + lap as usize) % count].clone();
        if work.suits(&contender) && results.failure(Some(work), &contender.label).is_none() {
            eprint!("turn {} of {}, ", lap + 1, options.rounds * work.laps());
            take_turn(work, lap, &contender, backend, options, results);
        }
    }
    true
}

/// Has a contender show that both directions deliver what was sent. Of one whose kind is not known it is
/// found out here whether it has UDP ASSOCIATE.
fn relays(contender: &mut Contender, backend: &Backend) -> io::Result<()> {
    let running = contender.start()?;
    digest::check(running.address, backend.digest())?;
    if contender.kind == Kind::Given {
        let association = Association::open(&running, backend.datagrams(), 1)
            .and_then(|association| association.echo_once());
        contender.udp = association.is_ok();
        if let Err(error) = association {
            eprintln!("{} is not asked for UDP: {error}", contender.label);
        }
    }
    Ok(())
}

fn take_turn(
    work: Work,
    lap: u32,
    contender: &Contender,
    backend: &Backend,
    options: &Options,
    results: &mut Results,
) {
    eprint!("{}, {}:", work.title(), contender.label);
    match work.run(contender, backend, options.timing()) {
        Ok(mut figures) => {
            figures.retain(|(measure, _)| measure.direct || contender.is_proxy());
            for (measure, value) in &figures {
                eprint!("  {value:.3} {}", measure.name);
            }
            eprintln!();
            results.add(work, lap, &contender.label, figures);
        }
        Err(error) => {
            eprintln!("  FAILED: {error}");
            results.fail(Some(work), &contender.label, error.to_string());
        }
    }
    thread::sleep(PAUSE);
}
