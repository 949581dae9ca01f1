//! CONNECT through another SOCKS5 server: what goes up, what comes back, and what is told where the
//! other server is at fault.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::mpsc::channel;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use socket2::{Domain, Socket, Type};
use tabi::cli;
use tabi::server::{Inherited, Notify, Server};

use crate::namespace::{alone, ip, over, with_name_server};
use crate::scratch::{Program, Scratch, bare, check};
use crate::stage::{
    GREETING, LONG, Running, accept, ask, at_end, black_hole, connect, echo, expect, expect_reset,
    listen, nobody_listens, pattern, reply, request, request_by_name, reset, send, start, start_on,
    take, told, tunnel,
};

const FAILED: u8 = 0x01;
const DENIED: u8 = 0x02;
const TOO_LATE: u8 = 0x06;

/// An upstream of one connection that does as `script` says.
fn upstream<T: Send + 'static>(
    script: impl FnOnce(TcpStream) -> T + Send + 'static,
) -> (JoinHandle<T>, SocketAddr) {
    let (listener, address) = listen();
    (thread::spawn(move || script(accept(&listener))), address)
}

/// It gets names as they are.
fn via(address: SocketAddr) -> String {
    format!("socks5h://{address}")
}

#[test]
fn the_name_goes_up_as_it_is_and_the_answer_comes_back_as_it_is() {
    let request = request_by_name(b"Secret.Onion", 80);
    let answer = b"\x05\x00\x00\x03\x0cexit.example\x12\x34";
    let expected = request.clone();
    let (done, address) = upstream(move |mut stream| {
        assert_eq!(take::<3>(&mut stream), *GREETING);
        stream.write_all(b"\x05\x00").unwrap();
        let mut asked = vec![0; expected.len()];
        stream.read_exact(&mut asked).unwrap();
        assert_eq!(asked, expected);
        // What the target says at once belongs to the client, whole.
        stream.write_all(&[&answer[..], b"220 ready"].concat()).unwrap();
        assert_eq!(take(&mut stream), *b"early late");
    });
    let server = start(&["--upstream", &via(address)]);
    let mut client = connect(server.address);
    client.write_all(&[GREETING, &request, b"early "].concat()).unwrap();
    assert_eq!(take(&mut client), *b"\x05\x00");
    assert_eq!(take::<19>(&mut client), *answer);
    assert_eq!(take(&mut client), *b"220 ready");
    client.write_all(b"late").unwrap();
    done.join().unwrap();
}

#[test]
fn no_name_server_hears_of_a_name_that_goes_up() {
    with_name_server(|questions| {
        let (_done, address) = upstream(|mut stream| {
            take::<3>(&mut stream);
            stream.write_all(b"\x05\x00").unwrap();
            take::<17>(&mut stream);
            stream.write_all(b"\x05\x00\x00\x01\0\0\0\0\0\0").unwrap();
        });
        let rules = Scratch::new(format!("via {} to *.onion\n", via(address)).as_bytes());
        let server = Program::start(&["--rules", rules.path(), "--connect-timeout", "1"]);
        let rep = |name: &str| {
            let mut client = connect(server.address);
            let request = request_by_name(name.as_bytes(), 80);
            client.write_all(&[GREETING, &request].concat()).unwrap();
            assert_eq!(take(&mut client), *b"\x05\x00");
            reply(&mut client).0
        };
        assert_eq!(rep("tab.onion."), 0x00);
        assert_eq!(questions(), 0);
        assert_ne!(rep("tabi.example."), 0x00);
        assert!(questions() > 0, "others are asked for");
    });
}

#[test]
fn credentials_go_up_decoded_and_into_no_log() {
    let (done, address) = upstream(|mut stream| {
        assert_eq!(take(&mut stream), *b"\x05\x02\x00\x02");
        stream.write_all(b"\x05\x02").unwrap();
        assert_eq!(take(&mut stream), *b"\x01\x05alice\x08s:same@!");
        stream.write_all(b"\x01\x00").unwrap();
        take::<10>(&mut stream);
        stream.write_all(b"\x05\x00\x00\x01\0\0\0\0\0\0").unwrap();
    });
    let url = format!("socks5://al%69ce:s%3asame%40!@{address}");
    let mut program = Program::start_with(&[("TABI_UPSTREAM", &url)], &["-v"]);
    let mut client = connect(program.address);
    client.write_all(&[GREETING, &request(([192, 0, 2, 1], 80).into())].concat()).unwrap();
    assert_eq!(take(&mut client), *b"\x05\x00");
    assert_eq!(reply(&mut client).0, 0x00);
    done.join().unwrap();
    drop(client);
    let line = program.log_line("outcome=");
    assert!(
        line.contains(&format!(" dest=192.0.2.1:80 reached={address} via={address} ")),
        "{line}"
    );
    assert!(!program.log_so_far().contains("same"), "{}", program.log_so_far());
}

