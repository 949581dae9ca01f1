//! Rules as a client sees them, and what the log says of them.

use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::thread;
use std::time::Instant;

use rustix::process::Signal;
use socket2::{Domain, Socket, Type};

use crate::namespace::{alone, ip};
use crate::scratch::{Program, Scratch, bare, check};
use crate::stage::{
    GREETING, LONG, ask, connect, connect_from, echo, reply, request, request_by_name, start,
    start_on, take,
};

const DENIED: u8 = 0x02;

#[test]
fn a_denied_destination() {
    let (open, closed) = (echo(), echo());
    let file = Scratch::new(format!("deny port {}\n", closed.port()).as_bytes());
    let server = start(&["--rules", file.path()]);
    assert_eq!(ask(&server, &request(closed)).0, DENIED);
    let (rep, mut client) = ask(&server, &request(open));
    assert_eq!(rep, 0x00);
    client.write_all(b"payload").unwrap();
    assert_eq!(take(&mut client), *b"payload");
}

#[test]
fn the_first_rule_that_matches_decides() {
    let target = echo();
    let file =
        format!("allow to 127.0.0.1 port {0} # this one\ndeny to 127.0.0.0/8\n", target.port());
    let file = Scratch::new(file.as_bytes());
    let server = start(&["--rules", file.path()]);
    assert_eq!(ask(&server, &request(target)).0, 0x00);
    assert_eq!(ask(&server, &request(([127, 0, 0, 2], target.port()).into())).0, DENIED);
    let port = target.port();
    for (name, rep) in [("localhost", 0x00), ("127.0.0.2", DENIED), ("127.2", DENIED)] {
        assert_eq!(ask(&server, &request_by_name(name.as_bytes(), port)).0, rep, "{name}");
    }
}

#[test]
fn a_denied_name_is_not_looked_up() {
    let file = Scratch::new(b"deny to *.invalid\ndeny to localhost\n");
    let server = start(&["--rules", file.path()]);
    let rep = |name: &str| ask(&server, &request_by_name(name.as_bytes(), 9)).0;
    for name in ["localhost", "LocalHost", "localhost.", "a.invalid", "A.b.INVALID."] {
        // A lookup would have ended in 04.
        assert_eq!(rep(name), DENIED, "{name}");
    }
    assert_eq!(rep("invalid"), 0x04, "a name is no subdomain of itself");
}

#[test]
fn rules_tell_users_apart() {
    let users = Scratch::new(b"alice:a\nbob:b\n");
    let target = echo();
    let rules = Scratch::new(format!("deny user bob port {}\n", target.port()).as_bytes());
    let server = start(&["--users", users.path(), "--rules", rules.path()]);
    for (credentials, rep) in
        [(b"\x01\x05alice\x01a".as_slice(), 0x00), (b"\x01\x03bob\x01b", DENIED)]
    {
        let mut client = connect(server.address);
        client.write_all(&[b"\x05\x01\x02", credentials, &request(target)].concat()).unwrap();
        assert_eq!(take(&mut client), *b"\x05\x02\x01\x00");
        assert_eq!(reply(&mut client).0, rep);
    }
}

#[test]
fn the_log_names_the_line_of_the_rule() {
    let file = Scratch::new(b"# nothing on this machine\ndeny to 127.0.0.0/8\ndeny to *.example\n");
    let mut program = Program::start(&["--rules", file.path()]);
    for (destination, line) in [(request(echo()), 2), (request_by_name(b"ads.example", 80), 3)] {
        let mut client = connect(program.address);
        client.write_all(&[GREETING, &destination].concat()).unwrap();
        assert_eq!(take(&mut client), *b"\x05\x00");
        assert_eq!(reply(&mut client).0, DENIED);
        drop(client);
        let told = program.log_line("outcome=denied");
        assert!(told.contains(&format!(" why=\"{}:{line}: ", file.path())), "{told}");
    }
}

#[test]
fn bad_lines_are_named_at_start() {
    let file = Scratch::new(b"deny to *.tracker.example\nallow dest 10.0.0.1\ndeny port http\n");
    let (status, told) = check(&["--rules", file.path()]);
    assert_eq!(status, 2);
    for (line, rest) in [
        (2, "'dest': expected command, user, from, to or port"),
        (3, "'http': expected a port from 0 to 65535"),
    ] {
        let line = format!("{}:{line}: {rest}", file.path());
        assert!(told.lines().any(|told| told.starts_with(&line)), "{told}");
    }
}

