//! What visitors of the status page ask for. Its reader is not public, and a file of its own.

#[path = "../../../src/report/status/request.rs"]
mod request;

use request::Resource;

const HOSTNAME: &str = "box.example.org";

/// Once a head is complete, nothing that comes behind it changes what is asked for; and what is asked
/// for is there in plain letters.
pub(crate) fn status_request(octets: &[u8]) {
    let whole = request::read(octets, HOSTNAME);
    let Some(end) =
        (0..octets.len()).find(|end| request::read(&octets[..*end], HOSTNAME).is_some())
    else {
        return;
    };
    let first = request::read(&octets[..end], HOSTNAME).unwrap();
    let Ok(request) = first else { return };
    assert_eq!(whole, Some(Ok(request)));
    let path = match request.resource {
        Resource::Page => "/",
        Resource::Sessions => "/sessions",
        Resource::Metrics => "/metrics",
        Resource::Health => "/healthz",
    };
    let method = if request.head_only { "HEAD " } else { "GET " };
    let text = octets[..end].trim_ascii_start();
    let rest = text.strip_prefix(method.as_bytes()).expect("another method");
    assert!(rest.trim_ascii_start().starts_with(path.as_bytes()));
}