#[test]
fn what_the_upstream_refuses_comes_back_as_it_is() {
    for (answer, outcome) in [
        (b"\x05\x05\x00\x01\x7f\x00\x00\x01\x00\x50".as_slice(), "refused"),
        (b"\x05\x02\x00\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\x00\x50", "denied"),
        (b"\x05\x04\x00\x03\x04name\x00\x50", "host-unreachable"),
        (b"\x05\xf0\x00\x01\0\0\0\0\0\0", "failed"),
    ] {
        let (_done, address) = upstream(|mut stream| {
            take::<3>(&mut stream);
            stream.write_all(b"\x05\x00").unwrap();
            take::<10>(&mut stream);
            stream.write_all(answer).unwrap();
        });
        let mut program = Program::start(&["--upstream", &via(address)]);
        assert_eq!(told(program.address, &request(([192, 0, 2, 1], 80).into())), answer);
        let line = program.log_line("outcome=");
        let why = format!("outcome={outcome} why=\"the upstream answers REP {:#04x}\"", answer[1]);
        assert!(line.contains(&why) && line.contains(&format!(" via={address} ")), "{line}");
    }
}

#[test]
fn a_failing_upstream_is_logged_with_its_reason() {
    let (_socket, refusing) = nobody_listens();
    let mut cases = vec![(via(refusing), "cannot be reached: ")];
    cases.push(("socks5://tabi.invalid:1080".into(), "name has no address"));
    let says = |words: &'static [u8]| {
        let script = move |mut stream: TcpStream| {
            take::<3>(&mut stream);
            stream.write_all(words).unwrap();
            let _ = stream.shutdown(Shutdown::Write);
            let _ = stream.read_to_end(&mut Vec::new());
        };
        via(upstream(script).1)
    };
    cases.push((says(b""), "closes the connection"));
    cases.push((says(b"\x05"), "closes the connection"));
    cases.push((says(b"\x05\x00"), "closes the connection"));
    cases.push((says(b"\x05\x00\x05\x00\x00\x01"), "closes the connection"));
    cases.push((says(b"HTTP/1.1 400 Bad Request\r\n"), "does not speak SOCKS5"));
    cases.push((says(b"\x00\x5b"), "does not speak SOCKS5"));
    cases.push((says(b"\x05\x00\x04\x00"), "does not speak SOCKS5"));
    cases.push((says(b"\x05\x01"), "METHOD 0x01"));
    cases.push((says(b"\x05\x02"), "wants a user name and a password"));
    cases.push((says(b"\x05\xff"), "without a user name and a password"));
    cases.push((says(b"\x05\x00\x05\x00\x00\x09\x00"), "BND.ADDR"));
    for (url, reason) in cases {
        let mut program = Program::start(&["--upstream", &url]);
        let words = told(program.address, &request(([192, 0, 2, 1], 80).into()));
        assert_eq!(words, b"\x05\x01\x00\x01\0\0\0\0\0\0", "{reason}");
        let line = program.log_line("outcome=");
        assert!(line.contains(" outcome=upstream-failed why=\"the upstream"), "{line}");
        assert!(line.contains(reason), "{reason}: {line}");
    }
}

#[test]
fn wrong_credentials_are_the_upstreams_refusal() {
    let users = Scratch::new(b"alice:sesame\n");
    let second = start(&["--users", users.path()]);
    for (credentials, outcome) in [("alice:sesame", "closed"), ("alice:seven", "upstream-failed")] {
        let url = format!("socks5://{credentials}@{}", second.address);
        let mut program = Program::start_with(&[("TABI_UPSTREAM", &url)], &[]);
        let mut client = connect(program.address);
        client.write_all(&[GREETING, &request(echo())].concat()).unwrap();
        assert_eq!(take(&mut client), *b"\x05\x00");
        assert_eq!(reply(&mut client).0 == 0x00, outcome == "closed");
        drop(client);
        let line = program.log_line("outcome=");
        assert!(line.contains(&format!("outcome={outcome}")), "{line}");
        assert!(!line.contains("sesame") && !line.contains("seven"), "{line}");
    }
}

