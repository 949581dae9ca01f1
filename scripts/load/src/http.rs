//! A request for so many octets, through an HTTP proxy or not, and the origin that answers it.

use std::io::{self, Read, Write};
use std::net::{SocketAddrV4, TcpStream};

use crate::digest::{BLOCK, DOWN, octets};
use crate::head::{FIELDS, LOGIN, content_length, expect_success, read_head};
use crate::tunnel::{self, By, Proxy};

/// Gets so many octets from the origin at `target`, which `look` is shown as they come.
pub(crate) fn get(
    proxy: Option<Proxy>,
    stream: &mut TcpStream,
    target: SocketAddrV4,
    length: usize,
    mut look: impl FnMut(&[u8]),
) -> io::Result<()> {
    let proxy = proxy.filter(|proxy| proxy.by == By::PlainHttp);
    let place = proxy.map_or(String::new(), |_| format!("http://{target}"));
    let login = proxy.filter(|proxy| proxy.users).map_or("", |_| LOGIN);
    let fields = proxy.map_or("", |_| FIELDS);
    let head = format!(
        "GET {place}/{length} HTTP/1.1\r\nHost: {target}\r\nAccept: */*\r\n{login}{fields}\r\n"
    );
    stream.write_all(head.as_bytes())?;
    let head = read_head(stream)?;
    expect_success(&head)?;
    if content_length(&head) != Some(length) {
        return Err(io::Error::other("the answer has another length"));
    }
    let mut block = vec![0; BLOCK.min(length)];
    let mut left = length;
    while left > 0 {
        let most = block.len().min(left);
        let count = stream.read(&mut block[..most])?;
        if count == 0 {
            return Err(io::Error::other(format!("the answer ended {left} octets early")));
        }
        look(&block[..count]);
        left -= count;
    }
    Ok(())
}

/// Shows that an answer of so many octets arrives unchanged.
pub(crate) fn check(proxy: Option<Proxy>, target: SocketAddrV4, length: usize) -> io::Result<()> {
    check_over(proxy, &mut tunnel::open(proxy, target)?, target, length)
}

/// The same over a connection that is there.
pub(crate) fn check_over(
    proxy: Option<Proxy>,
    stream: &mut TcpStream,
    target: SocketAddrV4,
    length: usize,
) -> io::Result<()> {
    let block = octets(DOWN, BLOCK);
    let mut expected = block.iter().cycle();
    let mut is_same = true;
    get(proxy, stream, target, length, |octets| {
        is_same &= octets.iter().all(|octet| expected.next() == Some(octet));
    })?;
    if is_same { Ok(()) } else { Err(io::Error::other("the answer arrived changed")) }
}

/// The origin's side: as many octets as the path says, on a connection that ends then.
pub(crate) fn answer(mut stream: TcpStream) -> io::Result<()> {
    let head = String::from_utf8_lossy(&read_head(&mut stream)?).into_owned();
    let asked = head.strip_prefix("GET /").and_then(|rest| rest.split(' ').next()?.parse().ok());
    let Some(length) = asked else {
        return stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
    };
    let block = octets(DOWN, BLOCK.min(length));
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
    stream.write_all(&[head.as_bytes(), &block].concat())?;
    let mut left = length - block.len();
    while left > 0 {
        let count = block.len().min(left);
        stream.write_all(&block[..count])?;
        left -= count;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::{self, Read, Write};
    use std::net::{Ipv4Addr, Shutdown, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
    use std::thread;

    use super::{answer, check, get};
    use crate::head::{connect, read_head};
    use crate::tunnel::{By, Proxy};

    const TARGET: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 7), 80);

    /// Both ends of a connection.
    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let one = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (one, listener.accept().unwrap().0)
    }

    /// What a client gets that asks for 5 octets by plain HTTP, and with what head.
    fn get_five(answer: &[u8]) -> (io::Result<Vec<u8>>, String) {
        let (mut client, mut other) = pair();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
        let proxy = Some(Proxy { address, by: By::PlainHttp, users: false });
        other.write_all(answer).unwrap();
        other.shutdown(Shutdown::Write).unwrap();
        let mut received = Vec::new();
        let look = |octets: &[u8]| received.extend_from_slice(octets);
        let outcome = get(proxy, &mut client, TARGET, 5, look).map(|()| received);
        let head = read_head(&mut other).unwrap();
        (outcome, String::from_utf8(head).unwrap())
    }

    #[test]
    fn a_head_is_read_whole_in_several_looks_and_what_is_behind_it_is_left() {
        // The end of the head lies on either side of where the first look ends.
        for length in [100, 1023, 1024, 1025, 1026, 1027, 1028, 3000] {
            let (mut client, mut proxy) = pair();
            let reason = "x".repeat(length - "HTTP/1.1 200 \r\n\r\n".len());
            write!(proxy, "HTTP/1.1 200 {reason}\r\n\r\nearly").unwrap();
            connect(&mut client, true, TARGET.into()).unwrap();
            let mut early = [0; 5];
            client.read_exact(&mut early).unwrap();
            assert_eq!(early, *b"early", "{length}");
            let head = read_head(&mut proxy).unwrap();
            let expected = "CONNECT 192.0.2.7:80 HTTP/1.1\r\nHost: 192.0.2.7:80\r\n".to_owned()
                + "Proxy-Authorization: Basic YmVuY2g6YmVuY2g=\r\n";
            assert!(head.starts_with(expected.as_bytes()));
        }
    }

    #[test]
    fn only_200_and_the_whole_length_is_an_answer() {
        let (body, head) = get_five(b"HTTP/1.1 200 OK\r\ncontent-length:  5\r\n\r\nhello");
        assert_eq!(body.unwrap(), b"hello");
        assert!(head.starts_with("GET http://192.0.2.7:80/5 HTTP/1.1\r\nHost: 192.0.2.7:80\r\n"));
        for (answer, wrong) in [
            ("HTTP/1.1 403 200\r\nContent-Length: 5\r\n\r\nhello", "answer HTTP/1.1 403"),
            ("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nhell", "another length"),
            ("HTTP/1.1 200 OK\r\n\r\nhello", "another length"),
            ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell", "1 octets early"),
            ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n", "without an answer"),
        ] {
            let error = get_five(answer.as_bytes()).0.unwrap_err().to_string();
            assert!(error.contains(wrong), "{answer:?}: {error}");
        }
    }

    #[test]
    fn the_origin_takes_what_is_for_an_origin_and_its_octets_are_known() {
        let origin = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let SocketAddr::V4(address) = origin.local_addr().unwrap() else { panic!("it is IPv4") };
        thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..2 {
                    answer(origin.accept().unwrap().0).unwrap();
                }
            });
            check(None, address, 300_001).unwrap();
            let proxy = Some(Proxy { address: address.into(), by: By::PlainHttp, users: false });
            let error = check(proxy, address, 5).unwrap_err().to_string();
            assert!(error.contains("400"), "{error}");
        });
        // A proxy that changes one octet.
        let changed = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let SocketAddr::V4(address) = changed.local_addr().unwrap() else { panic!("it is IPv4") };
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut stream = changed.accept().unwrap().0;
                read_head(&mut stream).unwrap();
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello").unwrap();
            });
            let error = check(None, address, 5).unwrap_err().to_string();
            assert!(error.contains("changed"), "{error}");
        });
    }
}
