//! A fault at every step of a session, in every protocol: what the other side sees of it and when, that the session
//! has one line in the log with the right outcome, and that no thread, descriptor or entry is left.
//!
//! Of the time limits only the one that the outcome names is ever reached. So whoever sees an end
//! without a limit sees it for the fault's sake.
//!
//! A new step is a variant of [`Step`] with a line in [`row`]; `step.rs` says how a session comes there,
//! `fault.rs` what each fault is there, and `seen.rs` how it goes on. A new protocol is a variant of
//! [`Speaks`] in `client.rs`, with the steps at which it differs.

use std::fs;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use tabi::report::Outcome::{
    self, BadRequest, ClientLeft, ClientReset, Closed, HandshakeTimeout, IdleTimeout, Refused,
    Stopped, TargetReset, TimedOut,
};

use crate::names::resolving_with;

mod client;
mod far;
mod fault;
mod gate;
mod left;
mod scene;
mod seen;
mod step;

use client::Speaks;
use far::{Far, with_far};
use gate::Gate;
use scene::Scene;

/// Cells that are tried at once.
const AT_ONCE: usize = 16;

/// Where in its life a session is when the fault comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// The client has said a part of its greeting.
    Greeting,
    /// The method is agreed on, and the client has said a part of its name and password.
    Authentication,
    /// The client has said a part of its request.
    Request,
    /// The name server has the question.
    Lookup,
    /// The target has not answered yet.
    Dial,
    /// The reply has arrived, and the client has not read it.
    Reply,
    /// The same where the target has refused the connection.
    FailingReply,
    /// In the midst of an upload.
    RelayUp,
    /// In the midst of a download.
    RelayDown,
    /// The target has the end of what the client says, and goes on.
    HalfClosedByClient,
    /// The client has the end of what the target says, and goes on.
    HalfClosedByTarget,
    /// The server stops, and a tunnel has not finished.
    Draining,
    /// The first reply is given, and the peer has not come.
    BindWaiting,
    /// Datagrams have gone there and back.
    UdpAssociation,
}

impl Step {
    const ALL: [Step; Step::UdpAssociation as usize + 1] = [
        Step::Greeting,
        Step::Authentication,
        Step::Request,
        Step::Lookup,
        Step::Dial,
        Step::Reply,
        Step::FailingReply,
        Step::RelayUp,
        Step::RelayDown,
        Step::HalfClosedByClient,
        Step::HalfClosedByTarget,
        Step::Draining,
        Step::BindWaiting,
        Step::UdpAssociation,
    ];
}

/// What happens then, in the order of the table's columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    ClientResets,
    ClientVanishes,
    TargetResets,
    TargetVanishes,
    ReaderStalls,
    LogStalls,
    ResolverIsSilent,
    Sigterm,
}

impl Fault {
    const ALL: [Fault; Fault::Sigterm as usize + 1] = [
        Fault::ClientResets,
        Fault::ClientVanishes,
        Fault::TargetResets,
        Fault::TargetVanishes,
        Fault::ReaderStalls,
        Fault::LogStalls,
        Fault::ResolverIsSilent,
        Fault::Sigterm,
    ];
}

/// A client at a step with a fault, and what becomes of it.
#[derive(Clone, Copy, Debug)]
struct Play {
    speaks: Speaks,
    step: Step,
    fault: Fault,
    cell: Cell,
}

/// What becomes of a step with a fault.
#[derive(Clone, Copy, Debug)]
enum Cell {
    /// They cannot meet, for this reason.
    Cannot(&'static str),
    /// The session ends so, and this is seen of it.
    Ends(Seen, Outcome),
    /// The server ends at once with status 130, and no line is written.
    Kills,
}

/// What those see whose fault it is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    /// Nobody is left to see anything.
    ByNobody,
    /// The client is told this REP, or what it is in its protocol, and then its end of file.
    Rep(u8),
    /// The client has an end of file, and nothing before it.
    EndOfFile,
    /// A reset, which comes pending.
    Reset,
    /// A reset, or an error when it writes, for a side that has had the other's end of file.
    Cut,
    /// The same, but only once the system has forgotten the connection (`tcp_fin_timeout`): it is
    /// kept that what the other side has concluded arrives, and what this one sends fills it.
    CutLate,
    /// Nothing at all: both sides say what they have to say, and finish.
    Nothing,
}

