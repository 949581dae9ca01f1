//! Limits on connections and rates, as clients and targets see them. A rate is told by how long something
//! takes at the least: a busy machine makes it longer, and nothing makes it shorter.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpStream, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::scratch::{Program, Scratch};
use crate::stage::{
    LONG, Running, accept, ask, at_end, connect, connect_from, expect, expect_reset, listen, pair,
    pattern, reply, request, reset, send, start, take, told, tunnel_from,
};

const DENIED: u8 = 0x02;
const KB: usize = 1000;

/// A server with these rules.
fn limited(rules: &str) -> (Running, Scratch) {
    let file = Scratch::new(rules.as_bytes());
    (start(&["--rules", file.path(), "--status", "127.0.0.1:0"]), file)
}

/// Carries so many bytes from one end to the other, and says how long that takes.
fn carry(from: &TcpStream, to: &TcpStream, bytes: usize) -> Duration {
    let begin = Instant::now();
    thread::scope(|scope| {
        scope.spawn(|| send(&mut { from }, pattern(1, bytes)).unwrap());
        expect(&mut { to }, pattern(1, bytes));
    });
    begin.elapsed()
}

/// How long so many bytes take at the least: what may go at once is a quarter of a second's worth.
fn at_least(bytes: usize, rate: usize) -> Duration {
    Duration::from_millis((1000 * bytes / rate) as u64).saturating_sub(Duration::from_millis(250))
}

#[test]
fn a_rate_is_held_each_way_and_a_small_message_waits_for_nothing() {
    let (server, _file) = limited("limit rate 400kB\n");
    let (client, target) = pair(&server);
    thread::scope(|scope| {
        for (from, to) in [(&client, &target), (&target, &client)] {
            scope.spawn(move || {
                let time = carry(from, to, 400 * KB);
                assert!(time >= at_least(400 * KB, 400 * KB), "{time:?}");
            });
        }
    });
    // Twenty times what a tenth of a second is good for would take two seconds where every message waited.
    thread::sleep(Duration::from_millis(150));
    let small = (0..20).map(|_| carry(&client, &target, 100)).min().unwrap();
    assert!(small < Duration::from_millis(10), "{small:?}");
}

#[test]
fn the_tightest_of_all_limits_that_match_decides() {
    let (server, _file) = limited(
        "limit rate 1GB\nlimit to 127.0.0.0/8 rate 2Mbit\nlimit from 127.0.0.2 rate 1kB\n\
         limit command bind rate 1kB\nlimit each user rate 1kB\n",
    );
    let (client, target) = pair(&server);
    let time = carry(&target, &client, 200 * KB);
    assert!(time >= at_least(200 * KB, 250 * KB), "{time:?}");
    assert!(time < LONG);
}

#[test]
fn those_who_share_a_rate_have_fair_parts_of_it() {
    let (server, _file) = limited("limit from 127.0.0.0/8 rate 500kB\n");
    let pairs = [pair(&server), pair(&server), pair(&server)];
    let begin = Instant::now();
    let taken = thread::scope(|scope| {
        let readers = pairs.map(|(client, mut target)| {
            scope.spawn(move || {
                let mut client = client;
                let feed = thread::spawn(move || send(&mut target, pattern(1, 10_000 * KB)));
                let mut taken = 0;
                client.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
                while begin.elapsed() < Duration::from_millis(1500) {
                    taken += client.read(&mut [0; 4096]).unwrap_or(0);
                }
                drop(client);
                feed.join().unwrap().expect_err("the client is gone");
                taken
            })
        });
        readers.map(|reader| reader.join().unwrap())
    });
    let all: usize = taken.iter().sum();
    assert!(all <= 500 * KB * 7 / 4, "{taken:?}");
    assert!(taken.iter().all(|one| (all / 5..=all / 2).contains(one)), "{taken:?}");
}

#[test]
fn each_client_has_its_own_rate() {
    let (server, _file) = limited("limit each client rate 8kbit\n");
    let (slow, slow_target) = pair(&server);
    let upload = thread::spawn(move || {
        let _ = send(&mut { &slow }, pattern(1, 10 * KB));
        slow
    });
    take::<1>(&mut { &slow_target });
    let (listener, address) = listen();
    let other = tunnel_from(Ipv4Addr::new(127, 0, 0, 2), server.address, address);
    let target = accept(&listener);
    carry(&other, &target, 100);
    drop((slow_target, server));
    drop(upload.join().unwrap());
}

