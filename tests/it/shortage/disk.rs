//! A disk that is full, with the log on it: a small one in memory that only the test and the programs
//! that it starts can see.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::thread;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use super::{Killed, assert_calm, assert_echoes, client_of, metric, rep_of, wait_until};
use crate::namespace::alone;
use crate::reload::await_line;
use crate::scratch::{bare, program};
use crate::stage::{echo, tunnel_from};

/// Runs `test` with a folder that is a disk of 64 KiB. Where this process may not mount one, nothing
/// is tested.
fn on_a_small_disk(test: impl FnOnce(&Disk) + Send) {
    let folder = std::env::temp_dir().join(format!(
        "tabi-it-disk-{}-{:?}",
        std::process::id(),
        thread::current().id()
    ));
    fs::create_dir(&folder).unwrap();
    let disk = Disk(folder);
    let outcome = thread::scope(|scope| scope.spawn(|| disk.mount().map(|()| test(&disk))).join());
    fs::remove_dir(&disk.0).unwrap();
    match outcome {
        Ok(Ok(())) => {}
        Ok(Err(error)) => eprintln!("no disk can be mounted here: {error}"),
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

struct Disk(PathBuf);

impl Disk {
    /// Mounts it for this thread and whatever it starts.
    fn mount(&self) -> nix::Result<()> {
        let nothing: Option<&str> = None;
        unshare(CloneFlags::CLONE_NEWNS)?;
        mount(nothing, "/", nothing, MsFlags::MS_REC | MsFlags::MS_PRIVATE, nothing)?;
        mount(Some("none"), &self.0, Some("tmpfs"), MsFlags::empty(), Some("size=64k"))
    }

    fn path(&self, file: &str) -> String {
        self.0.join(file).to_str().unwrap().into()
    }

    /// Takes all the room that is left.
    fn fill(&self) {
        let mut file = File::create(self.path("filler")).unwrap();
        loop {
            match file.write(&[0; 1024]) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::StorageFull => return,
                Err(error) => panic!("{error}"),
            }
        }
    }

    fn empty(&self) {
        fs::remove_file(self.path("filler")).unwrap();
    }
}

/// A tunnel that is opened, used and closed, as often as that.
fn tunnels(count: u64, server: SocketAddr, target: SocketAddr) {
    for _ in 0..count {
        assert_eq!(rep_of(&mut client_of(Ipv4Addr::LOCALHOST, server, target)), 0x00);
    }
}

/// Lines of sessions in this log that are whole, and lines of which it says that they were lost.
fn logged_and_lost(path: &str) -> (u64, u64) {
    let log = fs::read(path).unwrap();
    let log = String::from_utf8_lossy(&log);
    let whole = log.lines().filter(|line| line.ends_with(" outcome=closed"));
    let lost = log.lines().filter_map(|line| line.split_once(" lines lost: "));
    let lost = lost.map(|(before, _)| before.rsplit(' ').next().unwrap().replace(',', ""));
    (whole.count() as u64, lost.map(|count| count.parse::<u64>().unwrap()).sum())
}

#[test]
fn on_a_full_disk_the_log_loses_lines_and_says_how_many_once_there_is_room() {
    on_a_small_disk(|disk| {
        let log = disk.path("log");
        let server = Killed::spawn(&mut program(&["--log-file", &log, "--status", "0"]));
        let page = await_line(&log, "status page at http://");
        let status = page.split(['/', ' ']).find_map(|word| word.parse().ok()).unwrap();
        let listening = await_line(&log, "listening on ");
        let address = listening.split_whitespace().find_map(|word| word.parse().ok()).unwrap();
        await_line(&log, "serving clients");
        let target = echo();
        let mut tunnel = tunnel_from(Ipv4Addr::LOCALHOST, address, target);
        disk.fill();
        let lost = || metric(status, "tabi_log_lines_lost_total");
        let mut sessions = 0;
        wait_until("no line is lost", || {
            tunnels(10, address, target);
            sessions += 10;
            lost() > 0
        });
        assert_calm(server.id(), "a full disk");
        assert_echoes(&mut tunnel);
        disk.empty();
        tunnels(1, address, target);
        sessions += 1;
        wait_until("not every line is accounted for", || {
            let (logged, lost) = logged_and_lost(&log);
            logged + lost >= sessions
        });
        let (logged, told) = logged_and_lost(&log);
        // Of a line that was torn before its line feed all can be read.
        assert!(told > 0 && logged + told <= sessions + 1, "{logged} + {told}, {sessions}");
        wait_until("the metrics say something else", || lost() == told);
        assert_echoes(&mut tunnel);
    });
}

#[test]
fn on_a_disk_that_is_full_at_the_start_the_program_serves_and_logs_once_there_is_room() {
    // In a network of their own two ports are free, and known before anything is logged.
    let [address, status]: [SocketAddr; 2] =
        [([127, 0, 0, 1], 1080).into(), ([127, 0, 0, 1], 80).into()];
    let test = |disk: &Disk| {
        disk.fill();
        let log = disk.path("log");
        let mut command = bare();
        command.args([&address.to_string(), "--status", &status.to_string(), "--log-file", &log]);
        let server = Killed::spawn(&mut command);
        wait_until("it does not listen", || TcpStream::connect(status).is_ok());
        wait_until("no line is lost", || metric(status, "tabi_log_lines_lost_total") > 0);
        let target = echo();
        tunnels(1, address, target);
        assert_calm(server.id(), "a disk that was full at the start");
        disk.empty();
        tunnels(1, address, target);
        await_line(&log, " lines lost: ");
        await_line(&log, " outcome=closed");
    };
    alone(|| on_a_small_disk(test));
}
