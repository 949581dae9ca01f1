//! What those see whose fault it is not, each within the limit on its waits.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};
use std::{iter, thread};

use socket2::SockRef;

use super::client::{BODY, Speaks, read_answer};
use super::scene::Scene;
use super::step::{POURED, datagram};
use super::{Fault, Seen, Step};
use crate::stage::{LONG, at_end, at_end_or_reset, connect, expect_reset, request, take};

const LOOK_EVERY: Duration = Duration::from_millis(10);

/// After so long without a datagram one is asked for again: the queues had no room for the last.
const ASK_AGAIN: Duration = Duration::from_millis(300);

impl Scene<'_> {
    pub(super) fn see(&mut self, seen: Seen) {
        match seen {
            Seen::ByNobody => assert!(self.target.is_none() && self.client.is_none()),
            Seen::Rep(rep) => {
                let client = self.client.as_mut().unwrap();
                self.speaks.read_refusal(client, rep);
                assert!(at_end(client));
            }
            Seen::EndOfFile => assert!(at_end(self.client.as_mut().unwrap())),
            Seen::Reset | Seen::Cut | Seen::CutLate => self.see_ends(seen),
            Seen::Nothing => self.go_on(),
        }
    }

    /// A server that ends at once closes what it has.
    pub(super) fn see_kill(&mut self) {
        assert!(at_end_or_reset(self.client.as_mut().unwrap()));
        assert!(at_end_or_reset(self.target.as_mut().unwrap()));
    }

    fn see_ends(&mut self, seen: Seen) {
        let has_reply = self.step == Step::Reply
            || (self.step, self.fault) == (Step::BindWaiting, Fault::TargetResets);
        if has_reply && self.client.is_some() {
            self.read_reply();
        }
        let of_client = (self.client.as_mut(), self.step == Step::HalfClosedByTarget);
        let of_target = (self.target.as_mut(), self.step == Step::HalfClosedByClient);
        for (stream, has_end) in [of_client, of_target] {
            match (stream, has_end, seen) {
                (None, _, _) => {}
                (Some(stream), false, _) => expect_reset(stream),
                (Some(stream), true, Seen::Cut | Seen::CutLate) => await_refusal(stream),
                (Some(stream), true, _) => await_reset(stream),
            }
        }
    }

    /// Goes on from the step to the end, as if nothing had happened.
    fn go_on(&mut self) {
        match self.step {
            Step::Greeting | Step::Authentication | Step::Request => {
                let client = self.client.as_mut().unwrap();
                for (message, answer) in self.extra.unsaid.drain(..) {
                    client.write_all(&message).unwrap();
                    read_answer(client, answer);
                }
                self.accept_target();
            }
            Step::Lookup => {
                self.world.gate.as_ref().unwrap().let_through(&self.name());
                self.read_reply();
                self.accept_target();
            }
            Step::Reply => self.read_reply(),
            Step::RelayUp | Step::RelayDown | Step::Draining => {}
            Step::HalfClosedByClient => {
                return conclude(&mut self.target, &mut self.client);
            }
            Step::HalfClosedByTarget => {
                return conclude(&mut self.client, &mut self.target);
            }
            Step::BindWaiting => {
                self.target = Some(connect(self.extra.bound.unwrap()));
                self.read_reply();
            }
            Step::UdpAssociation => return self.exchange_and_leave(),
            Step::Dial | Step::FailingReply => panic!("there is nothing to go on with"),
        }
        if self.speaks == Speaks::Plain {
            return self.finish_answer();
        }
        finish(self.client.as_mut().unwrap(), self.target.as_mut().unwrap());
    }

    /// The rest of a request in absolute-form, and of its answer. The target has no end of file before
    /// it has answered, and the client's connection ends with the answer.
    fn finish_answer(&mut self) {
        if self.step == Step::RelayUp {
            let (client, target) = (self.client.as_mut().unwrap(), self.target.as_mut().unwrap());
            thread::scope(|scope| {
                let left = (BODY - POURED) as u64;
                scope.spawn(move || io::copy(&mut io::repeat(b'x').take(left), client).unwrap());
                assert_eq!(io::copy(&mut target.take(left), &mut io::sink()).unwrap(), left);
            });
        }
        if self.step != Step::RelayDown {
            self.begin_answer();
        }
        let (client, target) = (self.client.as_mut().unwrap(), self.target.as_mut().unwrap());
        target.write_all(b"pong").unwrap();
        assert_eq!(take(client), *b"pong");
        target.shutdown(Shutdown::Write).unwrap();
        assert!(at_end(client));
        client.shutdown(Shutdown::Write).unwrap();
        assert!(at_end(target));
    }

    fn exchange_and_leave(&mut self) {
        let last = self.extra.udp_targets.len() - 1;
        if self.fault == Fault::ReaderStalls {
            self.exchange_behind_flood(last);
        } else {
            self.exchange(last);
        }
        let control = self.client.as_mut().unwrap();
        control.shutdown(Shutdown::Write).unwrap();
        assert!(at_end(control));
    }

    /// Takes what has come, until an answer is among it.
    fn exchange_behind_flood(&self, target: usize) {
        let target = &self.extra.udp_targets[target];
        let datagrams = self.extra.datagrams.as_ref().unwrap();
        let question = datagram(&request(target.local_addr().unwrap()), b"question");
        let (begin, mut octets) = (Instant::now(), [0; 2048]);
        let mut is_answer = || {
            let length = datagrams.recv(&mut octets).ok()?;
            Some(octets[..length].ends_with(b"answer"))
        };
        datagrams.set_read_timeout(Some(ASK_AGAIN)).unwrap();
        loop {
            assert!(begin.elapsed() < LONG, "no answer comes through");
            datagrams.send(&question).unwrap();
            let (_, from) = target.recv_from(&mut [0; 64]).unwrap();
            target.send_to(b"answer", from).unwrap();
            if iter::from_fn(&mut is_answer).any(|it| it) {
                break;
            }
        }
        datagrams.set_read_timeout(Some(LONG)).unwrap();
    }

    /// Waits until the port is closed that the session had for itself. A client that has vanished
    /// sees nothing of it.
    pub(super) fn expect_closed(&self, bound: SocketAddr) {
        let is_open = || match &self.extra.datagrams {
            None => TcpStream::connect_timeout(&bound, LONG).is_ok(),
            // Others than the client find the port closed in any case.
            Some(datagrams) => {
                let told = datagrams.send(b"is it still there?").map_err(|error| error.kind());
                told != Err(ErrorKind::ConnectionRefused)
            }
        };
        let is_unseen = self.extra.datagrams.is_some() && self.fault == Fault::ClientVanishes;
        let begin = Instant::now();
        while !is_unseen && is_open() {
            assert!(begin.elapsed() < LONG, "{bound} stays open");
            thread::sleep(LOOK_EVERY);
        }
    }
}