/// By HTTP a request's body and its response go at the same rate.
#[test]
fn what_goes_by_http_is_limited_as_well() {
    let (server, _file) = limited("limit rate 200kB\n");
    let (listener, target) = listen();
    let client = connect(server.address);
    let bytes = 200 * KB;
    let begin = Instant::now();
    thread::scope(|scope| {
        scope.spawn(|| {
            let head = format!(
                "POST http://{target}/ HTTP/1.1\r\nHost: x\r\nContent-Length: {bytes}\r\n\r\n"
            );
            { &client }.write_all(head.as_bytes()).unwrap();
            send(&mut { &client }, pattern(1, bytes)).unwrap();
        });
        let mut target = accept(&listener);
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.extend(take::<1>(&mut target));
        }
        expect(&mut target, pattern(1, bytes));
        let time = begin.elapsed();
        assert!(time >= at_least(bytes, 200 * KB), "{time:?}");
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {bytes}\r\n\r\n");
        target.write_all(head.as_bytes()).unwrap();
        scope.spawn(move || send(&mut target, pattern(1, bytes)).unwrap());
        let begin = Instant::now();
        { &client }.read_to_end(&mut Vec::new()).unwrap();
        let time = begin.elapsed();
        assert!(time >= at_least(bytes, 200 * KB), "{time:?}");
    });
}

#[test]
fn one_connection_too_many_is_denied_and_has_its_place_when_another_ends() {
    let rules = Scratch::new(b"deny port 9\nlimit each client connections 2\n");
    let mut program = Program::start(&["--rules", rules.path()]);
    let (_listener, target) = listen();
    let ask = |ip: [u8; 4]| {
        let mut client = connect_from(ip.into(), program.address);
        client.write_all(&[b"\x05\x01\x00", &request(target)[..]].concat()).unwrap();
        assert_eq!(take(&mut client), *b"\x05\x00");
        (reply(&mut client).0, client)
    };
    let here = [127, 0, 0, 1];
    let [(first, one), (second, _two), (third, _)] = [(); 3].map(|()| ask(here));
    assert_eq!([first, second, third], [0x00, 0x00, DENIED]);
    assert_eq!(ask([127, 0, 0, 2]).0, 0x00, "another client");
    let mut http = connect(program.address);
    write!(http, "CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n").unwrap();
    let mut answer = String::new();
    http.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 429 "), "{answer}");
    reset(one);
    let begin = Instant::now();
    while ask(here).0 != 0x00 {
        assert!(begin.elapsed() < LONG);
    }
    let line = program.log_line("outcome=denied");
    let why = format!("why=\"{}:2: all connections of this limit are in use\"", rules.path());
    assert!(line.contains(&why), "{line}");
}

#[test]
fn bind_and_udp_count_as_connections() {
    let (server, _file) = limited("limit connections 1\n");
    let any = request(([0; 4], 0).into());
    let of_command = |command: u8| [&[0x05, command], &any[2..]].concat();
    // The place of one that is over is free a moment later.
    let ask_until_free = |request: &[u8]| {
        let begin = Instant::now();
        loop {
            let (rep, held) = ask(&server, request);
            if rep == 0x00 {
                return held;
            }
            assert!(begin.elapsed() < LONG);
        }
    };
    for command in [0x02, 0x03] {
        let held = ask_until_free(&of_command(command));
        for command in [0x02, 0x03] {
            assert_eq!(told(server.address, &of_command(command))[1], DENIED);
        }
        drop(held);
        let (_listener, target) = listen();
        ask_until_free(&request(target));
    }
}

#[test]
fn a_live_tunnel_follows_the_limits_of_now_and_a_bad_line_changes_nothing() {
    let rules = Scratch::new(b"allow\n");
    let mut program = Program::heeding(&["--rules", rules.path()]);
    let (listener, address) = listen();
    let client = tunnel_from(Ipv4Addr::LOCALHOST, program.address, address);
    let target = accept(&listener);
    carry(&target, &client, 1000 * KB);
    let mut reload = |content: &str, told: &str| {
        fs::write(rules.path(), content).unwrap();
        program.signal(Signal::HUP);
        program.log_line(told);
    };
    reload("limit rate 200kB\n", "reloaded: 1 rule (--rules)");
    let time = carry(&target, &client, 150 * KB);
    assert!(time >= at_least(150 * KB, 200 * KB), "it is limited now: {time:?}");
    reload("limit rate 1MB\nlimit rate 0MB\n", ":2: '0MB': expected a rate");
    let time = carry(&client, &target, 150 * KB);
    assert!(time >= at_least(150 * KB, 200 * KB), "nothing has changed: {time:?}");
    // What waits for days at this rate goes on at once.
    reload("limit rate 1kbit\n", "reloaded: 1 rule (--rules)");
    thread::scope(|scope| {
        scope.spawn(|| send(&mut { &target }, pattern(1, 100 * KB)).unwrap());
        take::<1>(&mut { &client });
        reload("allow\n", "reloaded: 1 rule (--rules)");
        { &client }.read_exact(&mut vec![0; 100 * KB - 1]).unwrap();
    });
}

