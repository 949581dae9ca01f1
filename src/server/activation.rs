//! Sockets that a service manager hands over when it starts the program (`sd_listen_fds(3)`).

use std::fs::read_link;
use std::io;
use std::net::TcpListener;

use listenfd::ListenFd;
use socket2::SockRef;

/// The first descriptor that is handed over: those below are standard input, output and error.
const FIRST: usize = 3;

/// The sockets that were handed over to this process (`LISTEN_FDS`), if any were.
///
/// To be called first thing, and once: while the process has one thread, and before it opens
/// anything itself.
///
/// # Errors
///
/// When something else than a TCP socket that listens is among them; the error says which it is, and what.
pub fn inherited_sockets() -> io::Result<Vec<TcpListener>> {
    let mut inherited = ListenFd::from_env();
    let count = inherited.len();
    let listener = |index| {
        let why = match inherited.take_tcp_listener(index) {
            Ok(Some(listener)) if listens(&listener) => return Ok(listener),
            // That is how systemd starts a program for each client.
            Ok(Some(listener)) if SockRef::from(&listener).peer_addr().is_ok() => {
                "it is a connection (Accept=no is for tabi)".into()
            }
            Ok(_) => "it does not listen".into(),
            Err(_) => what_it_is(&mut inherited, index),
        };
        let number = FIRST + index;
        let message =
            format!("LISTEN_FDS: descriptor {number} is no TCP socket that listens: {why}");
        Err(io::Error::new(io::ErrorKind::InvalidInput, message))
    };
    (0..count).map(listener).collect()
}

/// What the descriptor is that is no TCP socket.
fn what_it_is(inherited: &mut ListenFd, index: usize) -> String {
    if inherited.take_udp_socket(index).is_ok() {
        return "it is a UDP socket".into();
    }
    if inherited.take_unix_listener(index).is_ok() || inherited.take_unix_datagram(index).is_ok() {
        return "it is a Unix socket".into();
    }
    match read_link(format!("/proc/self/fd/{}", FIRST + index)) {
        Ok(file) if file.to_string_lossy().starts_with("socket:") => {
            "it is a socket of another kind".into()
        }
        Ok(file) => format!("it is {}", file.display()),
        Err(_) => "it is closed, or of an unknown kind".into(),
    }
}

fn listens(socket: &TcpListener) -> bool {
    #[cfg(target_vendor = "apple")]
    return socket.local_addr().is_ok();
    #[cfg(not(target_vendor = "apple"))]
    return rustix::net::sockopt::socket_acceptconn(socket) == Ok(true);
}
