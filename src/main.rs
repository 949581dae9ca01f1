//! The command: arguments, logger, listeners, signals, run, exit status. Nothing else exits.

use std::fs::{File, read_to_string};
use std::io::{self, IsTerminal, Write, stderr, stdout};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use log::{Level, error, info, warn};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2, SIGXCPU, SIGXFSZ};
use signal_hook::flag;
use signal_hook::iterator::Signals;
use tabi::cli::{self, Arguments, new_password};
use tabi::config::Config;
use tabi::probe;
use tabi::report::Logger;
use tabi::server::{self, Inherited, Notify, Server};
use tabi::system::pool;

/// The exit status after a second signal: that of a program that SIGINT has ended.
const INTERRUPTED: i32 = 130;

/// How long the last lines of the log may take to be written.
const LAST_LINES: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    if let Some(started) = server::start_as_parent() {
        return started.map_or_else(|error| fail(&error.to_string()), |()| ExitCode::SUCCESS);
    }
    // First thing: no other thread and no descriptor of our own is there yet.
    let inherited = Inherited::of_this_process();
    let on_failure = inherited.as_ref().ok().map(Inherited::on_failure);
    let on_failure = |why: &str| on_failure.iter().for_each(|tell| tell(why));
    let arguments = match cli::of_this_process() {
        Ok(arguments) => arguments,
        Err(error) => {
            on_failure(&error.to_string());
            let _ = error.print();
            return cli::exit_status(&error).into();
        }
    };
    if arguments.probe {
        return probe(&arguments.config);
    }
    if arguments.hash_password {
        let print = |hash| writeln!(stdout(), "{hash}").map_err(|error| error.to_string());
        let printed = new_password::hash().and_then(print);
        return printed.map_or_else(|message| fail(&message), |()| ExitCode::SUCCESS);
    }
    // With a handler a write beyond `ulimit -f` fails, and the log counts its lost lines. Without one it
    // ends tabi.
    let _ = flag::register(SIGXFSZ, Arc::default());
    let (level, file) = (arguments.level(), arguments.log_file.as_deref());
    let logger = match Logger::start(level, file, arguments.logs_json()) {
        Ok(logger) => logger,
        Err(message) => {
            on_failure(&message);
            return fail(&message);
        }
    };
    log_panics(logger.clone());
    let _last_lines = LastLines(logger.clone());
    let logs_to_file = arguments.log_file.is_some();
    let Err(Failure { status, message }) = run(arguments, inherited, &logger) else {
        return ExitCode::SUCCESS;
    };
    on_failure(&message);
    if logs_to_file {
        error!("{message}");
        fail(&message);
    } else {
        logger.say(Level::Error, &message);
    }
    status.into()
}

/// Why the program ends before it has served anybody.
struct Failure {
    /// 2 where nothing but other options or files mend it.
    status: u8,
    message: String,
}

impl From<String> for Failure {
    fn from(message: String) -> Self {
        Failure { status: 1, message }
    }
}

impl Failure {
    fn of_options(message: String) -> Self {
        Failure { status: 2, message }
    }
}

/// Says on standard error why the program fails.
fn fail(message: &str) -> ExitCode {
    let _ = writeln!(stderr(), "tabi: {message}");
    ExitCode::FAILURE
}

/// Each address where the server is to listen has to answer.
fn probe(config: &Config) -> ExitCode {
    let mut addresses = config.listen.iter();
    let probed = addresses.try_for_each(|address| probe::probe(*address, config));
    probed.map_or_else(|message| fail(&message), |()| ExitCode::SUCCESS)
}

fn run(
    arguments: Arguments,
    inherited: io::Result<Inherited>,
    logger: &Logger,
) -> Result<(), Failure> {
    for warning in cli::unknown_variables() {
        warn!("{warning}");
    }
    if arguments.check {
        for doubt in arguments.config.doubts().map_err(Failure::of_options)? {
            warn!("{doubt}");
        }
        arguments.config.without_password().iter().for_each(|line| info!("{line}"));
        // Whoever cannot read this has the exit status.
        let _ = writeln!(stdout(), "the options are in order");
        return Ok(());
    }
    let inherited = inherited.map_err(|error| error.to_string())?;
    let server = Server::bind(arguments.config, inherited, Notify::from_environment())
        .map_err(|error| match error.kind() {
            io::ErrorKind::InvalidInput => Failure::of_options(error.to_string()),
            _ => error.to_string().into(),
        })?
        .with_logger(logger.clone());
    install_signal_handlers(&server)
        .map_err(|error| format!("cannot install signal handlers: {error}"))?;
    server.run().map_err(|error| error.to_string().into())
}

