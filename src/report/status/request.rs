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

/// Why a visitor gets none of them: the status and the text of the response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RequestError(pub(super) &'static str, pub(super) &'static str);

impl RequestError {
    /// It is no request of HTTP/1.
    pub(super) const MALFORMED: Self =
        RequestError("400 Bad Request", "This is no request of HTTP/1.1.\n");
    /// The head is too long.
    pub(super) const TOO_LONG: Self =
        RequestError("431 Request Header Fields Too Large", "Too long.\n");
    /// The visitor has come by a name that anyone could point here (DNS rebinding).
    pub(super) const HOST: Self = RequestError(
        "403 Forbidden",
        "Come by an address, by localhost, by the name of this machine, or by one that --status-host names.\n",
    );
    /// Only GET and HEAD are served.
    pub(super) const METHOD: Self =
        RequestError("405 Method Not Allowed\r\nAllow: GET, HEAD", "Only GET and HEAD.\n");
    /// There is nothing of that name.
    pub(super) const PATH: Self =
        RequestError("404 Not Found", "There are /, /sessions, /metrics and /healthz.\n");
}

/// Reads a request's head. `None` while it is not complete. `names` are those by which visitors may come.
pub(super) fn read(head: &[u8], names: &[String]) -> Option<Result<Request, RequestError>> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(head) {
        Ok(Status::Complete(_)) => Some(understand(&request, names)),
        Ok(Status::Partial) if head.len() < MAX_HEAD => None,
        Ok(Status::Partial) | Err(httparse::Error::TooManyHeaders) => {
            Some(Err(RequestError::TOO_LONG))
        }
        Err(_) => Some(Err(RequestError::MALFORMED)),
    }
}

fn understand(
    request: &httparse::Request<'_, '_>,
    names: &[String],
) -> Result<Request, RequestError> {
    let (authority, path) = split(request.path.unwrap_or_default());
    let resource = match path {
        "/" => Ok(Resource::Page),
        "/sessions" => Ok(Resource::Sessions),
        "/metrics" => Ok(Resource::Metrics),
        "/healthz" => Ok(Resource::Health),
        _ => Err(RequestError::PATH),
    };
    // Who asks for the state of health comes by any name or by none, and learns nothing else.
    if resource != Ok(Resource::Health) {
        let host = host(request.headers, request.version == Some(0))?;
        if !authority.or(host).is_none_or(|host| is_ours(host, names)) {
            return Err(RequestError::HOST);
        }
    }
    let head_only = match request.method {
        Some("GET") => false,
        Some("HEAD") => true,
        _ => return Err(RequestError::METHOD),
    };
    Ok(Request { resource: resource?, head_only })
}

/// The host in a target, if it is in absolute form as proxies send it, and the path without its query
/// (RFC 9112 section 3.2).
fn split(target: &str) -> (Option<&str>, &str) {
    const SCHEME: &str = "http://";
    let without_query = target.split('?').next().unwrap_or_default();
    match without_query.split_at_checked(SCHEME.len()) {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case(SCHEME) => match rest.find('/') {
            Some(end) => (Some(&rest[..end]), &rest[end..]),
            None => (Some(rest), "/"),
        },
        _ => (None, without_query),
    }
}

/// The header Host. Only HTTP/1.0 may leave it out, as the health checks of load balancers do.
fn host<'a>(headers: &[Header<'a>], may_lack: bool) -> Result<Option<&'a str>, RequestError> {
    let mut hosts = headers.iter().filter(|header| header.name.eq_ignore_ascii_case("host"));
    match (hosts.next(), hosts.next()) {
        (None, _) if may_lack => Ok(None),
        (Some(host), None) => {
            std::str::from_utf8(host.value).map(Some).map_err(|_| RequestError::HOST)
        }
        (None | Some(_), _) => Err(RequestError::MALFORMED),
    }
}

/// The names by which visitors may come: `localhost`, and this machine's name: as the system has it, its
/// first part alone, and that part in `.local`, which no name server can point here from afar (RFC 6762).
/// And `further` ones, for which whoever has named them stands.
pub(super) fn names(hostname: &str, further: &[String]) -> Vec<String> {
    let first = hostname.split('.').next().unwrap_or(hostname);
    let local = format!("{first}.local");
    let own = [hostname, first, &local].into_iter().filter(|_| !first.is_empty());
    own.chain(["localhost"]).map(Into::into).chain(further.iter().cloned()).collect()
}

