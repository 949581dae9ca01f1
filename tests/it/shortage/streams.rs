//! Standard streams that are closed: whoever got their descriptors would get what is written to them.

use std::fs;
use std::io::{ErrorKind, Read};
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::{Killed, assert_calm, assert_echoes, client_of, rep_of};
use crate::scratch::{Scratch, of_process, program};
use crate::stage::{LONG, echo, listen, tunnel_from};

#[test]
fn with_closed_standard_streams_no_client_gets_lines_of_the_log() {
    let file = Scratch::new(b"");
    for options in [&["-v"][..], &["-v", "--log-file", file.path()]] {
        let (held, address) = listen();
        let plain = program(options);
        let mut command = Command::new("/bin/sh");
        let close =
            "exec 3<&0 0<&- 1>&- 2>&-; export LISTEN_FDS=1 LISTEN_PID=$$; exec \"$0\" \"$@\"";
        command.arg("-c").arg(close).arg(plain.get_program()).args(plain.get_args());
        let server = Killed::spawn(command.stdin(Stdio::from(OwnedFd::from(held))));
        let target = echo();
        let tunnel = || tunnel_from(Ipv4Addr::LOCALHOST, address, target);
        let mut tunnels = [tunnel(), tunnel(), tunnel()];
        // These have lines, each of them.
        for _ in 0..10 {
            assert_eq!(rep_of(&mut client_of(Ipv4Addr::LOCALHOST, address, target)), 0x00);
        }
        for stream in 0..3 {
            let link = fs::read_link(of_process(server.id(), &format!("fd/{stream}"))).unwrap();
            assert_eq!(link.to_str(), Some("/dev/null"), "descriptor {stream}");
        }
        assert_calm(server.id(), "no standard streams");
        for tunnel in &mut tunnels {
            tunnel.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
            assert_eq!(tunnel.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
            tunnel.set_read_timeout(Some(LONG)).unwrap();
            assert_echoes(tunnel);
        }
    }
    assert!(fs::read_to_string(file.path()).unwrap().contains(" outcome=closed\n"));
}