/// A word each way, and the end of both.
pub(super) fn finish(client: &mut TcpStream, target: &mut TcpStream) {
    client.write_all(b"ping").unwrap();
    assert_eq!(take(target), *b"ping");
    target.write_all(b"pong").unwrap();
    assert_eq!(take(client), *b"pong");
    client.shutdown(Shutdown::Write).unwrap();
    assert!(at_end(target));
    target.shutdown(Shutdown::Write).unwrap();
    assert!(at_end(client));
}

/// Has one side say a word and its end of file, and the other read both.
pub(super) fn conclude(from: &mut Option<TcpStream>, to: &mut Option<TcpStream>) {
    let (from, to) = (from.as_mut().unwrap(), to.as_mut().unwrap());
    from.write_all(b"the end").unwrap();
    from.shutdown(Shutdown::Write).unwrap();
    assert_eq!(take(to), *b"the end");
    assert!(at_end(to));
}

/// Waits for the news that `stream` is reset, without a word. Behind an end of file, reading does
/// not tell of it.
fn await_reset(stream: &TcpStream) {
    let begin = Instant::now();
    while SockRef::from(stream).take_error().unwrap().is_none() {
        assert!(begin.elapsed() < LONG, "no reset has come");
        thread::sleep(LOOK_EVERY);
    }
}

/// Writes until that is refused.
fn await_refusal(stream: &mut TcpStream) {
    let begin = Instant::now();
    stream.set_write_timeout(Some(LOOK_EVERY)).unwrap();
    loop {
        match stream.write(b"x") {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => {
                let kind = error.kind();
                assert!(
                    matches!(kind, ErrorKind::BrokenPipe | ErrorKind::ConnectionReset),
                    "{error}"
                );
                return;
            }
        }
        assert!(begin.elapsed() < LONG, "what it writes is taken");
        thread::sleep(LOOK_EVERY);
    }
}