/// The table. What becomes of the client and of the target stands in the first line of each step,
/// and what becomes of that which is around them in the second.
#[rustfmt::skip]
fn row(speaks: Speaks, step: Step) -> [Cell; Fault::ALL.len()] {
    use Step::{
        Authentication, BindWaiting, Dial, Draining, FailingReply, Greeting, HalfClosedByClient,
        HalfClosedByTarget, Lookup, RelayDown, RelayUp, Reply, Request, UdpAssociation,
    };
    match step {
        //  client resets       client vanishes         target resets        target vanishes
        //  reader stalls       log stalls              resolver is silent   SIGTERM
        // Who leaves when it is asked for a login has been told why.
        Authentication if speaks == Speaks::Connect => [
            gone(BadRequest),   gone(HandshakeTimeout), NO_TARGET,           NO_TARGET,
            TOO_SHORT,          GOES_ON,                NO_LOOKUP,           eof(Stopped)],
        Greeting | Authentication | Request => [
            gone(ClientLeft),   gone(HandshakeTimeout), NO_TARGET,           NO_TARGET,
            TOO_SHORT,          GOES_ON,                NO_LOOKUP,           eof(Stopped)],
        Lookup => [
            gone(ClientLeft),   gone(TimedOut),         NO_TARGET,           NO_TARGET,
            NOTHING_SAID,       GOES_ON,                rep(0x06, TimedOut), eof(Stopped)],
        Dial => [
            gone(ClientLeft),   gone(TimedOut),         rep(0x05, Refused),  rep(0x06, TimedOut),
            NOTHING_SAID,       rep(0x06, TimedOut),    NO_LOOKUP,           eof(Stopped)],
        Reply => [
            reset(ClientReset), reset(IdleTimeout),     reset(TargetReset),  reset(IdleTimeout),
            TOO_SHORT,          GOES_ON,                NO_LOOKUP,           GOES_ON],
        FailingReply => [
            gone(Refused),      gone(Refused),          HAS_REFUSED,         HAS_REFUSED,
            rep(0x05, Refused), rep(0x05, Refused),     NO_LOOKUP,           rep(0x05, Refused)],
        RelayUp | RelayDown => [
            reset(ClientReset), reset(IdleTimeout),     reset(TargetReset),  reset(IdleTimeout),
            reset(IdleTimeout), GOES_ON,                NO_LOOKUP,           reset(Stopped)],
        HalfClosedByClient => [
            reset(ClientReset), late(IdleTimeout),      reset(TargetReset),  reset(IdleTimeout),
            late(IdleTimeout),  GOES_ON,                NO_LOOKUP,           cut(Stopped)],
        HalfClosedByTarget => [
            reset(ClientReset), reset(IdleTimeout),     reset(TargetReset),  late(IdleTimeout),
            late(IdleTimeout),  GOES_ON,                NO_LOOKUP,           cut(Stopped)],
        Draining => [
            reset(ClientReset), reset(Stopped),         reset(TargetReset),  reset(Stopped),
            reset(Stopped),     GOES_ON,                rep(0x06, TimedOut), Cell::Kills],
        BindWaiting => [
            gone(ClientLeft),   gone(TimedOut),         reset(TargetReset),  rep(0x06, TimedOut),
            TOO_SHORT,          GOES_ON,                NO_LOOKUP,           eof(Stopped)],
        UdpAssociation => [
            gone(ClientReset),  gone(IdleTimeout),      GOES_ON,             GOES_ON,
            GOES_ON,            GOES_ON,                GOES_ON,             eof(Stopped)],
    }
}

const GOES_ON: Cell = Cell::Ends(Seen::Nothing, Closed);

const NO_TARGET: Cell = Cell::Cannot("there is no target yet");
const HAS_REFUSED: Cell = Cell::Cannot("the target has refused: there is no connection with it");
const TOO_SHORT: Cell = Cell::Cannot("what tabi says at this step fits into every send queue");
const NOTHING_SAID: Cell = Cell::Cannot("nobody is told anything at this step");
const NO_LOOKUP: Cell = Cell::Cannot("nothing is looked up at this step");

const fn gone(outcome: Outcome) -> Cell {
    Cell::Ends(Seen::ByNobody, outcome)
}

const fn rep(rep: u8, outcome: Outcome) -> Cell {
    Cell::Ends(Seen::Rep(rep), outcome)
}

