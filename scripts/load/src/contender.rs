//! The proxies that are compared, and how each is started: logging off, its limits raised.

mod invocation;

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit};

use crate::account;
use crate::process::{Process, guarded};
use crate::sockets::free_address;
use crate::tunnel::{By, Proxy};

/// What is known of a proxy's command line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// No proxy: what the machine and the load generator can do.
    Direct,
    Tabi,
    Microsocks,
    Dante,
    GoSocks5,
    FastSocks5,
    Merino,
    Tinyproxy,
    Privoxy,
    Goproxy,
    /// The user's own, of which no more is known than its command.
    Given,
}

/// Every kind that is known, with the name it goes by, which a label begins with, and what it speaks.
/// Without a proxy nobody is asked, and targets are the same.
const KINDS: [(&str, Kind, &[By]); 10] = [
    ("direct", Kind::Direct, &[By::Socks5, By::PlainHttp]),
    ("tabi", Kind::Tabi, By::ALL),
    ("microsocks", Kind::Microsocks, &[By::Socks5]),
    ("dante", Kind::Dante, &[By::Socks5]),
    ("go-socks5", Kind::GoSocks5, &[By::Socks5]),
    ("fast-socks5", Kind::FastSocks5, &[By::Socks5]),
    ("merino", Kind::Merino, &[By::Socks5]),
    ("tinyproxy", Kind::Tinyproxy, By::HTTP),
    ("privoxy", Kind::Privoxy, By::HTTP),
    ("goproxy", Kind::Goproxy, By::HTTP),
];

/// A proxy to compare. Two of one kind differ in label and program.
#[derive(Clone, Debug)]
pub(crate) struct Contender {
    pub(crate) label: String,
    pub(crate) kind: Kind,
    program: PathBuf,
    /// Of a given peer, the shell command that starts it.
    command: String,
    /// What it can be spoken to, as far as is known.
    pub(crate) speaks: Vec<By>,
    /// Whether it has UDP ASSOCIATE, as far as is known.
    pub(crate) udp: bool,
    /// What it is spoken to now.
    by: By,
    setting: Setting,
}

/// What a contender is started for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Setting {
    /// It serves everybody, and its targets are on loopback.
    Loopback,
    /// It serves nobody but a user with a password.
    Users,
    /// It is in a private network, whose targets have names.
    Room,
}

/// A longer label has no room in the chart.
const LONGEST_LABEL: usize = 16;

impl Contender {
    /// Reads `LABEL` or `LABEL=PROGRAM`, where the label begins with the name of a kind.
    pub(crate) fn parse(text: &str, peers: &Path) -> Result<Contender, String> {
        let (label, program) = text.split_once('=').unwrap_or((text, ""));
        let kind = KINDS.iter().find(|(name, ..)| label.starts_with(name));
        let Some(&(name, kind, speaks)) = kind else {
            let names = KINDS.map(|(name, ..)| name).join(", ");
            return Err(format!("{label} begins with none of {names}"));
        };
        let program =
            if program.is_empty() { installed(name, peers) } else { PathBuf::from(program) };
        let udp = speaks.contains(&By::Socks5)
            && !matches!(kind, Kind::Microsocks | Kind::GoSocks5 | Kind::Merino);
        Ok(Contender {
            label: label.to_owned(),
            kind,
            program,
            command: String::new(),
            speaks: speaks.to_vec(),
            udp,
            by: By::Socks5,
            setting: Setting::Loopback,
        })
    }

    /// Reads `NAME=COMMAND` of a peer that the user brings, with the place for the port in it.
    pub(crate) fn given(text: &str) -> Result<Contender, String> {
        let (label, command) =
            text.split_once('=').ok_or("expected NAME=COMMAND, with {port} in the command")?;
        let plain =
            |character: char| character.is_ascii_alphanumeric() || "-_.".contains(character);
        if label.is_empty() || label.len() > LONGEST_LABEL || !label.chars().all(plain) {
            return Err(format!(
                "a peer's name is 1 to {LONGEST_LABEL} letters, digits, dots and dashes"
            ));
        }
        if !command.contains(invocation::PORT) {
            let port = invocation::PORT;
            return Err(format!("the command needs {port} where the number of its port goes"));
        }
        Ok(Contender {
            label: label.to_owned(),
            kind: Kind::Given,
            program: PathBuf::from("/bin/sh"),
            command: command.to_owned(),
            speaks: By::ALL.to_vec(),
            udp: true,
            by: By::Socks5,
            setting: Setting::Loopback,
        })
    }

    /// The same, but spoken to by this.
    pub(crate) fn by(&self, by: By) -> Contender {
        Contender { by, ..self.clone() }
    }

    /// Whether it has to be found out that it can be spoken to by this: of a peer nobody knows, and of
    /// tabi it depends on the version.
    pub(crate) fn may_lack(&self, by: By) -> bool {
        self.kind == Kind::Given || self.kind == Kind::Tabi && by != By::Socks5
    }

