//! What is served to whom by HTTP: the same as by SOCKS5.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::process::Stdio;
use std::thread;
use std::time::Instant;

use super::{
    ANSWER, ANSWERED, CONNECTED, assert_first, assert_refused, connect_request, forwarded, get,
    rest, saying, told, told_and_logged,
};
use crate::namespace::{alone, ip, over};
use crate::scratch::{Program, Scratch, bare, check};
use crate::stage::{
    GREETING, LONG, accept, ask, connect, connect_from, echo, listen, read_head, request,
    request_by_name, start, take,
};

const NOT_SERVED: &str = "Set it as SOCKS5 host";

#[test]
fn a_rule_that_denies_is_403_and_the_log_names_its_line() {
    let (listener, target) = listen();
    // A name on this machine may have both addresses.
    let rules =
        format!("# nothing there\ndeny to 127.0.0.1,::1 port {}\ndeny to *.test\n", target.port());
    let rules = Scratch::new(rules.as_bytes());
    let mut program = Program::start(&["--rules", rules.path()]);
    let port = target.port();
    for (to, line) in [
        (format!("127.0.0.1:{port}"), 2),
        (format!("127.1:{port}"), 2),
        (format!("localhost:{port}"), 2),
        (format!("[::ffff:127.0.0.1]:{port}"), 2),
        ("ads.test:80".into(), 3),
        ("ADS.test.:80".into(), 3),
    ] {
        for (said, command) in [(get(&to), "HTTP"), (connect_request(&to), "CONNECT")] {
            let (answer, told) = told_and_logged(&mut program, said);
            assert_refused(&answer, 403);
            let what = format!(" protocol=http command={command} dest=");
            assert!(told.contains(&what) && told.contains(" reached=- up=0 down=0 "), "{told}");
            let why = format!("{}:{line}", rules.path());
            assert!(told.contains(" outcome=denied why=\"") && told.contains(&why), "{told}");
        }
    }
    assert_first(&listener, b"nobody");
}

#[test]
fn a_rule_about_connect_is_about_requests_that_are_passed_on_too() {
    let rules = Scratch::new(b"deny command connect\n");
    let server = start(&["--rules", rules.path()]);
    let target = echo();
    assert_refused(&told(server.address, connect_request(target)), 403);
    assert_refused(&told(server.address, get(target)), 403);
}

#[test]
fn a_neighbour_reaches_neither_loopback_nor_the_own_port() {
    alone(|| {
        if !ip("addr add 192.168.1.1/32 dev lo\naddr add 192.168.1.20/32 dev lo") {
            return;
        }
        over("/etc/hosts", &{
            let hosts = Scratch::new(b"127.0.0.1 localhost\n192.168.1.1 box.lan\n");
            hosts.set_mode(0o644);
            hosts
        });
        let (listener, target) = listen();
        let mut command = bare();
        command.arg("0.0.0.0:1080").stdout(Stdio::null());
        let _program = Program::spawn(command);
        let from = |said: String| {
            let server = SocketAddr::from(([192, 168, 1, 1], 1080));
            let mut client = connect_from([192, 168, 1, 20].into(), server);
            client.write_all(said.as_bytes()).unwrap();
            rest(&mut client)
        };
        let port = target.port();
        for host in [
            format!("127.0.0.1:{port}"),
            format!("127.1:{port}"),
            format!("localhost:{port}"),
            format!("0.0.0.0:{port}"),
            format!("[::1]:{port}"),
            format!("[::ffff:127.0.0.1]:{port}"),
            format!("[64:ff9b::7f00:1]:{port}"),
            "169.254.1.1:80".into(),
            "192.168.1.1:1080".into(),
            "box.lan:1080".into(),
        ] {
            assert_refused(&from(get(&host)), 403);
            assert_refused(&from(connect_request(&host)), 403);
        }
        assert_first(&listener, b"nobody");
    });
}

#[test]
fn a_request_goes_through_the_upstream_that_a_rule_names() {
    let ((upstream, address), (listener, target)) = (listen(), listen());
    let rules = Scratch::new(format!("via socks5h://{address} to *.onion\n").as_bytes());
    let mut program = Program::start(&["--rules", rules.path()]);
    let far = thread::spawn(move || {
        for said in [forwarded("GET", "tab.onion", ""), "payload".into()] {
            let mut far = accept(&upstream);
            assert_eq!(take::<3>(&mut far), *GREETING);
            far.write_all(b"\x05\x00").unwrap();
            let asked: [u8; 16] = take(&mut far);
            assert_eq!(asked, *request_by_name(b"tab.onion", 80));
            far.write_all(b"\x05\x00\x00\x01\0\0\0\0\0\0").unwrap();
            let mut came = vec![0; said.len()];
            far.read_exact(&mut came).unwrap();
            assert_eq!(came, said.as_bytes());
            far.write_all(ANSWER.as_bytes()).unwrap();
        }
        // It refuses the third.
        let mut far = accept(&upstream);
        assert_eq!(take::<3>(&mut far), *GREETING);
        far.write_all(b"\x05\x00").unwrap();
        take::<16>(&mut far);
        far.write_all(b"\x05\x04\x00\x01\0\0\0\0\0\0").unwrap();
    });
    let mut client = saying(program.address, get("tab.onion"));
    assert_eq!(rest(&mut client), ANSWERED);
    let line = program.log_line("command=HTTP");
    assert!(
        line.contains(&format!(" dest=tab.onion:80 reached={address} via={address} ")),
        "{line}"
    );
    let mut client = saying(program.address, connect_request("tab.onion:80") + "payload");
    assert_eq!(read_head(&mut client), CONNECTED);
    assert_eq!(rest(&mut client), ANSWER);
    drop(client);
    assert_refused(&told(program.address, get("tab.onion")), 502);
    let line = program.log_line("command=HTTP");
    assert!(
        line.contains(" outcome=host-unreachable why=\"the upstream answers REP 0x04\""),
        "{line}"
    );
    far.join().unwrap();
    let _client = saying(program.address, get(target));
    assert_eq!(read_head(&mut accept(&listener)), forwarded("GET", target, ""));
}