const fn eof(outcome: Outcome) -> Cell {
    Cell::Ends(Seen::EndOfFile, outcome)
}

const fn reset(outcome: Outcome) -> Cell {
    Cell::Ends(Seen::Reset, outcome)
}

const fn cut(outcome: Outcome) -> Cell {
    Cell::Ends(Seen::Cut, outcome)
}

const fn late(outcome: Outcome) -> Cell {
    Cell::Ends(Seen::CutLate, outcome)
}

/// What the table is tried with. An ordinary user has neither.
struct World<'w> {
    /// Where peers vanish.
    far: Option<&'w Far>,
    /// A name server that answers when it is told to.
    gate: Option<Gate>,
    /// The system forgets connections within a second that are half-closed and nobody's.
    forgets_soon: bool,
}

impl World<'_> {
    /// What a cell would need that there is not.
    fn lacks(&self, &Play { step, fault, cell, .. }: &Play) -> Option<&'static str> {
        let vanishes = matches!(fault, Fault::ClientVanishes | Fault::TargetVanishes);
        let asks = step == Step::Lookup || fault == Fault::ResolverIsSilent;
        if vanishes && self.far.is_none() {
            Some("a peer vanishes in a network namespace, and none can be made here")
        } else if asks && self.gate.is_none() {
            Some("names are asked for in namespaces of their own, and none can be made here")
        } else if matches!(cell, Cell::Ends(Seen::CutLate, _)) && !self.forgets_soon {
            Some("the system takes a minute to forget a connection")
        } else {
            None
        }
    }
}

/// `FAULTS=Socks4` in the environment tries that protocol alone, `FAULTS=Socks4-Dial` the row of that
/// step, and `FAULTS=Socks4-Dial-Sigterm` one cell.
#[test]
fn every_fault_at_every_step() {
    let mut is_over = false;
    let resolv = "nameserver 127.0.0.1\noptions timeout:8 attempts:1\n";
    resolving_with(resolv, "127.0.0.1 localhost\n", || {
        let forgets_soon = fs::write("/proc/sys/net/ipv4/tcp_fin_timeout", "1").is_ok();
        with_far(|far| try_all(&World { far, gate: Some(Gate::open()), forgets_soon }));
        is_over = true;
    });
    if !is_over {
        try_all(&World { far: None, gate: None, forgets_soon: false });
    }
}

fn try_all(world: &World<'_>) {
    let wanted = std::env::var("FAULTS").unwrap_or_default();
    let steps = Speaks::ALL
        .into_iter()
        .flat_map(|speaks| speaks.steps().iter().map(move |it| (speaks, *it)));
    let table = steps.flat_map(|(speaks, step)| {
        let cells = Fault::ALL.into_iter().zip(row(speaks, step));
        cells.map(move |(fault, cell)| Play { speaks, step, fault, cell })
    });
    let can_meet = table.filter(|play| !matches!(play.cell, Cell::Cannot(_)));
    let plays: Vec<Play> = can_meet.filter(|play| play.name().starts_with(&wanted)).collect();
    assert!(!plays.is_empty(), "the table has no {wanted}");
    let (next, failures) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let Some(play) = plays.get(number) else { return };
                    if let Err(told) = try_one(world, number, *play) {
                        failures.lock().unwrap().push(format!("{}: {told}", play.name()));
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap();
    assert!(failures.is_empty(), "{} of {}:\n{}", failures.len(), plays.len(), failures.join("\n"));
}

impl Play {
    fn name(&self) -> String {
        let Play { speaks, step, fault, .. } = self;
        format!("{speaks:?}-{step:?}-{fault:?}")
    }
}

/// Tries a cell on a thread that is named after it. An error is what the thread has panicked with.
fn try_one(world: &World<'_>, number: usize, play: Play) -> Result<(), String> {
    let name = play.name();
    if let Some(lack) = world.lacks(&play) {
        eprintln!("{name} is left out: {lack}");
        return Ok(());
    }
    let number = u8::try_from(number).unwrap();
    let tried = thread::scope(|scope| {
        let thread = thread::Builder::new().name(name);
        let work = move || Scene::open(world, number, play).play();
        thread.spawn_scoped(scope, work).unwrap().join()
    });
    tried.map_err(|panic| match panic.downcast::<String>() {
        Ok(told) => *told,
        Err(panic) => panic.downcast_ref::<&str>().copied().unwrap_or("a panic").into(),
    })
}
