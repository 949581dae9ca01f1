//! Tor's `RESOLVE` and `RESOLVE_PTR`.

use std::io::{Read, Write};
use std::thread;

use crate::scratch::{Program, Scratch};
use crate::stage::{accept, listen, start, take, told};

#[test]
fn a_name_is_resolved_without_a_connection() {
    let mut program = Program::start(&[]);
    let localhost = b"\x05\xf0\x00\x03\x09localhost\x00\x00";
    assert_eq!(told(program.address, localhost), b"\x05\x00\x00\x01\x7f\x00\x00\x01\x00\x00");
    let line = program.log_line("outcome=");
    assert!(line.contains(" command=RESOLVE dest=localhost:0 "), "{line}");
    assert!(line.contains("outcome=closed"), "{line}");
    let address = b"\x05\xf0\x00\x01\xc0\x00\x02\x01\x00\x50";
    assert_eq!(told(program.address, address), b"\x05\x00\x00\x01\xc0\x00\x02\x01\x00\x00");
    let unknown = b"\x05\xf0\x00\x03\x0ctabi.invalid\x00\x00";
    assert_eq!(told(program.address, unknown)[1], 0x04);
}

#[test]
fn who_may_not_connect_gets_no_address() {
    let rules = Scratch::new(b"deny command connect to *.invalid\ndeny to 192.0.2.0/24\n");
    let server = start(&["--rules", rules.path()]);
    // A lookup would end in 04.
    for request in [
        b"\x05\xf0\x00\x03\x09a.invalid\x00\x00".as_slice(),
        b"\x05\xf1\x00\x01\xc0\x00\x02\x01\0\0",
    ] {
        assert_eq!(told(server.address, request)[1], 0x02);
    }
}

#[test]
fn what_goes_up_is_asked_there() {
    for (request, answer) in [
        (
            b"\x05\xf0\x00\x03\x07a.onion\x00\x00".as_slice(),
            b"\x05\x00\x00\x01\x7f\xc0\x00\x01\x00\x00".as_slice(),
        ),
        (b"\x05\xf1\x00\x01\xc0\x00\x02\x01\x00\x00", b"\x05\x00\x00\x03\x04host\x00\x00"),
        (b"\x05\xf0\x00\x03\x07a.onion\x00\x00", b"\x05\x07\x00\x01\0\0\0\0\0\0"),
    ] {
        let (listener, address) = listen();
        let upstream = thread::spawn(move || {
            let mut stream = accept(&listener);
            take::<3>(&mut stream);
            stream.write_all(b"\x05\x00").unwrap();
            let mut asked = vec![0; request.len()];
            stream.read_exact(&mut asked).unwrap();
            stream.write_all(answer).unwrap();
            asked
        });
        let server = start(&["--upstream", &format!("socks5h://{address}")]);
        assert_eq!(told(server.address, request), answer);
        assert_eq!(upstream.join().unwrap(), request);
    }
}

#[test]
fn an_address_is_resolved_to_its_name() {
    let hosts = std::fs::read_to_string("/etc/hosts").unwrap_or_default();
    if !hosts.lines().any(|line| line.split_whitespace().next() == Some("127.0.0.1")) {
        eprintln!("this machine's hosts file does not name 127.0.0.1");
        return;
    }
    let mut program = Program::start(&[]);
    let words = told(program.address, b"\x05\xf1\x00\x01\x7f\x00\x00\x01\x00\x00");
    assert_eq!(words[..4], *b"\x05\x00\x00\x03", "{}", words.escape_ascii());
    let name = &words[5..words.len() - 2];
    assert_eq!(usize::from(words[4]), name.len());
    assert!(hosts.contains(std::str::from_utf8(name).unwrap()));
    let line = program.log_line("outcome=");
    assert!(line.contains(" command=RESOLVE_PTR dest=127.0.0.1:0 "), "{line}");
}
