//! Every contender does every work in every round, in turn, so that what disturbs one disturbs all.

use std::fs;
use std::io;
use std::thread;
use std::time::{Duration, Instant};

use crate::association::Association;
use crate::backend::Backend;
use crate::contender::{Contender, Kind};
use crate::options::Options;
use crate::results::Results;
use crate::tunnel::By;
use crate::work::Work;
use crate::{digest, http, room};

/// What the last contender has left to the kernel is cleared away in this time.
const PAUSE: Duration = Duration::from_millis(100);

/// Octets of an answer that has to arrive unchanged: more than all the buffers on the way hold.
const DOWNLOAD: usize = 4 * 1024 * 1024 + 1;

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
    let groups = together(&works);
    for round in 0..options.rounds {
        results.rounds = round + 1;
        for group in &groups {
            let laps = group[0].laps();
            for lap in round * laps..(round + 1) * laps {
                let mut turns = group.iter();
                if !turns.all(|work| take_turns(*work, lap, &backend, options, &mut results, begun))
                {
                    eprintln!("the time limit is reached, in round {}", round + 1);
                    results.cut_short = true;
                    return Ok(results);
                }
            }
        }
    }
    Ok(results)
}

/// The works, those together of which one is set beside the other: their laps take turns.
fn together(works: &[Work]) -> Vec<Vec<Work>> {
    let mut groups: Vec<Vec<Work>> = Vec::new();
    for &work in works {
        match groups.iter_mut().find(|group| group[0].by_socks() == work.by_socks()) {
            Some(group) => group.push(work),
            None => groups.push(vec![work]),
        }
    }
    groups
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

/// Has a contender show that both directions deliver what was sent, by whatever it speaks. Of one whose
/// kind is not known it is found out here what that is, and whether it has UDP ASSOCIATE.
fn relays(contender: &mut Contender, backend: &Backend) -> io::Result<()> {
    for by in contender.speaks.clone() {
        let running = contender.by(by).start()?;
        let shown = match by {
            By::PlainHttp => http::check(running.address, backend.origin(0), DOWNLOAD),
            By::Socks5 | By::HttpConnect => digest::check(running.address, backend.digest()),
        };
        if let Err(error) = shown {
            if !contender.may_lack(by) || contender.speaks.len() == 1 {
                return Err(error);
            }
            eprintln!("{} is not asked by {by}: {error}", contender.label);
            contender.speaks.retain(|other| *other != by);
        }
    }
    contender.udp &= contender.speaks.contains(&By::Socks5);
    if contender.kind == Kind::Given && contender.udp {
        let association = Association::open(&contender.start()?, backend.datagrams(), 1)
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

#[cfg(test)]
mod tests {
    use super::together;
    use crate::tunnel::By;
    use crate::work::Work;

    #[test]
    fn works_that_are_set_beside_each_other_take_turns() {
        let (socks, http) = (Work::Connect(By::Socks5, 8), Work::Connect(By::HttpConnect, 8));
        let (plain, ping) = (Work::Requests(1000), Work::Ping(1));
        let groups = together(&[socks, ping, http, plain]);
        assert_eq!(groups, [vec![socks, http], vec![ping], vec![plain]]);
        assert_eq!(together(&[http, ping]), [[http], [ping]]);
    }
}
