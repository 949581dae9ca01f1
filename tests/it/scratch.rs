//! Files that live as long as a test, and the program itself with its log.

use std::fs::{self, File, Permissions};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, geteuid, kill_process};

use crate::stage::{LONG, connect, take};

/// A file that only its owner can read, and that is gone with its test.
pub struct Scratch(PathBuf);

impl Scratch {
    pub fn new(content: &[u8]) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let next = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("tabi-it-{}-{next}", std::process::id()));
        fs::write(&path, content).unwrap();
        let file = Scratch(path);
        file.set_mode(0o600);
        file
    }

    pub fn set_mode(&self, mode: u32) {
        fs::set_permissions(&self.0, Permissions::from_mode(mode)).unwrap();
    }

    pub fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// A file of what the system shows of a process.
pub fn of_process(id: Pid, file: &str) -> String {
    format!("/proc/{}/{file}", id.as_raw_nonzero())
}

/// The program, listening on a free port. It is killed when it is dropped.
pub struct Program {
    pub address: SocketAddr,
    child: Child,
    log: Option<BufReader<ChildStderr>>,
    so_far: String,
}

impl Program {
    pub fn start(options: &[&str]) -> Self {
        Self::spawn(program(options))
    }

    /// Starts it with a limit on its descriptors.
    pub fn start_with_descriptors(limit: usize, options: &[&str]) -> Self {
        Self::spawn(limited(&format!("-n {limit}"), options))
    }

    /// Starts it with these variables in its environment.
    pub fn start_with(environment: &[(&str, &str)], options: &[&str]) -> Self {
        let mut command = program(options);
        command.envs(environment.iter().copied());
        Self::spawn(command)
    }

    /// Starts it, and waits until it heeds signals.
    pub fn heeding(options: &[&str]) -> Self {
        let program = Self::spawn(heeding(options));
        let mut client = connect(program.address);
        client.write_all(b"\x05\x02\x00\x02").unwrap();
        assert_eq!(take(&mut client), *b"\x05");
        program
    }

    /// Starts what `command` runs, with its log on standard error.
    pub fn spawn(mut command: Command) -> Self {
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let log = BufReader::new(child.stderr.take().unwrap());
        let address = SocketAddr::from(([0; 4], 0));
        let mut program = Program { address, child, log: Some(log), so_far: String::new() };
        let line = program.log_line("listening on ");
        program.address =
            line.split([' ', ',', '\n', '"']).find_map(|word| word.parse().ok()).unwrap();
        program
    }

    /// Its process.
    pub fn id(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// The memory that it takes now, in KiB.
    pub fn resident_kib(&self) -> usize {
        let status = fs::read_to_string(of_process(self.id(), "status")).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    /// The next line of the log that has `part` in it.
    pub fn log_line(&mut self, part: &str) -> String {
        let log = self.log.as_mut().unwrap();
        let limit = Timespec::try_from(LONG).unwrap();
        let mut line = String::new();
        while !line.contains(part) {
            line.clear();
            if log.buffer().is_empty() {
                let mut polled = [PollFd::new(log.get_ref(), PollFlags::IN)];
                poll(&mut polled, Some(&limit)).unwrap();
                let is_silent = polled[0].revents().is_empty();
                assert!(!is_silent, "no line with {part} comes after\n{}", self.so_far);
            }
            assert_ne!(log.read_line(&mut line).unwrap(), 0, "the log ends without {part}");
            self.so_far.push_str(&line);
        }
        line
    }

    /// The lines of the log up to the latest that was asked for.
    pub fn log_so_far(&self) -> &str {
        &self.so_far
    }

    /// The rest of the log, to be read elsewhere until the program ends.
    pub fn take_log(&mut self) -> BufReader<ChildStderr> {
        self.log.take().unwrap()
    }

    /// The rest of the log, until the program ends.
    pub fn rest_of_log(&mut self) -> String {
        let mut rest = String::new();
        self.take_log().read_to_string(&mut rest).unwrap();
        rest
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(self.id(), signal).unwrap();
    }

    /// Waits for the end, while nobody reads the log.
    pub fn wait(&mut self) -> ExitStatus {
        ended(&mut self.child)
    }
}

/// Waits until the process has ended.
pub fn ended(child: &mut Child) -> ExitStatus {
    let begin = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        assert!(begin.elapsed() < LONG, "the program goes on");
        thread::sleep(Duration::from_millis(5));
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What `tabi --check` prints to standard error, and its exit status.
pub fn check(options: &[&str]) -> (i32, String) {
    let output = program(options).arg("--check").output().unwrap();
    (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
}

/// The program, not started yet, listening on a free port.
pub fn program(options: &[&str]) -> Command {
    program_on("127.0.0.1:0", options)
}

/// The same, listening there.
pub fn program_on(listen: &str, options: &[&str]) -> Command {
    let mut command = bare();
    command.arg(listen).args(options).stdout(Stdio::null());
    command
}

/// The program as that of an ordinary user whom nobody else is: the limit is on all that a user has,
/// and root has none. `limit` is that of `ulimit`. `None` where this process may not become another
/// user.
pub fn of_ordinary_user(limit: Option<u32>) -> Option<Command> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    if !geteuid().is_root() {
        eprintln!("only root can be another user: nothing is tested");
        return None;
    }
    let user = 10_000 + std::process::id() % 1_000 * 50 + NEXT.fetch_add(1, Ordering::Relaxed);
    // That user may not get at where the program lies, so it has the file as a descriptor.
    let file = File::open(bare().get_program()).unwrap();
    let limit =
        limit.map_or(String::new(), |it| format!("ulimit -u {it} 2>/dev/null || ulimit -p {it}; "));
    let mut command = Command::new("/bin/sh");
    command.arg("-c").arg(format!("{limit}exec /proc/self/fd/0 \"$@\"")).arg("tabi");
    command.args(program(&[]).get_args());
    command.current_dir("/").uid(user).gid(user).stdin(Stdio::from(file)).stdout(Stdio::null());
    Some(command)
}

/// The same, with a limit as the shell's `ulimit` takes it.
pub fn limited(ulimit: &str, options: &[&str]) -> Command {
    let plain = program(options);
    let mut command = Command::new("/bin/sh");
    command.arg("-c").arg(format!("ulimit {ulimit}; exec \"$0\" \"$@\""));
    command.arg(plain.get_program()).args(plain.get_args()).stdout(Stdio::null());
    command
}

/// The program, with the signals as they usually are: whoever runs the tests may ignore some.
pub fn heeding(options: &[&str]) -> Command {
    let plain = program(options);
    let mut command = Command::new("env");
    command
        .arg("--default-signal=HUP,INT,TERM,USR2")
        .arg(plain.get_program())
        .args(plain.get_args());
    command.stdout(Stdio::null());
    command
}

/// The program without an option, whatever the environment of the tests is.
pub fn bare() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tabi"));
    for (variable, _) in std::env::vars_os() {
        if variable.as_encoded_bytes().starts_with(b"TABI_") {
            command.env_remove(variable);
        }
    }
    command
}
