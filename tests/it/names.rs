//! Names, beside a name server of our own in a network of its own.

use std::fs;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Instant;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use crate::namespace::alone;
use rustix::process::Signal;

use crate::scratch::{Program, Scratch, heeding};
use crate::stage::{GREETING, LONG, connect, reply, request_by_name, take, told};

/// No source, no type, no options.
const NOTHING: Option<&str> = None;

/// Runs `test` where `/etc/resolv.conf` and `/etc/hosts` hold this. Where this process may not do
/// that, nothing is tested.
pub fn resolving_with<T: Send>(resolv: &str, hosts: &str, test: impl FnOnce() -> T + Send) {
    alone(|| {
        let files = [("/etc/resolv.conf", resolv), ("/etc/hosts", hosts)];
        if unshare(CloneFlags::CLONE_NEWNS).is_err() || files.iter().any(|(path, _)| !exists(path))
        {
            eprintln!("no mount namespace can be made here");
            return;
        }
        let private = MsFlags::MS_PRIVATE | MsFlags::MS_REC;
        mount(NOTHING, "/", NOTHING, private, NOTHING).unwrap();
        let files = files.map(|(path, text)| (path, Scratch::new(text.as_bytes())));
        for (path, file) in &files {
            mount(Some(file.path()), *path, NOTHING, MsFlags::MS_BIND, NOTHING).unwrap();
        }
        test();
    });
}

fn exists(path: &str) -> bool {
    Path::new(path).exists()
}

/// A name server that knows `known` as 127.0.0.1 and leaves out whatever begins with `silent`. It
/// tells the names that it is asked for.
pub fn name_server(known: &'static [&'static str]) -> Receiver<String> {
    let socket = UdpSocket::bind("127.0.0.1:53").unwrap();
    let (told, asked) = channel();
    thread::spawn(move || {
        let mut question = [0; 512];
        while let Ok((length, from)) = socket.recv_from(&mut question) {
            let (name, kind) = read_question(&question[12..length]);
            let is_known = known.contains(&name.as_str());
            let is_silent = name.starts_with("silent");
            // Whoever has the answer finds the question told.
            if told.send(name).is_err() {
                return;
            }
            if !is_silent {
                let message = answer(&question[..length], is_known, kind == A);
                socket.send_to(&message, from).unwrap();
            }
        }
    });
    asked
}

/// QTYPE of an IPv4 address.
pub const A: u16 = 1;

/// QNAME and QTYPE (RFC 1035 section 4.1.2).
pub fn read_question(mut octets: &[u8]) -> (String, u16) {
    let mut labels = Vec::new();
    while octets[0] > 0 {
        let (label, rest) = octets[1..].split_at(usize::from(octets[0]));
        labels.push(String::from_utf8(label.to_vec()).unwrap());
        octets = rest;
    }
    (labels.join("."), u16::from_be_bytes([octets[1], octets[2]]))
}

/// The answer to a question: no such name, no such address, or 127.0.0.1.
pub fn answer(question: &[u8], is_known: bool, has_address: bool) -> Vec<u8> {
    let count = u8::from(is_known && has_address);
    let mut message = head(question, if is_known { 0 } else { NO_SUCH_NAME }, count);
    if count > 0 {
        message.extend(b"\xc0\x0c\0\x01\0\x01\0\0\0\x3c\0\x04");
        message.extend(Ipv4Addr::LOCALHOST.octets());
    }
    message
}

const SERVER_FAILURE: u8 = 2;
const NO_SUCH_NAME: u8 = 3;

/// The begin of an answer: RCODE, how many records follow, and the question.
fn head(question: &[u8], rcode: u8, count: u8) -> Vec<u8> {
    let mut message = question.to_vec();
    message[2..12].copy_from_slice(&[0x81, 0x80 | rcode, 0, 1, 0, count, 0, 0, 0, 0]);
    // The additional record of the question (EDNS), if it has one, is not answered.
    let end = 12 + question[12..].iter().position(|&octet| octet == 0).unwrap() + 5;
    message.truncate(end);
    message
}

/// A name server at `address` that answers each question so.
fn answering(address: &str, answer: impl Fn(&[u8]) -> Vec<u8> + Send + 'static) {
    let socket = UdpSocket::bind((address, 53)).unwrap();
    thread::spawn(move || {
        let mut question = [0; 512];
        while let Ok((length, from)) = socket.recv_from(&mut question) {
            socket.send_to(&answer(&question[..length]), from).unwrap();
        }
    });
}

fn rep(server: SocketAddr, name: &str, port: u16) -> u8 {
    let mut client = connect(server);
    client.write_all(&[GREETING, &request_by_name(name.as_bytes(), port)].concat()).unwrap();
    assert_eq!(take(&mut client), *b"\x05\x00");
    reply(&mut client).0
}

