//! Username and password as a client sees them (RFC 1929), and what the log says of them.

use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use crate::namespace::with_two_ways;
use crate::scratch::{Program, Scratch, check, of_ordinary_user};
use crate::stage::{LONG, connect, echo, reply, request, start, start_on, take};

const USERS: &[u8] = b"# the household\nalice:open sesame\nbob:a:b\r\n";

/// Method 02, and nothing else.
const GREETING: &[u8] = b"\x05\x01\x02";

fn credentials(name: &[u8], password: &[u8]) -> Vec<u8> {
    let length = |field: &[u8]| [u8::try_from(field.len()).unwrap()];
    [b"\x01", &length(name)[..], name, &length(password), password].concat()
}

/// Everything that the server says until the connection ends. Clean or by a reset: a client that
/// is turned away at accept may get either.
fn last_words(server: SocketAddr, said: &[u8]) -> Vec<u8> {
    let mut client = connect(server);
    let _ = client.write_all(said);
    let mut words = Vec::new();
    if let Err(error) = client.read_to_end(&mut words) {
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    }
    words
}

#[test]
fn the_right_password_opens_the_server() {
    let file = Scratch::new(USERS);
    let server = start(&["--users", file.path()]);
    for (name, password) in [(b"alice".as_slice(), b"open sesame".as_slice()), (b"bob", b"a:b")] {
        let mut client = connect(server.address);
        client.write_all(b"\x05\x03\x00\x01\x02").unwrap();
        assert_eq!(take(&mut client), *b"\x05\x02");
        client.write_all(&credentials(name, password)).unwrap();
        assert_eq!(take(&mut client), *b"\x01\x00");
        client.write_all(&request(echo())).unwrap();
        assert_eq!(reply(&mut client).0, 0x00);
        client.write_all(b"payload").unwrap();
        assert_eq!(take(&mut client), *b"payload");
    }
}

#[test]
fn credentials_split_octet_by_octet_and_all_in_one_segment() {
    let file = Scratch::new(USERS);
    let server = start(&["--users", file.path()]);
    let request = request(echo());
    let said = [GREETING, &credentials(b"alice", b"open sesame"), &request, b"payload"].concat();
    for pieces in [1, said.len()] {
        let mut client = connect(server.address);
        client.set_nodelay(true).unwrap();
        for piece in said.chunks(pieces) {
            client.write_all(piece).unwrap();
            thread::sleep(Duration::from_millis(2));
        }
        assert_eq!(take(&mut client), *b"\x05\x02\x01\x00");
        assert_eq!(reply(&mut client).0, 0x00);
        assert_eq!(take(&mut client), *b"payload");
    }
}

#[test]
fn a_client_without_credentials_is_refused() {
    let file = Scratch::new(USERS);
    let server = start(&["--users", file.path()]);
    let said = [b"\x05\x01\x00", request(echo()).as_slice()].concat();
    assert_eq!(last_words(server.address, &said), b"\x05\xff");
}

#[test]
fn nothing_is_served_after_a_failure() {
    let file = Scratch::new(USERS);
    let server = start(&["--users", file.path()]);
    let right = credentials(b"alice", b"open sesame");
    let wrong = credentials(b"alice", b"open");
    let unknown = credentials(b"mallory", b"open sesame");
    let version = [b"\x05", &right[1..]].concat();
    for bad in [wrong, unknown, version, b"\x01\x00\x00".to_vec()] {
        let said = [GREETING, &bad, &right, &request(echo()), &vec![0x55; 100_000]].concat();
        assert_eq!(last_words(server.address, &said), b"\x05\x02\x01\x01");
    }
}

/// Does something that has the right password refused for a second, up to five times: on a busy
/// machine the second may have passed before the right password comes.
pub fn refused_within_a_second(mut attempt: impl FnMut() -> bool) {
    assert!((0..5).any(|_| attempt()), "the right password is looked at");
}

