//! What is seen of sessions by HTTP: refusals with their line in the log, the metrics, a reload, a stop.

use std::fs;
use std::io::Write;
use std::net::{Shutdown, SocketAddr};
use std::thread;
use std::time::Instant;

use rustix::process::Signal;

use super::{
    ANSWER, ANSWERED, assert_refused, connect_request, exchange, get, logged, request, rest,
    saying, told, told_and_logged, tunnel,
};
use crate::scratch::{Program, Scratch};
use crate::stage::{
    LONG, accept, at_end, black_hole, expect, expect_reset, listen, nobody_listens, pattern,
    read_head, send, start, take,
};

const MIB: usize = 1024 * 1024;

#[test]
fn each_failure_has_its_status_a_text_and_one_line_in_the_log() {
    let mut program = Program::start(&["--connect-timeout", "0.3"]);
    let (_waiting, _black_hole, silent) = black_hole();
    let (_nobody, refusing) = nobody_listens();
    let none = SocketAddr::from(([127, 0, 0, 1], 9));
    let long = "x".repeat(20_000);
    for (to, fields, status, dest, outcome) in [
        (&*refusing.to_string(), "", 502, &*refusing.to_string(), "refused"),
        (
            &silent.to_string(),
            "",
            504,
            &silent.to_string(),
            "timed-out why=\"the target has not answered\"",
        ),
        ("name.invalid:80", "", 502, "name.invalid:80", "unresolved"),
        ("alice@localhost:80", "", 400, "-", "bad-request why=\""),
        (
            &none.to_string(),
            &format!("X: {long}\r\n"),
            431,
            "-",
            "bad-request why=\"the message is too long\"",
        ),
    ] {
        for (begin, command) in
            [(format!("GET http://{to}/"), "HTTP"), (format!("CONNECT {to}"), "CONNECT")]
        {
            let said = format!("{begin} HTTP/1.1\r\nHost: x\r\n{fields}\r\n");
            let (answer, line) = told_and_logged(&mut program, said);
            assert_refused(&answer, status);
            let command = if dest == "-" { "-" } else { command };
            let what = format!(" protocol=http command={command} dest={dest} reached=- ");
            assert!(line.contains(&what), "{what} {line}");
            assert!(line.contains(&format!(" outcome={outcome}")), "{outcome} {line}");
        }
    }
    program.signal(Signal::TERM);
    let rest = program.rest_of_log();
    assert!(!rest.contains("client="), "each has one line and no more: {rest}");
}

#[test]
fn the_line_of_a_request_says_what_was_moved_and_never_the_url() {
    let mut program = Program::start(&["-v"]);
    let (listener, target) = listen();
    let fields = format!("Host: {target}\r\nContent-Length: 7\r\nCookie: biscuit\r\n");
    let said = format!("POST http://{target}/secret?token HTTP/1.1\r\n{fields}\r\n");
    let mut client = saying(program.address, said);
    let mut far = accept(&listener);
    let up = read_head(&mut far).len() + b"payload".len();
    client.write_all(b"payload").unwrap();
    assert_eq!(take(&mut far), *b"payload");
    far.write_all(ANSWER.as_bytes()).unwrap();
    drop(far);
    assert_eq!(rest(&mut client), ANSWERED);
    let line = logged(&mut program, client);
    let moved = format!("reached={target} up={up} down={} ", ANSWERED.len());
    let what = format!(" user=- protocol=http command=HTTP dest={target} {moved}");
    assert!(line.contains(&what) && line.ends_with(" outcome=closed\n"), "{line}");
    let log = program.log_so_far();
    assert!(!["secret", "token", "biscuit"].iter().any(|it| log.contains(it)), "{log}");
}

