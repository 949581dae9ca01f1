//! One cell of the table at work: a program of its own, and everybody who takes part.

use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use socket2::Socket;
use tabi::report::Outcome;

use super::client::{Destination, Message, Speaks, socks5};
use super::far::Link;
use super::left::{Held, await_shown, outcomes};
use super::seen::finish;
use super::step::ask;
use super::{Cell, Fault, Play, Seen, Step, World};
use crate::scratch::{Program, Scratch, bare};
use crate::stage::{LONG, accept, reply};

/// A limit that is to be reached, and one that is not.
const SHORT: Duration = Duration::from_secs(4);
const NEVER_HERE: &str = "600";

/// The far ends of a tunnel: the client's and the target's.
pub(super) type Ends = (TcpStream, TcpStream);

/// One cell at work.
pub(super) struct Scene<'w> {
    pub(super) world: &'w World<'w>,
    pub(super) number: u8,
    pub(super) speaks: Speaks,
    pub(super) step: Step,
    pub(super) fault: Fault,
    cell: Cell,
    _users: Scratch,
    pub(super) program: Program,
    page: SocketAddr,
    /// Sessions that there were so far.
    pub(super) opened: u32,
    /// What the program holds after as many sessions without a fault.
    before: Held,
    /// Where the one is who vanishes.
    pub(super) link: Option<Link<'w>>,
    /// Where all others are.
    pub(super) here: Ipv4Addr,
    /// Nothing that is limited has begun before this.
    pub(super) begun: Instant,
    /// The session's client, as the log names it.
    from: Option<SocketAddr>,
    /// Those who see what becomes of it.
    pub(super) client: Option<TcpStream>,
    pub(super) target: Option<TcpStream>,
    /// Those who do nothing any more, and do not even close.
    pub(super) aside: Vec<TcpStream>,
    pub(super) extra: Extra,
}

/// What only some steps have.
#[derive(Default)]
pub(super) struct Extra {
    /// What the client has yet to say until it has its tunnel.
    pub(super) unsaid: Vec<Message>,
    pub(super) listener: Option<TcpListener>,
    /// A target that does not answer, and those who keep it from that.
    pub(super) hole: Option<(Vec<TcpStream>, Socket)>,
    /// A port that is taken and refuses.
    pub(super) refusing: Option<Socket>,
    /// BND of BIND and UDP ASSOCIATE.
    pub(super) bound: Option<SocketAddr>,
    /// The client's datagrams, and those of two targets: a fault is about the first one.
    pub(super) datagrams: Option<UdpSocket>,
    pub(super) udp_targets: Vec<UdpSocket>,
    /// A tunnel that keeps a server from its end.
    pub(super) holder: Option<Ends>,
    /// The log, where nobody reads it.
    pub(super) log: Option<Box<dyn Read + Send>>,
}

impl<'w> Scene<'w> {
    pub(super) fn open(world: &'w World<'w>, number: u8, play: Play) -> Self {
        let Play { speaks, step, fault, cell } = play;
        let vanishes = matches!(fault, Fault::ClientVanishes | Fault::TargetVanishes);
        let link = world.far.filter(|_| vanishes).map(|far| far.link(number));
        // Whoever is on another machine may not have a target on loopback.
        let here = link.as_ref().map_or(Ipv4Addr::LOCALHOST, |link| link.here);
        let users = Scratch::new(b"alice:sesame");
        let mut command = bare();
        command.args([&format!("{here}:0"), "-v"]);
        if speaks.has_login() {
            command.args(["--users", users.path()]);
        }
        command.args(["--status", "127.0.0.1:0"]).args(limits(cell));
        command.stdout(Stdio::null());
        let mut program = Program::spawn(command);
        let told = program.log_line("status page at http://");
        let page = told.split("http://").nth(1).unwrap().split('/').next().unwrap();
        let page = page.parse().unwrap();
        let before = Held::by(program.id());
        let mut scene = Scene {
            world,
            number,
            speaks,
            step,
            fault,
            cell,
            _users: users,
            program,
            page,
            opened: 0,
            before,
            link,
            here,
            begun: Instant::now(),
            from: None,
            client: None,
            target: None,
            aside: Vec::new(),
            extra: Extra::default(),
        };
        scene.warm_up();
        scene
    }

    /// The whole play.
    pub(super) fn play(mut self) {
        self.begun = Instant::now();
        self.reach();
        let client = self.client.as_ref().unwrap();
        self.from = Some(client.local_addr().unwrap());
        self.inject();
        let injected = Instant::now();
        match self.cell {
            Cell::Ends(seen, _) => self.see(seen),
            Cell::Kills => self.see_kill(),
            Cell::Cannot(why) => panic!("{why}"),
        }
        // What nobody sees is over once it is not in the registry.
        if let Cell::Ends(Seen::ByNobody, _) = self.cell {
            self.await_live(0);
        }
        let now = Instant::now();
        self.check_times(now - self.begun, now - injected);
        if self.extra.holder.is_some() {
            self.await_live(1);
        } else if !self.stops() {
            self.await_return();
        }
        self.close();
    }

