//! The log in JSON: every line is an object, whatever clients choose.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::process::Stdio;
use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process};

use crate::restart::Successor;
use crate::scratch::{Program, Scratch, ended, heeding, program_on};
use crate::stage::{GREETING, LONG, connect, connect_from, echo, reply, request, take};

/// A value in an object of which none is an object or a list.
#[derive(Debug, PartialEq)]
enum Value {
    Null,
    Number(f64),
    Text(String),
}

/// A line of the log.
#[derive(Debug)]
pub struct Entry(BTreeMap<String, Value>);

impl Entry {
    /// Reads a line as RFC 8259 has it, and nothing beside it.
    pub fn read(line: &str) -> Self {
        let mut rest = line.strip_prefix('{').unwrap_or_else(|| panic!("no object: {line}"));
        let mut members = BTreeMap::new();
        loop {
            let name = text(skip(rest, '"'), &mut rest);
            rest = skip(rest, ':');
            let value = value(&mut rest);
            assert!(members.insert(name, value).is_none(), "a member comes twice: {line}");
            if let Some(end) = rest.strip_prefix('}') {
                assert_eq!(end, "", "{line}");
                return Entry(members).with_a_head();
            }
            rest = skip(rest, ',');
        }
    }

    /// Each line has a time in UTC, a level and a message.
    fn with_a_head(self) -> Self {
        let time = self.text("time").replace(|it: char| it.is_ascii_digit(), "0");
        assert_eq!(time, "0000-00-00T00:00:00.000Z");
        assert!(["error", "warn", "info", "debug"].contains(&self.text("level")), "{self:?}");
        assert_ne!(self.text("message"), "");
        self
    }

    /// The names of its members.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    fn text(&self, name: &str) -> &str {
        let Some(Value::Text(text)) = self.0.get(name) else { panic!("no text {name}: {self:?}") };
        text
    }

    fn number(&self, name: &str) -> f64 {
        let Some(Value::Number(number)) = self.0.get(name) else {
            panic!("no number {name}: {self:?}")
        };
        *number
    }
}

fn skip(rest: &str, expected: char) -> &str {
    rest.strip_prefix(expected).unwrap_or_else(|| panic!("no {expected} before {rest}"))
}

fn value(rest: &mut &str) -> Value {
    if let Some(after) = rest.strip_prefix("null") {
        *rest = after;
        return Value::Null;
    }
    if let Some(inside) = rest.strip_prefix('"') {
        return Value::Text(text(inside, rest));
    }
    let end = rest.find([',', '}']).unwrap();
    let (number, after) = rest.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let are_digits = |part: &str| !part.is_empty() && part.chars().all(|it| it.is_ascii_digit());
    assert!(are_digits(whole) && are_digits(fraction), "no number: {number}");
    assert!(whole == "0" || !whole.starts_with('0'), "{number}");
    *rest = after;
    Value::Number(number.parse().unwrap())
}

/// The text that begins `inside`, up to its quotation mark, which `rest` goes on behind.
fn text<'a>(inside: &'a str, rest: &mut &'a str) -> String {
    let mut characters = inside.chars();
    let mut text = String::new();
    loop {
        match characters.next().unwrap() {
            '"' => break,
            '\\' => {
                assert_eq!(characters.next(), Some('u'), "{inside}");
                let digits: String = characters.by_ref().take(4).collect();
                text.push(char::from_u32(u32::from_str_radix(&digits, 16).unwrap()).unwrap());
            }
            other => {
                assert!(!other.is_control() && other != '\u{2028}', "{inside}");
                text.push(other);
            }
        }
    }
    *rest = characters.as_str();
    text
}

/// The next line of the log that has `part` in it.
fn entry(program: &mut Program, part: &str) -> Entry {
    Entry::read(program.log_line(part).trim_end())
}

/// A tunnel in which `ping` goes to the target and comes back.
fn short_tunnel(server: SocketAddr, target: SocketAddr) {
    let mut client = connect(server);
    client.write_all(&[GREETING, &request(target), b"ping"].concat()).unwrap();
    assert_eq!(take(&mut client), *b"\x05\x00");
    assert_eq!(reply(&mut client).0, 0x00);
    assert_eq!(take(&mut client), *b"ping");
}

#[test]
fn numbers_are_numbers_in_the_line_of_a_session() {
    let mut program = Program::start(&["--log-format", "json"]);
    let target = echo();
    short_tunnel(program.address, target);
    let entry = entry(&mut program, "session ended");
    for (name, expected) in [("up", 4.0), ("down", 4.0)] {
        assert!((entry.number(name) - expected).abs() < 0.1, "{entry:?}");
    }
    assert!((0.0..60.0).contains(&entry.number("seconds")), "{entry:?}");
    assert_eq!((entry.text("level"), entry.text("message")), ("info", "session ended"));
    assert!(entry.text("client").starts_with("127.0.0.1:"), "{entry:?}");
    assert_eq!([entry.text("protocol"), entry.text("command")], ["socks5", "CONNECT"]);
    assert_eq!([entry.text("dest"), entry.text("reached")], [&target.to_string()[..]; 2]);
    for absent in ["user", "destinations", "denied", "via", "why"] {
        assert_eq!(entry.0[absent], Value::Null, "{absent}");
    }
}

