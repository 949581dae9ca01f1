//! The pages that this server has itself: one that tells people what to enter on which device, and the PAC file,
//! by which devices find out what goes through the proxy.
//!
//! Neither needs a login, and neither is for the scripts of other pages: no `Access-Control-Allow-Origin`, ever.

/// `{place}` stands where the host and the port of the proxy go, `{host}` and `{port}` where one of them goes.
const PAGE: &str = include_str!("page.html");
const PAC: &str = include_str!("proxy.pac");

/// Nothing but the style that is in the page. It can be no style of a stranger: all that is put into the page
/// is a place, which has no character that ends a text.
const PAGE_FIELDS: &str = "Content-Type: text/html; charset=utf-8\r\n\
    Content-Security-Policy: default-src 'none'; style-src 'unsafe-inline'; img-src data:; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'\r\n\
    Cache-Control: no-store";
/// The programs of a device ask for the PAC file again and again. Five minutes spare most of that, and are the
/// longest that one goes by an old file.
const PAC_FIELDS: &str =
    "Content-Type: application/x-ns-proxy-autoconfig\r\nCache-Control: max-age=300";
const NOT_FOUND: &str = "Content-Type: text/plain; charset=utf-8\r\nCache-Control: no-store";
const NOT_ALLOWED: &str =
    "Content-Type: text/plain; charset=utf-8\r\nCache-Control: no-store\r\nAllow: GET, HEAD";

/// What a client gets that asks this server itself for something.
pub struct Answer {
    /// Whether it is a page, and not the answer that there is none, or none for this method.
    pub is_found: bool,
    /// The response, with its head.
    pub octets: Vec<u8>,
}

