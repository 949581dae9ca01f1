//! Signals that a limit, a closed pipe or a terminal sends.

use std::io::Write;
use std::net::Ipv4Addr;
use std::os::unix::process::ExitStatusExt;

use rustix::process::Signal;

use crate::scratch::{Program, Scratch, heeding, limited};
use crate::stage::{accept, echo, expect_reset, listen, take, tunnel_from};

fn echoes(program: &Program) {
    let mut client = tunnel_from(Ipv4Addr::LOCALHOST, program.address, echo());
    client.write_all(b"payload").unwrap();
    assert_eq!(take(&mut client), *b"payload");
}

#[test]
fn a_log_that_has_reached_the_largest_size_of_a_file_ends_nothing() {
    let log = Scratch::new(b"");
    // A block is 512 bytes in some shells and 1,024 in others.
    let mut command = limited("-f 2", &["--log-file", log.path()]);
    let mut child = command.spawn().unwrap();
    let line = crate::reload::await_line(log.path(), "listening on ");
    let address = line.split_whitespace().find_map(|word| word.parse().ok()).unwrap();
    for _ in 0..100 {
        let mut client = tunnel_from(Ipv4Addr::LOCALHOST, address, echo());
        client.write_all(b"payload").unwrap();
        assert_eq!(take(&mut client), *b"payload");
    }
    assert!(std::fs::metadata(log.path()).unwrap().len() <= 2 * 1024);
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), Signal::TERM).unwrap();
    assert_eq!(crate::scratch::ended(&mut child).code(), Some(0));
}

#[test]
fn a_signal_that_means_nothing_ends_nothing() {
    let mut program = Program::heeding(&[]);
    program.signal(Signal::USR1);
    program.log_line("means nothing to tabi");
    echoes(&program);
}

#[test]
fn a_closed_pipe_ends_nothing() {
    let mut program = Program::heeding(&[]);
    drop(program.take_log());
    for _ in 0..3 {
        echoes(&program);
    }
    program.signal(Signal::TERM);
    assert_eq!(program.wait().code(), Some(0));
}

#[test]
fn the_limit_on_processor_time_lets_the_server_finish() {
    let mut program = Program::heeding(&["--grace", "600"]);
    let (listener, address) = listen();
    let mut client = tunnel_from(Ipv4Addr::LOCALHOST, program.address, address);
    let mut target = accept(&listener);
    for _ in 0..2 {
        program.signal(Signal::XCPU);
    }
    program.log_line("1 session has 600 s to finish");
    client.write_all(b"payload").unwrap();
    assert_eq!(take(&mut target), *b"payload");
    drop((client, target));
    assert_eq!(program.wait().code(), Some(0));
}

#[test]
fn a_terminals_quit_ends_the_server_and_nothing_looks_complete() {
    let mut command = heeding(&[]);
    command.current_dir(std::env::temp_dir());
    let mut program = Program::spawn(command);
    let (listener, address) = listen();
    let mut client = tunnel_from(Ipv4Addr::LOCALHOST, program.address, address);
    let mut target = accept(&listener);
    program.signal(Signal::QUIT);
    assert_eq!(program.wait().signal(), Some(Signal::QUIT.as_raw()));
    expect_reset(&mut client);
    expect_reset(&mut target);
}
