//! Children of the load generator, none of which outlives it.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Seek, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio, exit};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::prctl;
use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;

/// A proxy that does not accept after this time does not start.
const START: Duration = Duration::from_secs(10);

/// What is under way may end in its own time after the limit, but not for longer than this.
const AFTER_LIMIT: Duration = Duration::from_secs(120);

/// The process groups that are alive, for the signal handler to end.
static GROUPS: Mutex<Vec<i32>> = Mutex::new(Vec::new());

/// A child with a process group of its own, ended with everything it forked when this is dropped.
pub(crate) struct Process {
    child: Child,
    group: i32,
    gently: bool,
}

impl Process {
    /// `gently` gives the child a moment to remove what it has left on disk before it is killed.
    pub(crate) fn start(command: &mut Command, gently: bool) -> io::Result<Process> {
        let mut groups = lock();
        let child = command.process_group(0).spawn()?;
        let group = i32::try_from(child.id()).map_err(io::Error::other)?;
        groups.push(group);
        Ok(Process { child, group, gently })
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    pub(crate) fn signal(&self, signal: Signal) -> io::Result<()> {
        Ok(signal::kill(Pid::from_raw(self.group), signal)?)
    }

    /// Says how the child ended, if it has.
    pub(crate) fn ended(&mut self) -> Option<String> {
        self.child.try_wait().ok().flatten().map(|status| format!("ended early: {status}"))
    }

    /// Waits until the child accepts connections.
    pub(crate) fn await_accept(&mut self, address: SocketAddr) -> io::Result<()> {
        let deadline = Instant::now() + START;
        while TcpStream::connect(address).is_err() {
            if let Some(end) = self.ended() {
                return Err(io::Error::other(end));
            }
            if Instant::now() > deadline {
                return Err(io::Error::other("does not accept within 10 seconds"));
            }
            thread::sleep(Duration::from_micros(100));
        }
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let group = Pid::from_raw(self.group);
        if self.gently {
            let _ = signal::killpg(group, Signal::SIGTERM);
            let deadline = Instant::now() + Duration::from_secs(1);
            while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < deadline {
                thread::sleep(Duration::from_millis(5));
            }
        }
        // The group goes from the list before its leader is buried and its number free again.
        lock().retain(|&other| other != self.group);
        let _ = signal::killpg(group, Signal::SIGKILL);
        let _ = self.child.wait();
    }
}

fn lock() -> std::sync::MutexGuard<'static, Vec<i32>> {
    GROUPS.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Ends every child and the load generator where somebody interrupts it, or where it is not done long
/// after its time.
pub(crate) fn limit(longest: Duration) -> io::Result<()> {
    ctrlc::set_handler(|| give_up(130)).map_err(io::Error::other)?;
    thread::Builder::new().spawn(move || {
        thread::sleep(longest + AFTER_LIMIT);
        eprintln!("load: not done long after the time limit");
        give_up(124);
    })?;
    Ok(())
}

fn give_up(status: i32) {
    // The list stays locked, so that no further child is started.
    let groups = lock();
    for &group in groups.iter() {
        let _ = signal::killpg(Pid::from_raw(group), Signal::SIGKILL);
    }
    exit(status);
}

/// A command that is killed when the load generator dies, whatever it dies of.
pub(crate) fn guarded(program: &Path) -> io::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["guard", "--"]).arg(program);
    Ok(command)
}

/// Becomes the command of [`guarded`].
pub(crate) fn become_guarded(command: &[String]) -> io::Result<()> {
    let (program, arguments) =
        command.split_first().ok_or_else(|| io::Error::other("no command given"))?;
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    Err(Command::new(program).args(arguments).exec())
}

/// A file that only its owner can read and that has lost its name already, so that none is left behind.
pub(crate) fn nameless(text: &str) -> io::Result<File> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let path = std::env::temp_dir().join(format!("load-{}-{number}", std::process::id()));
    let mut options = File::options();
    let mut file = options.read(true).write(true).create_new(true).mode(0o600).open(&path)?;
    fs::remove_file(&path)?;
    file.write_all(text.as_bytes())?;
    file.rewind()?;
    Ok(file)
}

/// A part of the load generator in a process of its own, which tells numbers, a line at a time.
pub(crate) struct Service {
    _process: Process,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Service {
    pub(crate) fn start(part: &str) -> io::Result<Service> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(part).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = Process::start(&mut command, false)?;
        let child = process.child();
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(io::Error::other("a child has no input and output"));
        };
        Ok(Service { _process: process, input, output: BufReader::new(output) })
    }

    /// The numbers of the next line that it says.
    pub(crate) fn numbers<const COUNT: usize>(&mut self) -> io::Result<[u32; COUNT]> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        let numbers: Vec<u32> =
            line.split_whitespace().filter_map(|number| number.parse().ok()).collect();
        numbers.try_into().map_err(|_| io::Error::other("a part of the load generator has ended"))
    }

    /// Has it say another line.
    pub(crate) fn ask(&mut self) -> io::Result<()> {
        self.input.write_all(b"\n")
    }
}