#[test]
fn the_metrics_tell_protocols_apart() {
    let server = start(&["--status", "127.0.0.1:0"]);
    let (_socket, nobody) = nobody_listens();
    told(server.address, get(nobody));
    told(server.address, connect_request(nobody));
    told(server.address, "GET / HTTP/1.0\r\n\r\n");
    let octets = [b"\x04\x01", &nobody.port().to_be_bytes()[..], b"\x7f\0\0\x01\0"].concat();
    take::<8>(&mut saying(server.address, octets));
    let (mut client, mut target) = exchange(server.address, "GET", "");
    target.write_all(ANSWER.as_bytes()).unwrap();
    drop(target);
    assert_eq!(rest(&mut client), ANSWERED);
    drop(client);
    let metric = |protocol, command, outcome| {
        format!(
            "tabi_sessions_total{{protocol=\"{protocol}\",command=\"{command}\",\
             outcome=\"{outcome}\"}} 1\n"
        )
    };
    let expected = [
        metric("http", "HTTP", "refused"),
        metric("http", "CONNECT", "refused"),
        metric("http", "-", "closed"),
        metric("socks4", "CONNECT", "refused"),
        metric("http", "HTTP", "closed"),
    ];
    let begin = Instant::now();
    loop {
        let page = told(server.status.unwrap(), "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n");
        if expected.iter().all(|line| page.contains(line)) {
            return;
        }
        assert!(begin.elapsed() < LONG, "{page}");
        thread::yield_now();
    }
}

#[test]
fn a_reload_judges_new_requests_and_lets_live_ones_finish() {
    let rules = Scratch::new(b"");
    let mut program = Program::heeding(&["--rules", rules.path()]);
    let (mut client, mut target) = exchange(program.address, "GET", "");
    let (mut by_connect, mut far) = tunnel(program.address);
    fs::write(rules.path(), "deny to 127.0.0.0/8\n").unwrap();
    program.signal(Signal::HUP);
    program.log_line("reloaded: ");
    let elsewhere = listen().1;
    assert_refused(&told(program.address, get(elsewhere)), 403);
    assert_refused(&told(program.address, connect_request(elsewhere)), 403);
    target.write_all(ANSWER.as_bytes()).unwrap();
    drop(target);
    assert_eq!(rest(&mut client), ANSWERED);
    by_connect.write_all(b"payload").unwrap();
    assert_eq!(take(&mut far), *b"payload");
}

#[test]
fn a_user_who_is_gone_after_a_reload_is_cut_off_amid_his_download() {
    const ALICE: &str = "Proxy-Authorization: Basic YWxpY2U6c2VzYW1l\r\n";
    let users = Scratch::new(b"alice:sesame\nbob:b\n");
    let mut program = Program::heeding(&["--users", users.path()]);
    let (listener, to) = listen();
    let mut client = saying(program.address, request("GET", to, ALICE));
    let mut target = accept(&listener);
    read_head(&mut target);
    target.write_all(b"HTTP/1.1 200 OK\r\n\r\nbegun").unwrap();
    read_head(&mut client);
    fs::write(users.path(), "bob:b\n").unwrap();
    program.signal(Signal::HUP);
    expect_reset(&mut client);
    expect_reset(&mut target);
    let line = logged(&mut program, client);
    assert!(line.contains(" user=alice protocol=http command=HTTP "), "{line}");
    assert!(line.contains(" outcome=denied "), "{line}");
}

#[test]
fn a_download_finishes_within_the_grace_of_a_stop() {
    let mut program = Program::heeding(&["--grace", "20"]);
    let (mut client, mut target) = exchange(program.address, "GET", "");
    target.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
    read_head(&mut client);
    program.signal(Signal::TERM);
    program.log_line("stopping; ");
    thread::scope(|scope| {
        scope.spawn(|| {
            send(&mut target, pattern(1, 4 * MIB)).unwrap();
            target.shutdown(Shutdown::Write).unwrap();
        });
        expect(&mut client, pattern(1, 4 * MIB));
        assert!(at_end(&mut client));
    });
    drop((client, target));
    let log = program.rest_of_log();
    assert!(log.contains(" command=HTTP ") && log.contains(" outcome=closed\n"), "{log}");
    assert_eq!(program.wait().code(), Some(0));
}

#[test]
fn a_download_that_does_not_finish_within_the_grace_is_cut_off() {
    let mut program = Program::heeding(&["--grace", "0.3"]);
    let (mut client, mut target) = exchange(program.address, "GET", "");
    target.write_all(b"HTTP/1.1 200 OK\r\n\r\nbegun").unwrap();
    read_head(&mut client);
    let (mut uploading, mut taking) =
        exchange(program.address, "POST", "Transfer-Encoding: chunked\r\n");
    uploading.write_all(b"5\r\nbegun\r\n").unwrap();
    program.signal(Signal::TERM);
    for stream in [&mut client, &mut target, &mut uploading, &mut taking] {
        expect_reset(stream);
    }
    let log = program.rest_of_log();
    assert_eq!(log.matches(" outcome=stopped\n").count(), 2, "{log}");
    assert_eq!(program.wait().code(), Some(0));
}
