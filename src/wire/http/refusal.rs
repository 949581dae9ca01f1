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
