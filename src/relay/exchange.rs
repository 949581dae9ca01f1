//! One request by HTTP and the response to it: each side gets another head than the other has sent, and all
//! else as it came.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::sync::Arc;

use super::EndOnPanic;
use super::direction::{BUFFER, CopyMode, Direction, QUIET};
use crate::sessions::{Ending, SessionState, Stage};
use crate::system::pool::Partner;
use crate::wire::error::Error;
use crate::wire::http::{Body, ResponseHead};

/// Sends the target `request`, with as much of its body as has come, passes on the rest of `body`, and then
/// the response. The target gets no end of file behind the request: some servers take that for a client that
/// has left.
///
/// # Errors
///
/// The target has answered nothing that can be passed on, and the client has been sent nothing.
pub(crate) fn exchange(
    session: &Arc<SessionState>,
    partner: &Partner,
    request: &[u8],
    body: Body,
) -> Result<(), Error> {
    let (Some(mut up), Some(mut down)) = (Direction::up(session), Direction::down(session)) else {
        return Ok(());
    };
    if session.ending().is_some() {
        return Ok(());
    }
    session.reset_at_close();
    let _end_on_panic = EndOnPanic(session);
    if up.sink.write_all(request).is_err() {
        return Ok(());
    }
    if body.is_complete() {
        session.conclude_request();
        return down.carry_response();
    }
    let shared = Arc::clone(session);
    let job = partner.start_job(move || {
        let _end_on_panic = EndOnPanic(&shared);
        if let Some(mut up) = Direction::up(&shared) {
            up.carry_body(body);
        }
    });
    let answered = down.carry_response();
    // A target may answer before it has read the whole body, and read no more of it. That its connection is
    // then closed in both directions is no failure, which would cut off the response. Where the session was
    // ended, nothing may look like a clean end.
    session.enter(Stage::Farewell);
    session.conclude_request();
    if session.ending().is_none() {
        let _ = up.sink.stream.shutdown(Shutdown::Both);
    }
    job.wait();
    answered
}

impl Direction<'_> {
    /// Passes on a request's body, and nothing that comes behind it. A target that takes no more of it is no
    /// failure here: who reads the response learns what has become of it.
    fn carry_body(&mut self, mut body: Body) {
        let session = self.source.session;
        let is_over = || self.source.endpoint.fin_passed_on() || self.sink.endpoint.fin_passed_on();
        let mut buffer = vec![0; BUFFER];
        if self.source.limit_reads(Some(QUIET)).is_err() {
            return;
        }
        while !is_over() {
            let most = BUFFER.min(self.sink.portion());
            let Ok(length) = self.source.read(&mut buffer[..most]) else { return };
            if length == 0 && self.source.fin_received && !is_over() {
                return session.end(self.source.endpoint.failure);
            }
            let Ok(taken) = body.take(&buffer[..length]) else {
                return session.end(Ending::BadRequest("a chunk of the body is none"));
            };
            let Ok(_) = self.sink.wait_for_turn(taken) else { return };
            let written =
                self.sink.endpoint.while_writing(|| self.sink.stream.write_all(&buffer[..taken]));
            if written.is_err() {
                return;
            }
            self.source.endpoint.count(taken);
            if body.is_complete() {
                return session.conclude_request();
            }
        }
    }

    /// Passes on a response: its head without what is for this server alone, and the rest as it comes.
    fn carry_response(&mut self) -> Result<(), Error> {
        let mut octets = vec![0; BUFFER];
        let mut length = 0;
        loop {
            match self.source.read(&mut octets[length..]) {
                Ok(read @ 1..) => length += read,
                Ok(0) if self.source.session.ending().is_none() => {
                    return Err("the target has closed without a response".into());
                }
                // The session has ended.
                _ => return Ok(()),
            }
            while let Some(head) = ResponseHead::read(&octets[..length])? {
                let mut message = head.forwarded;
                if !head.is_interim {
                    message.extend(&octets[head.length..length]);
                }
                if self.sink.write_all(&message).is_err() {
                    return Ok(());
                }
                if !head.is_interim {
                    drop((octets, message));
                    self.carry(CopyMode::Small);
                    return Ok(());
                }
                octets.copy_within(head.length..length, 0);
                length -= head.length;
            }
        }
    }
}
