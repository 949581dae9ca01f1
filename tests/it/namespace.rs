//! Network namespaces that live as long as a test, with nothing in them but the loopback interface.

use std::cell::Cell;
use std::io::{Read, Write};
use std::net::UdpSocket;
use std::process::Command;
use std::sync::mpsc::channel;
use std::thread;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use socket2::{Domain, Socket, Type};

use crate::scratch::Scratch;

/// Runs `test` on a thread in a network namespace of its own; its threads and programs are in there,
/// too. Where this process may not make one, nothing is tested.
pub fn alone<T: Send>(test: impl FnOnce() -> T + Send) -> Option<T> {
    thread::scope(|scope| {
        let done = scope.spawn(|| {
            if let Err(error) = unshare(CloneFlags::CLONE_NEWNET) {
                eprintln!("no network namespace can be made here: {error}");
                return None;
            }
            bring_up_loopback();
            Some(test())
        });
        done.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Runs `test` in a namespace that has two ways to another: by `one0` from 10.1.0.1, which is the
/// default, and by `two0` from 10.2.0.1. The other one runs `beyond`, with the address 192.0.2.1.
pub fn with_two_ways<T: Send>(
    beyond: impl FnOnce() + Send,
    test: impl FnOnce() -> T + Send,
) -> Option<T> {
    thread::scope(|scope| {
        let ((here, id), (linked, ready)) = (channel(), channel());
        scope.spawn(move || {
            alone(move || {
                here.send(rustix::thread::gettid().as_raw_nonzero()).unwrap();
                if ready.recv() == Ok(true) {
                    ip("addr add 192.0.2.1/32 dev lo
                        addr add 10.1.0.2/24 dev one1
                        addr add 10.2.0.2/24 dev two1
                        link set one1 up
                        link set two1 up");
                    beyond();
                }
            });
        });
        let id = id.recv().ok()?;
        alone(move || {
            let has_ip = ip(&format!(
                "link add one0 type veth peer name one1 netns {id}
                 link add two0 type veth peer name two1 netns {id}
                 addr add 10.1.0.1/24 dev one0
                 addr add 10.2.0.1/24 dev two0
                 link set one0 up
                 link set two0 up
                 route add default via 10.1.0.2"
            ));
            linked.send(has_ip).unwrap();
            has_ip.then(test)
        })?
    })
}

/// Runs `test` in a namespace that has a name server, which answers nothing. Programs that `test`
/// starts ask it; what is given says how many questions it has had.
pub fn with_name_server(test: impl FnOnce(&dyn Fn() -> usize) + Send) {
    alone(|| {
        let file = Scratch::new(b"nameserver 127.0.0.1\noptions timeout:1 attempts:1\n");
        file.set_mode(0o644);
        over("/etc/resolv.conf", &file);
        let server = UdpSocket::bind("127.0.0.1:53").unwrap();
        server.set_nonblocking(true).unwrap();
        let questions = Cell::new(0);
        test(&|| {
            while server.recv(&mut [0; 512]).is_ok() {
                questions.set(questions.get() + 1);
            }
            questions.get()
        });
    });
}

/// Has `file` stand in the place of `path`, for this thread of [`alone`] and what it starts.
pub fn over(path: &str, file: &Scratch) {
    let nothing: Option<&str> = None;
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    unshare(CloneFlags::CLONE_NEWNS).unwrap();
    mount(nothing, "/", nothing, private, nothing).unwrap();
    mount(Some(file.path()), path, nothing, MsFlags::MS_BIND, nothing).unwrap();
}

/// Runs `ip` with each line of `commands`. False, with nothing done, where there is no such program.
pub fn ip(commands: &str) -> bool {
    for arguments in commands.lines().map(str::trim).filter(|line| !line.is_empty()) {
        match Command::new("ip").args(arguments.split_whitespace()).output() {
            Ok(output) => {
                let told = String::from_utf8_lossy(&output.stderr);
                assert!(output.status.success(), "ip {arguments}: {told}");
            }
            Err(error) => {
                eprintln!("there is no `ip`: {error}");
                return false;
            }
        }
    }
    true
}

/// The loopback interface of a new namespace is down. This is what `ip link set lo up` sends.
fn bring_up_loopback() {
    const AF_NETLINK: i32 = 16;
    const RTM_NEWLINK: u16 = 16;
    const NLM_F_REQUEST_AND_ACK: u16 = 0x01 | 0x04;
    const IFF_UP: u32 = 1;
    let netlink = Socket::new(Domain::from(AF_NETLINK), Type::RAW, None).unwrap();
    let header = [&32_u32.to_ne_bytes()[..], &RTM_NEWLINK.to_ne_bytes()].concat();
    let header = [&header[..], &NLM_F_REQUEST_AND_ACK.to_ne_bytes(), &[0; 8]].concat();
    // Family and type are open, the index is 1, and of the flags one is set and one to be changed.
    let link = [0, 1, IFF_UP, IFF_UP].map(u32::to_ne_bytes).concat();
    (&netlink).write_all(&[header, link].concat()).unwrap();
    let mut answer = [0; 64];
    assert!((&netlink).read(&mut answer).unwrap() >= 20);
    assert_eq!(answer[16..20], [0; 4], "the kernel has refused it");
}