#[test]
fn all_of_it_has_one_deadline() {
    // It says nothing, or too little each time, or nothing of the target.
    let slow = |words: &'static [u8], pause: u64| {
        let script = move |mut stream: TcpStream| {
            for word in words {
                thread::sleep(Duration::from_millis(pause));
                if stream.write_all(&[*word]).is_err() {
                    break;
                }
            }
            let _ = stream.read_to_end(&mut Vec::new());
        };
        upstream(script).1
    };
    let (_waiting, _socket, hole) = black_hole();
    for (address, rep) in [
        (hole, FAILED),
        (slow(b"", 0), FAILED),
        (slow(b"\x05", 0), FAILED),
        (slow(b"\x05\x00", 0), TOO_LATE),
        (slow(b"\x05\x00\x05\x00\x00\x01\0\0\0\0\0\0", 300), TOO_LATE),
    ] {
        let server = start(&["--upstream", &via(address), "--connect-timeout", "3"]);
        let begin = Instant::now();
        assert_eq!(ask(&server, &request(([192, 0, 2, 1], 80).into())).0, rep, "{address}");
        assert!(begin.elapsed() < LONG / 2, "{:?}", begin.elapsed());
    }
}

#[test]
fn a_client_that_leaves_is_not_waited_for() {
    let (asked, is_asked) = channel();
    let (done, address) = upstream(move |mut stream| {
        take::<3>(&mut stream);
        stream.write_all(b"\x05\x00").unwrap();
        take::<10>(&mut stream);
        asked.send(()).unwrap();
        at_end(&mut stream)
    });
    let server = start(&["--upstream", &via(address), "--connect-timeout", "3600"]);
    let mut client = connect(server.address);
    client.write_all(&[GREETING, &request(([192, 0, 2, 1], 80).into())].concat()).unwrap();
    assert_eq!(take(&mut client), *b"\x05\x00");
    is_asked.recv_timeout(LONG).unwrap();
    drop(client);
    assert!(done.join().unwrap());
}

#[test]
fn a_client_that_has_only_sent_its_end_of_file_is() {
    let second = start(&[]);
    let server = start(&["--upstream", &via(second.address)]);
    let (listener, target) = listen();
    let mut client = connect(server.address);
    client.write_all(&[GREETING, &request(target), b"payload"].concat()).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let mut far = accept(&listener);
    let mut payload = Vec::new();
    far.read_to_end(&mut payload).unwrap();
    assert_eq!(payload, b"payload");
    far.write_all(b"answer").unwrap();
    drop(far);
    let mut words = Vec::new();
    client.read_to_end(&mut words).unwrap();
    assert_eq!(words[12..], *b"answer");
}

/// A tunnel through two servers: the client's end first.
fn pair(server: &Running) -> (TcpStream, TcpStream) {
    let (listener, address) = listen();
    let client = tunnel(server, address);
    (client, accept(&listener))
}

#[test]
fn tabi_behind_tabi_is_like_one() {
    let second = start(&[]);
    let server = start(&["--upstream", &via(second.address)]);
    let (mut client, mut far) = pair(&server);
    send(&mut client, pattern(1, 300_000)).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    expect(&mut far, pattern(1, 300_000));
    assert!(at_end(&mut far));
    send(&mut far, pattern(2, 300_000)).unwrap();
    drop(far);
    expect(&mut client, pattern(2, 300_000));
    assert!(at_end(&mut client));
    let (mut client, far) = pair(&server);
    reset(far);
    expect_reset(&mut client);
    // Names are looked up there, and refusals are those of there.
    assert_eq!(ask(&server, &request_by_name(b"localhost", echo().port())).0, 0x00);
    assert_eq!(ask(&server, &request_by_name(b"tabi.invalid", 80)).0, 0x04);
    let (_socket, closed) = nobody_listens();
    assert_eq!(ask(&server, &request(closed)).0, 0x05);
}

fn connect_from(local: [u8; 4], address: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((local, 0)).into()).unwrap();
    socket.connect_timeout(&address.into(), LONG).unwrap();
    socket.set_read_timeout(Some(LONG)).unwrap();
    socket.into()
}

