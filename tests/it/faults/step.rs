//! How a session comes to each step.

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Instant;
use std::{io, thread};

use socket2::{Domain, Socket, Type};

use super::client::{Answer, Destination, Message, Speaks, read_answer, socks5};
use super::scene::{Ends, Scene};
use super::seen::conclude;
use super::{Fault, Step};
use crate::stage::{
    LONG, accept, black_hole_at, expect, limited, pattern, read_head, reply, request, send,
};

const MIB: usize = 1024 * 1024;

/// So much has been relayed when the relay is tried.
pub(super) const POURED: usize = 2 * MIB;

const BIND: u8 = 0x02;
const UDP_ASSOCIATE: u8 = 0x03;

impl Scene<'_> {
    pub(super) fn reach(&mut self) {
        self.begun = Instant::now();
        match self.step {
            Step::Greeting => self.say_half_of(0),
            Step::Authentication => self.say_half_of(1),
            Step::Request => {
                let last = self.conversation(SocketAddr::from(([0; 4], 0)).into()).len() - 1;
                self.say_half_of(last);
            }
            Step::Lookup => self.look_up(),
            Step::Dial => self.dial_in_vain(),
            Step::Reply => self.begin_tunnel(),
            Step::FailingReply => self.be_refused(),
            Step::RelayUp => {
                self.open_tunnel();
                pour(&mut self.client, &mut self.target);
            }
            Step::RelayDown => {
                self.open_tunnel();
                pour(&mut self.target, &mut self.client);
            }
            Step::HalfClosedByClient => {
                self.open_tunnel();
                conclude(&mut self.client, &mut self.target);
            }
            Step::HalfClosedByTarget => {
                self.open_tunnel();
                conclude(&mut self.target, &mut self.client);
            }
            Step::Draining => self.drain(),
            Step::BindWaiting => self.bind(),
            Step::UdpAssociation => self.associate(),
        }
    }

    /// Has the client say so many messages and half of the next.
    fn say_half_of(&mut self, whole: usize) {
        let target = self.listen();
        let mut messages = self.conversation(target.into());
        let mut client = self.connect();
        for (message, answer) in messages.drain(..whole) {
            client.write_all(&message).unwrap();
            read_answer(&mut client, answer);
        }
        let half = messages[0].0.len() / 2;
        let said: Vec<u8> = messages[0].0.drain(..half).collect();
        client.write_all(&said).unwrap();
        self.extra.unsaid = messages;
        self.client = Some(client);
        if whole == 0 {
            self.await_live(1);
        }
    }

    fn conversation(&self, to: Destination<'_>) -> Vec<Message> {
        self.speaks.conversation(self.step, to)
    }

    /// Has the client say all that leads to this target.
    fn ask(&mut self, to: Destination<'_>) {
        let messages = self.conversation(to);
        self.client = Some(ask(self.connect(), messages));
    }

    /// The name that this session asks for.
    pub(super) fn name(&self) -> String {
        format!("cell-{}.test", self.number)
    }

    fn look_up(&mut self) {
        let port = self.listen().port();
        self.ask(Destination::Name(&self.name(), port));
        self.world.gate.as_ref().unwrap().await_question(&self.name());
    }

    /// The target is beyond a link that is down, or else its backlog is full.
    fn dial_in_vain(&mut self) {
        let target = if self.fault == Fault::TargetVanishes {
            let target = self.listen();
            self.link.as_ref().unwrap().take_down();
            target
        } else {
            let (waiting, socket, target) = black_hole_at(self.here);
            self.extra.hole = Some((waiting, socket));
            target
        };
        self.ask(target.into());
        self.await_shown(&format!("\"command\":\"{}\"", self.speaks.command()));
    }

    /// The client does not read the reply, but it is there.
    fn begin_tunnel(&mut self) {
        let target = self.listen();
        self.ask(target.into());
        self.accept_target();
        if self.speaks != Speaks::Plain {
            self.speaks.await_answer(self.client.as_ref().unwrap());
        }
    }

    /// A request in absolute-form arrives in origin-form.
    pub(super) fn accept_target(&mut self) {
        let mut target = accept(self.extra.listener.as_ref().unwrap());
        if self.speaks == Speaks::Plain {
            let head = read_head(&mut target);
            assert!(head.contains(" /path HTTP/1.1\r\n") && !head.contains("Basic"), "{head}");
        }
        self.target = Some(target);
    }

    fn open_tunnel(&mut self) {
        self.begin_tunnel();
        self.read_reply();
        if (self.speaks, self.step) == (Speaks::Plain, Step::RelayDown) {
            self.begin_answer();
        }
    }

    /// The target begins an answer that ends with its connection.
    pub(super) fn begin_answer(&mut self) {
        let (client, target) = (self.client.as_mut().unwrap(), self.target.as_mut().unwrap());
        target.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
        read_answer(client, Answer::Http(200));
    }

    /// The reply that says that all is well.
    pub(super) fn read_reply(&mut self) {
        self.speaks.read_success(self.client.as_mut().unwrap());
    }

    fn be_refused(&mut self) {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from((self.here, 0)).into()).unwrap();
        let target = socket.local_addr().unwrap().as_socket().unwrap();
        self.extra.refusing = Some(socket);
        self.ask(target.into());
        self.speaks.await_answer(self.client.as_ref().unwrap());
    }

    fn drain(&mut self) {
        if self.fault == Fault::ResolverIsSilent {
            self.client = Some(self.greeted());
        } else {
            self.open_tunnel();
        }
        if self.fault == Fault::LogStalls {
            self.extra.holder = Some(self.holder());
        }
        self.stop();
        self.program.log_line("stopping; ");
    }

    /// One more tunnel.
    fn holder(&mut self) -> Ends {
        let ends = (self.client.take(), self.target.take());
        self.open_tunnel();
        let holder = (self.client.take(), self.target.take());
        (self.client, self.target) = ends;
        (holder.0.unwrap(), holder.1.unwrap())
    }

    fn bind(&mut self) {
        let mut octets = request(SocketAddr::from((self.here, 9)));
        octets[1] = BIND;
        let mut client = self.greeted();
        client.write_all(&octets).unwrap();
        let (rep, bound) = reply(&mut client);
        assert_eq!(rep, 0x00);
        self.extra.bound = Some(bound);
        self.client = Some(client);
    }

    fn associate(&mut self) {
        let mut octets = request(SocketAddr::from(([0; 4], 0)));
        octets[1] = UDP_ASSOCIATE;
        let mut client = self.greeted();
        client.write_all(&octets).unwrap();
        let (rep, bound) = reply(&mut client);
        assert_eq!(rep, 0x00);
        let bind = |ip: Ipv4Addr| UdpSocket::bind((ip, 0));
        let datagrams = self.by_client(bind).unwrap();
        datagrams.connect(bound).unwrap();
        let targets = [self.by_target(bind).unwrap(), bind(self.here).unwrap()];
        for socket in targets.iter().chain([&datagrams]) {
            socket.set_read_timeout(Some(LONG)).unwrap();
        }
        self.extra.udp_targets = targets.into();
        self.extra.datagrams = Some(datagrams);
        self.extra.bound = Some(bound);
        self.client = Some(client);
        self.exchange(0);
    }

    /// Sends a datagram to a target, and takes its answer.
    pub(super) fn exchange(&self, target: usize) {
        let target = &self.extra.udp_targets[target];
        let datagrams = self.extra.datagrams.as_ref().unwrap();
        let mut octets = [0; 2048];
        datagrams.send(&datagram(&request(target.local_addr().unwrap()), b"question")).unwrap();
        let (length, from) = target.recv_from(&mut octets).unwrap();
        assert_eq!(&octets[..length], b"question");
        target.send_to(b"answer", from).unwrap();
        let length = datagrams.recv(&mut octets).unwrap();
        assert!(octets[..length].ends_with(b"answer"));
    }

    /// Does something where the client is.
    fn by_client<T: Send + 'static>(
        &self,
        job: impl FnOnce(Ipv4Addr) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        self.by(Fault::ClientVanishes, job)
    }

    /// Does something where the target is.
    fn by_target<T: Send + 'static>(
        &self,
        job: impl FnOnce(Ipv4Addr) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        self.by(Fault::TargetVanishes, job)
    }

    fn by<T: Send + 'static>(
        &self,
        vanishing: Fault,
        job: impl FnOnce(Ipv4Addr) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        match &self.link {
            Some(link) if self.fault == vanishing => {
                let there = link.there;
                link.far.run(move || job(there))
            }
            Some(_) | None => job(self.here),
        }
    }

    /// Has the target listen.
    fn listen(&mut self) -> SocketAddr {
        let listener = self.by_target(|ip| TcpListener::bind((ip, 0))).unwrap();
        let address = listener.local_addr().unwrap();
        self.extra.listener = Some(listener);
        address
    }

    fn connect(&mut self) -> TcpStream {
        let proxy = self.program.address;
        self.opened += 1;
        limited(self.by_client(move |_| TcpStream::connect_timeout(&proxy, LONG)).unwrap())
    }

    /// A client of SOCKS5, with all of it said but its request.
    fn greeted(&mut self) -> TcpStream {
        let mut messages = socks5(true, SocketAddr::from(([0; 4], 0)).into());
        messages.pop();
        messages.push((Vec::new(), Answer::Nothing));
        ask(self.connect(), messages)
    }
}

/// Has the client say all of it, and leave the last answer.
pub(super) fn ask(mut client: TcpStream, messages: Vec<Message>) -> TcpStream {
    let last = messages.len() - 1;
    for (place, (message, answer)) in messages.into_iter().enumerate() {
        client.write_all(&message).unwrap();
        if place < last {
            read_answer(&mut client, answer);
        }
    }
    client
}

/// A datagram of the client, from a request with the same destination.
pub(super) fn datagram(request: &[u8], payload: &[u8]) -> Vec<u8> {
    [b"\0\0\0", &request[3..], payload].concat()
}

/// Sends so much that it counts as bulk, and has it read.
fn pour(from: &mut Option<TcpStream>, to: &mut Option<TcpStream>) {
    let (from, to) = (from.as_mut().unwrap(), to.as_mut().unwrap());
    thread::scope(|scope| {
        scope.spawn(|| send(from, pattern(1, POURED)).unwrap());
        expect(to, pattern(1, POURED));
    });
}
