//! Network namespaces that live as long as a test, with nothing in them but the loopback interface.

use std::io::{Read, Write};
use std::thread;

use nix::sched::{CloneFlags, unshare};
use socket2::{Domain, Socket, Type};

/// Runs `test` on a thread in a network namespace of its own; its threads and programs are in there,
/// too. Where this process may not make one, nothing is tested.
pub fn alone(test: impl FnOnce() + Send) {
    thread::scope(|scope| {
        let done = scope.spawn(|| match unshare(CloneFlags::CLONE_NEWNET) {
            Ok(()) => {
                bring_up_loopback();
                test();
            }
            Err(error) => eprintln!("no network namespace can be made here: {error}"),
        });
        if let Err(panic) = done.join() {
            std::panic::resume_unwind(panic);
        }
    });
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