#[test]
fn each_client_goes_through_the_upstream_of_its_rule() {
    let answering = |rep: u8| {
        let script = move |mut stream: TcpStream| {
            take::<3>(&mut stream);
            stream.write_all(b"\x05\x00").unwrap();
            take::<10>(&mut stream);
            stream.write_all(&[5, rep, 0, 1, 0, 0, 0, 0, 0, 0]).unwrap();
        };
        via(upstream(script).1)
    };
    let rules = format!(
        "via {} from 127.0.0.20\nvia {} from 127.0.0.21\nallow from 127.0.0.22\n",
        answering(0xa0),
        answering(0xa1)
    );
    let rules = Scratch::new(rules.as_bytes());
    let rest = answering(0xa3);
    let server = start(&["--rules", rules.path(), "--upstream", &rest]);
    for (host, rep) in [(20, 0xa0), (21, 0xa1), (22, 0x00), (23, 0xa3)] {
        let mut client = connect_from([127, 0, 0, host], server.address);
        client.write_all(&[GREETING, &request(echo())].concat()).unwrap();
        assert_eq!(take(&mut client), *b"\x05\x00");
        assert_eq!(reply(&mut client).0, rep, "127.0.0.{host}");
    }
}

#[test]
fn neither_bind_nor_udp_goes_up() {
    let second = start(&[]);
    let server = start(&["--upstream", &via(second.address)]);
    for command in [0x02, 0x03] {
        for destination in [request(([127, 0, 0, 1], 9).into()), request(([0; 4], 0).into())] {
            let mut asked = destination;
            asked[1] = command;
            assert_eq!(ask(&server, &asked).0, DENIED, "CMD {command}");
        }
    }
    // Where something is allowed beside it, what would go up is dropped.
    let target = UdpSocket::bind("127.0.0.1:0").unwrap();
    target.set_read_timeout(Some(LONG)).unwrap();
    let rules = format!("allow to 127.0.0.1 port {}\n", target.local_addr().unwrap().port());
    let rules = Scratch::new(rules.as_bytes());
    let server = start(&["--upstream", &via(second.address), "--rules", rules.path()]);
    let mut asked = request(([0; 4], 0).into());
    asked[1] = 0x03;
    let mut client = connect(server.address);
    client.write_all(&[GREETING, &asked].concat()).unwrap();
    assert_eq!(take(&mut client), *b"\x05\x00");
    let (rep, bound) = reply(&mut client);
    assert_eq!(rep, 0x00);
    let elsewhere = UdpSocket::bind("127.0.0.1:0").unwrap();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    for to in [&elsewhere, &target] {
        let to = request(to.local_addr().unwrap());
        socket.send_to(&[&[0, 0, 0], &to[3..], b"payload"].concat(), bound).unwrap();
    }
    let mut octets = [0; 16];
    assert_eq!(target.recv(&mut octets).unwrap(), 7);
    elsewhere.set_nonblocking(true).unwrap();
    assert!(elsewhere.recv(&mut octets).is_err(), "it was sent before the other");
}

#[test]
fn an_upstream_is_reached_from_the_source() {
    let (done, address) = upstream(|stream| stream.peer_addr().unwrap().ip());
    let server = start(&["--upstream", &via(address), "--source", "127.0.0.7"]);
    assert_eq!(ask(&server, &request(([192, 0, 2, 1], 80).into())).0, FAILED);
    assert_eq!(done.join().unwrap().to_string(), "127.0.0.7");
}

#[test]
fn a_password_belongs_neither_on_the_command_line_nor_into_a_file_for_everyone() {
    let url = "socks5://alice:sesame@127.0.0.1:9";
    let (status, told) = check(&["--upstream", url]);
    assert_eq!(status, 2);
    assert!(told.contains("TABI_UPSTREAM") && told.contains("--rules"), "{told}");
    assert!(!told.contains("sesame"), "{told}");
    for bad in ["socks5h://alice:sesame@127.0.0.1", "http://alice:sesame@127.0.0.1:9"] {
        let (status, told) = check(&["--upstream", bad]);
        assert_eq!(status, 2);
        assert!(told.contains("--upstream: expected socks5://"), "{told}");
        assert!(!told.contains("sesame"), "{told}");
    }
    let rules = Scratch::new(format!("deny port 25\nvia {url} to 192.0.2.1\n").as_bytes());
    assert_eq!(check(&["--rules", rules.path()]).0, 0);
    rules.set_mode(0o640);
    let (status, told) = check(&["--rules", rules.path()]);
    assert_eq!(status, 2);
    assert!(told.contains("there is a password in it") && told.contains("chmod 600"), "{told}");
    assert!(!told.contains("sesame"), "{told}");
    let open = Scratch::new(b"via socks5h://127.0.0.1:9 to *.onion\n");
    open.set_mode(0o644);
    assert_eq!(check(&["--rules", open.path()]).0, 0, "there is no password in it");
}