/// Name servers that are silent keep the resolver busy for far longer than a test may take, and no question
/// is asked a second time.
const PATIENT: &str = "nameserver 127.0.0.1\noptions timeout:30 attempts:5\n";

#[test]
fn silent_name_servers_hold_neither_the_reply_nor_the_session() {
    resolving_with(PATIENT, "", || {
        let asked = name_server(&[]);
        let mut program = Program::start(&["--connect-timeout", "0.5"]);
        let begin = Instant::now();
        assert_eq!(rep(program.address, "silent.example", 80), 0x06);
        assert!(begin.elapsed() < LONG);
        let line = program.log_line("silent.example");
        assert!(line.contains("outcome=timed-out why=\"no name server has answered\""), "{line}");

        let mut program = Program::start(&["--connect-timeout", "3600"]);
        let mut client = connect(program.address);
        let request = request_by_name(b"silent.second.example", 80);
        client.write_all(&[GREETING, &request].concat()).unwrap();
        while asked.recv_timeout(LONG).unwrap() != "silent.second.example" {}
        drop(client);
        assert!(program.log_line("silent.second").contains("outcome=client-left"));
        assert!(begin.elapsed() < 2 * LONG);
    });
}

/// The request for the name of 192.0.2.x.
fn name_of(host: u8) -> [u8; 10] {
    [0x05, 0xf1, 0x00, 0x01, 192, 0, 2, host, 0, 0]
}

#[test]
fn the_name_of_an_address_comes_from_the_next_name_server_where_one_fails() {
    let resolv = "nameserver 127.0.0.1\nnameserver 127.0.0.2\n";
    resolving_with(resolv, "192.0.2.8 nas.example\n", || {
        answering("127.0.0.1", |question| head(question, SERVER_FAILURE, 0));
        answering("127.0.0.2", |question| {
            if !read_question(&question[12..]).0.starts_with("7.2.0.192.") {
                return head(question, NO_SUCH_NAME, 0);
            }
            let record = b"\xc0\x0c\0\x0c\0\x01\0\0\0\x3c\0\x0e\x04host\x07example\0";
            [head(question, 0, 1), record.to_vec()].concat()
        });
        let program = Program::start(&[]);
        let found = |name: &[u8]| [b"\x05\x00\x00\x03", name, b"\0\0"].concat();
        assert_eq!(told(program.address, &name_of(7)), found(b"\x0chost.example"));
        assert_eq!(told(program.address, &name_of(8)), found(b"\x0bnas.example"));
        assert_eq!(told(program.address, &name_of(9))[1], 0x04);
    });
}

#[test]
fn a_silent_name_server_does_not_hold_who_asks_for_a_name_or_an_address() {
    resolving_with(PATIENT, "", || {
        let _silent = UdpSocket::bind("127.0.0.1:53").unwrap();
        let mut program = Program::start(&["--connect-timeout", "0.5"]);
        let begin = Instant::now();
        assert_eq!(told(program.address, &name_of(7))[1], 0x06);
        let silent = "outcome=timed-out why=\"no name server has answered\"";
        assert!(program.log_line("RESOLVE_PTR").contains(silent));
        let mut by_name = request_by_name(b"name.example", 0);
        by_name[1] = RESOLVE;
        assert_eq!(told(program.address, &by_name)[1], 0x06);
        assert!(program.log_line("RESOLVE").contains(silent));
        assert!(begin.elapsed() < LONG);
    });
}

#[test]
fn many_connections_to_a_name_ask_for_it_once() {
    resolving_with(PATIENT, "", || {
        let asked = name_server(&["known.example"]);
        let target = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = target.local_addr().unwrap().port();
        let program = Program::start(&[]);
        thread::scope(|scope| {
            for _ in 0..6 {
                scope.spawn(|| {
                    for _ in 0..5 {
                        assert_eq!(rep(program.address, "known.example", port), 0x00);
                    }
                });
            }
        });
        assert_eq!(asked.try_iter().count(), 2, "A and AAAA");
        let program = Program::start(&["--name-cache", "0"]);
        for _ in 0..2 {
            assert_eq!(rep(program.address, "known.example", port), 0x00);
        }
        assert_eq!(asked.try_iter().count(), 4, "every name is looked up every time");
    });
}

/// As in a cluster: a name of up to four dots is completed before it is tried as it is.
const CLUSTER: &str = "nameserver 127.0.0.1\nsearch svc.cluster.test\noptions ndots:5 timeout:30\n";

