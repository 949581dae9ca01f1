//! What visitors of the status page ask for. Its reader is not public, and a file of its own.

#[path = "../../../src/report/status/request.rs"]
mod request;

use request::Wanted;

const MACHINE: &str = "box.example.org";

/// Once a head is complete, nothing that comes behind it changes what is asked for; and what is asked
/// for is there in plain letters.
pub(crate) fn status_request(octets: &[u8]) {
    let whole = request::read(octets, MACHINE);
    let Some(end) = (0..octets.len()).find(|end| request::read(&octets[..*end], MACHINE).is_some())
    else {
        return;
    };
    let first = request::read(&octets[..end], MACHINE).unwrap();
    let Ok(asked) = first else { return };
    assert_eq!(whole, Some(Ok(asked)));
    let path = match asked.wanted {
        Wanted::Page => "/",
        Wanted::Sessions => "/sessions",
        Wanted::Metrics => "/metrics",
        Wanted::Health => "/healthz",
    };
    let method = if asked.head_only { "HEAD " } else { "GET " };
    let text = octets[..end].trim_ascii_start();
    let rest = text.strip_prefix(method.as_bytes()).expect("another method");
    assert!(rest.trim_ascii_start().starts_with(path.as_bytes()));
}
