//! Users whose passwords are kept as hashes.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Instant;

use crate::scratch::{Program, Scratch, bare, check};
use crate::stage::{LONG, accept, connect, connect_from, echo, listen, reply, request, start};

/// What `openssl passwd -6` and `mkpasswd -m bcrypt` make of `open sesame`.
const SHA: &str = "$6$saltsalt$e/5XKibXPLqVcfjpD.ouauaJrAOL5V0uo80Lt7n7EbRdRiCx3HbQ90yjOHr.G0T.mx79PEMRy8nmtr0qSYhQp1";
const BCRYPT: &str = "$2b$05$6ND3p0xdFjM8y6k20HA1oOozRM5UtNgz/xsx87SmlQKeuLuYXNQba";

/// Greeting and credentials, and the status that the server answers. `None` where it says nothing.
pub fn log_in(from: Ipv4Addr, server: SocketAddr, name: &str, password: &str) -> Option<u8> {
    let length = |text: &str| [u8::try_from(text.len()).unwrap()];
    let name = [&length(name)[..], name.as_bytes()].concat();
    let said = [b"\x05\x01\x02\x01", &name[..], &length(password), password.as_bytes()].concat();
    let mut client = connect_from(from, server);
    client.write_all(&said).ok()?;
    let mut told = [0; 4];
    client.read_exact(&mut told).ok().map(|()| told[3])
}

fn hash_of(line: &[u8]) -> (bool, String, String) {
    let mut command = bare();
    // It needs no other option, and no file that others name.
    command.arg("--hash-password").env("TABI_USERS", "/nowhere").stdin(Stdio::piped());
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(line).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = |octets| String::from_utf8(octets).unwrap();
    (output.status.success(), text(output.stdout), text(output.stderr))
}

#[test]
fn a_user_with_a_hash_logs_in_by_every_protocol_that_knows_passwords() {
    let file = Scratch::new(format!("alice:{SHA}\r\nbob:{BCRYPT}\ncarol:$ecret\n").as_bytes());
    let server = start(&["--users", file.path()]);
    for _ in 0..2 {
        for (name, password) in
            [("alice", "open sesame"), ("bob", "open sesame"), ("carol", "$ecret")]
        {
            let status = |password| log_in(Ipv4Addr::LOCALHOST, server.address, name, password);
            assert_eq!(status(password), Some(0), "{name}");
            assert_ne!(status("open"), Some(0), "{name}");
        }
    }
    let target = echo();
    let mut client = connect(server.address);
    // alice:open sesame
    let login = "Proxy-Authorization: Basic YWxpY2U6b3BlbiBzZXNhbWU=";
    write!(client, "CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{login}\r\n\r\n").unwrap();
    let mut told = [0; 12];
    client.read_exact(&mut told).unwrap();
    assert_eq!(told, *b"HTTP/1.1 200");
}

#[test]
fn what_a_client_sends_behind_its_credentials_is_not_lost_while_they_are_verified() {
    let file = Scratch::new(format!("alice:{BCRYPT}").as_bytes());
    let server = start(&["--users", file.path()]);
    let mut client = connect(server.address);
    let said = [b"\x05\x01\x02\x01\x05alice\x0bopen sesame", &request(echo())[..], b"payload"];
    client.write_all(&said.concat()).unwrap();
    client.shutdown(std::net::Shutdown::Write).unwrap();
    let mut told = [0; 4];
    client.read_exact(&mut told).unwrap();
    assert_eq!(told, *b"\x05\x02\x01\x00");
    assert_eq!(reply(&mut client).0, 0x00);
    let mut echoed = Vec::new();
    client.read_to_end(&mut echoed).unwrap();
    assert_eq!(echoed, b"payload");
}

