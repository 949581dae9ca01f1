//! Two directions between a client and its target, with half-closes and resets passed on.
//!
//! The worker carries one direction and its partner the other. An end of file on one side becomes a
//! half-close on the other; a failure of either side becomes a reset of both, so that a download
//! that was cut off never looks complete. How a session ends is a table in `sessions/state`.

use std::io;
use std::sync::Arc;
use std::thread;

use socket2::SockRef;

use crate::sessions::{Ending, SessionState};
use crate::system::pool::Partner;

mod direction;
mod ends;
mod exchange;
#[cfg(target_os = "linux")]
mod splice;

use direction::{CopyMode, Direction};
pub(crate) use exchange::exchange;

/// Whether an accepted connection has the options of its listener, so that [`prepare`] once on the
/// listener is enough.
pub(crate) const ACCEPTED_INHERITS: bool = cfg!(target_os = "linux");

/// Sets what every relayed connection has: no delay, and urgent data in line. A kind of connection that has
/// no such option (Multipath TCP) does without.
pub(crate) fn prepare<'s>(socket: impl Into<SockRef<'s>>) {
    let socket = socket.into();
    let _ = socket.set_tcp_nodelay(true);
    let _ = socket.set_out_of_band_inline(true);
}

/// Carries bytes both ways until both sides have sent their end of file, or until the session is
/// ended early ([`SessionState::ending`]), as it is when one side fails.
///
/// `reply` tells the client that it may begin. The worker passes on the first bytes of a client that
/// speaks before its target, and then takes the direction that usually ends last: so neither thread
/// waits for the other to wake up.
pub(crate) fn relay(
    session: &Arc<SessionState>,
    partner: &Partner,
    reply: impl FnOnce() -> io::Result<()>,
) {
    let (Some(mut up), Some(mut down)) = (Direction::up(session), Direction::down(session)) else {
        return;
    };
    if session.ending().is_some() {
        // It was ended before it had a target: nobody else will wake who reads from that.
        return;
    }
    session.reset_at_close();
    let _end_on_panic = EndOnPanic(session);
    if reply().is_err() {
        session.end(session.client().failure);
    } else if let Ok(mode) = up.begin() {
        let up = move |session: &SessionState| {
            if let Some(mut up) = Direction::up(session) {
                up.carry(mode);
            }
        };
        run_both(session, partner, up, || down.carry(CopyMode::Small));
    }
    if session.ending().is_some() {
        session.discard_unread();
    }
}

/// Runs `up` on the partner thread and `down` on this one.
fn run_both(
    session: &Arc<SessionState>,
    partner: &Partner,
    up: impl FnOnce(&SessionState) + Send + 'static,
    down: impl FnOnce(),
) {
    let shared = Arc::clone(session);
    let up = partner.start_job(move || {
        let _end_on_panic = EndOnPanic(&shared);
        up(&shared);
    });
    // It is dropped before `up`, which waits for the partner.
    let _end_on_panic = EndOnPanic(session);
    down();
    up.wait();
}

/// Ends the session when the thread panics that has this: the other one would go on alone.
struct EndOnPanic<'a>(&'a SessionState);