/// Whether `host`, with or without a port, is an address or one of `names`. A browser says by which name it
/// has come. Someone else's name that leads here would make the browser hand what it reads to that
/// someone's pages.
fn is_ours(host: &str, names: &[String]) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.parse::<u16>().is_ok() => name,
        Some(_) | None => host,
    };
    if let Some(address) = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')) {
        return address.parse::<Ipv6Addr>().is_ok();
    }
    let name = name.strip_suffix('.').unwrap_or(name);
    name.parse::<Ipv4Addr>().is_ok() || names.iter().any(|ours| name.eq_ignore_ascii_case(ours))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ours() -> Vec<String> {
        names("box.example.org", &["nas.lan".into()])
    }

    fn get(head: &str) -> Option<Result<Request, RequestError>> {
        read(head.as_bytes(), &ours())
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
        for path in ["/favicon.ico", "//", "/sessions/", "/../", "/METRICS", "*", "http://box//"] {
            assert_eq!(
                ask(&format!("GET {path} HTTP/1.1\r\n{host}")),
                RequestError::PATH,
                "{path}"
            );
        }
        for method in ["POST", "PUT", "DELETE", "OPTIONS", "CONNECT", "get", "PRI"] {
            assert_eq!(
                ask(&format!("{method} / HTTP/1.1\r\n{host}")),
                RequestError::METHOD,
                "{method}"
            );
        }
        for head in
            ["\x05\x01\0", "GET\r\n\r\n", "GET / HTTP/2.0\r\n\r\n", "GET / HTTP/1.1\r\na\r\n"]
        {
            assert_eq!(ask(head), RequestError::MALFORMED, "{head:?}");
        }
        assert_eq!(
            ask(&format!("GET / HTTP/1.1\r\nHost: localhost\r\n{host}")),
            RequestError::MALFORMED
        );
        assert_eq!(ask("GET / HTTP/1.1\r\n\r\n"), RequestError::MALFORMED);
        assert!(get("GET /healthz HTTP/1.0\r\n\r\n").unwrap().is_ok());
    }

    #[test]
    fn the_state_of_health_is_told_by_any_name_and_by_none() {
        for host in ["", "Host: attacker.example\r\n", "Host: a\r\nHost: b\r\n", "Host: \u{fc}\r\n"]
        {
            for target in ["/healthz", "/healthz?x", "http://attacker.example/healthz"] {
                let head = format!("GET {target} HTTP/1.1\r\n{host}\r\n");
                let health = Request { resource: Resource::Health, head_only: false };
                assert_eq!(get(&head), Some(Ok(health)), "{head}");
            }
            let others = get(&format!("GET /metrics HTTP/1.1\r\n{host}\r\n"));
            assert!(others.unwrap().is_err(), "{host}");
        }
    }

    #[test]
    fn a_target_in_absolute_form_names_the_host() {
        for (target, host, expected) in [
            ("http://box/", "box", Ok(Resource::Page)),
            ("http://nas.lan:9090", "nas.lan:9090", Ok(Resource::Page)),
            ("HTTP://192.168.1.1:9090?now", "x", Ok(Resource::Page)),
            ("http://[fd00::1]:9090/metrics?x=/y", "x", Ok(Resource::Metrics)),
            ("http://attacker.example/metrics", "box", Err(RequestError::HOST)),
            ("http:///metrics", "box", Err(RequestError::HOST)),
            ("http://box@attacker.example/", "box", Err(RequestError::HOST)),
            ("https://box/", "box", Err(RequestError::PATH)),
            ("http://box/other", "box", Err(RequestError::PATH)),
        ] {
            let found = get(&format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n")).unwrap();
            assert_eq!(found.map(|request| request.resource), expected, "{target}");
        }
        assert_eq!(get("GET http://box/ HTTP/1.1\r\n\r\n"), Some(Err(RequestError::MALFORMED)));
    }

    #[test]
    fn a_head_that_is_too_long_is_refused() {
        let endless = format!("GET / HTTP/1.1\r\nCookie: {}", "a".repeat(MAX_HEAD));
        assert_eq!(get(&endless[..MAX_HEAD - 1]), None);
        assert_eq!(get(&endless[..MAX_HEAD]), Some(Err(RequestError::TOO_LONG)));
        let many = format!("GET / HTTP/1.1\r\n{}", "a: b\r\n".repeat(MAX_HEADERS + 1));
        assert_eq!(get(&many), Some(Err(RequestError::TOO_LONG)));
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
            "nas.lan:9090",
            "NAS.lan",
        ] {
            assert!(is_ours(host, &ours()), "{host}");
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
            "lan",
            "x.nas.lan",
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
            assert!(!is_ours(host, &ours()), "{host}");
            assert!(!is_ours(host, &names("", &[])), "{host}");
        }
    }
}
