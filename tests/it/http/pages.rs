//! The page and the PAC file of the server itself.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::process::Stdio;

use socket2::{Domain, Socket, Type};

use super::{assert_refused, get, saying, told, told_and_logged};
use crate::namespace::{alone, ip};
use crate::scratch::{Program, Scratch, bare};
use crate::stage::{LONG, limited, read_head, start};

/// What is at a path for a client that says this of where it has come to.
fn page(server: SocketAddr, path: &str, host: &str) -> String {
    told(server, format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n"))
}

/// The place that the PAC file sends a device to.
fn place(pac: &str) -> &str {
    let (_, behind) = pac.split_once("return \"PROXY ").unwrap_or_else(|| panic!("{pac}"));
    behind.split_once("\";").unwrap().0
}

#[test]
fn a_device_gets_the_pac_file_for_where_it_has_come_to() {
    let server = start(&[]);
    for (host, expected) in [
        ("192.168.1.5:1080", "192.168.1.5:1080"),
        ("box.lan:8080", "box.lan:8080"),
        ("box.lan", "box.lan:80"),
        ("[fd00::5]:1080", "[fd00::5]:1080"),
    ] {
        let pac = page(server.address, "/proxy.pac", host);
        assert!(pac.starts_with("HTTP/1.1 200 OK\r\n"), "{pac}");
        assert!(pac.contains("\r\nContent-Type: application/x-ns-proxy-autoconfig\r\n"), "{pac}");
        assert_eq!(place(&pac), expected);
    }
    // Who does not say so has come to the address of the connection.
    let pac = told(server.address, "GET /proxy.pac HTTP/1.0\r\n\r\n");
    assert_eq!(place(&pac), server.address.to_string());
}

#[test]
fn people_get_a_page_that_says_what_to_enter() {
    let server = start(&[]);
    let answer = page(server.address, "/", "box.lan:1080");
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\nContent-Type: text/html"), "{answer}");
    assert!(answer.contains("href=\"http://box.lan:1080/proxy.pac\""), "{answer}");
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())), "{head}");
    let only_head = told(server.address, "HEAD / HTTP/1.1\r\nHost: box.lan:1080\r\n\r\n");
    assert_eq!(only_head, format!("{head}\r\n\r\n"));
}

#[test]
fn a_host_that_is_none_is_no_place_to_send_anybody() {
    let server = start(&[]);
    for host in [
        "Host: \"><script>\r\n",
        "Host: a b\r\n",
        "Host: a/b\r\n",
        "Host:\r\n",
        "",
        "Host: a\r\nHost: a\r\n",
    ] {
        for path in ["/", "/proxy.pac", "/none"] {
            assert_refused(
                &told(server.address, format!("GET {path} HTTP/1.1\r\n{host}\r\n")),
                400,
            );
        }
    }
}

#[test]
fn a_web_page_that_points_a_browser_at_the_server_achieves_nothing() {
    let mut program = Program::start(&[]);
    let cross = "Host: box.lan:1080\r\nOrigin: http://attacker.example\r\n\
        Access-Control-Request-Method: GET\r\nAccess-Control-Request-Private-Network: true\r\n";
    for (method, path, status) in [
        ("GET", "/", 200),
        ("GET", "/proxy.pac?x", 200),
        ("OPTIONS", "/", 405),
        ("OPTIONS", "/proxy.pac", 405),
        ("POST", "/", 405),
        ("PUT", "/proxy.pac", 405),
        ("DELETE", "/other", 404),
        ("GET", "/wpad.dat", 404),
        ("GET", "/favicon.ico", 404),
        ("GET", "//attacker.example/", 404),
        ("GET", "/http://attacker.example/", 404),
    ] {
        let said = format!("{method} {path} HTTP/1.1\r\n{cross}Content-Length: 3\r\n\r\nx=y");
        let (answer, line) = told_and_logged(&mut program, said);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{method} {path} {answer}");
        let (head, _) = answer.split_once("\r\n\r\n").unwrap();
        assert!(!head.to_lowercase().contains("access-control"), "{head}");
        assert!(head.contains("\r\nCross-Origin-Resource-Policy: same-origin\r\n"), "{head}");
        assert!(head.ends_with("\r\nConnection: close"), "{head}");
        assert!(line.contains(" protocol=http command=- dest=- reached=- up=0 down=0 "), "{line}");
        let outcome = if status == 200 { "closed" } else { "bad-request" };
        let why = format!(" outcome={outcome} why=\"{method} {path}\"\n");
        assert!(line.ends_with(&why), "{line}");
    }
}

#[test]
fn the_pages_need_no_login() {
    let users = Scratch::new(b"alice:sesame\n");
    let server = start(&["--users", users.path()]);
    for path in ["/", "/proxy.pac"] {
        assert!(page(server.address, path, "box.lan").starts_with("HTTP/1.1 200 OK\r\n"));
    }
    assert!(
        read_head(&mut saying(server.address, get("localhost:9"))).starts_with("HTTP/1.1 407 ")
    );
}

/// Addresses of a machine with tabi at 192.168.1.1, each of which can be a client's.
const ELSEWHERE: [&str; 3] = ["192.168.1.20", "192.168.1.21", "203.0.113.7"];

fn told_from(from: &str, said: &str) -> String {
    let from: IpAddr = from.parse().unwrap();
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::new(from, 0).into()).unwrap();
    let host = if from.is_loopback() { from } else { [192, 168, 1, 1].into() };
    socket.connect_timeout(&SocketAddr::new(host, 1080).into(), LONG).unwrap();
    let mut client = limited(socket.into());
    let _ = client.write_all(said.as_bytes());
    let mut octets = Vec::new();
    // Who is turned away may have a reset.
    let _ = client.read_to_end(&mut octets);
    String::from_utf8(octets).unwrap()
}

#[test]
fn a_neighbour_sees_the_page_and_who_is_not_served_sees_nothing() {
    alone(|| {
        if !ip(&["192.168.1.1", ELSEWHERE[0], ELSEWHERE[1], ELSEWHERE[2]]
            .map(|it| format!("addr add {it}/32 dev lo\n"))
            .concat())
        {
            return;
        }
        for (options, served) in [
            (&[][..], &["192.168.1.20", "192.168.1.21", "127.0.0.1"][..]),
            (&["--allow-from", "192.168.1.20"], &["192.168.1.20"]),
        ] {
            let mut command = bare();
            command.arg("0.0.0.0:1080").args(options).stdout(Stdio::null());
            let mut program = Program::spawn(command);
            for from in ELSEWHERE.into_iter().chain(["127.0.0.1"]) {
                let request = get("192.168.1.20:9");
                for said in ["GET / HTTP/1.0\r\n\r\n", "GET /proxy.pac HTTP/1.0\r\n\r\n", &request]
                {
                    let answer = told_from(from, said);
                    if served.contains(&from) {
                        let status = if said == request { "502" } else { "200" };
                        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
                        continue;
                    }
                    assert_eq!(answer, "", "{from} {options:?}");
                    let line = program.log_line(&format!("client={from}:"));
                    assert!(line.contains("it is in no network that is served"), "{line}");
                }
            }
        }
    });
}
