//! A service manager that takes what it is told at once: its queue holds few messages, and those for
//! which it has no room are lost.

use std::iter;
use std::os::unix::net::UnixDatagram;
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use crate::stage::LONG;

pub struct Manager(Receiver<String>);

impl Manager {
    /// The one that is told what comes to `socket`.
    pub fn at(socket: UnixDatagram) -> Self {
        let (heard, told) = channel();
        thread::spawn(move || {
            let mut octets = [0; 256];
            while let Ok(length) = socket.recv(&mut octets) {
                let words = String::from_utf8(octets[..length].to_vec()).unwrap();
                if heard.send(words).is_err() {
                    return;
                }
            }
        });
        Manager(told)
    }

    /// The next thing that it is told.
    pub fn heard(&self) -> String {
        self.0.recv_timeout(LONG).unwrap()
    }

    /// The next thing other than that the server is alive.
    pub fn told(&self) -> String {
        iter::repeat_with(|| self.heard()).find(|told| told != "WATCHDOG=1").unwrap()
    }

    /// How often it was told that the server is alive, and nothing else, since it was last asked.
    pub fn beats(&self) -> u32 {
        self.0.try_iter().map(|told| assert_eq!(told, "WATCHDOG=1")).fold(0, |beats, ()| beats + 1)
    }
}
