//! Several threads wait for one socket, and one of them is woken each time that it is ready.

use std::io;
use std::os::fd::AsFd;

use rustix::io::Errno;

use super::waker::Waker;

/// A socket for which several threads wait.
pub struct SharedWait {
    #[cfg(target_os = "linux")]
    epoll: std::os::fd::OwnedFd,
    /// Ends every wait.
    end: Waker,
}

#[cfg(target_os = "linux")]
impl SharedWait {
    const SOCKET: u64 = 0;
    const END: u64 = 1;

    /// A wait for `socket`.
    ///
    /// # Errors
    ///
    /// When the system has no further descriptors: it takes two.
    pub fn new(socket: impl AsFd) -> io::Result<Self> {
        use rustix::event::epoll::{CreateFlags, EventData, EventFlags, add, create};
        let wait = SharedWait { epoll: create(CreateFlags::CLOEXEC)?, end: Waker::new()? };
        add(&wait.epoll, &wait.end, EventData::new_u64(Self::END), EventFlags::IN)?;
        let once = EventFlags::IN | EventFlags::ONESHOT;
        add(&wait.epoll, socket, EventData::new_u64(Self::SOCKET), once)?;
        Ok(wait)
    }

    /// Waits until the socket is ready. `false` once the waits have ended.
    ///
    /// Nobody else is woken for the socket until [`SharedWait::next`].
    ///
    /// # Errors
    ///
    /// The error of `epoll_wait(2)`.
    pub fn wait(&self, _: impl AsFd) -> io::Result<bool> {
        use rustix::event::epoll::{Event, EventData, EventFlags, wait};
        let mut event = [Event { flags: EventFlags::empty(), data: EventData::new_u64(0) }];
        loop {
            match wait(&self.epoll, &mut event[..], None) {
                Ok(0) | Err(Errno::INTR) => {}
                Ok(_) => return Ok(event[0].data.u64() == Self::SOCKET),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Has the next one woken, now if the socket is ready still.
    pub fn next(&self, socket: impl AsFd) {
        use rustix::event::epoll::{EventData, EventFlags, modify};
        let once = EventFlags::IN | EventFlags::ONESHOT;
        // It fails only for a socket that is not waited for.
        let _ = modify(&self.epoll, socket, EventData::new_u64(Self::SOCKET), once);
    }
}

#[cfg(not(target_os = "linux"))]
impl SharedWait {
    /// A wait for `socket`.
    ///
    /// # Errors
    ///
    /// When the system has no further descriptors: it takes two.
    pub fn new(_: impl AsFd) -> io::Result<Self> {
        Ok(SharedWait { end: Waker::new()? })
    }

    /// Waits until the socket is ready. `false` once the waits have ended.
    ///
    /// # Errors
    ///
    /// The error of `poll(2)`.
    pub fn wait(&self, socket: impl AsFd) -> io::Result<bool> {
        use rustix::event::{PollFd, PollFlags, poll};
        let mut polled =
            [PollFd::new(&self.end, PollFlags::IN), PollFd::new(&socket, PollFlags::IN)];
        loop {
            match poll(&mut polled, None) {
                Ok(_) => return Ok(polled[0].revents().is_empty()),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Has the next one woken: here all of them are, each time.
    pub fn next(&self, _: impl AsFd) {}
}

impl SharedWait {
    /// Ends every wait, from now on.
    pub fn end(&self) {
        self.end.wake();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};
    use std::sync::mpsc::channel;
    use std::thread;
    use std::time::Duration;

    const LONG: Duration = Duration::from_secs(20);

    #[test]
    fn each_client_wakes_one_and_the_end_wakes_all() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let wait = SharedWait::new(&listener).unwrap();
        let (sender, woken) = channel();
        thread::scope(|scope| {
            for _ in 0..4 {
                let sender = sender.clone();
                scope.spawn(|| {
                    let sender = sender;
                    while wait.wait(&listener).unwrap() {
                        listener.accept().unwrap();
                        sender.send(true).unwrap();
                        wait.next(&listener);
                    }
                    sender.send(false).unwrap();
                });
            }
            // Two at the same time, and nobody blocks in accept.
            for _ in 0..10 {
                let address = listener.local_addr().unwrap();
                let _clients = [(); 2].map(|()| TcpStream::connect(address).unwrap());
                assert_eq!([(); 2].map(|()| woken.recv_timeout(LONG).unwrap()), [true; 2]);
            }
            wait.end();
            assert_eq!([(); 4].map(|()| woken.recv_timeout(LONG).unwrap()), [false; 4]);
        });
    }
}
