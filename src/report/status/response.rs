//! A response: its head, and the body that several visitors may share.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;

use super::request::RequestError;

/// The page, and what is put into it, so that it is one response. `NONCE` stands where the nonce of a
/// response goes.
const PAGE: &str = include_str!("page.html");
const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");
const NONCE: &str = "NONCE";

/// What is allowed to what is no page: nothing.
const NOTHING: &str = "default-src 'none'; frame-ancestors 'none'";

/// Media types of what is no page. That of metrics is Prometheus' text format.
pub(super) const PLAIN: &str = "text/plain; charset=utf-8";
pub(super) const JSON: &str = "application/json";
pub(super) const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What a visitor gets.
pub(super) struct Response {
    pub(super) head: String,
    pub(super) body: Arc<str>,
}

impl Response {
    pub(super) fn ok(media_type: &str, body: Arc<str>) -> Self {
        Response::new("200 OK", media_type, body)
    }

    pub(super) fn new(status: &str, media_type: &str, body: Arc<str>) -> Self {
        Response { head: head(status, media_type, NOTHING, &body), body }
    }

    /// The page. Only the script and the style that are in it may do anything, and no text that a
    /// script gets hold of is ever taken for markup.
    pub(super) fn page() -> Self {
        let nonce = nonce();
        let page = PAGE.replace(NONCE, &nonce).replace("STYLE", STYLE).replace("SCRIPT", SCRIPT);
        let body: Arc<str> = page.into();
        let policy = format!(
            "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; \
             img-src data:; connect-src 'self'; base-uri 'none'; form-action 'none'; \
             frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
        );
        Response { head: head("200 OK", "text/html; charset=utf-8", &policy, &body), body }
    }

    /// The same without its body.
    pub(super) fn head_only(self) -> Self {
        Response { head: self.head, body: "".into() }
    }
}

impl From<RequestError> for Response {
    fn from(error: RequestError) -> Self {
        let (status, body) = match error {
            RequestError::Malformed => ("400 Bad Request", "This is no request of HTTP/1.1.\n"),
            RequestError::TooLong => ("431 Request Header Fields Too Large", "Too long.\n"),
            RequestError::Host => (
                "403 Forbidden",
                "Come by an address, by localhost, or by the name of this machine.\n",
            ),
            RequestError::Method => {
                ("405 Method Not Allowed\r\nAllow: GET, HEAD", "Only GET and HEAD.\n")
            }
            RequestError::Path => {
                ("404 Not Found", "There are /, /sessions, /metrics and /healthz.\n")
            }
        };
        Response::new(status, PLAIN, body.into())
    }
}

fn head(status: &str, media_type: &str, policy: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\n\
         Content-Type: {media_type}\r\n\
         Content-Length: {}\r\n\
         Content-Security-Policy: {policy}\r\n\
         Cache-Control: no-store\r\n\
         X-Content-Type-Options: nosniff\r\n\
         X-Frame-Options: DENY\r\n\
         Referrer-Policy: no-referrer\r\n\
         Cross-Origin-Resource-Policy: same-origin\r\n\
         Connection: close\r\n\r\n",
        body.len()
    )
}

/// 128 bits that nobody can guess. A `RandomState` has keys from the system's random numbers.
fn nonce() -> String {
    let half = || RandomState::new().build_hasher().finish();
    format!("{:016x}{:016x}", half(), half())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(response: &Response) -> String {
        response.head.clone() + &response.body
    }

    #[test]
    fn the_page_fits_one_small_response_and_needs_nothing_else() {
        let page = Response::page();
        assert!(page.head.len() + page.body.len() < 50 * 1024, "{}", page.body.len());
        for outside in ["http://", "https://", "src=", "@import", "url(", "innerHTML", "style=\""] {
            let without_icon = page.body.replace("http://www.w3.org/2000/svg", "");
            assert!(!without_icon.contains(outside), "{outside}");
        }
    }

    #[test]
    fn each_page_has_a_nonce_of_its_own_wherever_one_is_needed() {
        let [one, other] = [Response::page(), Response::page()].map(|page| text(&page));
        assert_ne!(one, other);
        let nonce = one.split_once("'nonce-").unwrap().1.split_once('\'').unwrap().0.to_owned();
        assert_eq!(nonce.len(), 32);
        assert!(!one.contains(NONCE));
        assert!(!other.contains(&nonce));
        let elements = one.matches("<script").count() + one.matches("<style").count();
        assert_eq!(one.matches(&format!(" nonce=\"{nonce}\"")).count(), elements);
    }

    #[test]
    fn every_response_is_whole_and_is_stored_by_nobody() {
        let errors = [
            RequestError::Malformed,
            RequestError::TooLong,
            RequestError::Host,
            RequestError::Method,
            RequestError::Path,
        ];
        let errors = errors.map(Response::from);
        let others = [PLAIN, JSON, METRICS].map(|media_type| Response::ok(media_type, "é".into()));
        for response in errors.into_iter().chain(others).chain([Response::page()]) {
            let text = text(&response);
            let (head, body) = text.split_once("\r\n\r\n").unwrap();
            assert!(head.contains(&format!("\r\nContent-Length: {}\r\n", body.len())), "{head}");
            for header in [
                "\r\nContent-Security-Policy: default-src 'none'; ",
                "\r\nCache-Control: no-store\r\n",
                "\r\nX-Content-Type-Options: nosniff\r\n",
                "\r\nConnection: close",
            ] {
                assert!(head.contains(header), "{head}");
            }
            assert!(response.head_only().body.is_empty());
        }
    }
}
