//! The status page, its JSON, the metrics and the state of health.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::scratch::Scratch;
use crate::stage::{
    GREETING, LONG, Running, accept, ask, at_end, connect, connect_from, listen, pair, reply,
    request, request_by_name, start, take,
};

const STATUS: [&str; 2] = ["--status", "127.0.0.1:0"];

fn status(server: &Running) -> SocketAddr {
    server.status.expect("there is a status page")
}

/// Sends `head`, and gives back the whole answer.
fn send(server: &Running, head: &str) -> String {
    let mut visitor = connect(status(server));
    visitor.write_all(head.as_bytes()).unwrap();
    let mut answer = String::new();
    visitor.read_to_string(&mut answer).unwrap();
    answer
}

/// The head and the body of what is at `path`.
fn get(server: &Running, path: &str) -> (String, String) {
    let host = status(server);
    let answer = send(server, &format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n"));
    let (head, body) = answer.split_once("\r\n\r\n").expect("an answer has a head");
    (head.into(), body.into())
}

/// Waits until what is at `path` has `part` in it: what ends takes a moment to be counted, and what
/// is shown may be half a second old.
fn await_part(server: &Running, path: &str, part: &str) -> String {
    let begin = Instant::now();
    loop {
        let (_, body) = get(server, path);
        if body.contains(part) {
            return body;
        }
        assert!(begin.elapsed() < LONG, "no {part} in\n{body}");
        thread::yield_now();
    }
}

#[test]
fn the_page_is_one_answer_that_nobody_keeps() {
    let server = start(&STATUS);
    let (head, body) = get(&server, "/");
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    for header in ["Content-Security-Policy: default-src 'none'", "Cache-Control: no-store"] {
        assert!(head.contains(header), "{head}");
    }
    assert!(body.starts_with("<!doctype html>") && body.contains("</html>"));
    assert!(head.len() + body.len() < 50 * 1024);
}

#[test]
fn a_live_session_is_shown_with_what_it_has_moved() {
    let server = start(&[&STATUS[..], &["--max-connections", "100"]].concat());
    let (mut client, mut target) = pair(&server);
    client.write_all(b"up").unwrap();
    take::<2>(&mut target);
    target.write_all(b"down").unwrap();
    take::<4>(&mut client);
    let own = client.local_addr().unwrap();
    let far = target.local_addr().unwrap();
    let session = format!(
        "\"client\":\"{own}\",\"user\":null,\"command\":\"CONNECT\",\"destination\":\"{far}\",\
         \"destinations\":1,\"reached\":\"{far}\",\"via\":null,\"up\":2,\"down\":4,"
    );
    let body = await_part(&server, "/sessions", &session);
    assert!(body.contains("\"slots\":{\"used\":1,\"max\":100}"), "{body}");
    drop((client, target));
    let body = await_part(&server, "/sessions", "\"slots\":{\"used\":0,");
    assert!(body.contains("\"sessions\":[]"), "{body}");
    assert!(body.contains("\"bytes\":{\"up\":2,\"down\":4}"), "{body}");
}

#[test]
fn clients_and_users_are_shown_with_what_they_have_moved_in_all_sessions() {
    let users = Scratch::new(b"alice:open sesame\n");
    let server = start(&[&STATUS[..], &["--users", users.path()]].concat());
    let open = |password: &[u8]| {
        let mut client = connect(server.address);
        client.write_all(&[b"\x05\x01\x02\x01\x05alice\x0b", password].concat()).unwrap();
        client
    };
    for live in 0..2 {
        let (listener, target) = listen();
        let mut client = open(b"open sesame");
        client.write_all(&[&request(target)[..], b"up"].concat()).unwrap();
        let mut target = accept(&listener);
        take::<2>(&mut target);
        target.write_all(b"down").unwrap();
        take::<{ 2 + 2 + 10 + 4 }>(&mut client);
        let moved = |live: usize, sessions: usize| {
            format!(
                "\"sessions\":{live},\"bytes\":{{\"up\":{},\"down\":{}}}",
                2 * sessions,
                4 * sessions
            )
        };
        // What ends leaves its bytes behind.
        let body = await_part(&server, "/sessions", &moved(1, live + 1));
        for name in ["alice", "127.0.0.1"] {
            let part = format!("{{\"name\":\"{name}\",{}", moved(1, live + 1));
            assert!(body.contains(&part), "{part} is not in\n{body}");
        }
        drop((client, target));
        await_part(&server, "/sessions", &moved(0, live + 1));
    }
    // A name without its password is nobody's.
    let mut attacker = open(b"close sesame");
    attacker.read_to_end(&mut Vec::new()).unwrap();
    let body = await_part(&server, "/sessions", "\"bad-credentials\":1");
    assert_eq!(body.matches("\"name\":").count(), 2, "{body}");
}

#[test]
fn what_a_client_calls_itself_is_no_markup() {
    let users = Scratch::new(b"<script>alert(1)</script>:open sesame\n");
    let server = start(&[&STATUS[..], &["--users", users.path()]].concat());
    let (_listener, target) = listen();
    let mut attacker = connect(server.address);
    attacker.write_all(b"\x05\x01\x02\x01\x19<script>alert(1)</script>\x0bopen sesame").unwrap();
    assert_eq!(take(&mut attacker), *b"\x05\x02\x01\x00");
    attacker.write_all(&request(target)).unwrap();
    take::<10>(&mut attacker);
    let body = await_part(&server, "/sessions", "\\u003cscript\\u003ealert(1)");
    assert!(!body.contains('<'), "{body}");
}

#[test]
fn what_happens_is_counted() {
    let server = start(&[&STATUS[..], &["--max-per-client", "2"]].concat());
    let (client, target) = pair(&server);
    drop((client, target));
    // Two sessions at once are all that the client may have.
    await_part(&server, "/metrics", "tabi_connections 0\n");
    ask(&server, &request_by_name(b"name.invalid", 80));
    ask(&server, &request_by_name(b"localhost", status(&server).port()));
    for part in [
        "tabi_sessions_total{protocol=\"socks5\",command=\"CONNECT\",outcome=\"closed\"} 2\n",
        "tabi_sessions_total{protocol=\"socks5\",command=\"CONNECT\",outcome=\"unresolved\"} 1\n",
        "tabi_lookups_total{result=\"found\"} 1\n",
        "tabi_lookups_total{result=\"failed\"} 1\n",
        "tabi_connect_seconds_count 2\n",
        "tabi_accepted_total 3\n",
    ] {
        await_part(&server, "/metrics", part);
    }
    let _held: Vec<_> = (0..3)
        .map(|_| {
            let mut client = connect(server.address);
            client.write_all(GREETING).unwrap();
            client
        })
        .collect();
    await_part(&server, "/metrics", "tabi_refused_total{reason=\"per-client\"} 1\n");
    let metrics = await_part(&server, "/metrics", "tabi_connections 2\n");
    for line in metrics.lines() {
        let name = line.trim_start_matches("# HELP ").trim_start_matches("# TYPE ");
        assert!(["tabi_", "process_"].iter().any(|start| name.starts_with(start)), "{line}");
    }
}

#[test]
fn dropped_datagrams_are_counted_by_reason() {
    let server = start(&STATUS);
    let (_held, (rep, bound)) = {
        let mut control = connect(server.address);
        let mut request = request("0.0.0.0:0".parse().unwrap());
        request[1] = 0x03;
        control.write_all(&[GREETING, &request].concat()).unwrap();
        assert_eq!(take(&mut control), *b"\x05\x00");
        let reply = reply(&mut control);
        (control, reply)
    };
    assert_eq!(rep, 0x00);
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    for datagram in [&b"\0\0\0\x09"[..], b"\0\0\x01\x01\x7f\0\0\x01\0\x09fragment", b""] {
        client.send_to(datagram, bound).unwrap();
    }
    for (reason, count) in [("malformed", 2), ("fragment", 1), ("denied", 0)] {
        let part = format!("tabi_datagrams_dropped_total{{reason=\"{reason}\"}} {count}\n");
        await_part(&server, "/metrics", &part);
    }
}

#[test]
fn clients_that_wait_for_a_place_are_counted() {
    let server = start(&[&STATUS[..], &["--max-connections", "1"]].concat());
    let tunnel = pair(&server);
    await_part(&server, "/metrics", "tabi_clients_waiting 0\n");
    // More than are accepted while they wait.
    let waiting: Vec<_> = (0..9).map(|_| connect(server.address)).collect();
    let expected = if cfg!(target_os = "linux") { waiting.len() } else { 4 };
    await_part(&server, "/metrics", &format!("tabi_clients_waiting {expected}\n"));
    drop((tunnel, waiting));
    await_part(&server, "/metrics", "tabi_clients_waiting 0\n");
}

#[test]
#[cfg(target_os = "linux")]
fn what_prometheus_knows_of_every_process_is_told_of_this_one() {
    let server = start(&STATUS);
    let (_, metrics) = get(&server, "/metrics");
    let value = |name: &str| -> f64 {
        let line = metrics.lines().find_map(|line| line.strip_prefix(&format!("{name} ")));
        line.unwrap_or_else(|| panic!("no {name} in\n{metrics}")).parse().unwrap()
    };
    for name in ["process_cpu_seconds_total", "process_open_fds", "process_threads"] {
        assert!(value(name) > 0.0, "{name}");
    }
    assert!(value("process_resident_memory_bytes") > 1e6);
    assert!(value("process_open_fds") < value("process_max_fds"));
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
    assert!((0.0..LONG.as_secs_f64()).contains(&(now - value("process_start_time_seconds"))));
}

#[test]
fn health_is_told_until_the_last_session_is_over() {
    let mut server = start(&[&STATUS[..], &["--grace", "60"]].concat());
    let health = |server: &Running| send(server, "GET /healthz HTTP/1.0\r\n\r\n");
    assert!(health(&server).starts_with("HTTP/1.1 200 OK\r\n"));
    let pair = pair(&server);
    server.stopper.stop();
    let begin = Instant::now();
    while !health(&server).starts_with("HTTP/1.1 503 Service Unavailable\r\n") {
        assert!(begin.elapsed() < LONG, "a server that drains says that it is well");
    }
    assert!(get(&server, "/sessions").1.contains("\"draining\":true"));
    drop(pair);
    server.join();
    assert!(TcpStream::connect_timeout(&status(&server), LONG).is_err());
}

#[test]
fn only_get_and_head_of_what_there_is_are_answered() {
    let server = start(&STATUS);
    for (request, status) in [
        ("HEAD / HTTP/1.1\r\nHost: localhost\r\n\r\n", "200 OK"),
        ("HEAD /sessions HTTP/1.1\r\nHost: [::1]:9090\r\n\r\n", "200 OK"),
        ("HEAD /metrics HTTP/1.1\r\nHost: 192.168.1.1\r\n\r\n", "200 OK"),
        ("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\nx", "405 Method"),
        ("GET /favicon.ico HTTP/1.1\r\nHost: localhost\r\n\r\n", "404 Not Found"),
        ("GET / HTTP/1.1\r\nHost: attacker.example\r\n\r\n", "403 Forbidden"),
        ("GET / HTTP/1.1\r\n\r\n", "400 Bad Request"),
        ("\x05\x01\x00", "400 Bad Request"),
    ] {
        let answer = send(&server, request);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{answer}");
        if request.starts_with("HEAD") {
            assert!(answer.ends_with("\r\n\r\n") && !answer.contains("Content-Length: 0"));
        }
    }
    let long = format!("GET / HTTP/1.1\r\nHost: localhost\r\nCookie: {}\r\n\r\n", "a".repeat(9000));
    assert!(send(&server, &long).starts_with("HTTP/1.1 431 "));
}

#[test]
fn a_visitor_that_drips_is_cut() {
    let server = start(&STATUS);
    let begin = Instant::now();
    let mut attacker = connect(status(&server));
    attacker.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    attacker.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nCookie: ").unwrap();
    while attacker.write_all(b"a").is_ok() && attacker.read(&mut [0]).is_err() {
        assert!(begin.elapsed() < LONG, "it was let drip on");
    }
    assert!(begin.elapsed() >= Duration::from_millis(4500), "{:?}", begin.elapsed());
}

#[test]
fn a_crowd_of_silent_visitors_keeps_nobody_out() {
    let server = start(&STATUS);
    let mut crowd: Vec<_> = (0..40).map(|_| connect(status(&server))).collect();
    let begin = Instant::now();
    assert!(get(&server, "/healthz").0.starts_with("HTTP/1.1 200 OK"));
    assert!(begin.elapsed() < LONG, "{:?}", begin.elapsed());
    assert!(at_end(&mut crowd[0]), "it made room");
    let _tunnel = pair(&server);
}

/// How long the state of health took in the middle of a hundred times while somebody makes connections
/// with these pauses that say nothing, and keeps many of them. A check that `makes_room` for these when
/// they are many is repeated if it was not served for as long as it takes them to be that.
fn median_under_flood(
    makes_room: bool,
    pause: Duration,
    attack: impl Fn() -> TcpStream + Sync,
    visit: impl Fn() -> TcpStream,
) -> Duration {
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut held = VecDeque::new();
                while !over.load(Ordering::Relaxed) {
                    held.push_back(attack());
                    if held.len() > 100 {
                        held.pop_front();
                    }
                    thread::sleep(pause);
                }
            });
        }
        let mut times = [0; 100].map(|_| {
            let begin = Instant::now();
            loop {
                let attempt = Instant::now();
                let mut visitor = visit();
                let _ = visitor.write_all(b"GET /healthz HTTP/1.0\r\n\r\n");
                let mut answer = String::new();
                let read = visitor.read_to_string(&mut answer);
                if read.is_ok() && answer.starts_with("HTTP/1.1 200 OK\r\n") {
                    break begin.elapsed();
                }
                let was_there_long = attempt.elapsed() > 2 * pause;
                if !makes_room || !was_there_long || begin.elapsed() > LONG {
                    break Duration::MAX;
                }
            }
        });
        over.store(true, Ordering::Relaxed);
        times.sort_unstable();
        assert_ne!(times[99], Duration::MAX, "a check has failed");
        times[50]
    })
}

