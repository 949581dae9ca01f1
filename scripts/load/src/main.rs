//! Measures SOCKS5 and HTTP proxies side by side on loopback. `scripts/bench` builds and runs this.

mod account;
mod association;
mod backend;
mod chart;
mod contender;
mod digest;
mod echo;
mod figure;
mod flood;
mod head;
mod http;
mod machine;
mod name_server;
mod options;
mod process;
mod ratio;
mod results;
mod room;
mod soak;
mod sockets;
mod socks;
mod starts;
mod steady;
mod table;
mod tournament;
mod tunnel;
mod window;
mod work;
mod world;

use std::io;
use std::process::ExitCode;

use clap::Parser;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use options::{Arguments, Part};

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("load: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> io::Result<()> {
    // Children inherit the limit, so that the proxies have theirs raised too.
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
    match arguments.part {
        Some(Part::Backend) => backend::run(),
        Some(Part::World) => world::run(),
        Some(Part::Guard { command }) => process::become_guarded(&command),
        Some(Part::Flood(options)) => flood::run(&options),
        Some(Part::Steady(options)) => steady::run(&options),
        Some(Part::Attack(told)) => flood::attack(&told),
        Some(Part::Soak(options)) => soak::run(&options),
        Some(Part::Starts(options)) => starts::run(&options),
        None => measure(&arguments.options),
    }
}

fn measure(options: &options::Options) -> io::Result<()> {
    process::limit(options.limit())?;
    let results = tournament::play(options)?;
    table::write(&results, options)?;
    chart::write(&results, &options.out.join("bench.svg"))
}