    /// The same, but started so that it serves nobody but a user with a password.
    pub(crate) fn with_users(&self) -> Contender {
        Contender { setting: Setting::Users, ..self.clone() }
    }

    /// The same, but started for targets in a private network.
    pub(crate) fn in_room(&self) -> Contender {
        Contender { setting: Setting::Room, ..self.clone() }
    }

    /// Whether it can be given a user by its command line or its standard input.
    pub(crate) fn has_users(&self) -> bool {
        matches!(self.kind, Kind::Tabi | Kind::Microsocks | Kind::FastSocks5)
    }

    pub(crate) fn is_proxy(&self) -> bool {
        self.kind != Kind::Direct
    }

    /// The version: what the program says of itself, or what was noted when it was installed.
    pub(crate) fn version(&self, peers: &Path) -> String {
        if self.kind == Kind::Direct {
            return "no proxy".to_owned();
        }
        if self.kind == Kind::Given {
            return format!("given as `{}`", self.command);
        }
        if self.kind == Kind::Tabi {
            let output = Command::new(&self.program).arg("--version").output();
            return output.map_or_else(
                |error| error.to_string(),
                |output| {
                    let text = String::from_utf8_lossy(&output.stdout);
                    text.lines().next().unwrap_or("says none").to_owned()
                },
            );
        }
        let name =
            KINDS.iter().find(|(_, kind, _)| *kind == self.kind).map_or("", |(name, ..)| name);
        fs::read_to_string(peers.join("versions"))
            .unwrap_or_default()
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))
            .map_or_else(|| "version not noted".to_owned(), str::to_owned)
    }

    /// Starts the proxy on a port of its own and waits until it accepts.
    pub(crate) fn start(&self) -> io::Result<Running> {
        if !self.is_proxy() {
            return Ok(Running::none());
        }
        let (mut process, address, _) = self.spawn(true)?;
        process.await_accept(address)?;
        let users = self.setting == Setting::Users;
        Ok(Running { process: Some(process), address: Some(Proxy { address, by: self.by, users }) })
    }

    /// How long it takes from the start of the process to its first connection.
    pub(crate) fn time_to_accept(&self) -> io::Result<Duration> {
        // The guard would be counted in, and this process does not live long enough to need it.
        let (mut process, address, begun) = self.spawn(false)?;
        process.await_accept(address)?;
        Ok(begun.elapsed())
    }

    /// The resident memory of a proxy that nobody has ever connected to.
    pub(crate) fn resident_untouched(&self) -> io::Result<f64> {
        let (mut process, ..) = self.spawn(true)?;
        thread::sleep(Duration::from_millis(500));
        match process.ended() {
            Some(end) => Err(io::Error::other(end)),
            None => account::resident(process.id()),
        }
    }

    /// The process, where it is going to listen, and when it was started.
    fn spawn(&self, is_guarded: bool) -> io::Result<(Process, SocketAddr, Instant)> {
        let address = free_address()?;
        let mut command =
            if is_guarded { guarded(&self.program)? } else { Command::new(&self.program) };
        command.args(self.arguments(address.port())?).env("RUST_LOG", "off");
        command.stdin(self.input(address.port())?).stdout(Stdio::null()).stderr(Stdio::null());
        let begun = Instant::now();
        let process = Process::start(&mut command, self.kind == Kind::Dante)?;
        Ok((process, address, begun))
    }
}

/// The tunnels that a proxy can hold at two descriptors each, a few left for everything else.
pub(crate) fn most_tunnels() -> io::Result<usize> {
    let (limit, _) = getrlimit(Resource::RLIMIT_NOFILE)?;
    Ok(usize::try_from(limit.saturating_sub(100) / 2).unwrap_or(usize::MAX))
}

/// The program when the command line names none: as installed for the benchmark, or by its name.
fn installed(name: &str, peers: &Path) -> PathBuf {
    let program = peers.join("bin").join(name);
    if program.exists() { program } else { PathBuf::from(name) }
}

/// A contender that accepts connections.
pub(crate) struct Running {
    process: Option<Process>,
    /// None where there is no proxy.
    pub(crate) address: Option<Proxy>,
}

impl Running {
    /// No proxy at all.
    pub(crate) fn none() -> Running {
        Running { process: None, address: None }
    }

    /// The processor time used so far.
    pub(crate) fn cpu(&self) -> io::Result<Duration> {
        self.process.as_ref().map_or(Ok(Duration::ZERO), |process| account::cpu(process.id()))
    }

    /// Resident memory in octets.
    pub(crate) fn resident(&self) -> io::Result<f64> {
        self.process.as_ref().map_or(Ok(0.0), |process| account::resident(process.id()))
    }

    /// Whether the proxy has given up while it was being measured.
    pub(crate) fn has_ended(&self) -> bool {
        self.process.as_ref().is_some_and(|process| account::has_ended(process.id()))
    }
}
