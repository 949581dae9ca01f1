//! What the log says at the start: how clients use this server.

use std::env;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use log::info;

use crate::access::policy::Policy;
use crate::config::Config;
use crate::system::ip::listens_at;
use crate::wire::protocol::Protocol;

/// Addresses that are logged; a machine with containers has many.
const MOST_ADDRESSES: usize = 4;

/// Files and variables that those who run containers put there.
const CONTAINER_FILES: [&str; 2] = ["/.dockerenv", "/run/.containerenv"];
const CONTAINER_VARIABLES: [&str; 2] = ["container", "KUBERNETES_SERVICE_HOST"];

/// Logs where clients reach a server that listens on `listen`, and a command to try it with.
pub(super) fn log(config: &Config, policy: &Policy, listen: &[SocketAddr]) {
    let own = policy.own_addresses();
    let reach = Reach::of(config, policy, listen, &own, is_in_container());
    reach.lines().iter().for_each(|line| info!("{line}"));
}

fn is_in_container() -> bool {
    let is_set = |name| env::var_os(name).is_some_and(|value| !value.is_empty());
    CONTAINER_FILES.iter().any(|file| Path::new(file).exists())
        || CONTAINER_VARIABLES.iter().any(is_set)
}

/// How a server is reached.
#[derive(Debug)]
struct Reach {
    /// That of a URL by which curl tries it.
    scheme: &'static str,
    /// There is a page that tells people what to enter.
    has_page: bool,
    /// Name and password as they stand in a URL.
    user: &'static str,
    /// In a container: at this port, or the one that it is published at.
    published: Option<u16>,
    /// On a machine without an address that others could reach: at this port, later.
    later: Option<u16>,
    /// By other machines that are served without a load balancer.
    elsewhere: Vec<SocketAddr>,
    /// By this machine, if that is served without a load balancer.
    here: Option<String>,
    /// There are load balancers.
    with_balancers: bool,
}

impl Reach {
    /// On a machine, or in a container, with the addresses `own`.
    fn of(
        config: &Config,
        policy: &Policy,
        listen: &[SocketAddr],
        own: &[IpAddr],
        in_container: bool,
    ) -> Self {
        let is_balancer = |ip| config.proxy_protocol.iter().any(|net| net.contains(&ip));
        let is_served = |at: &SocketAddr| policy.serves_at(at.ip()) && !is_balancer(at.ip());
        let serves = |ip| policy.rejection((ip, 0).into()).is_none() && !is_balancer(ip);
        let beyond = listen.iter().find(|listen| !listen.ip().is_loopback()).map(SocketAddr::port);
        let schemes = [(Protocol::Socks5, "socks5h"), (Protocol::Http, "http")];
        let spoken = schemes.into_iter().find(|(it, _)| config.protocols.contains(it));
        let serves_others = policy.clients().iter().any(|net| !net.addr().is_loopback());
        Reach {
            scheme: spoken.map_or("socks4a", |(_, scheme)| scheme),
            has_page: config.protocols.contains(&Protocol::Http),
            user: if config.files.users.is_some() { "NAME:PASSWORD@" } else { "" },
            published: beyond.filter(|_| in_container),
            later: beyond.filter(|_| own.is_empty() && serves_others),
            elsewhere: listen.iter().flat_map(|it| elsewhere(*it, own)).filter(is_served).collect(),
            here: listen.iter().find_map(|it| here(*it, serves)),
            with_balancers: !config.proxy_protocol.is_empty(),
        }
    }

    fn lines(&self) -> Vec<String> {
        if let Some(port) = self.published {
            let told = format!(
                "in a container: other machines use it at the address of its host, at the port that is \
                 published there, as by -p {port}:{port}"
            );
            let try_it = format!("try it on the host: {}", self.curl(&format!("localhost:{port}")));
            return [told].into_iter().chain((!self.with_balancers).then_some(try_it)).collect();
        }
        if let [first, ..] = &self.elsewhere[..] {
            let told = self.elsewhere.iter().take(MOST_ADDRESSES).map(ToString::to_string);
            let told = told.collect::<Vec<_>>().join(" or ");
            let told = format!("other machines use it as a proxy at {told}");
            let try_it = format!("try it from one of them: {}", self.curl(&first.to_string()));
            let page = format!("a page tells what to enter on each device: http://{first}/");
            return [told, try_it].into_iter().chain(self.has_page.then_some(page)).collect();
        }
        let later = self.later.map(|port| {
            format!(
                "this machine has no address on a network yet; once it has one, other machines use it \
                 there, at port {port}"
            )
        });
        let here = match &self.here {
            Some(at) => Some(format!("for clients on this machine; try it: {}", self.curl(at))),
            None if self.with_balancers => {
                Some("for clients of the load balancers alone (--proxy-protocol)".into())
            }
            None => None,
        };
        later.into_iter().chain(here).collect()
    }