impl Drop for EndOnPanic<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.end(Ending::Fault);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sessions::{Limits, Sessions, Stage};
    use crate::system::descriptors::Descriptors;
    use crate::system::pool::Pool;
    use crate::wire::http::Body;
    use std::io::{Read, Write};
    use std::net::{Shutdown, TcpListener, TcpStream};
    use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
    use std::time::Duration;

    const LONG: Duration = Duration::from_secs(20);
    const MIB: usize = 1024 * 1024;

    /// Limits on descriptors under which bulk goes through a pipe, and under which it does not.
    const BOTH_PATHS: [usize; 2] = [usize::MAX, 0];

    /// A tunnel, seen from both of its far ends.
    struct Tunnel {
        client: TcpStream,
        target: TcpStream,
        session: Arc<SessionState>,
        over: Receiver<()>,
        sessions: Arc<Sessions>,
    }

    impl Tunnel {
        fn open(descriptors: usize) -> Self {
            Tunnel::open_after(descriptors, |_| ())
        }

        /// The same, after something has become of the session while its target was dialed.
        fn open_after(descriptors: usize, meanwhile: impl FnOnce(&SessionState)) -> Self {
            Tunnel::with(descriptors, meanwhile, |session, partner| {
                relay(session, partner, || Ok(()));
            })
        }

        /// The same with another relay.
        fn with(
            descriptors: usize,
            meanwhile: impl FnOnce(&SessionState),
            relay: impl FnOnce(&Arc<SessionState>, &Partner) + Send + 'static,
        ) -> Self {
            let limits = Limits::of_one(LONG, LONG);
            let sessions = Sessions::new(limits, Descriptors::new(descriptors));
            let (client, stream) = connection();
            let (target, outgoing) = connection();
            let session =
                sessions.open(client.local_addr().unwrap(), false, stream, || ()).unwrap();
            let state = Arc::clone(session.state());
            meanwhile(&state);
            state.connected(outgoing, target.local_addr().unwrap());
            state.enter(Stage::Relay);
            let (sender, over) = channel();
            let pool = Pool::new(1);
            pool.start(move |partner| {
                relay(session.state(), partner);
                sender.send(()).unwrap();
            })
            .unwrap();
            Tunnel { client, target, session: state, over, sessions }
        }

        /// Waits until the relay is over, and closes what is left of the session.
        fn close(self) -> Option<Ending> {
            self.over.recv_timeout(LONG).expect("the relay ends");
            self.session.ending()
        }
    }

    #[test]
    fn a_session_that_was_ended_while_it_connected_does_not_go_on() {
        let tunnel =
            Tunnel::open_after(usize::MAX, |session| session.end(Ending::Evicted("for others")));
        assert_eq!(tunnel.close(), Some(Ending::Evicted("for others")));
    }

    #[test]
    fn a_direction_that_panics_ends_the_other_and_nothing_looks_complete() {
        type Relay = fn(&Arc<SessionState>, &Partner);
        let at_the_reply: Relay = |session, partner| {
            relay(session, partner, || panic!("as this test wants it"));
        };
        let up: Relay = |session, partner| {
            let mut down = Direction::down(session).unwrap();
            let up = |_: &SessionState| panic!("as this test wants it");
            run_both(session, partner, up, || down.carry(CopyMode::Small));
        };
        let down: Relay = |session, partner| {
            let up =
                |session: &SessionState| Direction::up(session).unwrap().carry(CopyMode::Small);
            run_both(session, partner, up, || panic!("as this test wants it"));
        };
        for relay in [at_the_reply, up, down] {
            let Tunnel { client, target, session, over, .. } =
                Tunnel::with(usize::MAX, |_| (), relay);
            assert_ne!(over.recv_timeout(LONG), Err(RecvTimeoutError::Timeout));
            assert_eq!(session.ending(), Some(Ending::Fault));
            drop(session);
            expect_reset(&client);
            expect_reset(&target);
        }
    }

    /// The watch takes a side that is closed in both directions for lost, and cuts off the answer, unless all
    /// that the other side has to say was passed on.
    #[test]
    fn a_target_that_answers_before_the_end_of_a_request_is_not_lost() {
        let request: &[u8] = b"POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\nbegin";
        let Tunnel { mut client, mut target, session, over, .. } = Tunnel::with(
            usize::MAX,
            |_| (),
            |session, partner| {
                exchange(session, partner, request, Body::Length(4)).unwrap();
            },
        );
        target.write_all(b"HTTP/1.0 413 No\r\n\r\n").unwrap();
        target.shutdown(Shutdown::Write).unwrap();
        let (mut sent, mut answer) = (Vec::new(), String::new());
        target.read_to_end(&mut sent).unwrap();
        assert_eq!(sent, request);
        assert!(session.client().fin_passed_on());
        over.recv_timeout(LONG).expect("the exchange ends");
        assert_eq!(session.ending(), None);
        drop(session);
        client.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "HTTP/1.0 413 No\r\nVia: 1.0 tabi\r\nConnection: close\r\n\r\n");
    }

    #[test]
    fn the_refusal_after_a_target_without_an_answer_is_not_cut_off_by_a_reset() {
        let Tunnel { target, over, .. } = Tunnel::with(
            usize::MAX,
            |_| (),
            |session, partner| {
                exchange(session, partner, b"GET / HTTP/1.1\r\n\r\n", Body::NONE).unwrap_err();
                let linger = || SockRef::from(session.stream()).linger().unwrap();
                assert_eq!(linger(), Some(Duration::ZERO));
                session.enter(Stage::Farewell);
                assert_eq!(linger(), None);
            },
        );
        target.shutdown(Shutdown::Write).unwrap();
        over.recv_timeout(LONG).expect("both are so");
    }

    fn connection() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (far, _) = listener.accept().unwrap();
        for stream in [&near, &far] {
            stream.set_read_timeout(Some(LONG)).unwrap();
        }
        (near, far)
    }

    /// Bytes whose order shows: the period has no factor in common with any buffer.
    fn bytes(length: usize) -> Vec<u8> {
        (0..=250).cycle().take(length).collect()
    }

    fn send(mut stream: &TcpStream, length: usize) {
        stream.write_all(&bytes(length)).unwrap();
    }

    fn expect(mut stream: &TcpStream, length: usize) {
        let mut found = vec![0; length];
        stream.read_exact(&mut found).unwrap();
        assert!(found == bytes(length), "the bytes have changed on their way");
    }

    fn reset(stream: &TcpStream) {
        SockRef::from(stream).set_linger(Some(Duration::ZERO)).unwrap();
        SockRef::from(stream).shutdown(Shutdown::Read).unwrap();
    }

    /// Reads on until the stream ends, which it has to do by a reset.
    fn expect_reset(mut stream: &TcpStream) {
        let error = io::copy(&mut stream, &mut io::sink()).expect_err("a clean end of file");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }

    #[test]
    fn bulk_goes_both_ways_and_half_closes_are_passed_on() {
        for path in BOTH_PATHS {
            let tunnel = Tunnel::open(path);
            for (from, to) in [(&tunnel.client, &tunnel.target), (&tunnel.target, &tunnel.client)] {
                thread::scope(|scope| {
                    scope.spawn(|| {
                        send(from, 4 * MIB);
                        from.shutdown(Shutdown::Write).unwrap();
                    });
                    expect(to, 4 * MIB);
                    assert_eq!({ to }.read(&mut [0]).unwrap(), 0);
                });
            }
            let session = Arc::clone(&tunnel.session);
            assert_eq!(tunnel.close(), None);
            let sent = [session.client().sent(), session.target().sent()];
            assert_eq!(sent, [4 * MIB as u64; 2]);
        }
    }

    /// Some programs take what one read gives them for the whole.
    #[test]
    fn a_message_that_comes_at_once_is_passed_on_at_once() {
        const MESSAGE: usize = 10_000;
        // A reader that is woken by a first part does not always see it alone.
        for _ in 0..50 {
            let tunnel = Tunnel::open(usize::MAX);
            let (from, mut to) = (&tunnel.target, &tunnel.client);
            thread::scope(|scope| {
                let read = scope.spawn(move || to.read(&mut vec![0; 2 * MESSAGE]).unwrap());
                send(from, MESSAGE);
                assert_eq!(read.join().unwrap(), MESSAGE);
            });
        }
    }

    #[test]
    fn a_reset_amid_bulk_is_passed_on() {
        for path in BOTH_PATHS {
            for ending in [Ending::ClientReset, Ending::TargetReset] {
                let Tunnel { client, target, session, over, .. } = Tunnel::open(path);
                let (breaks, stays) = match ending {
                    Ending::ClientReset => (client, target),
                    _ => (target, client),
                };
                thread::scope(|scope| {
                    scope.spawn(|| send(&breaks, 2 * MIB));
                    expect(&stays, 2 * MIB);
                });
                reset(&breaks);
                drop(breaks);
                over.recv_timeout(LONG).expect("the relay ends");
                assert_eq!(session.ending(), Some(ending));
                drop(session);
                expect_reset(&stays);
            }
        }
    }

    #[test]
    fn a_stalled_reader_stops_bulk_and_loses_nothing() {
        for path in BOTH_PATHS {
            let tunnel = Tunnel::open(path);
            let mut client = &tunnel.client;
            client.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
            let endless = bytes(251 * 1024);
            let mut sent = 0;
            loop {
                let at = sent % endless.len();
                match client.write(&endless[at..]) {
                    Ok(length) => sent += length,
                    Err(error) => {
                        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
                        // Otherwise the relay was only slow: nothing is still on its way.
                        if tunnel.session.client().sent() < sent as u64 {
                            break;
                        }
                    }
                }
                assert!(sent < 256 * MIB, "the writer was never stopped");
            }
            client.shutdown(Shutdown::Write).unwrap();
            expect(&tunnel.target, sent);
            tunnel.target.shutdown(Shutdown::Write).unwrap();
            assert_eq!(tunnel.close(), None);
        }
    }

    #[test]
    fn a_session_that_is_ended_amid_bulk_is_reset_on_both_sides() {
        for path in BOTH_PATHS {
            let Tunnel { client, target, session, over, .. } = Tunnel::open(path);
            thread::scope(|scope| {
                scope.spawn(|| send(&client, 2 * MIB));
                expect(&target, 2 * MIB);
            });
            session.end(Ending::IdleTimeout);
            over.recv_timeout(LONG).expect("the relay ends");
            assert_eq!(session.ending(), Some(Ending::IdleTimeout));
            drop(session);
            expect_reset(&client);
            expect_reset(&target);
        }
    }

    /// Closing a connection with unread bytes resets it, and a reset destroys what is on its way.
    #[test]
    fn an_upload_that_nobody_takes_does_not_cut_off_a_download() {
        for path in BOTH_PATHS {
            let Tunnel { client, target, session, over, sessions } = Tunnel::open(path);
            send(&target, MIB);
            target.shutdown(Shutdown::Write).unwrap();
            wait_until(|| session.target().fin_passed_on());
            send_until_stuck(&client, &session);
            thread::scope(|scope| {
                scope.spawn(|| sessions.watch());
                session.end(Ending::IdleTimeout);
                over.recv_timeout(LONG).expect("the relay ends");
                sessions.stop_watch();
            });
            drop(session);
            expect(&client, MIB);
            assert_eq!({ &client }.read(&mut [0]).unwrap(), 0);
        }
    }

    #[test]
    fn what_a_side_has_concluded_still_arrives_after_an_idle_end() {
        for path in BOTH_PATHS {
            let Tunnel { client, target, session, over, .. } = Tunnel::open(path);
            let pieces = send_until_stuck(&client, &session);
            client.shutdown(Shutdown::Write).unwrap();
            wait_until(|| session.client().fin_received(session.target()));
            session.end(Ending::IdleTimeout);
            for _ in 0..pieces {
                expect(&target, PIECE);
            }
            assert_eq!({ &target }.read(&mut [0]).unwrap(), 0);
            over.recv_timeout(LONG).expect("the relay ends");
            assert_eq!(session.ending(), Some(Ending::IdleTimeout));
            drop(session);
            expect_reset(&client);
        }
    }

    const PIECE: usize = 16 * 1024;

    /// Sends pieces until the relay has not even read the last ones, though they have arrived. Says
    /// how many.
    fn send_until_stuck(client: &TcpStream, session: &SessionState) -> usize {
        let mut pieces = 0;
        while session.client().sent() + 2 * PIECE as u64 >= (pieces * PIECE) as u64 {
            send(client, PIECE);
            pieces += 1;
            wait_until(|| session.client().sent() == (pieces * PIECE) as u64);
        }
        pieces
    }

    /// For at most a second: some waits have no end that the other tests of a loop would see.
    fn wait_until(is_so: impl Fn() -> bool) {
        for _ in 0..100 {
            if is_so() {
                return;
            }
            thread::sleep(Duration::from_millis(10));
        }
    }
}