#[test]
fn the_source_address_is_as_the_option_says() {
    let server = start(&["--source", "127.0.0.3"]);
    for said in [get, connect_request] {
        let (listener, target) = listen();
        let _client = saying(server.address, said(target));
        assert_eq!(accept(&listener).peer_addr().unwrap().ip().to_string(), "127.0.0.3");
    }
}

#[test]
fn a_balancer_says_who_the_client_is() {
    let rules = Scratch::new(b"deny from 192.168.1.66\nallow to 127.0.0.0/8\n");
    let mut program = Program::start(&["--proxy-protocol", "127.0.0.0/8", "--rules", rules.path()]);
    let header = |client| format!("PROXY TCP4 {client} 192.0.2.1 50001 1080\r\n");
    let (listener, target) = listen();
    let mut client = saying(program.address, header("192.168.1.7") + &get(target));
    let mut far = accept(&listener);
    assert_eq!(read_head(&mut far), forwarded("GET", target, ""));
    far.write_all(ANSWER.as_bytes()).unwrap();
    drop(far);
    assert_eq!(rest(&mut client), ANSWERED);
    drop(client);
    program.log_line("client=192.168.1.7:50001 user=- protocol=http command=HTTP ");
    assert_refused(&told(program.address, header("192.168.1.66") + &get(target)), 403);
    assert_eq!(told(program.address, header("203.0.113.7") + &get(target)), "");
}

#[test]
fn the_places_of_one_client_are_for_all_that_it_speaks() {
    let server = start(&["--max-per-client", "3"]);
    let target = echo();
    let (_, _socks5) = ask(&server, &request(target));
    let mut by_http = saying(server.address, connect_request(target));
    assert_eq!(read_head(&mut by_http), CONNECTED);
    let (listener, slow) = listen();
    let _plain = saying(server.address, get(slow));
    let _far = accept(&listener);
    let refused = |said: &str| {
        let mut client = connect(server.address);
        let _ = client.write_all(said.as_bytes());
        !matches!(client.read(&mut [0]), Ok(1))
    };
    assert!(refused(&connect_request(target)) && refused("GET / HTTP/1.0\r\n\r\n"));
    drop(by_http);
    let begin = Instant::now();
    while refused(&connect_request(target)) {
        assert!(begin.elapsed() < LONG, "the place of the tunnel is not free");
    }
}

#[test]
fn only_the_protocols_that_were_asked_for_are_served() {
    let target = echo();
    for protocols in ["socks5", "socks4", "http", "socks5,socks4", "http,socks5", "socks4,http"] {
        let mut program = Program::start(&["--protocols", protocols]);
        let serves = |it: &str| protocols.split(',').any(|name| name == it);
        let socks5 = take::<2>(&mut saying(program.address, GREETING));
        assert_eq!(socks5, [0x05, if serves("socks5") { 0x00 } else { 0xff }], "{protocols}");
        let octets = [b"\x04\x01", &target.port().to_be_bytes()[..], b"\x7f\0\0\x01\0"].concat();
        let socks4 = take::<2>(&mut saying(program.address, octets));
        assert_eq!(socks4, [0x00, if serves("socks4") { 0x5a } else { 0x5b }], "{protocols}");
        for said in [connect_request(target), "GET / HTTP/1.0\r\n\r\n".into(), get(target)] {
            if serves("http") {
                if !said.contains("/path") {
                    let head = read_head(&mut saying(program.address, said));
                    assert!(head.starts_with("HTTP/1.1 200 "), "{protocols} {head}");
                }
                continue;
            }
            let (answer, line) = told_and_logged(&mut program, said);
            assert_refused(&answer, 400);
            assert!(answer.contains(NOT_SERVED), "{answer}");
            let why = "why=\"the client speaks http, which is not served (--protocols)\"\n";
            assert!(line.contains(" protocol=http command=- ") && line.ends_with(why), "{line}");
        }
    }
}

#[test]
fn protocols_may_come_from_the_environment_and_an_unknown_one_is_an_error() {
    let program = Program::start_with(&[("TABI_PROTOCOLS", "http")], &[]);
    assert_eq!(take(&mut saying(program.address, GREETING)), *b"\x05\xff");
    assert!(told(program.address, "GET / HTTP/1.0\r\n\r\n").starts_with("HTTP/1.1 200 "));
    for bad in ["gopher", "", "socks5,", "SOCKS5", "socks5 http"] {
        let (status, told) = check(&["--protocols", bad]);
        assert_eq!(status, 2, "{bad:?} {told}");
        assert!(told.contains("--protocols"), "{bad:?} {told}");
    }
    let mut command = bare();
    command.arg("--check").env("TABI_PROTOCOLS", "gopher");
    let output = command.output().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{told}");
    assert!(told.contains("TABI_PROTOCOLS") && told.contains("gopher"), "{told}");
}