#[test]
fn a_list_is_as_many_rules() {
    let (open, closed) = (echo(), echo());
    let rules = format!(
        "deny to 127.0.0.8, 127.0.0.9\nallow to *.example, 127.0.0.1 port 9,{}\ndeny\n",
        open.port()
    );
    let file = Scratch::new(rules.as_bytes());
    let server = start(&["--rules", file.path()]);
    assert_eq!(ask(&server, &request(open)).0, 0x00);
    assert_eq!(ask(&server, &request(closed)).0, DENIED);
    for ip in [[127, 0, 0, 8], [127, 0, 0, 9]] {
        assert_eq!(ask(&server, &request((ip, open.port()).into())).0, DENIED, "{ip:?}");
    }
}

#[test]
fn a_word_for_everything_is_no_name_of_a_host() {
    let file = Scratch::new(b"deny to any\nallow to all\ndeny from any\n");
    let (status, told) = check(&["--rules", file.path()]);
    assert_eq!(status, 2);
    for (line, word, field) in [(1, "any", "to"), (2, "all", "to"), (3, "any", "from")] {
        let begin = format!("{}:{line}: '{word}': expected ", file.path());
        let end = format!("a rule about all of them has no `{field}`");
        let named = |told: &str| told.starts_with(&begin) && told.ends_with(&end);
        assert!(told.lines().any(named), "{told}");
    }
}

#[test]
fn broad_rules_odd_networks_and_lines_in_vain_are_remarked_on() {
    let file = b"deny from 192.168.7.3 to 10.0.0.0/8\nallow to 192.168.0.0/16\n\
        allow to 0.0.0.0/0 port 8000\nallow to 10.1.2.3/8 port 22\ndeny\nallow port 25\n";
    let file = Scratch::new(file);
    let remarks = [
        (2, "this rule does not open this server's own port 1080: "),
        (3, "this rule does not open 127.0.0.0/8, 0.0.0.0/32, 169.254.0.0/16, "),
        (4, "10.1.2.3/8 is taken for 10.0.0.0/8"),
        (6, "this rule can never match"),
    ];
    let output = bare().args(["--rules", file.path(), "--check"]).output().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(0), "{told}");
    let is_told = |told: &str, (line, rest): &(u32, &str)| {
        told.contains(&format!("{}:{line}: {rest}", file.path()))
    };
    assert!(remarks.iter().all(|remark| is_told(&told, remark)), "{told}");
    assert_eq!(told.lines().count(), remarks.len(), "{told}");
    // The start and a reload say the same, but that the port is another one.
    let mut program = Program::heeding(&["--rules", file.path()]);
    program.signal(Signal::HUP);
    program.log_line("reloaded: ");
    program.signal(Signal::TERM);
    let rest = program.rest_of_log();
    for told in [program.log_so_far(), &rest] {
        assert!(remarks[1..].iter().all(|remark| is_told(told, remark)), "{told}");
    }
}

#[test]
fn a_bad_line_hides_no_odd_network() {
    let file = Scratch::new(b"deny to any\nallow to all\nallow to 10.1.2.3/8\n");
    let (status, told) = check(&["--rules", file.path()]);
    assert_eq!(status, 2);
    assert!(told.contains(&format!("{}:3: 10.1.2.3/8 is taken for", file.path())), "{told}");
    let (status, told) = check(&["--allow-from", "192.168.7.1/24"]);
    assert_eq!(status, 0);
    assert!(told.contains("--allow-from: 192.168.7.1/24 is taken for 192.168.7.0/24"), "{told}");
}

#[test]
fn a_rule_about_a_user_that_there_is_not_is_told_of() {
    let users = Scratch::new(b"alice:a\n");
    let rules = Scratch::new(b"allow user alice\ndeny user allice\n");
    let (status, told) = check(&["--users", users.path(), "--rules", rules.path()]);
    assert_eq!(status, 0);
    let place = format!("{}:2: ", rules.path());
    assert!(told.contains(&place) && told.contains("no user allice"), "{told}");
    assert_eq!(told.lines().count(), 1, "{told}");
}

#[test]
fn a_rules_file_may_begin_with_a_byte_order_mark() {
    let target = echo();
    let file = format!("\u{feff}# the household\r\ndeny port {}\r\n", target.port());
    let file = Scratch::new(file.as_bytes());
    let server = start(&["--rules", file.path()]);
    assert_eq!(ask(&server, &request(target)).0, DENIED);
}

