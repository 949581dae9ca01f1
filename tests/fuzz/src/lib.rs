//! What has to hold whatever octets tabi is given. The fuzzer looks for octets for which it does not;
//! `cargo test` tries the seeds, octets like them, and octets without any order.
//!
//! Each property takes octets and panics where it does not hold.

mod files;
mod http;
mod messages;
mod model;
mod negotiation;
mod stream;
mod visitor;

/// Panics where what it says does not hold.
type Property = fn(&[u8]);

/// Every property, by the name of its seeds and of its fuzz target.
pub const PROPERTIES: [(&str, Property); 18] = [
    ("greeting", messages::greeting),
    ("credentials", messages::credentials),
    ("request", messages::request),
    ("reply", messages::reply),
    ("answers", messages::answers),
    ("datagram", messages::datagram),
    ("socks4", messages::socks4),
    ("http_request", http::http_request),
    ("http_body", http::http_body),
    ("http_response", http::http_response),
    ("proxy_header", messages::proxy_header),
    ("written", messages::written_messages),
    ("negotiation", negotiation::negotiation),
    ("status_request", visitor::status_request),
    ("upstream_url", files::upstream_url),
    ("rules_file", files::rules_file),
    ("users_file", files::users_file),
    ("rules", model::rules),
];

/// Tries one of [`PROPERTIES`].
///
/// # Panics
///
/// Where it does not hold, and where there is none of this name.
pub fn hold(name: &str, octets: &[u8]) {
    let (_, property) = PROPERTIES.iter().find(|(it, _)| *it == name).expect("no such property");
    property(octets);
}
