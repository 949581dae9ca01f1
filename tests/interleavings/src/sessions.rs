//! Sessions: several threads end one at once, and several open and close them.

use std::io::Read;
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread::{JoinHandle, spawn, yield_now};
use std::time::{Duration, FOREVER, stand_still};

use socket2::SockRef;

use crate::system::descriptors::Descriptors;
use crate::tabi::sessions::{Ending, Endpoint, Limits, Session, SessionState, Sessions, Stage};

fn sessions(most: usize, handshake: Duration) -> Arc<Sessions> {
    let limits = Limits { sessions: most, pairs: most, per_client: most, handshake, idle: FOREVER };
    Sessions::new(limits, Descriptors::new(usize::MAX))
}

/// A connection, and its far end. Options and states of sockets are the system's own here.
fn connection() -> (TcpStream, UnixStream) {
    let (near, far) = UnixStream::pair().unwrap();
    (OwnedFd::from(near).into(), far)
}

/// A session, and the far ends that keep its sockets connected.
struct Open {
    session: Session,
    far: UnixStream,
}

fn open(sessions: &Arc<Sessions>, host: u8) -> Option<Open> {
    let (stream, far) = connection();
    let session = sessions.open(([192, 0, 2, host], 5000).into(), false, stream, || ()).ok()?;
    Some(Open { session, far })
}

/// A session that relays, and the target.
fn tunnel() -> (Open, UnixStream) {
    let open = open(&sessions(1, FOREVER), 1).unwrap();
    let (stream, target) = connection();
    open.session.state().connected(stream, ([192, 0, 2, 9], 80).into());
    open.session.state().enter(Stage::Relay);
    (open, target)
}

fn end(account: &Arc<SessionState>, ending: Ending) -> JoinHandle<()> {
    let account = Arc::clone(account);
    spawn(move || account.end(ending))
}

/// Passes the client's end of file on, as a direction does.
fn conclude(account: &Arc<SessionState>) -> JoinHandle<()> {
    let account = Arc::clone(account);
    spawn(move || {
        account.pass_on_fin(account.client(), account.target());
    })
}

/// Whether closing the connection will send a reset.
fn is_reset(side: &Endpoint) -> bool {
    SockRef::from(side.stream().unwrap()).linger().unwrap() == Some(Duration::ZERO)
}

/// The watch and the acceptor end a session while its client concludes.
pub fn first_counts() {
    let (Open { session, far: _client }, _target) = tunnel();
    let account = session.state();
    let threads = [
        conclude(account),
        end(account, Ending::IdleTimeout),
        end(account, Ending::Evicted("for others")),
    ];
    for thread in threads {
        thread.join().unwrap();
    }
    let ending = account.ending();
    assert!(matches!(ending, Some(Ending::IdleTimeout | Ending::Evicted(_))));
    account.end(Ending::Stopped);
    assert_eq!(account.ending(), ending);
    let is_passed_on = account.client().fin_passed_on();
    assert_eq!(is_reset(account.target()), !is_passed_on, "passed on and cut off, or neither");
    assert!(is_reset(account.client()), "a cut-off download looks complete");
    assert!(!account.directions().iter().any(|(source, _)| source.is_delivered_after_end()));
}

/// A side fails while the client concludes and the server stops.
pub fn a_failure_resets_both_sides() {
    let (Open { session, far: _client }, _target) = tunnel();
    let account = session.state();
    let threads =
        [conclude(account), end(account, Ending::TargetReset), end(account, Ending::Stopped)];
    for thread in threads {
        thread.join().unwrap();
    }
    let failed = account.ending() == Some(Ending::TargetReset);
    let is_reset = [account.client(), account.target()].map(is_reset);
    assert_eq!(is_reset, [true, failed || !account.client().fin_passed_on()]);
}

/// A session is ended while its worker has just connected to the target.
pub fn an_end_meets_a_target() {
    let Open { session, far: _client } = open(&sessions(1, FOREVER), 1).unwrap();
    let account = session.state();
    let ends = end(account, Ending::Stopped);
    let (stream, _target) = connection();
    account.connected(stream, ([192, 0, 2, 9], 80).into());
    account.enter(Stage::Relay);
    // `relay` gives up here.
    let relays = account.ending().is_none();
    ends.join().unwrap();
    let mut stream = account.target().stream().unwrap();
    stream.set_nonblocking(true).unwrap();
    let is_woken = stream.read(&mut [0]).is_ok_and(|length| length == 0);
    assert!(!relays || (is_woken && is_reset(account.target())));
}

/// Three clients for one place, and one who waits until all have left. Time stands still: whoever
/// waits for a place has to be told that there is one.
pub fn counted_once() {
    stand_still(true);
    let sessions = sessions(1, FOREVER);
    let clients = [1, 2, 3].map(|host| {
        let sessions = Arc::clone(&sessions);
        spawn(move || {
            let open = open(&sessions, host).expect("there is a place, in the end");
            open.session.state().client().count(usize::from(host));
            assert_eq!(sessions.count(), 1);
        })
    });
    assert_eq!(sessions.wait_until_empty(FOREVER), 0);
    for client in clients {
        client.join().unwrap();
    }
    let totals = sessions.totals();
    assert_eq!((totals.opened, totals.live, totals.up.bytes), (3, 0, 1 + 2 + 3));
}

/// A stop while one has the place and two wait for it. Who waits is told, and so is who waits until
/// the last has left, and the watch.
pub fn a_stop_ends_every_wait() {
    stand_still(true);
    let sessions = sessions(1, FOREVER);
    let first = open(&sessions, 1).unwrap();
    let waiting = [2, 3].map(|host| {
        let sessions = Arc::clone(&sessions);
        spawn(move || open(&sessions, host).is_some())
    });
    let [watched, emptied] = [(); 2].map(|()| Arc::clone(&sessions));
    let watch = spawn(move || watched.watch());
    let is_empty = spawn(move || emptied.wait_until_empty(FOREVER));
    sessions.close();
    assert_eq!(waiting.map(|client| client.join().unwrap()), [false; 2]);
    sessions.end_all(Ending::Stopped);
    assert_eq!(first.session.state().ending(), Some(Ending::Stopped));
    drop(first);
    assert_eq!(is_empty.join().unwrap(), 0);
    sessions.stop_watch();
    watch.join().unwrap();
}

/// The watch falls asleep while nobody is there. A client that says nothing is sent away all the
/// same.
pub fn the_watch_sees_who_comes() {
    stand_still(false);
    let sessions = sessions(1, Duration::from_secs(10));
    let watch = spawn({
        let sessions = Arc::clone(&sessions);
        move || sessions.watch()
    });
    for host in [1, 2] {
        let Open { session, .. } = open(&sessions, host).unwrap();
        while session.state().ending().is_none() {
            yield_now();
        }
        assert_eq!(session.state().ending(), Some(Ending::HandshakeTimeout));
    }
    sessions.stop_watch();
    watch.join().unwrap();
}
