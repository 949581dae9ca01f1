//! What a client that speaks HTTP is told of its request.

use crate::wire::refusal::Refusal;

/// Whoever has to log in is told how (RFC 7617 section 2).
const HOW: &str = "Proxy-Authenticate: Basic realm=\"tabi\"\r\n";

/// The status and the reason for each refusal.
fn table(refusal: &Refusal) -> (&'static str, &'static str) {
    const DENIED: (&str, &str) = ("403 Forbidden", "This proxy does not allow that.\n");
    const TIMED_OUT: (&str, &str) =
        ("504 Gateway Timeout", "The server has not answered in time.\n");
    let bad_gateway = |why| ("502 Bad Gateway", why);
    match refusal {
        Refusal::NotServed => (
            "400 Bad Request",
            "This is a proxy that does not serve HTTP.\n\
             Set it as SOCKS5 host, or as socks5h://host:port where a URL goes.\n",
        ),
        Refusal::Malformed | Refusal::Command => {
            ("400 Bad Request", "This is no request that a proxy can take.\n")
        }
        Refusal::TooLarge => {
            ("431 Request Header Fields Too Large", "The request's head is too large.\n")
        }
        Refusal::NoLogin | Refusal::WrongLogin => {
            ("407 Proxy Authentication Required", "A name and a password are required.\n")
        }
        Refusal::Denied => DENIED,
        Refusal::TimedOut => TIMED_OUT,
        Refusal::ConnectionRefused => bad_gateway("The server refuses the connection.\n"),
        Refusal::NetworkUnreachable | Refusal::AddressFamily => {
            bad_gateway("The server's network cannot be reached.\n")
        }
        Refusal::HostUnreachable => bad_gateway("The server cannot be found or reached.\n"),
        Refusal::Failed => bad_gateway("The server could not be reached.\n"),
        Refusal::BadResponse => bad_gateway("The server's answer is none of HTTP/1.\n"),
        Refusal::Upstream(reply) => reply.refusal().map_or(TIMED_OUT, |refusal| table(&refusal)),
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
    let challenge = if status.starts_with("407") { HOW } else { "" };
    let length = text.len();
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\n\
         {challenge}Connection: close\r\n\r\n{text}"
    )
    .into()
}