/// The answer to a request in origin-form (RFC 9112 section 3.2.1). `place` is where the client has reached this
/// server: a name or an address, an IPv6 address in brackets, then a colon and the port.
pub fn answer(method: &str, path: &str, place: &str) -> Answer {
    let is_harmless = |octet: u8| octet.is_ascii_alphanumeric() || b"-_.:[]%".contains(&octet);
    assert!(place.bytes().all(is_harmless), "a place that would be markup: {place:?}");

    let page = match path.split_once('?').map_or(path, |(path, _)| path) {
        "/" => Some((PAGE_FIELDS, PAGE)),
        "/proxy.pac" => Some((PAC_FIELDS, PAC)),
        _ => None,
    };
    let (status, fields, text) = match page {
        Some((fields, text)) if matches!(method, "GET" | "HEAD") => ("200 OK", fields, text),
        Some(_) => {
            ("405 Method Not Allowed", NOT_ALLOWED, "This page takes nothing but GET and HEAD.\n")
        }
        None => (
            "404 Not Found",
            NOT_FOUND,
            "This is a proxy. It has a page at / and a PAC file at /proxy.pac.\n",
        ),
    };
    let (host, port) = place.rsplit_once(':').unwrap_or((place, ""));
    let body = text.replace("{place}", place).replace("{host}", host).replace("{port}", port);
    let mut octets = format!(
        "HTTP/1.1 {status}\r\n\
         {fields}\r\n\
         Content-Length: {}\r\n\
         X-Content-Type-Options: nosniff\r\n\
         Referrer-Policy: no-referrer\r\n\
         Cross-Origin-Resource-Policy: same-origin\r\n\
         Connection: close\r\n\r\n",
        body.len()
    );
    if method != "HEAD" {
        octets += &body;
    }
    Answer { is_found: status == "200 OK", octets: octets.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: &str = "192.168.1.5:1080";

    /// The lines of the head and the body of an answer.
    fn ask(method: &str, path: &str, place: &str) -> (Vec<String>, String) {
        let text = String::from_utf8(answer(method, path, place).octets).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(!body.contains('\r'), "{text}");
        (head.split("\r\n").map(String::from).collect(), body.into())
    }

    fn get(path: &str, place: &str) -> String {
        ask("GET", path, place).1
    }

    /// The value of the only field of this name.
    fn field<'a>(head: &'a [String], name: &str) -> Option<&'a str> {
        let fields = head.iter().filter_map(|line| line.split_once(": "));
        let mut values = fields.filter(|(field, _)| field.eq_ignore_ascii_case(name));
        let value = values.next().map(|(_, value)| value);
        assert_eq!(values.next(), None, "{head:?}");
        value
    }

    #[test]
    fn there_are_two_pages_and_a_query_changes_neither() {
        for (path, media_type) in [
            ("/", "text/html; charset=utf-8"),
            ("/?from=home", "text/html; charset=utf-8"),
            ("/proxy.pac", "application/x-ns-proxy-autoconfig"),
            ("/proxy.pac?1/2?3", "application/x-ns-proxy-autoconfig"),
        ] {
            let (head, _) = ask("GET", path, PLACE);
            assert_eq!(head[0], "HTTP/1.1 200 OK");
            assert_eq!(field(&head, "Content-Type"), Some(media_type));
            assert_eq!(field(&head, "Allow"), None);
            assert!(answer("GET", path, PLACE).is_found);
        }
        assert_eq!(get("/", PLACE), get("/?from=home", PLACE));
        assert_ne!(get("/", PLACE), get("/proxy.pac", PLACE));
    }

    #[test]
    fn what_there_is_not_is_404_and_another_method_405() {
        for path in
            ["/wpad.dat", "/favicon.ico", "/proxy.pac/", "//", "/%2e", "/PROXY.PAC", "", "*", "?"]
        {
            for method in ["GET", "HEAD", "POST", "OPTIONS"] {
                let (head, _) = ask(method, path, PLACE);
                assert_eq!(head[0], "HTTP/1.1 404 Not Found", "{method} {path}");
                assert_eq!(field(&head, "Allow"), None);
                assert!(!answer(method, path, PLACE).is_found);
            }
        }
        assert!(get("/wpad.dat", PLACE).contains("/proxy.pac"));
        for path in ["/", "/proxy.pac", "/?", "/proxy.pac?"] {
            for method in ["POST", "PUT", "DELETE", "OPTIONS", "get", "HEADS", ""] {
                let (head, _) = ask(method, path, PLACE);
                assert_eq!(head[0], "HTTP/1.1 405 Method Not Allowed", "{method} {path}");
                assert_eq!(field(&head, "Allow"), Some("GET, HEAD"));
                assert!(!answer(method, path, PLACE).is_found);
            }
        }
    }

    #[test]
    fn every_answer_has_its_length_and_nothing_for_other_origins() {
        for path in ["/", "/proxy.pac", "/none"] {
            let (got, body) = ask("GET", path, PLACE);
            for method in ["GET", "POST", "OPTIONS", "HEAD"] {
                let (head, body) = ask(method, path, PLACE);
                for (name, value) in [
                    ("Connection", "close"),
                    ("X-Content-Type-Options", "nosniff"),
                    ("Referrer-Policy", "no-referrer"),
                    ("Cross-Origin-Resource-Policy", "same-origin"),
                ] {
                    assert_eq!(field(&head, name), Some(value), "{method} {path}");
                }
                let is_kept = head[0].contains("200") && path == "/proxy.pac";
                let kept = if is_kept { "max-age=300" } else { "no-store" };
                assert_eq!(field(&head, "Cache-Control"), Some(kept), "{method} {path}");
                assert!(!head.iter().any(|line| line.to_lowercase().starts_with("access-control")));
                if method != "HEAD" {
                    assert_eq!(field(&head, "Content-Length"), Some(&*body.len().to_string()));
                    assert!(!body.is_empty());
                }
            }
            assert_eq!(ask("HEAD", path, PLACE), (got, String::new()), "{path}");
            assert!(!body.is_empty());
        }
    }

    #[test]
    fn the_page_is_small_and_needs_nothing_else() {
        let (head, body) = ask("GET", "/", PLACE);
        let policy = field(&head, "Content-Security-Policy").unwrap();
        for part in ["default-src 'none'; ", "; form-action 'none'; ", "; frame-ancestors 'none'"] {
            assert!(policy.contains(part), "{policy}");
        }
        assert!(!policy.contains("script-src"));
        assert!(body.len() < 8 * 1024, "{}", body.len());
        for (start, _) in body.match_indices("http://") {
            assert!(
                body[start..].starts_with("http://192.168.1.5:1080"),
                "{}",
                &body[start..start + 40]
            );
        }
        assert!(body.matches("http://").count() > 0);
        for outside in
            ["https:", "<script", "src=", "@import", "url(", "onclick", "style=", "<form"]
        {
            assert!(!body.contains(outside), "{outside}");
        }
        let links: Vec<_> = body.match_indices("href=\"").map(|(at, _)| &body[at + 6..]).collect();
        assert_eq!(links.len(), 2);
        assert!(links[0].starts_with("data:image/svg+xml,"));
        assert!(links[1].starts_with("http://192.168.1.5:1080/proxy.pac\""));
    }

    #[test]
    fn the_place_stands_wherever_it_has_to() {
        for (place, host, port) in [
            ("192.168.1.5:1080", "192.168.1.5", "1080"),
            ("[fd00::5]:8080", "[fd00::5]", "8080"),
            ("box.lan:1", "box.lan", "1"),
            ("HOST_port-place:80", "HOST_port-place", "80"),
        ] {
            let page = get("/", place);
            for text in [
                format!("<code>http://{place}/<wbr>proxy.pac</code>"),
                format!("<code>socks5h://{place}</code>"),
                format!("<code>{host}</code>"),
                format!("<code>{port}</code>"),
            ] {
                assert!(page.contains(&text), "{text}");
            }
            let pac = get("/proxy.pac", place);
            assert_eq!(pac.matches(&format!("return \"PROXY {place}\";")).count(), 1, "{pac}");
            for marker in ["{place}", "{host}", "{port}"] {
                assert!(!page.contains(marker) && !pac.contains(marker));
            }
        }
    }

    #[test]
    fn no_place_is_ever_markup() {
        for octet in 0..=0x7f_u8 {
            let place = format!("a{}:1", char::from(octet));
            let answered = std::panic::catch_unwind(|| answer("GET", "/", &place));
            let is_markup =
                !(octet.is_ascii_alphanumeric() || "-_.:[]%".contains(char::from(octet)));
            assert_eq!(answered.is_err(), is_markup, "{place:?}");
        }
    }

    // What it decides is seen with engines, by scripts/suites/clients.
    #[test]
    fn the_pac_file_is_old_javascript_and_looks_no_name_up() {
        let pac = get("/proxy.pac", PLACE);
        assert!(pac.is_ascii());
        assert!(pac.contains("function FindProxyForURL(url, host) {"));
        for word in [
            "dnsResolve",
            "isInNet",
            "isResolvable",
            "myIpAddress",
            "Ex(",
            "let ",
            "const ",
            "=>",
            "`",
            "?<",
            "?=",
            "SOCKS",
        ] {
            assert!(!pac.contains(word), "{word}");
        }
    }
}
