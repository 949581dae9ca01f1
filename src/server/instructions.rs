//! What the log says at the start: how other machines use this server.

use std::net::SocketAddr;

use log::info;

/// Addresses that are logged; a machine with containers has many.
const MOST_ADDRESSES: usize = 4;

/// Logs where clients on the network reach the server, and a command to try it with.
pub(super) fn log(with_users: bool, reached_at: &[SocketAddr], addresses: &[SocketAddr]) {
    for line in lines(with_users, reached_at, addresses) {
        info!("{line}");
    }
}

fn lines(with_users: bool, reached_at: &[SocketAddr], addresses: &[SocketAddr]) -> Vec<String> {
    let user = if with_users { "NAME:PASSWORD@" } else { "" };
    let curl = |address: &str| {
        // Some shells take brackets for a pattern.
        let quote = if address.starts_with('[') { "'" } else { "" };
        format!("curl -x {quote}socks5h://{user}{address}{quote} https://example.com/")
    };
    match (reached_at, addresses) {
        ([], []) => Vec::new(),
        ([], [first, ..]) if first.ip().is_unspecified() || first.ip().is_loopback() => {
            let here = format!("localhost:{}", first.port());
            vec![format!("for clients on this machine; try it: {}", curl(&here))]
        }
        ([], [first, ..]) => vec![format!("try it: {}", curl(&first.to_string()))],
        ([first, ..], _) => {
            let logged: Vec<_> =
                reached_at.iter().take(MOST_ADDRESSES).map(ToString::to_string).collect();
            vec![
                format!("other machines use it as a SOCKS5 proxy at {}", logged.join(" or ")),
                format!("try it from one of them: {}", curl(&first.to_string())),
            ]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logged(with_users: bool, reached_at: &[&str], listen: &str) -> Vec<String> {
        let reached_at: Vec<_> = reached_at.iter().map(|it| it.parse().unwrap()).collect();
        lines(with_users, &reached_at, &[listen.parse().unwrap()])
    }

    #[test]
    fn two_lines_tell_how_to_use_it_from_another_machine() {
        let logged = logged(false, &["192.168.1.5:1080", "[fd00::5]:1080"], "[::]:1080");
        assert_eq!(
            logged,
            [
                "other machines use it as a SOCKS5 proxy at 192.168.1.5:1080 or [fd00::5]:1080",
                "try it from one of them: curl -x socks5h://192.168.1.5:1080 https://example.com/"
            ]
        );
    }

    #[test]
    fn a_password_is_asked_for_in_the_command() {
        let logged = logged(true, &["192.168.1.5:1080"], "[::]:1080");
        assert!(logged[1].contains("socks5h://NAME:PASSWORD@192.168.1.5:1080 "), "{logged:?}");
    }

    #[test]
    fn nobody_is_sent_to_an_address_that_only_this_machine_reaches() {
        for listen in ["127.0.0.1:1080", "[::1]:1080", "[::]:1080"] {
            let logged = logged(false, &[], listen);
            assert_eq!(logged.len(), 1);
            assert!(logged[0].contains("this machine") && logged[0].contains("//localhost:1080 "));
        }
    }

    #[test]
    fn the_command_can_be_pasted_into_a_shell_that_takes_brackets_for_a_pattern() {
        let logged = logged(true, &["[fd00::5]:1080"], "[::]:1080");
        assert!(logged[1].contains(" 'socks5h://NAME:PASSWORD@[fd00::5]:1080' "), "{logged:?}");
    }

    #[test]
    fn a_machine_with_many_networks_tells_a_few() {
        let logged = logged(false, &["10.0.0.1:1080"; 20], "[::]:1080");
        assert_eq!(logged[0].matches("10.0.0.1").count(), MOST_ADDRESSES);
    }
}
