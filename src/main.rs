//! The command: arguments, logger, listeners, signals, run, exit status. Nothing else exits.

use std::fs::OpenOptions;
use std::io::{IsTerminal, LineWriter, stderr};
use std::process::{ExitCode, exit};
use std::sync::atomic::{AtomicBool, Ordering};

use log::{LevelFilter, error, warn};
use simplelog::{
    ColorChoice, ConfigBuilder, LevelPadding, SharedLogger, TermLogger, TerminalMode, WriteLogger,
};
use tabi::cli::{self, Arguments};
use tabi::probe;
use tabi::server::{Config, Server, Stopper};
use tabi::system::pool;

/// The exit status after a second signal: that of a program that SIGINT has ended.
const INTERRUPTED: i32 = 130;

fn main() -> ExitCode {
    let arguments = cli::parse(std::env::args_os()).unwrap_or_else(|error| error.exit());
    if arguments.probe {
        return probe(&arguments.config);
    }
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(told) => {
            if arguments.log_file.is_some() {
                error!("{told}");
            }
            eprintln!("tabi: {told}");
            ExitCode::FAILURE
        }
    }
}

/// Each address where the server is to listen has to answer.
fn probe(config: &Config) -> ExitCode {
    let probed =
        config.listen.iter().try_for_each(|address| probe::probe(*address, &config.proxy_protocol));
    match probed {
        Ok(()) => ExitCode::SUCCESS,
        Err(told) => {
            eprintln!("tabi: {told}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), String> {
    start_log(arguments)?;
    if arguments.check {
        arguments.config.doubts().iter().for_each(|doubt| warn!("{doubt}"));
        println!("the options are in order");
        return Ok(());
    }
    let server = Server::bind(&arguments.config).map_err(|error| error.to_string())?;
    heed_signals(server.stopper())?;
    server.run().map_err(|error| format!("cannot start a thread: {error}"))
}

/// The first SIGINT or SIGTERM lets the server finish, the second ends it.
fn heed_signals(stopper: Stopper) -> Result<(), String> {
    let stopping = AtomicBool::new(false);
    ctrlc::set_handler(move || {
        if stopping.swap(true, Ordering::Relaxed) {
            exit(INTERRUPTED);
        }
        stopper.stop();
    })
    .map_err(|error| format!("cannot heed signals: {error}"))
}

fn start_log(arguments: &Arguments) -> Result<(), String> {
    let logger = logger(arguments)?;
    log::set_max_level(arguments.level);
    log::set_boxed_logger(logger.as_log()).map_err(|error| error.to_string())?;
    // A fault is told where everything else is told.
    std::panic::set_hook(Box::new(|fault| {
        if !pool::panic_is_expected() {
            error!("{fault}");
        }
    }));
    Ok(())
}

fn logger(arguments: &Arguments) -> Result<Box<dyn SharedLogger>, String> {
    let (level, config) = (arguments.level, log_format());
    Ok(match &arguments.log_file {
        Some(path) => {
            let file = OpenOptions::new().append(true).create(true).open(path);
            let file = file.map_err(|error| format!("--log-file {}: {error}", path.display()))?;
            WriteLogger::new(level, config, LineWriter::new(file))
        }
        None if stderr().is_terminal() => {
            TermLogger::new(level, config, TerminalMode::Stderr, ColorChoice::Auto)
        }
        None => WriteLogger::new(level, config, LineWriter::new(stderr())),
    })
}

/// Time with its offset, level, message.
fn log_format() -> simplelog::Config {
    let mut format = ConfigBuilder::new();
    format
        .set_time_format_rfc3339()
        .set_level_padding(LevelPadding::Right)
        .set_thread_level(LevelFilter::Off)
        .set_target_level(LevelFilter::Off)
        .set_location_level(LevelFilter::Off);
    // Where the local offset is not to be had, it is UTC, and says so.
    let _ = format.set_time_offset_to_local();
    format.build()
}
