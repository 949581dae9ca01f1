//! Measures SOCKS5 proxies side by side on loopback. `scripts/bench` builds and runs this.

mod account;
mod association;
mod backend;
mod chart;
mod contender;
mod digest;
mod echo;
mod figure;
mod flood;
mod machine;
mod name_server;
mod options;
mod process;
mod ratio;
mod results;
mod room;
mod soak;
mod socks;
mod starts;
mod steady;
mod table;
mod tournament;
mod window;
mod work;
mod world;

use std::io;
use std::process::{ExitCode, exit};
use std::thread;
use std::time::Duration;

use clap::Parser;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use options::{Arguments, Part};

/// A measurement under way may end in its own time after the limit, but not for longer than this.
const AFTER_LIMIT: Duration = Duration::from_secs(120);

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let outcome = match arguments.part {
        Some(Part::Backend) => backend::run(),
        Some(Part::World) => world::run(),
        Some(Part::Guard { command }) => process::become_guarded(&command),
        Some(Part::Flood(options)) => flood::run(&options),
        Some(Part::Steady(options)) => steady::run(&options),
        Some(Part::Attack(told)) => flood::attack(&told),
        Some(Part::Soak(options)) => soak::run(&options),
        Some(Part::Starts(options)) => starts::run(&options),
        None => measure(&arguments.options),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("load: {error}");
            ExitCode::FAILURE
        }
    }
}

fn measure(options: &options::Options) -> io::Result<()> {
    // Children inherit the limit, so that the proxies have theirs raised too.
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
    ctrlc::set_handler(|| give_up(130)).map_err(io::Error::other)?;
    let longest = options.limit() + AFTER_LIMIT;
    thread::Builder::new().spawn(move || {
        thread::sleep(longest);
        eprintln!("load: not done long after the time limit");
        give_up(124);
    })?;
    let results = tournament::play(options)?;
    table::write(&results, options)?;
    chart::write(&results, &options.out.join("bench.svg"))
}

/// Ends what was started, and then the load generator.
fn give_up(status: i32) {
    process::end_all();
    exit(status);
}