#[test]
fn self_is_every_address_of_this_machine() {
    let target = echo();
    let rules = format!("allow to 127.0.0.9\ndeny to self port {}\n", target.port());
    let file = Scratch::new(rules.as_bytes());
    let server = start(&["--rules", file.path()]);
    for name in ["127.0.0.1", "127.1", "localhost", "0.0.0.0", "::1", "64:ff9b::127.0.0.1"] {
        let rep = ask(&server, &request_by_name(name.as_bytes(), target.port())).0;
        assert_eq!(rep, DENIED, "{name}");
    }
    let refused = ask(&server, &request(([127, 0, 0, 9], target.port()).into())).0;
    assert_eq!(refused, 0x05, "an earlier rule allows it, and nothing listens there");
}

/// Runs `test` on a router: `lan` is the network at home, `wan` the link to the provider.
fn on_a_router(test: impl FnOnce() + Send) {
    alone(|| {
        let has_ip = ip("link add lan type veth peer name lan1
             link add wan type veth peer name wan1
             link set lan addrgenmode none
             link set wan addrgenmode none
             addr add 192.168.77.1/24 dev lan
             addr add 169.254.1.1/24 dev lan
             addr add fe80::77:1/64 dev lan nodad
             addr add fe80::77:9/64 dev lan nodad
             addr add 203.0.113.1/24 dev wan
             addr add 169.254.2.1/24 dev wan
             addr add fe80::113:1/64 dev wan nodad
             addr add fe80::113:9/64 dev wan nodad
             link set lan up
             link set lan1 up
             link set wan up
             link set wan1 up");
        if has_ip {
            test();
        }
    });
}

/// The answer of the server at `to` to the greeting of a client at another address.
fn greet(from: &str, to: &str, port: u16) -> Vec<u8> {
    say(GREETING, from, to, port)
}

/// The answer to `message`.
fn say(message: &[u8], from: &str, to: &str, port: u16) -> Vec<u8> {
    let from: SocketAddr = format!("{from}:0").parse().unwrap();
    let to: SocketAddr = format!("{to}:{port}").parse().unwrap();
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None).unwrap();
    socket.bind(&from.into()).unwrap();
    socket.connect_timeout(&to.into(), LONG).unwrap();
    let mut client = TcpStream::from(socket);
    client.set_read_timeout(Some(LONG)).unwrap();
    let _ = client.write_all(message);
    let mut answer = [0; 2];
    // The end of a client that is turned away may be a reset.
    let answered = client.read(&mut answer).unwrap_or(0);
    answer[..answered].to_vec()
}

#[test]
fn a_link_local_neighbour_on_the_providers_link_is_not_served() {
    on_a_router(|| {
        let index = |name: &str| nix::net::if_::if_nametoindex(name).unwrap();
        let (lan, wan) = (index("lan"), index("wan"));
        let server = start_on("[::]:0", &[]);
        let port = server.address.port();
        // To another address of this machine: with the same one at both ends it might be a probe.
        for (served, to) in [
            (format!("[fe80::77:1%{lan}]"), format!("[fe80::77:9%{lan}]")),
            ("169.254.1.1".into(), "203.0.113.1".into()),
            ("192.168.77.1".into(), "203.0.113.1".into()),
        ] {
            assert_eq!(greet(&served, &to, port), b"\x05\x00", "{served}");
        }
        let (stranger, server) = (format!("[fe80::113:1%{wan}]"), format!("[fe80::113:9%{wan}]"));
        assert_eq!(greet(&stranger, &server, port), b"");
        for stranger in ["169.254.2.1", "203.0.113.1"] {
            assert_eq!(greet(stranger, "192.168.77.1", port), b"", "{stranger}");
        }
        let asked_for = start_on("[::]:0", &["--allow-from", "fe80::/10"]);
        assert_eq!(greet(&stranger, &server, asked_for.address.port()), b"\x05\x00");
    });
}

#[test]
fn a_link_local_load_balancer_is_served_for_itself_on_a_private_link() {
    on_a_router(|| {
        let index = |name: &str| nix::net::if_::if_nametoindex(name).unwrap();
        let server = start_on("[::]:0", &["--proxy-protocol", "fe80::/10"]);
        let ask = |network: u16, link| {
            let message = [b"PROXY UNKNOWN\r\n", GREETING].concat();
            let address = |host| format!("[fe80::{network}:{host}%{}]", index(link));
            say(&message, &address(1), &address(9), server.address.port())
        };
        assert_eq!(ask(77, "lan"), b"\x05\x00");
        assert_eq!(ask(113, "wan"), b"");
    });
}