#[test]
fn one_who_keeps_failing_is_refused_for_a_while() {
    let file = Scratch::new(USERS);
    let server = start(&["--users", file.path()]);
    let right = [GREETING, &credentials(b"alice", b"open sesame"), &request(echo())].concat();
    let wrong = [GREETING, &credentials(b"alice", b"open")].concat();
    let is_refused = || {
        let mut client = connect(server.address);
        client.write_all(&right).unwrap();
        take(&mut client) == *b"\x05\x02\x01\x01"
    };
    refused_within_a_second(|| {
        for _ in 0..5 {
            assert_eq!(last_words(server.address, &wrong), b"\x05\x02\x01\x01");
        }
        is_refused()
    });
    // What is refused meanwhile adds nothing to the time.
    let begin = Instant::now();
    while is_refused() {
        assert!(begin.elapsed() < LONG, "the right password is still refused");
        thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn an_account_of_ones_own_gives_no_guesses_at_anothers_password() {
    let file = Scratch::new(USERS);
    let server = start(&["--users", file.path()]);
    let attempt = |name: &[u8], password: &[u8]| {
        let mut client = connect(server.address);
        client.write_all(&[GREETING, &credentials(name, password)].concat()).unwrap();
        take(&mut client)
    };
    refused_within_a_second(|| {
        for number in 0..5 {
            let guess = format!("guess {number}");
            assert_eq!(attempt(b"alice", guess.as_bytes()), *b"\x05\x02\x01\x01");
            assert_eq!(attempt(b"bob", b"a:b"), *b"\x05\x02\x01\x00", "after each guess");
        }
        attempt(b"alice", b"open sesame") == *b"\x05\x02\x01\x01"
    });
}

#[test]
fn the_log_says_when_a_right_password_was_not_looked_at() {
    let file = Scratch::new(USERS);
    let mut program = Program::start(&["--users", file.path()]);
    let wrong = [GREETING, &credentials(b"alice", b"open")].concat();
    let right = [GREETING, &credentials(b"alice", b"open sesame"), &request(echo())].concat();
    refused_within_a_second(|| {
        for _ in 0..5 {
            last_words(program.address, &wrong);
            let line = program.log_line("user=alice");
            assert!(line.ends_with(" outcome=bad-credentials\n"), "{line}");
        }
        let mut client = connect(program.address);
        client.write_all(&right).unwrap();
        let _status: [u8; 4] = take(&mut client);
        drop(client);
        let line = program.log_line("user=alice");
        line.contains(" outcome=bad-credentials why=\"too many wrong passwords: not looked at for ")
    });
}

#[test]
fn an_old_password_on_one_device_does_not_shut_out_the_others_at_its_address() {
    let file = Scratch::new(USERS);
    let server = start(&["--users", file.path()]);
    let old = [GREETING, &credentials(b"alice", b"old password")].concat();
    for _ in 0..20 {
        assert_eq!(last_words(server.address, &old), b"\x05\x02\x01\x01");
    }
    let mut client = connect(server.address);
    client.write_all(&[GREETING, &credentials(b"bob", b"a:b"), &request(echo())].concat()).unwrap();
    assert_eq!(take(&mut client), *b"\x05\x02\x01\x00");
    assert_eq!(reply(&mut client).0, 0x00);
}

#[test]
fn one_who_tries_many_names_is_turned_away_before_the_greeting() {
    let ((server_to, server), (over_to, over)) = (channel(), channel());
    let guesser = move || {
        let server = server.recv_timeout(LONG).unwrap();
        let tried = (0..40)
            .map(|number| credentials(format!("name {number}").as_bytes(), b"123456"))
            .map(|credentials| last_words(server, &[GREETING, &credentials].concat()))
            .take_while(|words| !words.is_empty());
        over_to.send((tried.count(), last_words(server, GREETING))).unwrap();
    };
    with_two_ways(guesser, move || {
        let file = Scratch::new(USERS);
        let server = start_on("10.1.0.1:0", &["--users", file.path()]);
        server_to.send(server.address).unwrap();
        assert_eq!(over.recv_timeout(LONG).unwrap(), (33, Vec::new()));
    });
}

#[test]
fn the_log_names_client_and_user_and_no_password() {
    let file = Scratch::new(USERS);
    let mut program = Program::start(&["--users", file.path(), "-v"]);
    let mut client = connect(program.address);
    client.write_all(GREETING).unwrap();
    client.write_all(&credentials(b"mal outcome=closed\n\"\xff", b"guess")).unwrap();
    assert_eq!(take(&mut client), *b"\x05\x02\x01\x01");
    let from = client.local_addr().unwrap();
    drop(client);
    let line = program.log_line("outcome=bad-credentials");
    let expected = format!(
        "client={from} user=mal\\x20outcome=closed\\x0a\\x22\\xff protocol=socks5 command=- dest=- "
    );
    assert!(line.contains(&expected) && !line.contains("guess"), "{line}");

    let mut client = connect(program.address);
    client.write_all(&[GREETING, &credentials(b"bob", b"a:b"), &request(echo())].concat()).unwrap();
    assert_eq!(take(&mut client), *b"\x05\x02\x01\x00");
    assert_eq!(reply(&mut client).0, 0x00);
    drop(client);
    let line = program.log_line("outcome=closed");
    assert!(
        line.contains(" user=bob protocol=socks5 command=CONNECT ") && !line.contains("a:b"),
        "{line}"
    );
}

#[test]
fn a_file_that_others_can_read_is_refused_at_start() {
    let file = Scratch::new(USERS);
    assert_eq!(check(&["--users", file.path()]).0, 0);
    file.set_mode(0o644);
    let (status, told) = check(&["--users", file.path()]);
    assert_eq!(status, 2);
    assert!(told.contains(&format!("chmod 600 '{}'", file.path())), "{told}");
}

#[test]
fn a_secret_of_root_and_of_a_group_that_tabi_alone_is_in_is_taken() {
    // What Kubernetes makes of a secret in a pod with an fsGroup; `users` is everybody's.
    const OWN: u32 = 4_000_000;
    const USERS_GROUP: u32 = 100;
    let file = Scratch::new(USERS);
    for (mode, group, expected) in
        [(0o440, OWN, 0), (0o640, OWN, 0), (0o444, OWN, 2), (0o440, USERS_GROUP, 2)]
    {
        let Some(mut command) = of_ordinary_user(None) else { return };
        std::os::unix::fs::chown(file.path(), Some(0), Some(group)).unwrap();
        file.set_mode(mode);
        let output = command.gid(group).args(["--check", "--users", file.path()]).output().unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(expected), "{mode:o} {group}: {told}");
        assert_eq!(
            told.contains("$CREDENTIALS_DIRECTORY and in /run/secrets"),
            expected == 2,
            "{told}"
        );
    }
    // Whoever runs tabi has to be in that group.
    file.set_mode(0o440);
    std::os::unix::fs::chown(file.path(), None, Some(OWN)).unwrap();
    assert_eq!(check(&["--users", file.path()]).0, 2);
}

#[test]
fn a_file_that_belongs_to_another_user_is_refused_at_start() {
    let file = Scratch::new(USERS);
    // Only root can give a file away.
    if std::os::unix::fs::chown(file.path(), Some(65534), None).is_err() {
        return;
    }
    let (status, told) = check(&["--users", file.path()]);
    assert_eq!(status, 2);
    assert!(told.contains("belongs to user 65534"), "{told}");
}

#[test]
fn a_bad_line_is_named_at_start() {
    let file = Scratch::new(b"alice:open sesame\nsecret\nbob:\n");
    let (status, told) = check(&["--users", file.path()]);
    assert_eq!(status, 2);
    for line in [2, 3] {
        let line = format!("{}:{line}: ", file.path());
        assert!(told.lines().any(|told| told.starts_with(&line)), "{told}");
    }
    assert!(told.contains("expected `name:password`") && !told.contains("secret"), "{told}");
}

#[test]
fn the_first_user_of_a_file_with_a_byte_order_mark_keeps_his_name() {
    let file = Scratch::new(b"\xef\xbb\xbfalice:open sesame\r\nbob:a:b\r\n");
    let server = start(&["--users", file.path()]);
    let mut client = connect(server.address);
    client.write_all(&[GREETING, &credentials(b"alice", b"open sesame")].concat()).unwrap();
    assert_eq!(take(&mut client), *b"\x05\x02\x01\x00");
}
