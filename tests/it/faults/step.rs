//! How a session comes to each step.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Instant;
use std::{io, thread};

use socket2::{Domain, Socket, Type};

use super::scene::{Ends, Message, Scene};
use super::seen::conclude;
use super::{Fault, Step};
use crate::stage::{
    LONG, accept, black_hole_at, expect, limited, pattern, reply, request, request_by_name, send,
};

const MIB: usize = 1024 * 1024;

const BIND: u8 = 0x02;
const UDP_ASSOCIATE: u8 = 0x03;

/// What a client says, and how long each answer is.
fn conversation(request: &[u8]) -> Vec<Message> {
    let credentials = b"\x01\x05alice\x06sesame";
    vec![(b"\x05\x01\x02".to_vec(), 2), (credentials.to_vec(), 2), (request.to_vec(), 10)]
}

impl Scene<'_> {
    pub(super) fn reach(&mut self) {
        self.begun = Instant::now();
        match self.step {
            Step::Greeting => {
                self.say_half_of(0);
                self.await_live(1);
            }
            Step::Authentication => self.say_half_of(1),
            Step::Request => self.say_half_of(2),
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
        let mut messages = conversation(&request(self.listen()));
        let mut client = self.connect();
        for (message, answer) in messages.drain(..whole) {
            client.write_all(&message).unwrap();
            client.read_exact(&mut vec![0; answer]).unwrap();
        }
        let half = messages[0].0.len() / 2;
        let said: Vec<u8> = messages[0].0.drain(..half).collect();
        client.write_all(&said).unwrap();
        self.extra.unsaid = messages;
        self.client = Some(client);
    }

    /// The name that this session asks for.
    pub(super) fn name(&self) -> String {
        format!("cell-{}.test", self.number)
    }

    fn look_up(&mut self) {
        let port = self.listen().port();
        let mut client = self.greeted();
        client.write_all(&request_by_name(self.name().as_bytes(), port)).unwrap();
        self.world.gate.as_ref().unwrap().await_question(&self.name());
        self.client = Some(client);
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
        let mut client = self.greeted();
        client.write_all(&request(target)).unwrap();
        self.await_shown("\"command\":\"CONNECT\"");
        self.client = Some(client);
    }

    /// The client does not read the reply, but it is there.
    fn begin_tunnel(&mut self) {
        let target = self.listen();
        let mut client = self.greeted();
        client.write_all(&request(target)).unwrap();
        self.target = self.extra.listener.as_ref().map(accept);
        assert_eq!(client.peek(&mut [0; 10]).unwrap(), 10);
        self.client = Some(client);
    }

    fn open_tunnel(&mut self) {
        self.begin_tunnel();
        self.read_reply();
    }

    /// The reply that says that all is well.
    pub(super) fn read_reply(&mut self) {
        assert_eq!(reply(self.client.as_mut().unwrap()).0, 0x00);
    }

    fn be_refused(&mut self) {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from((self.here, 0)).into()).unwrap();
        let target = socket.local_addr().unwrap().as_socket().unwrap();
        self.extra.refusing = Some(socket);
        let mut client = self.greeted();
        client.write_all(&request(target)).unwrap();
        assert_eq!(client.peek(&mut [0; 10]).unwrap(), 10);
        self.client = Some(client);
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

    /// The client, with all of it said but its request.
    fn greeted(&mut self) -> TcpStream {
        greeted(self.connect())
    }

    /// A client that does not vanish.
    pub(super) fn greeted_here(&mut self) -> TcpStream {
        self.opened += 1;
        greeted(crate::stage::connect(self.program.address))
    }
}

fn greeted(mut client: TcpStream) -> TcpStream {
    for (message, answer) in conversation(&[]).into_iter().take(2) {
        client.write_all(&message).unwrap();
        client.read_exact(&mut vec![0; answer]).unwrap();
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
        scope.spawn(|| send(from, pattern(1, 2 * MIB)).unwrap());
        expect(to, pattern(1, 2 * MIB));
    });
}