#[test]
fn a_user_name_of_any_bytes_leaves_the_line_an_object() {
    let file = Scratch::new(b"alice:open sesame");
    let mut program = Program::start(&["--users", file.path(), "--log-format", "json"]);
    for (name, spelled) in [
        (&b"\",\"level\":\"error"[..], r"\x22,\x22level\x22:\x22error"),
        (b"\\\"}\n{", r"\\\x22}\x0a{"),
        (b"\x00\x1b[31m\x7f\x85\xff", r"\x00\x1b[31m\x7f\x85\xff"),
        ("\u{2028}é".as_bytes(), r"\xe2\x80\xa8\xc3\xa9"),
        (b"</script>&'", "</script>&'"),
    ] {
        let length = u8::try_from(name.len()).unwrap();
        let login = [b"\x05\x01\x02\x01", &[length][..], name, b"\x05guess"].concat();
        let mut client = connect(program.address);
        client.write_all(&login).unwrap();
        assert_eq!(take(&mut client), *b"\x05\x02\x01\x01");
        let entry = entry(&mut program, "bad-credentials");
        assert_eq!((entry.text("level"), entry.text("user")), ("warn", spelled));
    }
}

#[test]
fn what_begins_no_session_is_an_object_too() {
    let users = Scratch::new(b"alice:open sesame");
    let options = ["--users", users.path(), "--log-format", "json", "-v", "--log-rate-limit", "1"];
    let mut command = heeding(&[&options[..], &["--max-per-client", "1"]].concat());
    // Times in JSON are in UTC wherever the machine is.
    command.env("TZ", "XXX-1:02:03");
    let mut program = Program::spawn(command);
    let start = entry(&mut program, "serving nobody but 1 user ");
    assert_eq!(start.text("level"), "info");
    // 100 lines of each kind may come at once, and one a second.
    let clients = [(); 150].map(|()| connect_from([127, 0, 0, 3].into(), program.address));
    let turned_away = entry(&mut program, "turned away");
    assert_eq!(turned_away.text("message"), "turned away");
    let is_named =
        |it: &TcpStream| it.local_addr().unwrap().to_string() == turned_away.text("client");
    assert!(clients.iter().any(is_named), "{turned_away:?}");
    assert!(turned_away.text("why").contains("--max-per-client"), "{turned_away:?}");
    drop(clients);
    program.signal(Signal::HUP);
    entry(&mut program, "reloaded: ");
    fs::write(users.path(), "alice\n\"").unwrap();
    program.signal(Signal::HUP);
    assert_eq!(entry(&mut program, "cannot reload ").text("level"), "error");
    program.signal(Signal::TERM);
    let log = program.log_so_far().to_owned() + &program.rest_of_log();
    let messages: Vec<_> = log.lines().map(|it| Entry::read(it).text("message").into()).collect();
    let is_said = |part: &str| messages.iter().any(|message: &String| message.contains(part));
    assert!(is_said(" more lines of client=127.0.0.3: turned away"), "{log}");
    assert!(is_said("stopped"), "{log}");
}

#[test]
fn a_log_file_has_objects_before_and_after_it_is_opened_anew() {
    let (file, rotated) = (Scratch::new(b""), Scratch::new(b""));
    let variables = [("TABI_LOG_FORMAT", "json"), ("TABI_LOG_FILE", file.path())];
    let mut child = heeding(&[]).envs(variables).spawn().unwrap();
    let signal = |signal| kill_process(Pid::from_child(&child), signal).unwrap();
    let await_line = |part: &str| {
        let begin = Instant::now();
        while !fs::read_to_string(file.path()).is_ok_and(|log| log.contains(part)) {
            assert!(begin.elapsed() < LONG, "no {part} in the file");
        }
    };
    await_line("listening on");
    let log = fs::read_to_string(file.path()).unwrap();
    let address = log.split([' ', '"']).find_map(|word| word.parse().ok()).unwrap();
    let target = echo();
    short_tunnel(address, target);
    await_line("session ended");
    fs::rename(file.path(), rotated.path()).unwrap();
    signal(Signal::HUP);
    await_line("reloaded");
    short_tunnel(address, target);
    await_line("session ended");
    signal(Signal::TERM);
    assert_eq!(ended(&mut child).code(), Some(0));
    for path in [rotated.path(), file.path()] {
        let log = fs::read_to_string(path).unwrap();
        assert!(log.lines().map(Entry::read).count() > 0, "{path} is empty");
    }
}

#[test]
fn why_the_program_cannot_start_is_an_object() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let mut command = program_on(&address, &["--log-format", "json"]);
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    assert_eq!(ended(&mut child).code(), Some(1));
    let mut log = String::new();
    child.stderr.take().unwrap().read_to_string(&mut log).unwrap();
    let last = Entry::read(log.lines().last().unwrap());
    assert!(last.text("message").contains(&address), "{log}");
    assert_eq!(last.text("level"), "error");
}

#[test]
fn systemd_gets_objects_without_levels_before_them() {
    let (log, output) = UnixStream::pair().unwrap();
    log.set_read_timeout(Some(LONG)).unwrap();
    let output = File::from(OwnedFd::from(output));
    let metadata = output.metadata().unwrap();
    let mut child = program_on("127.0.0.1:0", &["--log-format", "json"])
        .env("JOURNAL_STREAM", format!("{}:{}", metadata.dev(), metadata.ino()))
        .stderr(output)
        .spawn()
        .unwrap();
    let line = BufReader::new(log).lines().next().unwrap().unwrap();
    child.kill().unwrap();
    ended(&mut child);
    assert!(Entry::read(&line).text("message").starts_with("listening on "), "{line}");
}

#[test]
fn the_process_after_a_restart_logs_objects() {
    let mut program = Program::heeding(&["--log-format", "json"]);
    program.signal(Signal::USR2);
    let line = program.log_line(" serves clients now");
    let _successor = Successor::named_in(&line);
    Entry::read(line.trim_end());
    short_tunnel(program.address, echo());
    entry(&mut program, "session ended");
    for line in program.log_so_far().lines() {
        Entry::read(line);
    }
}
