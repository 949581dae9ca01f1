//! HTTP/1, as a client speaks it to a proxy.

use super::refusal::Refusal;

/// What someone who set this server as an HTTP proxy gets to read.
const NOT_SERVED: &str = "HTTP/1.1 400 Bad Request\r\n\
    Content-Type: text/plain\r\n\
    Content-Length: 110\r\n\
    Connection: close\r\n\
    \r\n\
    This is a SOCKS5 proxy, not an HTTP proxy.\n\
    Set it as SOCKS5 host, or as socks5h://host:port where a URL goes.\n";

/// The response for each refusal.
pub fn refusal(_: &Refusal) -> Vec<u8> {
    NOT_SERVED.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_length_of_a_response_is_right() {
        let (head, body) = NOT_SERVED.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())), "{}", body.len());
    }
}
