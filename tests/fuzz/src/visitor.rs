//! What visitors of the status page ask for. Its reader is not public, and a file of its own.

#[path = "../../../src/report/status/request.rs"]
mod request;

use request::Resource;

/// Once a head is complete, nothing that comes behind it changes what is asked for; and what is asked
/// for is there in plain letters.
pub(crate) fn status_request(octets: &[u8]) {
    let names = request::names("box.example.org", &["nas.lan".into()]);
    let whole = request::read(octets, &names);
    let Some(end) = (0..octets.len()).find(|end| request::read(&octets[..*end], &names).is_some())
    else {
        return;
    };
    let first = request::read(&octets[..end], &names).unwrap();
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
    let target = rest.trim_ascii_start();
    // In absolute form a host stands before the path, which may be left out.
    let behind_host = target.get(..7).filter(|scheme| scheme.eq_ignore_ascii_case(b"http://"));
    let target =
        match behind_host.map(|_| target[7..].iter().position(|octet| b"/? ".contains(octet))) {
            Some(Some(end)) if target[7 + end] == b'/' => &target[7 + end..],
            Some(_) => b"/",
            None => target,
        };
    assert!(target.starts_with(path.as_bytes()));
}
