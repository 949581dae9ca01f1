//! Every contender does every work in every round, in turn, so that what disturbs one disturbs all.

use std::fs;
use std::io;
use std::thread;
use std::time::{Duration, Instant};

use crate::backend::Backend;
use crate::contender::Contender;
use crate::digest;
use crate::options::Options;
use crate::results::Results;
use crate::work::Work;

/// What the last contender has left to the kernel is cleared away in this time.
const PAUSE: Duration = Duration::from_millis(100);

pub(crate) fn play(options: &Options) -> io::Result<Results> {
    let contenders = options.contenders().map_err(io::Error::other)?;
    let works = options.works().map_err(io::Error::other)?;
    fs::create_dir_all(&options.out)?;
    let begun = Instant::now();
    let backend = Backend::start()?;
    let mut results = Results::new(contenders.clone());
    for contender in &contenders {
        match relays(contender, &backend) {
            Ok(()) => eprintln!("{} relays", contender.label),
            Err(error) => {
                eprintln!("{} FAILED: {error}", contender.label);
                results.fail(None, &contender.label, error.to_string());
            }
        }
    }
    for round in 0..options.rounds {
        for work in &works {
            for turn in 0..contenders.len() {
                if begun.elapsed() > options.limit() {
                    eprintln!("the time limit is reached, in round {}", round + 1);
                    return Ok(results);
                }
                let contender = &contenders[(turn + round as usize) % contenders.len()];
                if !work.suits(contender)
                    || results.failure(Some(*work), &contender.label).is_some()
                {
                    continue;
                }
                eprint!(
                    "round {} of {}, {}, {}:",
                    round + 1,
                    options.rounds,
                    work.title(),
                    contender.label
                );
                take_turn(*work, contender, &backend, options, &mut results);
            }
        }
        results.rounds = round + 1;
    }
    Ok(results)
}

/// Whether both directions deliver what was sent.
fn relays(contender: &Contender, backend: &Backend) -> io::Result<()> {
    let running = contender.start()?;
    digest::check(running.address, backend.digest())
}

fn take_turn(
    work: Work,
    contender: &Contender,
    backend: &Backend,
    options: &Options,
    results: &mut Results,
) {
    match work.run(contender, backend, options.timing()) {
        Ok(mut figures) => {
            figures.retain(|(measure, _)| measure.direct || contender.is_proxy());
            for (measure, value) in &figures {
                eprint!("  {value:.3} {}", measure.name);
            }
            eprintln!();
            results.add(work, &contender.label, figures);
        }
        Err(error) => {
            eprintln!("  FAILED: {error}");
            results.fail(Some(work), &contender.label, error.to_string());
        }
    }
    thread::sleep(PAUSE);
}
