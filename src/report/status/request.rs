//! The head of a request, and what is asked for in it.

use std::net::{Ipv4Addr, Ipv6Addr};

use httparse::{Header, Status};

/// The longest head of a request, in bytes, and the most headers in it. Browsers send a dozen, in
/// less than 1 KiB; cookies of other servers on the same host may make it longer.
pub(super) const MAX_HEAD: usize = 8 * 1024;
const MAX_HEADERS: usize = 64;

/// What a visitor asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) resource: Resource,
    /// HEAD: a response without its body.
    pub(super) head_only: bool,
}

/// What there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Resource {
    /// `/`
    Page,
    /// `/sessions`
    Sessions,
    /// `/metrics`
    Metrics,
    /// `/healthz`
    Health,
}

/// Why a visitor gets none of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RequestError {
    /// It is no request of HTTP/1.
    Malformed,
    /// The head is too long.
    TooLong,
    /// The visitor has come by a name that anyone could point here (DNS rebinding).
    Host,
    /// Only GET and HEAD are served.
    Method,
    /// There is nothing of that name.
    Path,
}

/// Reads a request's head. `None` while it is not complete. `hostname` is the name of this machine.
pub(super) fn read(head: &[u8], hostname: &str) -> Option<Result<Request, RequestError>> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(head) {
        Ok(Status::Complete(_)) => {}
        Ok(Status::Partial) if head.len() < MAX_HEAD => return None,
        Ok(Status::Partial) | Err(httparse::Error::TooManyHeaders) => {
            return Some(Err(RequestError::TooLong));
        }
        Err(_) => return Some(Err(RequestError::Malformed)),
    }
    let is_old = request.version == Some(0);
    let request = check_host(request.headers, is_old, hostname).and_then(|()| {
        let head_only = match request.method {
            Some("GET") => false,
            Some("HEAD") => true,
            _ => return Err(RequestError::Method),
        };
        let path = request.path.unwrap_or_default();
        let resource = match path.split_once('?').map_or(path, |(path, _)| path) {
            "/" => Resource::Page,
            "/sessions" => Resource::Sessions,
            "/metrics" => Resource::Metrics,
            "/healthz" => Resource::Health,
            _ => return Err(RequestError::Path),
        };
        Ok(Request { resource, head_only })
    });
    Some(request)
}

