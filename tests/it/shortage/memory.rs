//! Addresses: each thread takes some for its stack, and where none are left even a few bytes of memory
//! are refused. And memory itself.

use std::fs;
use std::io::ErrorKind;
use std::net::Ipv4Addr;
use std::time::Duration;

use super::threads::Group;
use super::{assert_calm, assert_echoes, client_of, rep_of};
use crate::scratch::{Program, limited, of_process};
use crate::stage::{LONG, echo, tunnel_from};

/// Enough for some clients and too little for [`CLIENTS`], in KiB. The C library takes 64 MiB for each
/// of its heaps, if it may have more than one.
const ONE_HEAP: usize = 64 * 1024;
const MORE_HEAPS: usize = 160 * 1024;
const CLIENTS: usize = 400;

/// A stack and the page before it, in KiB, where a page has 4.
const STACK: usize = 512 + 4;

/// How long a client that nobody serves is waited for.
const SHORT: Duration = Duration::from_millis(500);

#[test]
fn where_no_address_is_left_clients_wait_and_nobody_loses_a_tunnel() {
    let taken = addresses_run_out(ONE_HEAP, "1");
    // One more stack has room there, and what else a thread needs has none, or just so.
    for more in (0..=24).step_by(4) {
        addresses_run_out(taken + STACK + more, "1");
    }
    addresses_run_out(MORE_HEAPS, "16");
}

/// Uses a server with so many addresses, in KiB, until it can serve no further client. Says how many it
/// had taken then.
fn addresses_run_out(limit: usize, heaps: &str) -> usize {
    let mut command = limited(&format!("-v {limit}"), &[]);
    command.env("MALLOC_ARENA_MAX", heaps);
    let server = Program::spawn(command);
    let target = echo();
    let mut tunnels = Vec::new();
    let mut next = loop {
        assert!(tunnels.len() < CLIENTS, "there are enough addresses");
        let mut client = client_of(Ipv4Addr::LOCALHOST, server.address, target);
        client.set_read_timeout(Some(SHORT)).unwrap();
        match client.peek(&mut [0]) {
            Ok(1..) => {
                client.set_read_timeout(Some(LONG)).unwrap();
                assert_eq!(rep_of(&mut client), 0x00);
                tunnels.push(client);
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => break client,
            other => panic!("after {} tunnels, with {limit} KiB: {other:?}", tunnels.len()),
        }
    };
    let status = fs::read_to_string(of_process(server.id(), "status")).unwrap();
    let taken = status.lines().find_map(|line| line.strip_prefix("VmSize:")).unwrap();
    let taken = taken.trim().strip_suffix(" kB").unwrap().parse().unwrap();
    println!("{} tunnels with {limit} KiB of addresses, {taken} taken", tunnels.len());
    if limit == ONE_HEAP {
        assert_calm(server.id(), "no addresses left");
    }
    tunnels.iter_mut().for_each(assert_echoes);
    tunnels.truncate(tunnels.len() / 2);
    next.set_read_timeout(Some(LONG)).unwrap();
    assert_eq!(rep_of(&mut next), 0x00);
    tunnels.iter_mut().for_each(assert_echoes);
    taken
}

#[test]
fn in_a_control_group_of_64_mib_there_are_as_many_places_as_it_has_memory_for() {
    let Some(group) = Group::of_memory(64 * 1024 * 1024) else { return };
    let mut server = Program::spawn(group.program());
    server.log_line(
        "--max-connections is 409, not 4096: the control group may have 64 MiB of memory",
    );
    let target = echo();
    let mut tunnels: Vec<_> = (1..=100)
        .flat_map(|client| [Ipv4Addr::new(127, 0, 0, client); 3])
        .map(|client| tunnel_from(client, server.address, target))
        .collect();
    tunnels.iter_mut().for_each(assert_echoes);
    tunnels.iter_mut().for_each(assert_echoes);
}