#[test]
fn a_server_that_is_its_own_upstream_does_not_start() {
    let refusal = |listen: &str, options: &[&str]| {
        let arguments = cli::parse([&["tabi", listen], options].concat()).unwrap();
        Server::bind(arguments.config, Inherited::default(), Notify::default())
            .map(drop)
            .unwrap_err()
            .to_string()
    };
    // Nobody else uses this address, so the port stays free.
    let free = TcpListener::bind("127.77.0.1:0").unwrap().local_addr().unwrap();
    let itself = &free.to_string();
    let told = refusal(itself, &["--upstream", &format!("socks5://{itself}")]);
    assert!(told.contains("--upstream") && told.contains("this server itself"), "{told}");
    let rules = Scratch::new(format!("\nvia socks5h://{itself} to *.onion").as_bytes());
    let told = refusal(itself, &["--rules", rules.path()]);
    assert!(told.contains(&format!("{}:2: ", rules.path())), "{told}");
    // Nothing but other options mends it: a service manager does not try it again.
    let mut command = bare();
    command.args([itself, "--upstream", &format!("socks5://{itself}")]);
    assert_eq!(command.output().unwrap().status.code(), Some(2));
}

#[test]
fn without_h_a_name_is_resolved_here_and_its_address_goes_up() {
    // ATYP of what the upstream is asked for, or REP.
    let asked_for = |url: &str, rules: &[u8], name: &str| {
        let (done, address) = upstream(|mut stream| {
            take::<3>(&mut stream);
            stream.write_all(b"\x05\x00").unwrap();
            let [_, _, _, kind]: [u8; 4] = take(&mut stream);
            stream.write_all(b"\x05\x00\x00\x01\0\0\0\0\0\0").unwrap();
            kind
        });
        let rules = Scratch::new(rules);
        let url = format!("{url}://{address}");
        let server = start(&["--upstream", &url, "--rules", rules.path()]);
        let (rep, _client) = ask(&server, &request_by_name(name.as_bytes(), 80));
        if rep != 0x00 {
            // Nobody else comes.
            drop(TcpStream::connect(address));
            return Err(rep);
        }
        Ok(done.join().unwrap())
    };
    let only_ipv4 = b"deny to ::1\n";
    assert_eq!(asked_for("socks5", only_ipv4, "localhost"), Ok(0x01));
    assert_eq!(asked_for("socks5h", b"", "localhost"), Ok(0x03));
    assert_eq!(asked_for("socks5h", b"", "tabi.example"), Ok(0x03));
    for url in ["socks5", "socks5h"] {
        let denied = b"deny to 127.0.0.0/8, ::1, 10.0.0.0/8\n";
        for name in ["localhost", "127.1", "::ffff:10.9.9.9", "10.9.2313"] {
            assert_eq!(asked_for(url, denied, name), Err(DENIED), "{url} {name}");
        }
    }
    // The last two are no addresses to the resolver here either.
    for name in ["10.9.9.9.", "::ffff:10.9.9.9%1"] {
        assert_eq!(asked_for("socks5h", b"deny to 10.0.0.0/8\n", name), Err(DENIED), "{name}");
    }
}

#[test]
fn tor_wants_names() {
    let rules = Scratch::new(b"deny port 25\nvia socks5://127.0.0.1:9050 to *.onion\n");
    let (status, told) = check(&["--rules", rules.path()]);
    assert_eq!(status, 2);
    let line = format!("{}:2: 'socks5://': expected socks5h:// for .onion", rules.path());
    assert!(told.contains(&line), "{told}");
}

#[test]
fn an_upstream_on_this_machine_is_told_of_with_what_it_opens() {
    let rules = Scratch::new(b"via socks5h://127.0.0.1:9050 to *.onion\n");
    let (status, told) =
        check(&["--rules", rules.path(), "--upstream", "socks5h://localhost:2080"]);
    assert_eq!(status, 0);
    for place in ["--upstream: the upstream localhost:2080", &format!("{}:1: ", rules.path())] {
        assert!(told.contains(place), "{told}");
    }
    assert_eq!(told.matches("reaches by a name what listens for this machine alone").count(), 2);
    let mut program = Program::heeding(&["--upstream", "socks5h://127.0.0.1:2080"]);
    program.signal(Signal::TERM);
    let log = program.log_so_far().to_owned() + &program.rest_of_log();
    assert!(log.contains("--upstream: the upstream 127.0.0.1:2080 is on this machine"), "{log}");
}