#[test]
fn a_tunnel_that_waits_for_its_turn_ends_when_a_side_resets_or_the_server_stops() {
    for client_breaks in [true, false] {
        let (server, _file) = limited("limit rate 1kbit\n");
        let (mut client, mut target) = pair(&server);
        client.set_nonblocking(true).unwrap();
        while client.write(&[0; 4096]).is_ok() {}
        take::<1>(&mut target);
        if client_breaks {
            reset(client);
        } else {
            drop(server);
        }
        expect_reset(&mut target);
    }
}

/// A client that has sent much and resets does not have the rest of it passed on at once.
#[test]
fn what_has_not_had_its_turn_is_not_passed_on_when_the_tunnel_ends() {
    let (server, _file) = limited("limit rate 1kbit\n");
    let begin = Instant::now();
    let (mut client, mut target) = pair(&server);
    client.set_nonblocking(true).unwrap();
    while client.write(&[0; 4096]).is_ok() {}
    take::<1>(&mut target);
    reset(client);
    let mut taken = Vec::new();
    assert_eq!(target.read_to_end(&mut taken).unwrap_err().kind(), ErrorKind::ConnectionReset);
    let most = 125 * (1 + begin.elapsed().as_secs());
    assert!(taken.len() as u64 <= most, "{}", taken.len());
}

#[test]
fn a_slow_tunnel_is_not_idle_and_its_end_of_file_arrives() {
    let file = Scratch::new(b"limit rate 8kbit\n");
    let server = start(&["--rules", file.path(), "--idle-timeout", "1"]);
    let (client, mut target) = pair(&server);
    send(&mut { &client }, pattern(1, 2 * KB)).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    expect(&mut target, pattern(1, 2 * KB));
    assert!(at_end(&mut target));
}

#[test]
fn a_datagram_above_the_rate_is_dropped_and_counted() {
    let (server, _file) = limited("limit command udp rate 8kbit\n");
    let any = request(([0; 4], 0).into());
    let mut control = connect(server.address);
    control.write_all(&[b"\x05\x01\x00\x05\x03\x00", &any[3..]].concat()).unwrap();
    assert_eq!(take(&mut control), *b"\x05\x00");
    let (rep, bound) = reply(&mut control);
    assert_eq!(rep, 0x00);
    let target = UdpSocket::bind("127.0.0.1:0").unwrap();
    target.set_read_timeout(Some(LONG)).unwrap();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(bound).unwrap();
    let port = target.local_addr().unwrap().port().to_be_bytes();
    let datagram = |payload: &[u8]| [b"\0\0\0\x01\x7f\0\0\x01", &port[..], payload].concat();
    // More than may ever go at once, after a pause: it goes, and nothing behind it for half a second.
    socket.send(&datagram(&[b'x'; 600])).unwrap();
    assert_eq!(target.recv(&mut [0; 1000]).unwrap(), 600);
    for _ in 0..5 {
        socket.send(&datagram(b"too much")).unwrap();
    }
    await_dropped(&server, 5);
    let begin = Instant::now();
    let mut last = [0; 1000];
    target.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    while target.recv(&mut last).is_err() {
        assert!(begin.elapsed() < LONG, "the debt is never paid");
        socket.send(&datagram(b"later")).unwrap();
    }
    assert_eq!(last[..5], *b"later");
}

/// Waits until so many datagrams were dropped because of a rate. What is shown may be half a second old.
fn await_dropped(server: &Running, count: usize) {
    let status = server.status.unwrap();
    let begin = Instant::now();
    loop {
        let mut visitor = connect(status);
        write!(visitor, "GET /metrics HTTP/1.1\r\nHost: {status}\r\n\r\n").unwrap();
        let mut text = String::new();
        visitor.read_to_string(&mut text).unwrap();
        let series = format!("\ntabi_datagrams_dropped_total{{reason=\"over-rate\"}} {count}\n");
        if text.contains(&series) {
            return;
        }
        assert!(begin.elapsed() < LONG, "{text}");
        thread::sleep(Duration::from_millis(20));
    }
}
