//! Echo services. One event loop serves every stream, so that ten thousand idle ones cost no thread.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::thread;

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use socket2::SockRef;

/// Echoes what arrives on streams accepted from any of the listeners, for ever.
pub(crate) fn serve(listeners: Vec<TcpListener>) -> io::Result<()> {
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    let mut sockets = Vec::new();
    for listener in listeners {
        listener.set_nonblocking(true)?;
        watch(&epoll, &mut sockets, Socket::Listener(listener))?;
    }
    let mut events = vec![EpollEvent::empty(); 256];
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let count = match epoll.wait(&mut events, EpollTimeout::NONE) {
            Err(Errno::EINTR) => 0,
            count => count?,
        };
        for event in &events[..count] {
            let slot = usize::try_from(event.data()).map_err(io::Error::other)?;
            let lives = match &sockets[slot] {
                Some(Socket::Stream(stream)) => echo(stream, &mut buffer),
                Some(Socket::Listener(listener)) => {
                    if let Ok((stream, _)) = listener.accept() {
                        stream.set_nonblocking(true)?;
                        watch(&epoll, &mut sockets, Socket::Stream(stream))?;
                    }
                    true
                }
                None => true,
            };
            if !lives {
                sockets[slot] = None;
            }
        }
    }
}

enum Socket {
    Listener(TcpListener),
    Stream(TcpStream),
}

/// Registers a socket in the slot that its descriptor numbers. Dropping it there ends the watch.
fn watch(epoll: &Epoll, sockets: &mut Vec<Option<Socket>>, socket: Socket) -> io::Result<()> {
    let descriptor = match &socket {
        Socket::Listener(listener) => listener.as_raw_fd(),
        Socket::Stream(stream) => stream.as_raw_fd(),
    };
    let slot = usize::try_from(descriptor).map_err(io::Error::other)?;
    let event = EpollEvent::new(EpollFlags::EPOLLIN, slot as u64);
    match &socket {
        Socket::Listener(listener) => epoll.add(listener, event)?,
        Socket::Stream(stream) => epoll.add(stream, event)?,
    }
    if sockets.len() <= slot {
        sockets.resize_with(slot + 1, || None);
    }
    sockets[slot] = Some(socket);
    Ok(())
}

/// Whether the stream lives on. The messages are so short that there is always room to send them.
fn echo(mut stream: &TcpStream, buffer: &mut [u8]) -> bool {
    match stream.read(buffer) {
        Ok(0) => false,
        Ok(length) => stream.write_all(&buffer[..length]).is_ok(),
        Err(error) => error.kind() == io::ErrorKind::WouldBlock,
    }
}

/// Starts a datagram echo and says on which port.
pub(crate) fn datagrams() -> io::Result<u16> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    // Room for what all clients may have in flight: what is lost shall not be lost here.
    SockRef::from(&socket).set_recv_buffer_size(4 * 1024 * 1024)?;
    let port = socket.local_addr()?.port();
    thread::Builder::new().spawn(move || {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            // An error is about a client that has gone, and the next datagram is another's.
            if let Ok((length, from)) = socket.recv_from(&mut buffer) {
                let _ = socket.send_to(&buffer[..length], from);
            }
        }
    })?;
    Ok(port)
}
