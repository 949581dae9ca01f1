//! What a service manager is told about the server (`sd_notify(3)`). The crate `sd-notify` waits without
//! a limit for one that does not read, and knows no abstract names.

use std::env;
use std::ffi::OsStr;
use std::io;
#[cfg(target_os = "linux")]
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;
use std::process;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use log::{debug, warn};
use rustix::time::{ClockId, clock_gettime};

/// How long a service manager that does not read may hold up who tells it something.
const SEND_TIMEOUT: Duration = Duration::from_millis(250);

/// The service manager that has started this program, if one has that wants to be told.
#[derive(Debug, Default)]
pub struct Notify {
    manager: Option<(UnixDatagram, SocketAddr)>,
    /// The server is taken for dead when nothing was heard of it for so long.
    watchdog: Option<Duration>,
    /// What comes of a reload from now on is nothing to the manager.
    is_stopping: AtomicBool,
}

impl Notify {
    /// The one that the environment names: `NOTIFY_SOCKET`, `WATCHDOG_USEC`, `WATCHDOG_PID`. The
    /// log says so if it cannot be reached.
    pub fn from_environment() -> Self {
        let Some(name) = env::var_os("NOTIFY_SOCKET") else { return Notify::default() };
        let manager = open(&name).inspect_err(|error| {
            warn!("cannot tell the service manager anything: NOTIFY_SOCKET: {error}");
        });
        let [limit, process] = ["WATCHDOG_USEC", "WATCHDOG_PID"].map(|name| env::var(name).ok());
        let watchdog = watchdog(limit.as_deref(), process.as_deref());
        Notify { manager: manager.ok(), watchdog, ..Notify::default() }
    }

    /// Clients are served.
    pub(super) fn ready(&self) {
        if !self.is_stopping.load(Ordering::Relaxed) {
            self.tell("READY=1");
        }
    }

    /// Files are read again; [`Notify::ready`] says when that is over.
    pub(super) fn reloading(&self) {
        if self.is_stopping.load(Ordering::Relaxed) {
            return;
        }
        let now = clock_gettime(ClockId::Monotonic);
        let microseconds = now.tv_sec * 1_000_000 + now.tv_nsec / 1_000;
        self.tell(&format!("RELOADING=1\nMONOTONIC_USEC={microseconds}"));
    }

    /// No further client is served.
    pub(super) fn stopping(&self) {
        self.is_stopping.store(true, Ordering::Relaxed);
        self.tell("STOPPING=1");
    }

    /// This process is no longer the service's main one.
    pub(super) fn hand_over(&self, process: u32) {
        self.is_stopping.store(true, Ordering::Relaxed);
        self.tell(&format!("MAINPID={process}"));
    }

    /// The server is taken for dead when [`Notify::alive`] was not called for so long.
    pub(super) fn watchdog(&self) -> Option<Duration> {
        self.watchdog
    }

    /// The server is alive.
    pub(super) fn alive(&self) {
        if let Err(error) = self.send("WATCHDOG=1") {
            debug!("cannot tell the service manager that the server is alive: {error}");
        }
    }

    fn tell(&self, state: &str) {
        if let Err(error) = self.send(state) {
            warn!("cannot tell the service manager {}: {error}", state.escape_default());
        }
    }

    fn send(&self, state: &str) -> io::Result<()> {
        match &self.manager {
            Some((socket, address)) => socket.send_to_addr(state.as_bytes(), address).map(drop),
            None => Ok(()),
        }
    }
}

fn open(name: &OsStr) -> io::Result<(UnixDatagram, SocketAddr)> {
    let address = address(name)?;
    let socket = UnixDatagram::unbound()?;
    socket.set_write_timeout(Some(SEND_TIMEOUT))?;
    Ok((socket, address))
}

/// The address of a socket with this name: a path, or behind an `@` a name in Linux's abstract
/// namespace.
fn address(name: &OsStr) -> io::Result<SocketAddr> {
    match name.as_bytes() {
        [b'/', ..] => SocketAddr::from_pathname(name),
        #[cfg(target_os = "linux")]
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
        _ => {
            let message = format!("{}: expected a path or @NAME", Path::new(name).display());
            Err(io::Error::new(io::ErrorKind::InvalidInput, message))
        }
    }
}

/// The limit of the watchdog, if it watches this process.
fn watchdog(limit: Option<&str>, process: Option<&str>) -> Option<Duration> {
    if process.is_some_and(|id| id.parse() != Ok(process::id())) {
        return None;
    }
    let limit = limit?.parse().ok().filter(|microseconds| *microseconds > 0)?;
    Some(Duration::from_micros(limit))
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use super::*;
    use std::time::Instant;

    /// A service manager's end, and what tells it.
    fn manager() -> (UnixDatagram, Notify) {
        let name = format!("tabi-notify-{}-{:?}", process::id(), std::thread::current().id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let manager = UnixDatagram::bind_addr(&address).unwrap();
        manager.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let manager_socket = open(OsStr::new(&format!("@{name}"))).ok();
        let notify = Notify { manager: manager_socket, ..Notify::default() };
        (manager, notify)
    }

    fn heard(manager: &UnixDatagram) -> String {
        let mut octets = [0; 256];
        let length = manager.recv(&mut octets).unwrap();
        String::from_utf8(octets[..length].to_vec()).unwrap()
    }

    #[test]
    fn states_are_told_one_a_message() {
        let (manager, notify) = manager();
        notify.ready();
        notify.alive();
        notify.stopping();
        // A reload while sessions finish.
        notify.reloading();
        notify.ready();
        notify.alive();
        let heard = [(); 4].map(|()| heard(&manager));
        assert_eq!(heard, ["READY=1", "WATCHDOG=1", "STOPPING=1", "WATCHDOG=1"]);
    }

    #[test]
    fn a_service_manager_that_does_not_read_holds_nobody_up_for_long() {
        let (_manager, notify) = manager();
        let begin = Instant::now();
        while notify.send("READY=1").is_ok() {
            assert!(begin.elapsed() < Duration::from_secs(20), "its queue has no end");
        }
    }

    #[test]
    fn a_watchdog_is_for_the_process_that_it_names() {
        let here = process::id().to_string();
        let limit = Some(Duration::from_secs(2));
        assert_eq!(watchdog(Some("2000000"), None), limit);
        assert_eq!(watchdog(Some("2000000"), Some(&here)), limit);
        assert_eq!(watchdog(Some("2000000"), Some("1")), None);
        for nothing in [None, Some("0"), Some("soon"), Some("")] {
            assert_eq!(watchdog(nothing, None), None);
        }
    }

    #[test]
    fn a_reload_tells_when_it_began() {
        let (manager, notify) = manager();
        notify.reloading();
        let heard = heard(&manager);
        let time = heard.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap();
        assert!(time.parse::<u64>().unwrap() > 0);
    }

    #[test]
    fn a_socket_is_named_by_a_path_or_with_an_at_sign() {
        assert!(address(OsStr::new("/run/notify")).unwrap().as_pathname().is_some());
        for bad in ["", "notify", "vsock:2:1234"] {
            assert!(address(OsStr::new(bad)).is_err(), "{bad}");
        }
    }
}
