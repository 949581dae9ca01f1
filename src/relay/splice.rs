//! The bulk path on Linux: bytes go from socket to socket through a pipe, and the kernel hands on
//! pages where `io::copy` would copy them twice.

use std::io::{self, Write};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use log::warn;
use rustix::io::{Errno, read, retry_on_intr};
use rustix::pipe::{
    PipeFlags, SpliceFlags, fcntl_getpipe_size, fcntl_setpipe_size, pipe_with, splice,
};

use super::ends::{Sink, Source};
use crate::system::descriptors::{Descriptors, PipeReservation};
use crate::system::memory::is_tight;

/// Sizes of a pipe, in bytes, the best first: 1 MiB costs a third less processor time than 64 KiB,
/// and a system may refuse it to ordinary users.
const SIZES: [usize; 3] = [1024 * 1024, 256 * 1024, 64 * 1024];

/// What is copied at once out of a pipe whose bytes cannot be spliced on.
const COPIED_AT_ONCE: usize = 64 * 1024;

/// This system refuses to splice, as some sandboxes do. It is not asked again.
static IS_REFUSED: AtomicBool = AtomicBool::new(false);

/// A pipe, empty whenever nobody moves bytes through it.
pub(super) struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
    size: usize,
    _reservation: PipeReservation,
}

impl Pipe {
    /// `None` when there are enough pipes already or memory is tight, or where only one is to be had that is
    /// too small to be worth it.
    pub(super) fn open(descriptors: &Arc<Descriptors>) -> Option<Self> {
        if IS_REFUSED.load(Ordering::Relaxed) || is_tight() {
            return None;
        }
        let reservation = descriptors.try_pipe()?;
        let (read, write) = pipe_with(PipeFlags::CLOEXEC).ok()?;
        let resized = SIZES.iter().find_map(|&size| fcntl_setpipe_size(&write, size).ok());
        let size = resized.or_else(|| fcntl_getpipe_size(&write).ok())?;
        (size >= SIZES[2]).then_some(Pipe { read, write, size, _reservation: reservation })
    }

    /// Copies until the burst of `source` ends, or memory is tight.
    pub(super) fn copy(self, source: &mut Source<'_>, sink: &Sink<'_>) -> io::Result<()> {
        while !is_tight() {
            let (from, flags) = (source.stream, SpliceFlags::MOVE);
            let most = self.size.min(sink.portion());
            let moved = retry_on_intr(|| splice(from, None, &self.write, None, most, flags));
            match moved {
                // An end of file, or an urgent mark: the next read tells which.
                Ok(0) => break,
                Err(error) if note_refusal(error) => break,
                moved => match source.note(moved)? {
                    0 => break,
                    mut left => {
                        while left > 0 {
                            let turn = sink.wait_for_turn(left)?;
                            self.empty_into(sink, turn)?;
                            left -= turn;
                        }
                    }
                },
            }
            // Whoever fills the source gets to run, and the next move is larger for it.
            thread::yield_now();
        }
        Ok(())
    }

    fn empty_into(&self, sink: &Sink<'_>, mut left: usize) -> io::Result<()> {
        while left > 0 {
            let (to, flags) = (sink.stream, SpliceFlags::MOVE);
            left -= sink.send(|| {
                match retry_on_intr(|| splice(&self.read, None, to, None, left, flags)) {
                    // What is in the pipe already is copied.
                    Err(error) if note_refusal(error) => self.copy_out(to, left),
                    moved => Ok(moved?),
                }
            })?;
        }
        Ok(())
    }

    #[inline(never)]
    fn copy_out(&self, mut to: &TcpStream, left: usize) -> io::Result<usize> {
        let mut buffer = vec![0; left.min(COPIED_AT_ONCE)];
        let length = retry_on_intr(|| read(&self.read, &mut buffer))?;
        to.write_all(&buffer[..length])?;
        Ok(length)
    }
}

/// Whether `error` says that this system does not splice. The first time it is logged.
fn note_refusal(error: Errno) -> bool {
    let is_refusal = matches!(error, Errno::NOSYS | Errno::PERM | Errno::INVAL | Errno::OPNOTSUPP);
    if is_refusal && !IS_REFUSED.swap(true, Ordering::Relaxed) {
        warn!("cannot splice: {error}; bulk is copied, which takes more processor time");
    }
    is_refusal
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::net::TcpListener;

    #[test]
    fn what_is_in_the_pipe_when_the_sink_refuses_is_copied() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut far, _) = listener.accept().unwrap();
        let pipe = Pipe::open(&Descriptors::new(1000)).unwrap();
        assert_eq!(rustix::io::write(&pipe.write, b"payload"), Ok(7));
        assert_eq!(pipe.copy_out(&near, 3).unwrap(), 3);
        assert_eq!(pipe.copy_out(&near, 4).unwrap(), 4);
        let mut read = [0; 7];
        far.read_exact(&mut read).unwrap();
        assert_eq!(read, *b"payload");
    }
}
