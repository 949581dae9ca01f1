//! The networks whose clients are served.

use std::net::IpAddr;

use ipnet::IpNet;

/// The clients that are served when no option says otherwise: this machine and its neighbours.
pub const DEFAULT_CLIENTS: [&str; 8] = [
    "127.0.0.0/8",
    "::1/128",
    "10.0.0.0/8",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "169.254.0.0/16",
    "fe80::/10",
    "fc00::/7",
];

/// The networks whose clients are served.
#[derive(Clone, Debug)]
pub(super) struct Clients {
    networks: Vec<IpNet>,
}

impl Clients {
    /// Those of `networks`, or of [`DEFAULT_CLIENTS`] if that is empty.
    pub(super) fn new(networks: &[IpNet]) -> Self {
        let networks = if networks.is_empty() {
            DEFAULT_CLIENTS.iter().map(|net| net.parse().expect("it is a network")).collect()
        } else {
            networks.to_vec()
        };
        Clients { networks }
    }

    pub(super) fn networks(&self) -> &[IpNet] {
        &self.networks
    }

    /// Whether a client with this address is served.
    pub(super) fn serves(&self, client: IpAddr) -> bool {
        self.networks.iter().any(|net| net.contains(&client))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_and_its_neighbours_are_served() {
        let clients = Clients::new(&[]);
        let serves = |ip: &str| clients.serves(ip.parse().unwrap());
        for ip in [
            "127.0.0.1",
            "127.255.0.1",
            "::1",
            "10.1.2.3",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.0.1",
            "169.254.1.1",
            "fe80::1",
            "fd00::1",
            "fc00::1",
        ] {
            assert!(serves(ip), "{ip}");
        }
        for ip in [
            "8.8.8.8",
            "172.15.0.1",
            "172.32.0.1",
            "192.169.0.1",
            "100.64.0.1",
            "2001:db8::1",
            "fec0::1",
            "::2",
            "0.0.0.0",
            "128.0.0.1",
        ] {
            assert!(!serves(ip), "{ip}");
        }
    }

    #[test]
    fn the_option_replaces_the_default_clients() {
        let clients = Clients::new(&["203.0.113.0/24".parse().unwrap()]);
        assert!(clients.serves("203.0.113.9".parse().unwrap()));
        assert!(!clients.serves("192.168.0.1".parse().unwrap()));
        assert!(!clients.serves("127.0.0.1".parse().unwrap()));
    }
}