/// Runs `test` on a machine at 192.168.77.1 that has these names in its hosts file.
fn with_hosts(hosts: &str, test: impl FnOnce() + Send) {
    alone(|| {
        let file = Scratch::new(hosts.as_bytes());
        file.set_mode(0o644);
        over("/etc/hosts", &file);
        if ip("addr add 192.168.77.1/24 dev lo") {
            test();
        }
    });
}

/// The answer to a client at 192.168.77.1.
fn rep_for_neighbour(server: SocketAddr, request: &[u8]) -> u8 {
    let mut client = connect_from([192, 168, 77, 1], server);
    client.write_all(&[GREETING, request].concat()).unwrap();
    assert_eq!(take(&mut client), *b"\x05\x00");
    reply(&mut client).0
}

#[test]
fn a_neighbour_reaches_no_loopback_by_a_name_through_an_upstream_here() {
    with_hosts("127.0.0.1 localhost localhost4 machine\n127.0.0.5 printer.test\n", || {
        // The upstream resolves what it gets, and serves this machine alone.
        let upstream = start_on("127.0.0.1:2080", &[]);
        let inner = echo();
        for url in ["socks5", "socks5h"] {
            let url = format!("{url}://{}", upstream.address);
            let mut program = Program::spawn({
                let mut command = bare();
                command.args(["192.168.77.1:1080", "--upstream", &url]);
                command
            });
            let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
            for name in ["localhost", "localhost4", "machine", "MACHINE", "printer.test"] {
                let request = request_by_name(name.as_bytes(), inner.port());
                assert_eq!(rep_for_neighbour(program.address, &request), DENIED, "{url} {name}");
                program.log_line("outcome=denied");
            }
            let rep = rep_for_neighbour(program.address, &request_by_name(host.as_bytes(), 80));
            assert_ne!(rep, 0x00, "{host}");
            // Not even a name that nobody here knows leads to its own port.
            let names = ["localhost", "anybody.example"].iter();
            for request in names.map(|name| request_by_name(name.as_bytes(), 1080)) {
                let rep = rep_for_neighbour(program.address, &request);
                assert_ne!(rep, 0x00);
                assert!(url.starts_with("socks5:") || rep == DENIED, "{rep}");
            }
        }
    });
}

#[test]
fn an_upstream_by_a_name_that_is_this_server_makes_no_circle() {
    with_hosts("192.168.77.1 up.test\n", || {
        for url in ["socks5://up.test:1080", "socks5h://up.test:1080"] {
            let mut command = bare();
            command.args(["192.168.77.1:1080", "--upstream", url]);
            let mut program = Program::spawn(command);
            let request = request(([192, 0, 2, 1], 80).into());
            assert_eq!(told(program.address, &request)[1], FAILED);
            let line = program.log_line("outcome=");
            let why =
                "outcome=upstream-failed why=\"the upstream up.test:1080 is this server itself\"";
            assert!(line.contains(why), "{line}");
            program.signal(Signal::TERM);
            assert!(!program.rest_of_log().contains("outcome="), "one request is one session");
        }
    });
}

#[test]
fn an_upstream_that_is_this_server_is_an_error_of_check() {
    for (listen, url) in [
        ("127.0.0.1:1080", "socks5h://127.0.0.1:1080"),
        ("[::]:1080", "socks5://[::1]:1080"),
        ("0.0.0.0:1080", "socks5://localhost:1080"),
    ] {
        let (status, told) = check(&[listen, "--upstream", url]);
        assert_eq!(status, 2, "{told}");
        assert!(told.contains("--upstream: ") && told.contains("is this server itself"), "{told}");
    }
    assert_eq!(check(&["127.0.0.1:1081", "--upstream", "socks5://127.0.0.1:1080"]).0, 0);
}

#[test]
fn one_of_several_addresses_of_an_upstream_is_enough() {
    alone(|| {
        // Where `localhost` has an address of each family, one of them refuses.
        let second = start_on("127.0.0.1:1080", &[]);
        let url = format!("socks5://localhost:{}", second.address.port());
        let server = start_on("127.0.0.1:1081", &["--upstream", &url]);
        assert_eq!(ask(&server, &request(echo())).0, 0x00);
    });
}
