//! A private network for the works about names: one machine, a name server that is the work's own,
//! and an IPv6 of which most leads nowhere. Nothing of it is seen outside, and nothing stays.

use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::geteuid;

/// The interface that the default routes lead to. What is sent there is lost without a word: the
/// router that it is addressed to does not exist.
pub(crate) const OUTSIDE: &str = "outside";

/// Where the name server listens, on port 53.
pub(crate) const NAME_SERVER: Ipv4Addr = Ipv4Addr::LOCALHOST;

/// The network that every host has an address in, numbered by the last octet.
const HOSTS: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 0);

/// The only IPv6 address where anybody is.
pub(crate) const LIVE: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 1);

/// The address of a host.
pub(crate) fn host(number: u8) -> Ipv4Addr {
    let [a, b, c, _] = HOSTS.octets();
    Ipv4Addr::new(a, b, c, number)
}

/// The IPv6 address of a host where nobody answers, and nobody says so.
pub(crate) fn dead(number: u8) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 0xdead, 0, 0, 0, 0, number.into())
}

/// Runs `job` in a network of its own, and so the processes and threads that it starts.
///
/// Only a thread has gone there, and its network goes when the last of them has ended.
pub(crate) fn inside<T: Send>(job: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let worker = thread::Builder::new().spawn_scoped(scope, || {
            enter()?;
            job()
        })?;
        worker.join().unwrap_or_else(|_| Err(io::Error::other("the work panicked")))
    })
}

fn enter() -> io::Result<()> {
    if !geteuid().is_root() {
        return Err(io::Error::other("needs root"));
    }
    let refused = |error| io::Error::other(format!("this machine allows none: {error}"));
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).map_err(refused)?;
    let here = None::<&str>;
    mount(here, "/", here, MsFlags::MS_REC | MsFlags::MS_PRIVATE, here).map_err(refused)?;
    cover("/etc/resolv.conf", &format!("nameserver {NAME_SERVER}\n"))?;
    cover("/etc/nsswitch.conf", "hosts: files dns\n")?;
    cover("/etc/gai.conf", "")?;
    // A cache of names that the machine has would answer in the name server's place.
    for cache in ["/run/nscd", "/var/run/nscd"] {
        if Path::new(cache).is_dir() {
            mount(Some("none"), cache, Some("tmpfs"), MsFlags::empty(), here)?;
        }
    }
    connect()
}

/// Puts a text of ours over a file, where there is such a file.
fn cover(path: &str, text: &str) -> io::Result<()> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let Ok(path) = fs::canonicalize(path) else {
        return Ok(());
    };
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let name = format!("load-{}-room-{number}", std::process::id());
    let cover: PathBuf = std::env::temp_dir().join(name);
    let mut file = File::create_new(&cover)?;
    let outcome = file
        .write_all(text.as_bytes())
        // Some proxies are no longer root when they read it.
        .and_then(|()| file.set_permissions(Permissions::from_mode(0o644)))
        .and_then(|()| {
            let none = None::<&str>;
            Ok(mount(Some(&cover), &path, none, MsFlags::MS_BIND, none)?)
        });
    // What is mounted stays without its name.
    fs::remove_file(&cover)?;
    outcome.map_err(|error| io::Error::other(format!("cannot cover {}: {error}", path.display())))
}

/// Interfaces, addresses and routes.
fn connect() -> io::Result<()> {
    let (own4, router4) = ("192.0.2.2", "192.0.2.1");
    let (own6, router6) = ("2001:db8::2", "2001:db8::1");
    let nobody = "02:00:00:00:00:01";
    let first = host(1);
    let commands = format!(
        "link set lo up\n\
         link add {OUTSIDE} type veth peer name nowhere\n\
         link set {OUTSIDE} up\n\
         link set nowhere up\n\
         address add {own4}/24 dev {OUTSIDE}\n\
         address add {own6}/64 dev {OUTSIDE} nodad\n\
         neighbor add {router4} lladdr {nobody} dev {OUTSIDE} nud permanent\n\
         neighbor add {router6} lladdr {nobody} dev {OUTSIDE} nud permanent\n\
         route add default via {router4}\n\
         route add ::/0 via {router6}\n\
         address add {first}/24 dev lo\n\
         address add {LIVE}/128 dev lo nodad\n"
    );
    let mut ip = Command::new("ip");
    ip.args(["-batch", "-"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut ip = ip.spawn().map_err(|error| {
        io::Error::other(format!("ip, of the package iproute2, does not start: {error}"))
    })?;
    // The pipe is closed at the end of this statement.
    let written = ip.stdin.take().map(|mut input| input.write_all(commands.as_bytes()));
    let output = ip.wait_with_output()?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        return Err(io::Error::other(format!("ip: {}", text.trim().replace('\n', "; "))));
    }
    written.unwrap_or(Ok(()))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::ErrorKind;
    use std::net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs, UdpSocket};
    use std::sync::atomic::Ordering;
    use std::time::Duration;

    use super::{NAME_SERVER, dead, host, inside};
    use crate::name_server;

    #[test]
    fn a_room_has_names_of_its_own_and_an_ipv6_that_leads_nowhere() {
        let outside = fs::read("/etc/resolv.conf").ok();
        let outcome = inside(|| {
            let questions = name_server::start(UdpSocket::bind((NAME_SERVER, 53))?)?;
            let addresses: Vec<SocketAddr> = "dead7.test:80".to_socket_addrs()?.collect();
            let listener = TcpListener::bind((host(7), 0))?;
            TcpStream::connect(listener.local_addr()?)?;
            let nowhere = SocketAddr::from((dead(7), 80));
            let lost = TcpStream::connect_timeout(&nowhere, Duration::from_millis(500));
            Ok((
                addresses,
                questions.load(Ordering::Relaxed),
                lost.map_err(|error| error.kind()).err(),
            ))
        });
        let (mut addresses, questions, lost) = match outcome {
            Err(error)
                if ["root", "allows", "iproute2"]
                    .iter()
                    .any(|word| error.to_string().contains(word)) =>
            {
                eprintln!("left out: {error}");
                return;
            }
            outcome => outcome.unwrap(),
        };
        addresses.sort();
        assert_eq!(addresses, [SocketAddr::from((host(7), 80)), (dead(7), 80).into()]);
        assert_eq!(questions, 2);
        assert_eq!(lost, Some(ErrorKind::TimedOut));
        assert_eq!(fs::read("/etc/resolv.conf").ok(), outside);
    }
}
