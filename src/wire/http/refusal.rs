//! What a client that speaks HTTP is told of its request.

use crate::wire::refusal::Refusal;

const LOGIN: &str = "407 Proxy Authentication Required";

/// Whoever has to log in is told how (RFC 7617 section 2).
const HOW: &str = "Proxy-Authenticate: Basic realm=\"tabi\"\r\n";

/// The status and the reason for each refusal.
fn table(refusal: &Refusal) -> (&'static str, &'static str) {
    const BAD_REQUEST: &str = "400 Bad Request";
    const BAD_GATEWAY: &str = "502 Bad Gateway";
    match refusal {
        Refusal::NotServed => (
            BAD_REQUEST,
            "This is a proxy that does not serve HTTP.\n\
             Set it as SOCKS5 host, or as socks5h://host:port where a URL goes.\n",
        ),
        Refusal::Malformed | Refusal::Command => (BAD_REQUEST, "No proxy can take this request.\n"),
        Refusal::TooLarge => ("431 Request Header Fields Too Large", "The head is too large.\n"),
        Refusal::NoLogin | Refusal::WrongLogin => (LOGIN, "A name and a password are required.\n"),
        Refusal::Denied => ("403 Forbidden", "This proxy does not allow that.\n"),
        Refusal::TimedOut => ("504 Gateway Timeout", "The server has not answered in time.\n"),
        Refusal::ConnectionRefused => (BAD_GATEWAY, "The server refuses the connection.\n"),
        Refusal::NetworkUnreachable => (BAD_GATEWAY, "The network cannot be reached.\n"),
        Refusal::HostUnreachable => (BAD_GATEWAY, "The server cannot be found or reached.\n"),
        Refusal::BadResponse => (BAD_GATEWAY, "The server's response cannot be passed on.\n"),
        Refusal::AddressFamily | Refusal::Failed => {
            (BAD_GATEWAY, "The server cannot be reached.\n")
        }
        Refusal::Upstream(reply) => table(&reply.refusal().unwrap_or(Refusal::Failed)),
    }
}

/// The response to a request without a login: the next one on the same connection may have one. It is the same
/// for HEAD, whose responses have no body.
pub const CHALLENGE: &[u8] = b"HTTP/1.1 407 Proxy Authentication Required\r\n\
    Proxy-Authenticate: Basic realm=\"tabi\"\r\n\
    Content-Length: 0\r\n\
    \r\n";

/// The response for each refusal, with which the connection ends.
pub fn refusal(refusal: &Refusal) -> Vec<u8> {
    let (status, text) = table(refusal);
    let challenge = if status == LOGIN { HOW } else { "" };
    let length = text.len();
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\n\
         {challenge}Connection: close\r\n\r\n{text}"
    )
    .into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::http::CONNECTED;
    use crate::wire::socks5::Reply;
    use httparse::{EMPTY_HEADER, Header, Response};

    /// The status, the fields and the body of a response.
    fn parse(octets: &[u8]) -> (u16, Vec<(String, String)>, String) {
        let mut fields = [EMPTY_HEADER; 8];
        let mut response = Response::new(&mut fields);
        let length = response.parse(octets).unwrap().unwrap();
        assert_eq!(response.version, Some(1));
        let field = |it: &Header<'_>| {
            (it.name.to_ascii_lowercase(), String::from_utf8(it.value.into()).unwrap())
        };
        let fields = response.headers.iter().map(field).collect();
        (response.code.unwrap(), fields, String::from_utf8(octets[length..].into()).unwrap())
    }

    fn upstream(rep: u8) -> Refusal {
        let reply = [0x05, rep, 0x00, 0x01, 0, 0, 0, 0, 0, 0];
        Refusal::Upstream(Reply::read_from(&mut reply.as_slice()).unwrap().into())
    }

    #[test]
    fn each_refusal_has_its_status_a_reason_its_length_and_closes() {
        for (of, status) in [
            (Refusal::NotServed, 400),
            (Refusal::Malformed, 400),
            (Refusal::TooLarge, 431),
            (Refusal::NoLogin, 407),
            (Refusal::WrongLogin, 407),
            (Refusal::Denied, 403),
            (Refusal::Command, 400),
            (Refusal::NetworkUnreachable, 502),
            (Refusal::HostUnreachable, 502),
            (Refusal::ConnectionRefused, 502),
            (Refusal::TimedOut, 504),
            (Refusal::AddressFamily, 502),
            (Refusal::BadResponse, 502),
            (Refusal::Failed, 502),
            (upstream(0x01), 502),
            (upstream(0x02), 403),
            (upstream(0x05), 502),
            (upstream(0x06), 504),
            (upstream(0xff), 502),
        ] {
            let (code, fields, body) = parse(&refusal(&of));
            assert_eq!(code, status, "{of:?}");
            let field = |name: &str, value: &str| (name.to_owned(), value.to_owned());
            let mut expected = vec![
                field("content-type", "text/plain"),
                field("content-length", &body.len().to_string()),
            ];
            if code == 407 {
                expected.push(field("proxy-authenticate", "Basic realm=\"tabi\""));
            }
            expected.push(field("connection", "close"));
            assert_eq!(fields, expected, "{of:?}");
            assert!(body.is_ascii() && body.len() > 10 && body.ends_with(".\n"), "{body}");
        }
    }

    #[test]
    fn the_challenge_leaves_the_connection_open() {
        let (code, fields, body) = parse(CHALLENGE);
        let field = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let expected =
            [field("proxy-authenticate", "Basic realm=\"tabi\""), field("content-length", "0")];
        assert_eq!((code, fields.as_slice(), &*body), (407, expected.as_slice(), ""));
    }

    #[test]
    fn what_follows_a_connect_that_has_succeeded_is_no_body() {
        assert_eq!(parse(CONNECTED), (200, Vec::new(), String::new()));
    }
}