#[test]
fn health_is_told_at_once_while_one_address_floods_the_page() {
    let server = start(&STATUS);
    let page = status(&server);
    let from = |last| move || connect_from([127, 0, 0, last].into(), page);
    // Others from that address are served, too.
    for visitor in [2, 9] {
        let pause = Duration::from_millis(5);
        let median = median_under_flood(visitor == 9, pause, from(9), from(visitor));
        assert!(median < Duration::from_millis(100), "{visitor} {median:?}");
    }
}

#[test]
fn a_target_in_absolute_form_and_a_further_name_are_taken() {
    let server = start(&[&STATUS[..], &["--status-host", "tabi:9090,nas.lan"]].concat());
    for (target, host, status) in [
        ("/metrics", "tabi:9090", "200 OK"),
        ("/", "nas.lan", "200 OK"),
        ("http://nas.lan:9090/sessions", "nas.lan:9090", "200 OK"),
        ("/healthz", "attacker.example", "200 OK"),
        ("/sessions", "attacker.example", "403 Forbidden"),
        ("http://attacker.example/sessions", "nas.lan", "403 Forbidden"),
    ] {
        let answer = send(&server, &format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{target} {host}: {answer}");
    }
}

/// The program, listening everywhere on a machine with the address 192.168.1.1, and its clients at other
/// addresses.
mod from_elsewhere {
    use super::*;
    use crate::namespace::{alone, ip};
    use crate::scratch::{Program, bare};
    use crate::stage::reply;
    use socket2::{Domain, Socket, Type};
    use std::net::IpAddr;
    use std::process::Stdio;

    const HOST: &str = "192.168.1.1";
    const HOST6: &str = "fd00::1";

    /// Clients, the page's visitors among them, and a server with each list of `--allow-from`.
    fn with_server(
        addresses: &str,
        allow_from: &[&str],
        test: impl Fn(&mut Program, &str) + Send + Sync,
    ) {
        alone(|| {
            let all = [HOST, HOST6, addresses].join(" ");
            let all = all.split(' ').map(|ip| {
                let length = if ip.contains(':') { 128 } else { 32 };
                format!("addr add {ip}/{length} dev lo\n")
            });
            if !ip(&all.collect::<String>()) {
                return;
            }
            for allow_from in allow_from {
                let mut command = bare();
                command.args(["[::]:1080", "--status", "[::]:9090"]).stdout(Stdio::null());
                if !allow_from.is_empty() {
                    command.args(["--allow-from", allow_from]);
                }
                let mut program = Program::spawn(command);
                // The page is there a moment after the port.
                program.log_line("status page at ");
                test(&mut program, allow_from);
            }
        });
    }

    fn connect_from(from: &str, port: u16) -> TcpStream {
        let from: IpAddr = from.parse().unwrap();
        let host = match from {
            from if from.is_loopback() => from,
            IpAddr::V4(_) => HOST.parse().unwrap(),
            IpAddr::V6(_) => HOST6.parse().unwrap(),
        };
        let to = SocketAddr::new(host, port);
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::new(from, 0).into()).unwrap();
        socket.connect_timeout(&to.into(), LONG).unwrap();
        socket.set_read_timeout(Some(LONG)).unwrap();
        socket.into()
    }

    /// What the server says to `words`, and the address of who has said them.
    fn told(from: &str, port: u16, words: &[u8]) -> (Vec<u8>, SocketAddr) {
        let mut client = connect_from(from, port);
        let own = client.local_addr().unwrap();
        let _ = client.write_all(words);
        let mut answer = Vec::new();
        let _ = (&mut client).take(2).read_to_end(&mut answer);
        (answer, own)
    }

    #[test]
    fn a_neighbour_sees_the_page_and_a_stranger_sees_nothing() {
        const DEFAULT: [&str; 3] = ["127.0.0.1", "::1", "192.168.1.20"];
        // Few enough that each who is turned away has a line.
        let addresses = "192.168.1.20 203.0.113.7 100.64.0.9 2001:db8::9";
        let lists = ["", "192.168.1.20", "default,100.64.0.0/10", "192.168.1.0/24,2001:db8::/32"];
        with_server(addresses, &lists, |program, allow_from| {
            for from in ["127.0.0.1 ::1", addresses].join(" ").split(' ') {
                let is_served = match allow_from {
                    "192.168.1.20" => from == "192.168.1.20",
                    "192.168.1.0/24,2001:db8::/32" => {
                        ["192.168.1.20", "2001:db8::9"].contains(&from)
                    }
                    _ if from == "100.64.0.9" => !allow_from.is_empty(),
                    _ => DEFAULT.contains(&from),
                };
                let what = format!("{from} with --allow-from {allow_from:?}");
                // This machine has its greeting answered, and sees the page.
                let sees = is_served || ["127.0.0.1", "::1"].contains(&from);
                let (selection, client) = told(from, 1080, GREETING);
                assert_eq!(selection == b"\x05\x00", sees, "{what}");
                let line =
                    |who: SocketAddr| format!("turned away client={who}: it is in no network");
                if !sees {
                    program.log_line(&line(client));
                }
                let (page, visitor) =
                    told(from, 9090, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
                assert_eq!((page == b"HT", page.is_empty()), (sees, !sees), "{what}");
                if !sees {
                    program.log_line(&line(visitor));
                }
            }
        });
    }

    #[test]
    fn a_stranger_or_a_neighbour_who_floods_the_page_holds_up_nobody() {
        with_server("192.168.1.20 192.168.1.21 203.0.113.7", &[""], |_, _| {
            // A stranger, paced and as fast as can be, and one who is served.
            let paced = Duration::from_millis(5);
            for (pause, attacker) in [
                (paced, "203.0.113.7"),
                (Duration::ZERO, "203.0.113.7"),
                (Duration::ZERO, "192.168.1.21"),
            ] {
                let median = median_under_flood(
                    false,
                    pause,
                    || connect_from(attacker, 9090),
                    || connect_from("192.168.1.20", 9090),
                );
                assert!(median < Duration::from_millis(100), "{attacker} {pause:?} {median:?}");
            }
        });
    }

    #[test]
    fn one_address_gets_so_many_answers_a_second_and_no_more() {
        const HEALTH: &[u8] = b"GET /healthz HTTP/1.0\r\n\r\n";
        with_server("192.168.1.20 192.168.1.21", &[""], |_, _| {
            let silent = (0..100_000).map(|_| drop(connect_from("192.168.1.21", 9090)));
            let is_closed = |(): &()| told("192.168.1.21", 9090, HEALTH).0.is_empty();
            assert!(silent.step_by(100).any(|round| is_closed(&round)), "nothing limits it");
            assert_eq!(told("192.168.1.20", 9090, HEALTH).0, b"HT", "others are served");
        });
    }

    #[test]
    fn a_link_local_neighbour_on_the_providers_link_does_not_see_the_page() {
        alone(|| {
            if ip("addr add 203.0.113.1/32 dev lo\naddr add 169.254.9.9/32 dev lo") {
                let mut command = bare();
                command.args(["203.0.113.1:1080", "--status", "203.0.113.1:9090"]);
                let mut program = Program::spawn(command);
                for port in [1080, 9090] {
                    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
                    let address = |ip, port| SocketAddr::from((ip, port)).into();
                    socket.bind(&address([169, 254, 9, 9], 0)).unwrap();
                    socket.connect(&address([203, 0, 113, 1], port)).unwrap();
                    assert!(!matches!(TcpStream::from(socket).read(&mut [0]), Ok(1)));
                    program.log_line("it is link-local, and its interface has no private address");
                }
            }
        });
    }

    #[test]
    fn nobody_reaches_the_page_through_the_server() {
        with_server("192.168.1.20", &[""], |_, _| {
            let mut client = connect_from("192.168.1.20", 1080);
            let page = SocketAddr::new(HOST.parse().unwrap(), 9090);
            client.write_all(&[GREETING, &request(page)].concat()).unwrap();
            assert_eq!(take(&mut client), *b"\x05\x00");
            assert_eq!(reply(&mut client).0, 0x02);
        });
    }
}