#[test]
fn names_are_completed_as_for_every_other_program() {
    resolving_with(CLUSTER, "", || {
        let asked = name_server(&["db.prod.svc.cluster.test", "exact.example"]);
        let target = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = target.local_addr().unwrap().port();
        // Neither of these rules is about a name.
        let rules = Scratch::new(b"deny to 192.0.2.0/24\nallow to self port 1-65535\n");
        let mut program = Program::start(&["--rules", rules.path()]);
        assert_eq!(rep(program.address, "db.prod", port), 0x00);
        assert_eq!(rep(program.address, "exact.example.", port), 0x00);
        let mut resolve = request_by_name(b"db.prod", 0);
        resolve[1] = RESOLVE;
        assert_eq!(told(program.address, &resolve), *b"\x05\x00\x00\x01\x7f\0\0\x01\0\0");
        assert_eq!(echoed(program.address, b"db.prod"), b"payload");
        assert!(asked.try_iter().all(|name| name != "exact.example.svc.cluster.test"));

        assert_eq!(
            rep(program.address, "db.prod.", port),
            0x04,
            "the dot says that it is complete"
        );
        assert!(asked.try_iter().all(|name| name == "db.prod"));
        assert_eq!(rep(program.address, "abc.onion", port), 0x04);
        assert_eq!(rep(program.address, "abc.onion.", port), 0x04);
        assert!(program.log_line("abc.onion").contains("RFC 7686"));
        assert_eq!(asked.try_iter().count(), 0);
    });
}

#[test]
fn rules_about_names_mean_the_names_as_they_stand() {
    resolving_with(CLUSTER, "127.0.0.1 nas.home.example\n", || {
        let asked = name_server(&["db.prod.svc.cluster.test", "nas.svc.cluster.test"]);
        let target = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = target.local_addr().unwrap().port();
        for rules in [
            "deny to db.prod.svc.cluster.test\n",
            "deny to 192.0.2.0/24\nallow to *.example\n",
            "via socks5h://192.0.2.1:9050 to *.onion\n",
        ] {
            let rules = Scratch::new(rules.as_bytes());
            let program = Program::start(&["--rules", rules.path()]);
            assert_eq!(rep(program.address, "db.prod", port), 0x04);
            let mut resolve = request_by_name(b"db.prod", 0);
            resolve[1] = RESOLVE;
            assert_eq!(told(program.address, &resolve)[1], 0x04);
            assert!(asked.try_iter().all(|name| name == "db.prod"));
            assert_eq!(
                rep(program.address, "nas", port),
                0x00,
                "a name without a dot is completed"
            );
            assert_eq!(rep(program.address, "nas.home.example", port), 0x00, "it is in /etc/hosts");
            asked.try_iter().for_each(drop);
        }
    });
}

#[test]
fn a_reload_changes_how_names_are_looked_up() {
    resolving_with(CLUSTER, "", || {
        let _asked = name_server(&["db.prod.svc.cluster.test"]);
        let target = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = target.local_addr().unwrap().port();
        let rules = Scratch::new(b"");
        let mut program = Program::spawn(heeding(&["--rules", rules.path()]));
        assert_eq!(rep(program.address, "db.prod", port), 0x00);
        for (text, expected) in [("deny to *.prod.svc.cluster.test\n", 0x04), ("", 0x00)] {
            fs::write(rules.path(), text).unwrap();
            program.signal(Signal::HUP);
            program.log_line("reloaded");
            assert_eq!(rep(program.address, "db.prod", port), expected, "{text}");
        }
    });
}

/// Tor's command for the addresses of a name.
const RESOLVE: u8 = 0xf0;

/// What comes back of a datagram to an echo at a name.
fn echoed(server: SocketAddr, name: &[u8]) -> Vec<u8> {
    let [echo, client] = [(); 2].map(|()| UdpSocket::bind("127.0.0.1:0").unwrap());
    client.set_read_timeout(Some(LONG)).unwrap();
    let port = echo.local_addr().unwrap().port();
    thread::spawn(move || {
        let mut octets = [0; 512];
        let (length, from) = echo.recv_from(&mut octets).unwrap();
        echo.send_to(&octets[..length], from).unwrap();
    });
    let mut control = connect(server);
    control.write_all(&[GREETING, b"\x05\x03\0\x01\0\0\0\0\0\0"].concat()).unwrap();
    assert_eq!(take(&mut control), *b"\x05\x00");
    let header = [b"\0\0\0", &request_by_name(name, port)[3..]].concat();
    client.send_to(&[&header[..], b"payload"].concat(), reply(&mut control).1).unwrap();
    let mut octets = [0; 512];
    let length = client.recv(&mut octets).unwrap();
    octets[10..length].to_vec()
}
