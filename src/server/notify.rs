//! What a service manager is told about the server (`sd_notify(3)`).

use std::env;
use std::ffi::OsStr;
use std::io;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;
use std::process;
use std::time::{Duration, Instant};

use log::{debug, warn};
use rustix::time::{ClockId, clock_gettime};

/// How long a service manager that does not read may hold up who tells it something.
const PATIENCE: Duration = Duration::from_millis(250);

/// The service manager that has started this program, if one has that wants to be told.
#[derive(Debug, Default)]
pub struct Notify {
    told: Option<(UnixDatagram, SocketAddr)>,
    /// The server is taken for dead when nothing was heard of it for so long.
    watchdog: Option<Duration>,
}

impl Notify {
    /// The one that the environment names: `NOTIFY_SOCKET`, `WATCHDOG_USEC`, `WATCHDOG_PID`. The
    /// log says so if it cannot be reached.
    pub fn from_environment() -> Self {
        let Some(name) = env::var_os("NOTIFY_SOCKET") else { return Notify::default() };
        let told = match open(&name) {
            Ok(told) => Some(told),
            Err(error) => {
                warn!("cannot tell the service manager anything: NOTIFY_SOCKET: {error}");
                None
            }
        };
        let [limit, process] = ["WATCHDOG_USEC", "WATCHDOG_PID"].map(|name| env::var(name).ok());
        Notify { told, watchdog: watchdog(limit.as_deref(), process.as_deref()) }
    }

    /// Clients are served.
    pub(super) fn ready(&self) {
        self.tell("READY=1");
    }

    /// Files are read again; [`Notify::ready`] says when that is over.
    pub(super) fn reloading(&self) {
        let now = clock_gettime(ClockId::Monotonic);
        let microseconds = now.tv_sec * 1_000_000 + now.tv_nsec / 1_000;
        self.tell(&format!("RELOADING=1\nMONOTONIC_USEC={microseconds}"));
    }

    /// No further client is served.
    pub(super) fn stopping(&self) {
        self.tell("STOPPING=1");
    }

    /// Tells that the server is alive, for as long as its rounds come.
    pub(super) fn watchdog(&self) -> Watchdog<'_> {
        let next = self.watchdog.map(|limit| (Instant::now(), limit / 2));
        Watchdog { notify: self, next }
    }

    fn tell(&self, state: &str) {
        if let Err(error) = self.send(state) {
            warn!("cannot tell the service manager {}: {error}", state.escape_default());
        }
    }

    fn send(&self, state: &str) -> io::Result<()> {
        match &self.told {
            Some((socket, manager)) => socket.send_to_addr(state.as_bytes(), manager).map(drop),
            None => Ok(()),
        }
    }
}

/// The sign of life that a service manager wants, twice within its limit.
pub(super) struct Watchdog<'a> {
    notify: &'a Notify,
    /// When it is due next, and how long after that again.
    next: Option<(Instant, Duration)>,
}

impl Watchdog<'_> {
    /// Gives the sign if it is due. Says how soon it has to be given again, if it has.
    pub(super) fn round(&mut self, now: Instant) -> Option<Duration> {
        let (due, pause) = self.next.as_mut()?;
        if now >= *due {
            *due = now + *pause;
            if let Err(error) = self.notify.send("WATCHDOG=1") {
                debug!("cannot tell the service manager that the server is alive: {error}");
            }
        }
        Some(due.saturating_duration_since(now))
    }
}

fn open(name: &OsStr) -> io::Result<(UnixDatagram, SocketAddr)> {
    let manager = address(name)?;
    let socket = UnixDatagram::unbound()?;
    socket.set_write_timeout(Some(PATIENCE))?;
    Ok((socket, manager))
}

/// The address of a socket with this name: a path, or behind an `@` a name in Linux's abstract
/// namespace.
fn address(name: &OsStr) -> io::Result<SocketAddr> {
    #[cfg(target_os = "linux")]
    if let Some(name) = name.as_encoded_bytes().strip_prefix(b"@") {
        return <SocketAddr as std::os::linux::net::SocketAddrExt>::from_abstract_name(name);
    }
    if name.as_encoded_bytes().first() == Some(&b'/') {
        return SocketAddr::from_pathname(name);
    }
    let told = format!("{}: expected a path or @NAME", Path::new(name).display());
    Err(io::Error::new(io::ErrorKind::InvalidInput, told))
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
mod tests {
    use super::*;

    /// A service manager's end, and what tells it.
    fn manager(watchdog: Option<Duration>) -> (UnixDatagram, Notify) {
        let name = format!("@tabi-notify-{}-{:?}", process::id(), std::thread::current().id());
        let address = address(OsStr::new(&name)).unwrap();
        let manager = UnixDatagram::bind_addr(&address).unwrap();
        manager.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let told = Some(open(OsStr::new(&name)).unwrap());
        (manager, Notify { told, watchdog })
    }

    fn heard(manager: &UnixDatagram) -> String {
        let mut octets = [0; 256];
        let length = manager.recv(&mut octets).unwrap();
        String::from_utf8(octets[..length].to_vec()).unwrap()
    }

    #[test]
    fn a_sign_of_life_comes_twice_within_the_limit() {
        let (manager, notify) = manager(Some(Duration::from_secs(3)));
        let mut watchdog = notify.watchdog();
        let begin = Instant::now();
        let at = |milliseconds| begin + Duration::from_millis(milliseconds);
        assert_eq!(watchdog.round(at(100)), Some(Duration::from_millis(1500)));
        assert_eq!(watchdog.round(at(600)), Some(Duration::from_secs(1)));
        assert_eq!(watchdog.round(at(1600)), Some(Duration::from_millis(1500)));
        notify.stopping();
        let heard = [(); 3].map(|()| heard(&manager));
        assert_eq!(heard, ["WATCHDOG=1", "WATCHDOG=1", "STOPPING=1"]);
    }

    #[test]
    fn who_is_not_watched_gives_no_sign_of_life() {
        let (manager, notify) = manager(None);
        assert_eq!(notify.watchdog().round(Instant::now()), None);
        notify.ready();
        assert_eq!(heard(&manager), "READY=1");
        assert_eq!(Notify::default().watchdog().round(Instant::now()), None);
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
        let (manager, notify) = manager(None);
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
