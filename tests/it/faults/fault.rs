//! What each fault is at each step.

use std::fs::File;
use std::io::Write;
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::time::Duration;

use rustix::fs::OFlags;

use super::scene::Scene;
use super::step::datagram;
use super::{Fault, Step};
use crate::stage::{LONG, request, request_by_name, reset};

/// A writer that gets nothing off for so long has a reader that stalls.
const STUCK: Duration = Duration::from_millis(300);

/// More than all buffers on the way hold.
const MOST_BYTES: usize = 256 * 1024 * 1024;

/// More than a client's receive queue holds.
const DATAGRAMS: usize = 2000;

impl Scene<'_> {
    pub(super) fn inject(&mut self) {
        match self.fault {
            Fault::ClientResets => reset(self.client.take().unwrap()),
            Fault::ClientVanishes => {
                self.link.as_ref().unwrap().take_down();
                self.aside.extend(self.client.take());
                // A target amid its answer goes on with it.
                if matches!(self.step, Step::RelayDown | Step::HalfClosedByClient) {
                    fill(self.target.as_mut().unwrap());
                }
            }
            Fault::TargetResets => self.reset_target(),
            Fault::TargetVanishes => self.lose_target(),
            Fault::ReaderStalls => self.stall_reader(),
            Fault::LogStalls => self.stall_log(),
            Fault::ResolverIsSilent => self.ask_in_vain(),
            Fault::Sigterm => self.stop(),
        }
    }

    fn reset_target(&mut self) {
        match self.step {
            // The next segment that begins the connection finds nobody who listens.
            Step::Dial => drop(self.extra.hole.take()),
            Step::BindWaiting => {
                let bound = self.extra.bound.unwrap();
                reset(TcpStream::connect_timeout(&bound, LONG).unwrap());
            }
            // For a datagram, "port unreachable" comes back.
            Step::UdpAssociation => {
                let gone = self.extra.udp_targets.remove(0).local_addr().unwrap();
                let question = datagram(&request(gone), b"question");
                self.extra.datagrams.as_ref().unwrap().send(&question).unwrap();
            }
            step => match self.target.take() {
                Some(target) => reset(target),
                None => panic!("there is no target at {step:?}"),
            },
        }
    }

    fn lose_target(&mut self) {
        match self.step {
            // Nobody has been there in the first place.
            Step::Dial | Step::BindWaiting => {}
            Step::UdpAssociation => {
                self.link.as_ref().unwrap().take_down();
                let gone = self.extra.udp_targets.remove(0).local_addr().unwrap();
                let question = datagram(&request(gone), b"question");
                self.extra.datagrams.as_ref().unwrap().send(&question).unwrap();
            }
            step => {
                self.link.as_ref().unwrap().take_down();
                self.aside.extend(self.target.take());
                // A client amid what it sends goes on with it.
                if matches!(step, Step::RelayUp | Step::HalfClosedByTarget) {
                    fill(self.client.as_mut().unwrap());
                }
            }
        }
    }

    /// One side writes until it is stuck. The other, which does not read, is put aside.
    fn stall_reader(&mut self) {
        match self.step {
            Step::RelayUp | Step::HalfClosedByTarget => {
                self.aside.extend(self.target.take());
                fill(self.client.as_mut().unwrap());
            }
            Step::RelayDown | Step::HalfClosedByClient | Step::Draining => {
                self.aside.extend(self.client.take());
                fill(self.target.as_mut().unwrap());
            }
            // The reply is read only when the server has given up waiting for that.
            Step::FailingReply => self.await_live(0),
            Step::UdpAssociation => self.flood_client(),
            step => panic!("nobody reads at {step:?}"),
        }
    }

    /// A target sends more datagrams than the client's queue holds, and nobody reads them.
    fn flood_client(&mut self) {
        let target = &self.extra.udp_targets[1];
        let datagrams = self.extra.datagrams.as_ref().unwrap();
        let destination = request(target.local_addr().unwrap());
        datagrams.send(&datagram(&destination, b"more, please")).unwrap();
        let (_, from) = target.recv_from(&mut [0; 64]).unwrap();
        for _ in 0..DATAGRAMS {
            target.send_to(&[0x55; 1000], from).unwrap();
        }
    }

    /// Fills the pipe that the log is written to.
    fn stall_log(&mut self) {
        let log = self.program.take_log();
        let pipe = format!("/proc/self/fd/{}", log.get_ref().as_raw_fd());
        let no_wait = i32::try_from(OFlags::NONBLOCK.bits()).unwrap();
        let mut pipe = File::options().write(true).custom_flags(no_wait).open(pipe).unwrap();
        for lines in [[b'\n'; 4096].as_slice(), b"\n"] {
            while pipe.write(lines).is_ok() {}
        }
        self.extra.log = Some(Box::new(log));
    }

    /// Asks for a name about which nothing is said.
    fn ask_in_vain(&mut self) {
        let name = self.name();
        match self.step {
            // It has asked already.
            Step::Lookup => return,
            Step::Draining => {
                let request = request_by_name(name.as_bytes(), 9);
                self.client.as_mut().unwrap().write_all(&request).unwrap();
            }
            Step::UdpAssociation => {
                let question = datagram(&request_by_name(name.as_bytes(), 9), b"question");
                self.extra.datagrams.as_ref().unwrap().send(&question).unwrap();
            }
            step => panic!("nothing is looked up at {step:?}"),
        }
        self.world.gate.as_ref().unwrap().await_question(&name);
    }
}

/// Writes until nothing goes off any more, or it is told that nobody is there.
fn fill(stream: &mut TcpStream) {
    stream.set_write_timeout(Some(STUCK)).unwrap();
    let octets = vec![0x55; 64 * 1024];
    let mut written = 0;
    while let Ok(length) = stream.write(&octets) {
        written += length;
        assert!(written < MOST_BYTES, "the writer was never stopped");
    }
    stream.set_write_timeout(Some(LONG)).unwrap();
}