/// Such as one that has its input from a pipe.
#[test]
fn a_client_of_http_that_has_said_all_waits_while_its_password_is_verified() {
    let file = Scratch::new(format!("alice:{BCRYPT}").as_bytes());
    let server = start(&["--users", file.path()]);
    let (listener, target) = listen();
    let mut client = connect(server.address);
    // alice:open sesame
    let login = "Proxy-Authorization: Basic YWxpY2U6b3BlbiBzZXNhbWU=";
    write!(client, "GET http://{target}/ HTTP/1.1\r\nHost: {target}\r\n{login}\r\n\r\n").unwrap();
    client.shutdown(std::net::Shutdown::Write).unwrap();
    let mut told = [0; 12];
    let answer = thread::spawn(move || {
        accept(&listener).write_all(b"HTTP/1.1 204 No Content\r\n\r\n").unwrap();
    });
    client.read_exact(&mut told).unwrap();
    assert_eq!(told, *b"HTTP/1.1 204");
    answer.join().unwrap();
}

#[test]
fn a_hash_that_is_not_known_is_refused_at_start_and_not_shown() {
    let file = Scratch::new(b"alice:$y$j9T$.kxcJkJXZAn3RWlGA6ZfP0$yeLd.KmYqCXO1IQHdcLKZN1Sw2");
    let (status, told) = check(&["--users", file.path()]);
    assert_eq!(status, 2);
    assert!(told.contains(&format!("{}:1: 'alice': ", file.path())), "{told}");
    assert!(told.contains("$6$, $5$, $2a$, $2b$ or $2y$") && !told.contains("j9T"), "{told}");
}

#[test]
fn a_password_that_takes_too_long_ends_with_the_handshake() {
    // A cost at which a fast core takes a second.
    let file = Scratch::new(format!("alice:{}", BCRYPT.replace("$05$", "$14$")).as_bytes());
    let mut tabi = Program::start(&["--users", file.path(), "--handshake-timeout", "0.2"]);
    let begin = Instant::now();
    assert_eq!(log_in(Ipv4Addr::LOCALHOST, tabi.address, "alice", "open"), None);
    assert!(begin.elapsed() < LONG);
    tabi.log_line("outcome=handshake-timeout");
}

#[test]
fn a_password_becomes_a_hash_that_lets_it_in() {
    for line in ["open sesame\n", "open sesame\r\n", "open sesame", "open sesame\nno more"] {
        let (is_fine, hash, _) = hash_of(line.as_bytes());
        assert!(is_fine && hash.lines().count() == 1, "{hash}");
        let file = Scratch::new(format!("alice:{hash}").as_bytes());
        let server = start(&["--users", file.path()]);
        let log_in = |password| log_in(Ipv4Addr::LOCALHOST, server.address, "alice", password);
        assert_eq!([log_in("open"), log_in("open sesame")], [Some(1), Some(0)], "{line:?}");
    }
    for line in ["", "\n", &"x".repeat(73)] {
        let (is_fine, hash, told) = hash_of(line.as_bytes());
        assert!(!is_fine && hash.is_empty(), "{line}: {hash}");
        assert!(told.contains("a password of 1 to 72 bytes") && !told.contains("xx"), "{told}");
    }
}

/// What `tabi --hash-password` shows on a terminal where these lines are typed.
fn typed(lines: &str) -> Option<String> {
    let tabi = bare();
    let mut script = Command::new("script");
    script.args([
        "-qec",
        &format!("'{}' --hash-password", tabi.get_program().to_str().unwrap()),
        "/dev/null",
    ]);
    let script = script.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let Ok(mut script) = script else {
        eprintln!("there is no script(1): nothing is tested");
        return None;
    };
    script.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    let output = script.wait_with_output().unwrap();
    Some(String::from_utf8(output.stdout).unwrap())
}

#[test]
fn on_a_terminal_a_password_is_asked_for_twice_and_not_shown() {
    let Some(told) = typed("open sesame\nopen sesame\n") else { return };
    let hash = told.lines().find(|line| line.contains("$2b$")).expect("there is a hash");
    let file = Scratch::new(format!("alice:{}", hash.trim()).as_bytes());
    let server = start(&["--users", file.path()]);
    assert_eq!(log_in(Ipv4Addr::LOCALHOST, server.address, "alice", "open sesame"), Some(0));
    let told = typed("open sesame\nopen sesam\n").unwrap();
    assert!(told.contains("the two are not the same") && !told.contains("$2b$"), "{told}");
}