#[test]
fn a_public_interface_is_named_at_start_with_whom_it_admits() {
    on_a_router(|| {
        let mut program = Program::start(&["[::]:0"]);
        let told = program.log_line("public address");
        let expected = "wan has the public address 203.0.113.1: clients that come in there are served \
                        from 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16, fc00::/7; all others are \
                        turned away, link-local ones too (--allow-from)";
        assert!(told.contains(expected), "{told}");
    });
}

#[test]
fn a_neighbour_reaches_the_server_through_itself_at_none_of_its_addresses() {
    on_a_router(|| {
        // Neither for nobody else nor for the whole network does a broad rule open it.
        let rules = Scratch::new(b"allow to 192.168.0.0/16\nallow to 0.0.0.0/0\nallow\n");
        let server = start_on("[::]:0", &["--rules", rules.path()]);
        let port = server.address.port();
        let rep = |destination: SocketAddr| {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            socket.bind(&SocketAddr::from(([192, 168, 77, 1], 0)).into()).unwrap();
            let server = SocketAddr::from(([192, 168, 77, 1], port));
            socket.connect_timeout(&server.into(), LONG).unwrap();
            let mut client = TcpStream::from(socket);
            client.set_read_timeout(Some(LONG)).unwrap();
            client.write_all(&[GREETING, &request(destination)].concat()).unwrap();
            assert_eq!(take(&mut client), *b"\x05\x00");
            reply(&mut client).0
        };
        assert_eq!(rep(([203, 0, 113, 1], port).into()), DENIED);
        assert_eq!(rep(([192, 168, 77, 1], port).into()), DENIED);
        assert_eq!(rep(([127, 0, 0, 1], port).into()), DENIED);
        assert_eq!(rep(([127, 0, 0, 1], 9).into()), DENIED);
        assert_eq!(rep(([192, 168, 77, 1], 9).into()), 0x05, "another port, where nobody listens");
        // An address that was not there at the start counts at once, and no longer than it is there.
        for _ in 0..3 {
            assert_ne!(rep(([192, 168, 78, 1], port).into()), DENIED);
            assert!(ip("addr add 192.168.78.1/24 dev lan"));
            assert_eq!(rep(([192, 168, 78, 1], port).into()), DENIED);
            assert!(ip("addr del 192.168.78.1/24 dev lan"));
        }
    });
}

#[test]
fn what_is_routed_to_this_machine_is_this_machine() {
    on_a_router(|| {
        fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "1").unwrap();
        if !ip("addr add 10.98.0.1/24 dev lo
                route add local 10.99.0.0/16 dev lo
                addr add 2001:db8:1::1/64 dev lan nodad
                route add local 2001:db8:9::/64 dev lo")
        {
            return;
        }
        // The kernel adds the anycast address of a subnet a moment after the machine's own: 2001:db8:1::.
        let (begin, anycast) = (Instant::now(), "20010db8000100000000000000000000");
        let of_this_thread = "/proc/thread-self/net/anycast6";
        while !fs::read_to_string(of_this_thread).unwrap().contains(anycast) {
            assert!(begin.elapsed() < LONG, "no anycast address");
            thread::yield_now();
        }
        let rules = Scratch::new(b"allow to self port 1-8\ndeny to self port 9\n");
        let server = start_on("[::]:0", &["--rules", rules.path(), "--connect-timeout", "1"]);
        let port = server.address.port();
        let rep = |destination: SocketAddr| {
            let lan = Ipv4Addr::new(192, 168, 77, 1);
            let mut client = connect_from(lan, (lan, port).into());
            client.write_all(&[GREETING, &request(destination)].concat()).unwrap();
            assert_eq!(take(&mut client), *b"\x05\x00");
            take::<4>(&mut client)[1]
        };
        for own in ["10.98.0.77", "10.99.3.4", "2001:db8:1::", "2001:db8:9::77", "2001:db8:1::1"] {
            let own: IpAddr = own.parse().unwrap();
            assert_eq!(rep((own, port).into()), DENIED, "its own port at {own}");
            assert_eq!(rep((own, 9).into()), DENIED, "self at {own}");
            // Nobody listens there, and an anycast address does not even refuse.
            assert!([0x05, 0x06].contains(&rep((own, 8).into())), "another port at {own}");
        }
    });
}