    /// Has what the program makes once and keeps: threads for a session and for a lookup.
    fn warm_up(&mut self) {
        if let Some(gate) = &self.world.gate {
            gate.let_through("warm.test");
            let mut client = self.ask_here(Destination::Name("warm.test", 9));
            // Nobody is at that port, and a client elsewhere may not even ask.
            assert!(matches!(reply(&mut client).0, 0x02 | 0x05));
        }
        let listener = TcpListener::bind((self.here, 0)).unwrap();
        let mut client = self.ask_here(listener.local_addr().unwrap().into());
        let mut target = accept(&listener);
        assert_eq!(reply(&mut client).0, 0x00);
        finish(&mut client, &mut target);
        drop((client, target));
        self.await_live(0);
        self.before = Held::at_rest(self.program.id());
    }

    /// The request of a client that does not vanish, by SOCKS5.
    fn ask_here(&mut self, to: Destination<'_>) -> TcpStream {
        self.opened += 1;
        let client = crate::stage::connect(self.program.address);
        ask(client, socks5(self.speaks.has_login(), to))
    }

    pub(super) fn await_shown(&self, part: &str) {
        await_shown(self.page, part);
    }

    /// Waits until so many of all sessions are live. What is shown may be half a second old: it is
    /// good once it tells of the last one.
    pub(super) fn await_live(&self, live: u32) {
        self.await_shown(&format!("\"opened\":{},\"slots\":{{\"used\":{live},", self.opened));
    }

    /// Whether the server has been told to stop.
    fn stops(&self) -> bool {
        self.fault == Fault::Sigterm || self.step == Step::Draining
    }

    pub(super) fn stop(&mut self) {
        self.begun = Instant::now();
        self.program.signal(Signal::TERM);
    }

    /// Waits until the session has left the registry, and its threads and descriptors are back.
    fn await_return(&mut self) {
        self.await_live(0);
        self.before.await_return(self.program.id());
        if let Some(bound) = self.extra.bound {
            self.expect_closed(bound);
        }
    }

    /// It was seen in time, and a limit that has ended the session was not reached too soon: it
    /// began after `begun`.
    fn check_times(&self, since_begun: Duration, since_injected: Duration) {
        let is_limit = matches!(
            self.outcome(),
            Some(
                Outcome::HandshakeTimeout
                    | Outcome::TimedOut
                    | Outcome::IdleTimeout
                    | Outcome::Stopped
            )
        );
        assert!(!is_limit || since_begun >= SHORT, "a limit was reached after {since_begun:?}");
        assert!(since_injected < LONG, "it was seen after {since_injected:?}");
    }

    fn outcome(&self) -> Option<Outcome> {
        match self.cell {
            Cell::Ends(_, outcome) => Some(outcome),
            Cell::Cannot(_) | Cell::Kills => None,
        }
    }

    /// Ends the program, and looks at its log.
    fn close(mut self) {
        let status = if let Cell::Kills = self.cell { 130 } else { 0 };
        let mut log = match self.extra.log.take() {
            Some(log) => log,
            None => Box::new(self.program.take_log()),
        };
        let reader = thread::spawn(move || {
            let mut text = Vec::new();
            log.read_to_end(&mut text).map(|_| String::from_utf8_lossy(&text).into_owned())
        });
        if self.extra.holder.is_some() {
            // The line of the session is told before that of the holder.
            drop(self.extra.holder.take());
        }
        if !self.stops() {
            self.program.signal(Signal::TERM);
        }
        assert_eq!(self.program.wait().code(), Some(status), "the exit status");
        let log = format!("{}{}", self.program.log_so_far(), reader.join().unwrap().unwrap());
        let told = outcomes(&log, self.from.unwrap());
        let expected: Vec<&str> = self.outcome().into_iter().map(Into::into).collect();
        assert_eq!(told, expected, "the lines of the session in\n{log}");
    }
}

/// The options that set limits. The one that is to end the session is short; the others are not
/// reached.
fn limits(cell: Cell) -> Vec<String> {
    let outcome = match cell {
        Cell::Ends(_, outcome) => Some(outcome),
        Cell::Cannot(_) | Cell::Kills => None,
    };
    let limits = [
        ("--handshake-timeout", Outcome::HandshakeTimeout),
        ("--connect-timeout", Outcome::TimedOut),
        ("--idle-timeout", Outcome::IdleTimeout),
        ("--grace", Outcome::Stopped),
    ];
    let limit = |(option, ends): (&str, Outcome)| {
        let short = SHORT.as_secs().to_string();
        [option.into(), if outcome == Some(ends) { short } else { NEVER_HERE.into() }]
    };
    limits.into_iter().flat_map(limit).collect()
}
