//! A name server that answers about a name once it is told to, and never before.

use std::collections::HashSet;
use std::net::{SocketAddr, UdpSocket};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;

use crate::names::{A, answer, read_question};
use crate::stage::LONG;

/// The name server. Every name that it lets through is 127.0.0.1.
pub(super) struct Gate {
    socket: Arc<UdpSocket>,
    state: Arc<Mutex<State>>,
    asked: Arc<Condvar>,
}

#[derive(Default)]
struct State {
    let_through: HashSet<String>,
    /// The questions that wait, each with its name.
    held: Vec<(String, Vec<u8>, SocketAddr)>,
}

impl Gate {
    pub(super) fn open() -> Self {
        let socket = Arc::new(UdpSocket::bind("127.0.0.1:53").unwrap());
        let gate = Gate { socket, state: Arc::default(), asked: Arc::default() };
        let (socket, state, asked) =
            (Arc::clone(&gate.socket), Arc::clone(&gate.state), Arc::clone(&gate.asked));
        thread::spawn(move || {
            let mut octets = [0; 512];
            while let Ok((length, from)) = socket.recv_from(&mut octets) {
                let question = &octets[..length];
                let (name, _) = read_question(&question[12..]);
                let mut state = state.lock().unwrap();
                if state.let_through.contains(&name) {
                    respond(&socket, question, from);
                } else {
                    state.held.push((name, question.to_vec(), from));
                    asked.notify_all();
                }
            }
        });
        gate
    }

    /// Answers about `name` from now on, and whoever waits.
    pub(super) fn let_through(&self, name: &str) {
        let mut state = self.state.lock().unwrap();
        state.let_through.insert(name.into());
        for (_, question, from) in state.held.iter().filter(|(held, ..)| held == name) {
            respond(&self.socket, question, *from);
        }
    }

    /// Waits until somebody has asked for `name`.
    pub(super) fn await_question(&self, name: &str) {
        let state = self.state.lock().unwrap();
        let is_unasked = |state: &mut State| state.held.iter().all(|(held, ..)| held != name);
        let (state, waited) = self.asked.wait_timeout_while(state, LONG, is_unasked).unwrap();
        // The other cells go on.
        drop(state);
        assert!(!waited.timed_out(), "nobody asks for {name}");
    }
}

fn respond(socket: &UdpSocket, question: &[u8], from: SocketAddr) {
    let (_, kind) = read_question(&question[12..]);
    // Whoever has asked may be gone.
    let _ = socket.send_to(&answer(question, true, kind == A), from);
}
