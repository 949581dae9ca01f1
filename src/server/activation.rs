//! Sockets that a service manager hands over when it starts the program (`sd_listen_fds(3)`).

use std::io;
use std::net::TcpListener;

use listenfd::ListenFd;

/// The first descriptor that is handed over: those below are standard input, output and error.
const FIRST: usize = 3;

/// The sockets that were handed over to this process (`LISTEN_FDS`), if any were.
///
/// To be called first thing, and once: while the process has one thread, and before it opens
/// anything itself.
///
/// # Errors
///
/// When something else than a TCP socket that listens is among them; the error says which it is.
pub fn inherited_sockets() -> io::Result<Vec<TcpListener>> {
    let mut inherited = ListenFd::from_env();
    let count = inherited.len();
    let listener = |index| {
        let listener = inherited.take_tcp_listener(index).ok().flatten();
        let listener = listener.filter(listens);
        listener.ok_or_else(|| {
            let number = FIRST + index;
            let message = format!("LISTEN_FDS: descriptor {number} is no TCP socket that listens");
            io::Error::new(io::ErrorKind::InvalidInput, message)
        })
    };
    (0..count).map(listener).collect()
}

fn listens(socket: &TcpListener) -> bool {
    #[cfg(target_vendor = "apple")]
    return socket.local_addr().is_ok();
    #[cfg(not(target_vendor = "apple"))]
    return rustix::net::sockopt::socket_acceptconn(socket) == Ok(true);
}
