//! Datagrams for names.

use super::*;

#[test]
fn names_are_looked_up() {
    let server = start(&[]);
    let client = associate(&server);
    let target = echo("127.0.0.3");
    let by_name = datagram_by_name(b"127.3", target.port(), b"by name");
    for _ in 0..3 {
        client.socket.send(&by_name).unwrap();
        assert_eq!(client.receive(), (target, b"by name".to_vec()));
    }
    // What leads nowhere is dropped, and the rest goes on.
    client.socket.send(&datagram_by_name(b"tabi.invalid", 9, b"nowhere")).unwrap();
    client.socket.send(&by_name).unwrap();
    assert_eq!(client.receive(), (target, b"by name".to_vec()));
}

#[test]
fn datagrams_that_wait_for_a_name_all_go() {
    let server = start(&[]);
    let client = associate(&server);
    let target = echo("127.0.0.3");
    for number in 0..16 {
        client.socket.send(&datagram_by_name(b"127.3", target.port(), &[number])).unwrap();
    }
    for number in 0..16 {
        assert_eq!(client.receive(), (target, vec![number]));
    }
}