    fn curl(&self, address: &str) -> String {
        // Some shells take brackets for a pattern.
        let quote = if address.starts_with('[') { "'" } else { "" };
        let Reach { scheme, user, .. } = self;
        format!("curl -x {quote}{scheme}://{user}{address}{quote} https://example.com/")
    }
}

/// Where other machines reach a server that listens on `listen`, on one with the addresses `own`.
fn elsewhere(listen: SocketAddr, own: &[IpAddr]) -> Vec<SocketAddr> {
    match listen.ip() {
        ip if ip.is_unspecified() => {
            let heard = own.iter().filter(|own| listens_at(ip, **own));
            heard.map(|own| SocketAddr::new(*own, listen.port())).collect()
        }
        ip if ip.is_loopback() => Vec::new(),
        _ => vec![listen],
    }
}

/// Where clients on this machine reach a server that listens on `listen` and that `serves` loopback
/// addresses. By `localhost` a client takes any of those that are listened on.
fn here(listen: SocketAddr, serves: impl Fn(IpAddr) -> bool) -> Option<String> {
    let loopback = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
    let heard = || loopback.iter().filter(|ip| listens_at(listen.ip(), **ip));
    let first = heard().find(|ip| serves(**ip))?;
    let has_all = heard().all(|ip| serves(*ip));
    let port = listen.port();
    Some(if has_all {
        format!("localhost:{port}")
    } else {
        SocketAddr::new(*first, port).to_string()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::tests::parsed;

    const AT_HOME: [&str; 2] = ["192.168.1.5", "fd00::5"];

    /// What is logged by a server with these options on a machine with these addresses.
    fn logged(own: &[&str], options: &[&str]) -> Vec<String> {
        reach(own, options, false).lines()
    }

    fn reach(own: &[&str], options: &[&str], in_container: bool) -> Reach {
        let config = parsed(options).config;
        let policy = Policy::new(&config.allow_from, vec!["127.0.0.1:1080".parse().unwrap()]);
        let own: Vec<_> = own.iter().map(|ip| ip.parse().unwrap()).collect();
        Reach::of(&config, &policy, &config.listen, &own, in_container)
    }

    #[test]
    fn three_lines_tell_how_to_use_it_from_another_machine() {
        assert_eq!(
            logged(&AT_HOME, &[]),
            [
                "other machines use it as a proxy at 192.168.1.5:1080 or [fd00::5]:1080",
                "try it from one of them: curl -x socks5h://192.168.1.5:1080 https://example.com/",
                "a page tells what to enter on each device: http://192.168.1.5:1080/"
            ]
        );
    }

    #[test]
    fn nothing_is_told_that_is_not_served() {
        for (protocols, scheme, has_page) in [
            ("http,socks4", "http", true),
            ("socks4", "socks4a", false),
            ("socks4,socks5", "socks5h", false),
        ] {
            let told = logged(&AT_HOME, &["--protocols", protocols]);
            assert!(told[1].contains(&format!("curl -x {scheme}://192.168.1.5:1080 ")), "{told:?}");
            assert_eq!(told.len(), if has_page { 3 } else { 2 }, "{told:?}");
            let here = logged(&AT_HOME, &["--protocols", protocols, "127.0.0.1:1080"]).concat();
            assert!(here.contains(&format!("{scheme}://localhost:1080 ")), "{here}");
        }
    }

    #[test]
    fn a_password_is_asked_for_in_the_command() {
        let logged = Reach { user: "NAME:PASSWORD@", ..reach(&AT_HOME, &[], false) }.lines();
        assert!(logged[1].contains("socks5h://NAME:PASSWORD@192.168.1.5:1080 "), "{logged:?}");
    }

    #[test]
    fn nobody_is_sent_to_an_address_that_only_this_machine_reaches() {
        for listen in ["127.0.0.1:1080", "[::1]:1080"] {
            let logged = logged(&AT_HOME, &[listen]);
            assert_eq!(logged.len(), 1);
            assert!(logged[0].contains("this machine") && logged[0].contains("//localhost:1080 "));
        }
    }

    #[test]
    fn the_command_can_be_pasted_into_a_shell_that_takes_brackets_for_a_pattern() {
        let logged = logged(&["fd00::5"], &[]);
        assert!(logged[1].contains(" 'socks5h://[fd00::5]:1080' "), "{logged:?}");
    }

    #[test]
    fn a_machine_with_many_networks_tells_a_few() {
        let logged = logged(&["10.0.0.1"; 20], &[]);
        assert_eq!(logged[0].matches("10.0.0.1").count(), MOST_ADDRESSES);
    }

    #[test]
    fn before_there_is_a_network_that_is_said() {
        let logged = logged(&[], &[]);
        assert!(
            logged[0].contains("no address on a network yet") && logged[0].contains("port 1080")
        );
        assert!(logged[1].contains("this machine; try it: curl -x socks5h://localhost:1080 "));
        for options in [&["127.0.0.1:1080"][..], &["--allow-from", "127.0.0.1"]] {
            assert_eq!(self::logged(&[], options).len(), 1, "it waits for none: {options:?}");
        }
    }

    #[test]
    fn a_container_has_the_address_of_its_host() {
        let in_container = |options| reach(&["10.88.0.7"], options, true).lines();
        let logged = in_container(&[]);
        assert!(logged[0].contains("address of its host") && logged[0].contains("-p 1080:1080"));
        assert!(logged[1].contains("on the host") && logged[1].contains("//localhost:1080 "));
        assert!(!logged.concat().contains("10.88"), "{logged:?}");
        assert_eq!(in_container(&["--proxy-protocol", "10.0.0.0/8"]).len(), 1);
        assert!(in_container(&["127.0.0.1:1080"])[0].contains("this machine"));
    }

    #[test]
    fn addresses_at_which_nobody_is_served_are_not_told() {
        let two = ["192.168.1.5", "10.8.0.1"];
        let told = logged(&two, &["--allow-from", "192.168.1.0/24"]).concat();
        assert!(told.contains("192.168.1.5:1080") && !told.contains("10.8.0.1"), "{told}");
        let public = logged(&["203.0.113.5"], &[]);
        assert!(public.len() == 1 && public[0].contains("this machine"), "{public:?}");
        let told = logged(&["203.0.113.5"], &["--allow-from", "203.0.113.0/24"]).concat();
        assert!(told.contains("203.0.113.5:1080"), "{told}");
        let told = logged(&["203.0.113.5"], &["203.0.113.5:1080"]);
        assert_eq!(told, [] as [&str; 0]);
    }

    #[test]
    fn no_command_is_told_that_would_be_refused() {
        for (options, here) in [
            (&["--allow-from", "127.0.0.0/8"][..], Some("127.0.0.1:1080")),
            (&["--allow-from", "::1"], Some("[::1]:1080")),
            (&["--allow-from", "::1", "127.0.0.1:1080"], None),
            (&["--allow-from", "192.0.2.0/24"], None),
            (&["--proxy-protocol", "127.0.0.0/8"], Some("[::1]:1080")),
            (&["--proxy-protocol", "127.0.0.0/8", "127.0.0.1:1080"], None),
            (&["--allow-from", "127.0.0.1", "127.0.0.1:1080"], Some("localhost:1080")),
        ] {
            assert_eq!(reach(&[], options, false).here.as_deref(), here, "{options:?}");
        }
        let logged = logged(&AT_HOME, &["--proxy-protocol", "127.0.0.0/8", "127.0.0.1:1080"]);
        assert_eq!(logged, ["for clients of the load balancers alone (--proxy-protocol)"]);
    }

    #[test]
    fn where_all_neighbours_are_load_balancers_nobody_is_sent() {
        let logged = logged(&["10.1.0.5"], &["--proxy-protocol", "10.0.0.0/8"]);
        assert!(logged.len() == 1 && logged[0].contains("this machine; try it"), "{logged:?}");
        let one = self::logged(&["10.1.0.5"], &["--proxy-protocol", "10.1.0.9"]);
        assert!(one[0].contains("10.1.0.5:1080"), "others come by themselves: {one:?}");
    }
}
