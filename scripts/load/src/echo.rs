//! Echo services. One event loop serves every stream, so that ten thousand idle ones cost no thread.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::thread;

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use socket2::SockRef;

/// Echoes what arrives on streams accepted from any of the listeners, for ever.
pub(crate) fn serve(listeners: &[TcpListener]) -> io::Result<()> {
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    for (slot, listener) in listeners.iter().enumerate() {
        listener.set_nonblocking(true)?;
        epoll.add(listener, EpollEvent::new(EpollFlags::EPOLLIN, slot as u64))?;
    }
    // Behind the listeners, each in the slot that its descriptor numbers.
    let mut streams: Vec<Option<TcpStream>> = Vec::new();
    let mut events = vec![EpollEvent::empty(); 256];
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let count = match epoll.wait(&mut events, EpollTimeout::NONE) {
            Err(Errno::EINTR) => 0,
            count => count?,
        };
        for event in &events[..count] {
            let slot = usize::try_from(event.data()).map_err(io::Error::other)?;
            let Some(listener) = listeners.get(slot) else {
                let stream = &mut streams[slot - listeners.len()];
                if !stream.as_ref().is_some_and(|stream| echo(stream, &mut buffer)) {
                    // This ends the watch, too.
                    *stream = None;
                }
                continue;
            };
            if let Ok((stream, _)) = listener.accept() {
                stream.set_nonblocking(true)?;
                let place = usize::try_from(stream.as_raw_fd()).map_err(io::Error::other)?;
                let slot = (listeners.len() + place) as u64;
                epoll.add(&stream, EpollEvent::new(EpollFlags::EPOLLIN, slot))?;
                streams.resize_with(streams.len().max(place + 1), || None);
                streams[place] = Some(stream);
            }
        }
    }
}

/// Whether the stream lives on. The messages are so short that there is always room to send them.
fn echo(mut stream: &TcpStream, buffer: &mut [u8]) -> bool {
    match stream.read(buffer) {
        Ok(0) => false,
        Ok(length) => stream.write_all(&buffer[..length]).is_ok(),
        Err(error) => error.kind() == io::ErrorKind::WouldBlock,
    }
}

/// Sends each datagram back to where it came from, for ever, in a thread of its own.
pub(crate) fn datagrams(socket: UdpSocket) -> io::Result<()> {
    // Room for what all clients may have in flight: what is lost shall not be lost here.
    SockRef::from(&socket).set_recv_buffer_size(4 * 1024 * 1024)?;
    thread::Builder::new().spawn(move || {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            // An error is about a client that has gone, and the next datagram is another's.
            if let Ok((length, from)) = socket.recv_from(&mut buffer) {
                let _ = socket.send_to(&buffer[..length], from);
            }
        }
    })?;
    Ok(())
}