/// A browser says by which name it has come. Someone else's name that leads here would make the
/// browser hand what it reads to that someone's pages. Only HTTP/1.0 may leave Host out, as the
/// health checks of load balancers do.
fn check_host(headers: &[Header<'_>], may_lack: bool, hostname: &str) -> Result<(), RequestError> {
    let mut hosts = headers.iter().filter(|header| header.name.eq_ignore_ascii_case("host"));
    match (hosts.next(), hosts.next()) {
        (None, _) if may_lack => Ok(()),
        (Some(host), None) => match std::str::from_utf8(host.value) {
            Ok(host) if is_ours(host, hostname) => Ok(()),
            Ok(_) | Err(_) => Err(RequestError::Host),
        },
        (None | Some(_), _) => Err(RequestError::Malformed),
    }
}

/// Whether `host`, with or without a port, is an address, `localhost`, or this machine's name: as
/// the system has it, its first part alone, and that part in `.local`, which no name server can
/// point here from afar (RFC 6762).
fn is_ours(host: &str, hostname: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.parse::<u16>().is_ok() => name,
        Some(_) | None => host,
    };
    if let Some(address) = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')) {
        return address.parse::<Ipv6Addr>().is_ok();
    }
    let name = name.strip_suffix('.').unwrap_or(name);
    let first = hostname.split('.').next().unwrap_or(hostname);
    let is = |other: &str| !other.is_empty() && name.eq_ignore_ascii_case(other);
    name.parse::<Ipv4Addr>().is_ok()
        || is("localhost")
        || is(hostname)
        || is(first)
        || (!first.is_empty() && is(&format!("{first}.local")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(head: &str) -> Option<Result<Request, RequestError>> {
        read(head.as_bytes(), "box.example.org")
    }

    #[test]
    fn what_is_asked_for_is_understood() {
        for (path, resource) in [
            ("/", Resource::Page),
            ("/?", Resource::Page),
            ("/sessions", Resource::Sessions),
            ("/sessions?now=1", Resource::Sessions),
            ("/metrics", Resource::Metrics),
            ("/healthz", Resource::Health),
        ] {
            for (method, head_only) in [("GET", false), ("HEAD", true)] {
                let head = format!("{method} {path} HTTP/1.1\r\nhOST: localhost:9090\r\n\r\n");
                assert_eq!(get(&head), Some(Ok(Request { resource, head_only })), "{head}");
            }
        }
    }

    #[test]
    fn every_truncation_is_waited_for() {
        let head = "GET /metrics HTTP/1.1\r\nHost: [::1]:9090\r\nAccept: */*\r\n\r\n";
        for length in 0..head.len() {
            assert_eq!(get(&head[..length]), None, "cut to {length}");
        }
        assert!(get(head).unwrap().is_ok());
    }

    #[test]
    fn what_is_not_to_be_had_is_refused() {
        let ask = |head: &str| get(head).unwrap().unwrap_err();
        let host = "Host: localhost\r\n\r\n";
        for path in ["/favicon.ico", "//", "/sessions/", "/../", "/METRICS", "*", "http://box/"] {
            assert_eq!(
                ask(&format!("GET {path} HTTP/1.1\r\n{host}")),
                RequestError::Path,
                "{path}"
            );
        }
        for method in ["POST", "PUT", "DELETE", "OPTIONS", "CONNECT", "get", "PRI"] {
            assert_eq!(
                ask(&format!("{method} / HTTP/1.1\r\n{host}")),
                RequestError::Method,
                "{method}"
            );
        }
        for head in
            ["\x05\x01\0", "GET\r\n\r\n", "GET / HTTP/2.0\r\n\r\n", "GET / HTTP/1.1\r\na\r\n"]
        {
            assert_eq!(ask(head), RequestError::Malformed, "{head:?}");
        }
        assert_eq!(
            ask(&format!("GET / HTTP/1.1\r\nHost: localhost\r\n{host}")),
            RequestError::Malformed
        );
        assert_eq!(ask("GET / HTTP/1.1\r\n\r\n"), RequestError::Malformed);
        assert!(get("GET /healthz HTTP/1.0\r\n\r\n").unwrap().is_ok());
    }

    #[test]
    fn a_head_that_is_too_long_is_refused() {
        let endless = format!("GET / HTTP/1.1\r\nCookie: {}", "a".repeat(MAX_HEAD));
        assert_eq!(get(&endless[..MAX_HEAD - 1]), None);
        assert_eq!(get(&endless[..MAX_HEAD]), Some(Err(RequestError::TooLong)));
        let many = format!("GET / HTTP/1.1\r\n{}", "a: b\r\n".repeat(MAX_HEADERS + 1));
        assert_eq!(get(&many), Some(Err(RequestError::TooLong)));
    }

    #[test]
    fn a_name_that_anyone_could_point_here_is_refused() {
        for host in [
            "127.0.0.1",
            "192.168.1.1:9090",
            "[::1]",
            "[fd00::1]:9090",
            "localhost",
            "LOCALHOST:9090",
            "box",
            "Box.example.org:80",
            "box.local",
            "box.local.:9090",
        ] {
            assert!(is_ours(host, "box.example.org"), "{host}");
        }
        for host in [
            "",
            ":9090",
            "attacker.example",
            "box.attacker.example",
            "127.0.0.1.attacker.example",
            "localhost.attacker.example",
            "box.example.org.attacker.example",
            "example.org",
            "local",
            ".local",
            "127.1",
            "2130706433",
            "::1",
            "[::1",
            "[::1]x",
            "[127.0.0.1]",
            "localhost:port",
            "localhost:99999",
            "localhost:80:80",
        ] {
            assert!(!is_ours(host, "box.example.org"), "{host}");
            assert!(!is_ours(host, ""), "{host}");
        }
    }
}
