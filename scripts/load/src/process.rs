//! Children of the load generator, none of which outlives it.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::prctl;
use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;

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

    /// Says how the child ended, if it has.
    pub(crate) fn ended(&mut self) -> Option<String> {
        self.child.try_wait().ok().flatten().map(|status| format!("ended early: {status}"))
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

/// Ends every child at once; for a signal or a deadline, after which nothing else runs.
pub(crate) fn end_all() {
    let groups = lock();
    for &group in groups.iter() {
        let _ = signal::killpg(Pid::from_raw(group), Signal::SIGKILL);
    }
    // The list stays locked, so that no further child is started.
    std::mem::forget(groups);
}

/// Becomes `command`, to be killed when the load generator dies, whatever it dies of.
pub(crate) fn become_guarded(command: &[String]) -> io::Result<()> {
    let (program, arguments) =
        command.split_first().ok_or_else(|| io::Error::other("no command given"))?;
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    Err(Command::new(program).args(arguments).exec())
}