/// Waits for the last lines of the log when it is dropped, after a panic too.
struct LastLines(Logger);

impl Drop for LastLines {
    fn drop(&mut self) {
        self.0.flush(LAST_LINES);
    }
}

/// A panic stands where all else does, but does not go through a logger that may have panicked.
fn log_panics(logger: Logger) {
    std::panic::set_hook(Box::new(move |panic| {
        if !pool::panic_is_expected() {
            let thread = thread::current();
            let name = thread.name().unwrap_or("unnamed");
            logger.say(Level::Error, &format!("internal error: thread '{name}' {panic}"));
        }
    }));
}

/// The first SIGINT or SIGTERM lets the server finish, the second ends it: in the handler itself,
/// which needs no thread and no lock. SIGXCPU (`ulimit -t`) is a first one as well. SIGHUP has files read
/// again, SIGUSR2 the program started anew. A signal that was ignored when tabi started stays ignored:
/// `nohup` and a shell's `&` ask for that.
fn install_signal_handlers(server: &Server) -> Result<(), Box<dyn std::error::Error>> {
    let ignored = ignored_signals();
    let is_handled = |signal: &i32| ignored & (1 << (signal - 1)) == 0;
    let stopper = server.stopper();
    if is_handled(&SIGINT) {
        let stopper = Arc::clone(&stopper);
        ctrlc::set_handler(move || stopper.stop()).map_err(|error| match error {
            // Its text hides what the system has said: most likely that there is no thread.
            ctrlc::Error::System(error) => error,
            other => io::Error::other(other),
        })?;
    }
    // What was registered first is done first: a first signal does not find the mark of its own.
    let stopping = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM].into_iter().filter(is_handled) {
        flag::register_conditional_shutdown(signal, INTERRUPTED, Arc::clone(&stopping))?;
        flag::register(signal, Arc::clone(&stopping))?;
    }
    let others = [SIGTERM, SIGHUP, SIGUSR1, SIGUSR2, SIGXCPU];
    let mut signals = Signals::new(others.into_iter().filter(is_handled))?;
    let reloader = server.reloader();
    let reload = on_demand("tabi reload", move || reloader.reload())?;
    let restarter = server.restarter();
    let restart = on_demand("tabi restart", move || restarter.restart())?;
    let terminals_before = terminals();
    let handle = move || {
        for signal in signals.forever() {
            match signal {
                // It says as well that the terminal is gone. Nobody could end the program then.
                SIGHUP if terminals() != terminals_before => stopper.stop(),
                // What is asked for and has not begun is good for this signal, too.
                SIGHUP => drop(reload.try_send(())),
                SIGUSR2 => drop(restart.try_send(())),
                SIGUSR1 => info!("signal {signal} means nothing to tabi"),
                _ => stopper.stop(),
            }
        }
    };
    thread::Builder::new().name("tabi signals".into()).spawn(handle)?;
    Ok(())
}

/// Whether standard error is a terminal, and whether there is one that controls this process.
fn terminals() -> [bool; 2] {
    [stderr().is_terminal(), File::open("/dev/tty").is_ok()]
}

/// Does `work` each time that it is asked to. It may take long, as a slow file does: it has a thread of its
/// own, so that the next signal is handled.
fn on_demand(name: &str, work: impl Fn() + Send + 'static) -> io::Result<SyncSender<()>> {
    let (sender, demands) = sync_channel(1);
    let run = move || demands.iter().for_each(|()| work());
    thread::Builder::new().name(name.into()).spawn(run)?;
    Ok(sender)
}

/// The signals that are ignored, as bits, the first signal lowest. None where the system does not
/// say.
fn ignored_signals() -> u64 {
    let status = read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}
