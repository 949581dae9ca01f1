//! What a client may do, asked of a policy on a machine that is made up.

use std::cell::Cell;
use std::net::Ipv4Addr;

use super::*;
use crate::access::users::{Passwords, Users};
use crate::system::interfaces::{InterfaceAddress, Public};
use crate::wire::address::Address;
use crate::wire::credentials::{Credentials, Password};

/// A home network on interface 2, and the provider's link on interface 3.
const ROUTER: fn() -> Option<Vec<InterfaceAddress>> = || {
    let address = |interface: &str, ip: &str, scope| InterfaceAddress {
        interface: interface.into(),
        ip: ip.parse().unwrap(),
        mask: 0,
        scope,
    };
    Some(vec![
        address("lan", "fd77::1", 0),
        address("lan", "fe80::1", 2),
        address("wan", "203.0.113.1", 0),
        address("wan", "fe80::1", 3),
    ])
};

/// Where the server listens.
fn own() -> Vec<SocketAddr> {
    vec!["[::]:1080".parse().unwrap()]
}

/// The policy of this machine, for these clients.
fn serving(clients: &[&str]) -> Policy {
    let client = |it: &&str| match *it {
        "default" => AllowFrom::Default,
        net => AllowFrom::Network(net.parse().unwrap()),
    };
    let clients: Vec<_> = clients.iter().map(client).collect();
    Policy { interfaces: Interfaces::told_by(ROUTER, |_| None), ..Policy::new(&clients, own()) }
}

fn serves(policy: &Policy, client: &str) -> bool {
    let client = match client.parse() {
        Ok(ip) => SocketAddr::new(ip, 50000),
        Err(_) => client.parse().unwrap(),
    };
    policy.rejection(client).is_none()
}

#[test]
fn this_machine_and_its_neighbours_are_served() {
    let policy = serving(&[]);
    for ip in [
        "127.0.0.1",
        "127.255.0.1",
        "::1",
        "10.1.2.3",
        "172.16.0.1",
        "172.31.255.255",
        "192.168.0.1",
        "[fe80::1%2]:50000",
        "fd00::1",
        "fc00::1",
    ] {
        assert!(serves(&policy, ip), "{ip}");
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
        assert!(!serves(&policy, ip), "{ip}");
    }
}

#[test]
fn a_link_local_neighbour_on_the_providers_link_is_not_served() {
    let policy = serving(&[]);
    assert!(!serves(&policy, "[fe80::9%3]:50000"));
    assert!(!serves(&policy, "fe80::9"), "on no interface that is known");
    assert!(!serves(&policy, "169.254.77.9"), "replies would leave by none of the interfaces");
    let link_local = serving(&["fe80::/10"]);
    assert!(serves(&link_local, "[fe80::9%3]:50000"), "but if an option says so");
}

#[test]
fn the_option_replaces_the_default_clients() {
    let policy = serving(&["203.0.113.0/24"]);
    assert!(serves(&policy, "203.0.113.9"));
    assert!(!serves(&policy, "192.168.0.1"));
    assert!(!serves(&policy, "127.0.0.1"));
}

#[test]
fn the_option_adds_to_the_default_clients_where_it_says_so() {
    let policy = serving(&["default", "100.64.0.0/10"]);
    for ip in ["100.64.0.9", "192.168.0.1", "127.0.0.1", "[fe80::1%2]:50000"] {
        assert!(serves(&policy, ip), "{ip}");
    }
    for ip in ["203.0.113.9", "[fe80::9%3]:50000", "100.128.0.1"] {
        assert!(!serves(&policy, ip), "{ip}");
    }
    assert!(serves(&serving(&["fe80::/10", "default"]), "[fe80::9%3]:50000"), "named by an option");
    assert_eq!(policy.clients().len(), 9);
}

#[test]
fn an_interface_where_nobody_listens_is_not_named() {
    let named = |listen: &str| {
        let listen = [format!("{listen}:1080").parse().unwrap()];
        serving(&[]).exposure(&listen).len()
    };
    for (listen, count) in [
        ("[::]", 1),
        ("0.0.0.0", 1),
        ("203.0.113.1", 1),
        ("192.168.77.1", 0),
        ("[::1]", 0),
        ("[fd77::1]", 0),
    ] {
        assert_eq!(named(listen), count, "{listen}");
    }
}

#[test]
fn a_public_interface_is_named_with_whom_it_serves_and_whom_not() {
    let public = |is_private| Public {
        interface: "eth1".into(),
        addresses: vec!["203.0.113.1".parse().unwrap()],
        is_private,
    };
    let served =
        |clients: &[&str], public: &Public| exposure::served_on(public, &serving(clients).clients);
    let line = served(&[], &public(false));
    assert_eq!(
        line,
        "eth1 has the public address 203.0.113.1: clients that come in there are served from \
         10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16, fc00::/7; all others are turned away, \
         link-local ones too (--allow-from)"
    );
    let line = served(&[], &public(true));
    assert!(line.contains("169.254.0.0/16, fe80::/10, fc00::/7; all others are turned away ("));
    let line = served(&["198.51.100.0/24"], &public(false));
    assert!(line.contains("are served from 198.51.100.0/24; all others are turned away ("));
    let line = served(&["default", "100.64.0.0/10"], &public(false));
    assert!(
        line.contains("fc00::/7, 100.64.0.0/10; all others are turned away, link-local ones too (")
    );
    let line = served(&["127.0.0.1/32"], &public(false));
    assert!(line.contains("are served from nowhere; all others"), "{line}");
}

const LAN: &str = "192.168.1.7:50000";
const LOCAL: &str = "127.0.0.1:50000";

fn anyone() -> Identity {
    Users::default().authenticate(None, Ipv4Addr::LOCALHOST.into(), |_| false).unwrap()
}

/// A machine at 192.168.1.1 and `2001:db8::1`.
const KNOWN: fn() -> Option<Vec<InterfaceAddress>> = || {
    let own = ["192.168.1.1", "2001:db8::1"].map(|ip| InterfaceAddress {
        interface: "eth0".into(),
        ip: ip.parse().unwrap(),
        mask: 0,
        scope: 0,
    });
    Some(own.to_vec())
};

/// The policy of a server on port 1080 of a machine with these addresses.
fn on(read: fn() -> Option<Vec<InterfaceAddress>>) -> Policy {
    Policy { interfaces: Interfaces::told_by(read, |_| None), ..Policy::new(&[], own()) }
}

#[test]
fn only_the_permitted_addresses_of_a_name_are_in_the_permit() {
    let all = |list: &[&str]| -> Vec<SocketAddr> {
        list.iter().map(|address| address.parse().unwrap()).collect()
    };
    let name = Name::new(b"rebinding.example".to_vec()).unwrap();
    let destination = Address { host: Host::Name(name), port: 80 };
    let request = Request { command: Command::Connect, destination };
    let judge = |found: &[&str]| {
        let policy = Policy::new(&[], own());
        let found = all(found);
        policy.permit(&anyone(), LAN.parse().unwrap(), &request, |_, _| Ok::<_, Denied>(found))
    };
    let permit = judge(&["127.0.0.1:80", "192.0.2.1:80", "[::1]:80"]).unwrap();
    assert_eq!(permit.addresses(), all(&["192.0.2.1:80"]));
    let error = judge(&["127.0.0.1:80", "[::1]:80"]).unwrap_err();
    assert!(
        matches!(error, Denied::Closed { address, .. } if address == all(&["127.0.0.1:80"])[0])
    );
}

fn identity(user: &str) -> Identity {
    let passwords = Passwords::parse(format!("{user}:x").as_bytes(), "users").unwrap();
    let files = AccessFiles { users: Some(passwords), ..AccessFiles::default() };
    let users = Users::new(Arc::new(InForce::new(Arc::new(files))));
    let password = Password::new(b"x").unwrap();
    let credentials = Credentials { name: user.into(), password };
    users.authenticate(Some(&credentials), Ipv4Addr::LOCALHOST.into(), |_| false).unwrap()
}

fn following(file: &str) -> Policy {
    on(KNOWN).with_files(Arc::new(rule_file(file)))
}

fn rule_file(rules: &str) -> AccessFiles {
    let rules = RuleFile::parse(rules.as_bytes(), "rules").unwrap();
    AccessFiles { rules, ..AccessFiles::default() }
}

/// Asks for `destination` with a client on the network; a name has the addresses of `found`,
/// or must not be looked up where they are `None`.
fn ask(
    file: &str,
    user: Option<&str>,
    destination: (&str, u16),
    found: Option<&[&str]>,
) -> Result<Vec<String>, String> {
    let host = Host::from(Name::new(destination.0.into()).unwrap());
    let destination = Address { host, port: destination.1 };
    let request = Request { command: Command::Connect, destination };
    let identity = user.map_or_else(anyone, identity);
    let lookup = |name: &Name, port| {
        let found = found.unwrap_or_else(|| panic!("{} is looked up", name.as_str()));
        let all = found.iter().map(|ip| SocketAddr::new(ip.parse().unwrap(), port));
        Ok::<_, Denied>(all.collect())
    };
    match following(file).permit(&identity, LAN.parse().unwrap(), &request, lookup) {
        Ok(permit) => Ok(permit.addresses().iter().map(|it| it.ip().to_string()).collect()),
        Err(denied) => Err(denied.to_string()),
    }
}

#[test]
fn the_first_rule_that_matches_decides() {
    let file = "# the household\n\
        deny to *.tracker.example\n\
        allow user alice to 10.0.0.0/8 port 22\n\
        deny to 10.0.0.0/8\n\
        deny port 25\n";
    let denied = |line: u32| Err(format!("rules:{line}: this rule denies it"));
    assert_eq!(ask(file, None, ("ads.tracker.example", 80), None), denied(2));
    assert_eq!(ask(file, None, ("ADS.Tracker.example.", 80), None), denied(2));
    let address = Ok(vec!["192.0.2.1".to_owned()]);
    assert_eq!(ask(file, None, ("tracker.example", 80), Some(&["192.0.2.1"])), address);
    assert_eq!(ask(file, None, ("192.0.2.1", 80), None), address);
    assert_eq!(ask(file, Some("alice"), ("10.0.0.1", 22), None), Ok(vec!["10.0.0.1".into()]));
    for (user, port) in [(Some("alice"), 23), (Some("bob"), 22), (None, 22)] {
        let denied = Err(format!("rules:4: this rule denies 10.0.0.1:{port}"));
        assert_eq!(ask(file, user, ("10.0.0.1", port), None), denied);
        assert_eq!(ask(file, user, ("::ffff:10.0.0.1", port), None), denied);
    }
}

#[test]
fn a_name_is_looked_up_only_when_its_address_may_make_a_difference() {
    let whitelist = "allow to 192.0.2.0/24 port 443\nallow to example.org\ndeny\n";
    assert!(ask(whitelist, None, ("example.com", 80), None).is_err());
    let both: &[&str] = &["192.0.2.1", "198.51.100.1"];
    let found = ask(whitelist, None, ("example.com", 443), Some(both));
    assert_eq!(found, Ok(vec!["192.0.2.1".into()]));
    let found = ask(whitelist, None, ("example.org", 80), Some(both));
    assert_eq!(found.unwrap(), both);
    let found = ask(whitelist, None, ("example.com", 443), Some(&both[1..]));
    assert_eq!(found, Err("rules:3: this rule denies 198.51.100.1:443".into()));
    // What an earlier rule denies would not change that all is denied.
    let blacklist = "deny to 192.0.2.0/24\ndeny to *.example\n";
    assert!(ask(blacklist, None, ("a.example", 80), None).is_err());
    let found = ask(blacklist, None, ("example.org", 80), Some(both));
    assert_eq!(found, Ok(vec!["198.51.100.1".into()]));
}

#[test]
fn an_address_has_no_name() {
    let file = "deny to *.0.0.example\ndeny to localhost\n";
    assert!(ask(file, None, ("192.0.2.1", 80), None).is_ok());
    assert!(ask(file, None, ("[2001:db8::1]", 80), None).is_ok());
}

#[test]
fn only_a_rule_with_an_address_or_a_network_opens_this_machine() {
    let opened = |file, name| ask(file, None, (name, 80), Some(&["127.0.0.1"])).is_ok();
    assert!(opened("allow to 127.0.0.0/8", "127.0.0.1"));
    assert!(opened("allow to 127.0.0.0/8", "this.example"));
    assert!(!opened("allow to 127.0.0.0/8 port 81", "this.example"));
    assert!(!opened("allow\n", "127.0.0.1"));
    assert!(!opened("allow port 80\nallow to 127.0.0.0/8", "127.0.0.1"));
    assert!(!opened("allow to 127.0.0.1 port 81", "127.0.0.1"));
    let denied = ask("allow port 80", None, ("169.254.169.254", 80), None).unwrap_err();
    assert!(denied.contains("a link-local address"), "{denied}");
}

#[test]
fn a_broad_rule_opens_nothing_that_is_closed() {
    let open = |rules: &str, host: &str, port| ask(rules, None, (host, port), None).is_ok();
    for (broad, host) in [
        ("allow to 0.0.0.0/0", "127.0.0.1"),
        ("allow to 0.0.0.0/0 port 80", "127.0.0.1"),
        ("allow to 126.0.0.0/7", "127.0.0.1"),
        ("allow to ::/0", "::1"),
        ("allow to ::/127", "::"),
        ("allow to 0.0.0.0/0", "0.0.0.0"),
        ("allow to 0.0.0.0/8", "0.0.0.0"),
        ("allow to 169.0.0.0/8", "169.254.169.254"),
        ("allow to ::/0", "fe80::1"),
        ("allow to 192.0.0.0/2", "224.0.0.1"),
        ("allow to 224.0.0.0/3", "255.255.255.255"),
        ("allow to self", "127.0.0.1"),
    ] {
        assert!(!open(broad, host, 80), "{broad} {host}");
        assert!(open(&format!("allow to {host}"), host, 80), "{host}");
    }
    for (named, host) in [
        ("allow to 127.0.0.0/8", "127.0.0.1"),
        ("allow to 127.0.0.0/30", "127.0.0.1"),
        ("allow to 10.0.0.0/8, 127.0.0.0/8", "127.0.0.1"),
        ("allow to 224.0.0.0/24", "224.0.0.1"),
        ("allow to fe80::/64 port 80", "fe80::1"),
    ] {
        assert!(open(named, host, 80), "{named} {host}");
    }
    // In the clothes of IPv6 it is the same address.
    assert!(!open("allow to 64:ff9b::/96", "64:ff9b::127.0.0.1", 80));
    assert!(open("allow to 64:ff9b::/96, 127.0.0.1", "64:ff9b::127.0.0.1", 80));
}

#[test]
fn an_own_port_opens_to_a_rule_for_one_address_with_that_port_alone() {
    let open = |rules: &str, host: &str| ask(rules, None, (host, 1080), None).is_ok();
    for broad in [
        "allow",
        "allow port 1080",
        "allow to 192.168.0.0/16",
        "allow to 192.168.0.0/16 port 1080",
        "allow to 192.168.1.0/31 port 1080",
        "allow to 192.168.1.1",
        "allow to 192.168.1.1 port 1-65535",
        "allow to 192.168.1.1 port 80, 1000-2000",
        "allow to self port 1080",
    ] {
        assert!(!open(broad, "192.168.1.1"), "{broad}");
        assert!(ask(broad, None, ("192.168.1.2", 1080), None).is_ok(), "{broad}: elsewhere");
    }
    assert!(open("allow to 192.168.1.1 port 1080", "192.168.1.1"));
    assert!(open("allow to 192.168.1.1, 127.0.0.1 port 80, 1080", "192.168.1.1"));
    assert!(open("allow to 2001:db8::1/128 port 1080", "2001:db8::1"));
    // Loopback is this machine as well: an own port is closed there, too.
    assert!(!open("allow to 127.0.0.0/8", "127.0.0.1"));
    assert!(!open("allow to 127.0.0.1", "127.0.0.1"));
    assert!(open("allow to 127.0.0.1 port 1080", "127.0.0.1"));
}

#[test]
fn nobody_becomes_somebody_else_through_an_own_port() {
    // Meant: the LAN may go to the LAN and to a web server anywhere, one of it not to 10.0.0.0/8.
    let rules = "deny from 192.168.1.3 to 10.0.0.0/8\n\
        allow to 192.168.0.0/16\n\
        allow to 0.0.0.0/0 port 8000\n";
    let closed = |host, port| ask(rules, None, (host, port), None).unwrap_err();
    assert!(closed("192.168.1.1", 1080).contains("this server itself"));
    assert!(closed("127.0.0.1", 8000).contains("a loopback address"));
    assert!(ask(rules, None, ("192.168.1.1", 8000), None).is_ok());
    assert!(ask(rules, None, ("203.0.113.1", 8000), None).is_ok());
}

#[test]
fn rules_that_seem_to_open_more_are_remarked_on() {
    let doubts = |rules: &str| following("").doubts(&rule_file(rules).rules);
    for (rule, parts) in [
        (
            "allow to 0.0.0.0/0",
            &["127.0.0.0/8, 0.0.0.0/32, 169.254.0.0/16, 224.0.0.0/4", "own port 1080"][..],
        ),
        ("allow to 0.0.0.0/0 port 8000", &["not open 127.0.0.0/8, "]),
        ("allow to ::/0", &["::1/128, ::/128, fe80::/10, ff00::/8, this server's own port 1080"]),
        ("allow to 192.168.0.0/16", &["not open this server's own port 1080:"]),
        ("allow to 10.0.0.0/8 port 1000-2000", &["own port 1080"]),
        ("allow to 192.168.1.1", &["own port 1080"]),
        ("allow to self", &["not open loopback, this server's own port 1080:"]),
        ("allow to localhost port 80", &["not open loopback:"]),
    ] {
        let told = doubts(rule);
        assert_eq!(told.len(), 1, "{rule}: {told:?}");
        assert!(told[0].starts_with("rules:1: this rule does not open "), "{told:?}");
        assert!(parts.iter().all(|part| told[0].contains(part)), "{rule}: {told:?}");
    }
    for rule in [
        "allow",
        "allow to 192.168.0.0/16 port 22",
        "allow to 192.168.1.2",
        "allow to 192.168.1.1 port 1080",
        "allow to 127.0.0.0/8 port 80",
        "allow to 198.51.100.0/24",
        "allow to nas.lan",
        "deny to 0.0.0.0/0",
        "deny to self",
    ] {
        assert_eq!(doubts(rule), [] as [String; 0], "{rule}");
    }
}

#[test]
fn who_has_the_dns_of_an_allowed_name_does_not_get_at_this_machine() {
    let found: &[&str] = &["127.0.0.1", "192.0.2.1", "169.254.169.254", "::1"];
    for file in ["allow to *.allowed.example\ndeny", "allow to a.allowed.example"] {
        let permitted = ask(file, None, ("a.allowed.example", 80), Some(found));
        assert_eq!(permitted, Ok(vec!["192.0.2.1".into()]), "{file}");
    }
    let closed = ask("allow to a.example", None, ("a.example", 80), Some(&["127.0.0.1"]));
    assert!(closed.unwrap_err().contains("127.0.0.1:80 is a loopback address"));
}

#[test]
fn rules_are_for_clients_on_this_machine_too() {
    let policy = following("deny to 127.0.0.0/8");
    let destination = Address { host: Host::Ip(Ipv4Addr::LOCALHOST.into()), port: 80 };
    let request = Request { command: Command::Bind, destination };
    let judged = policy.permit(&anyone(), LOCAL.parse().unwrap(), &request, |_, _| Err(None));
    assert!(matches!(judged, Err(Some(Denied::ByRule { line: 1, .. }))));
}

#[test]
fn a_request_without_destination_is_denied_when_nothing_could_come_of_it() {
    let judge = |file, user: Option<&str>, command| {
        let identity = user.map_or_else(anyone, identity);
        following(file).permit_open(&identity, LAN.parse().unwrap(), command).map_err(|denied| {
            let Denied::ByRule { line, .. } = denied else { panic!("{denied}") };
            line
        })
    };
    let (udp, bind) = (Command::UdpAssociate, Command::Bind);
    assert!(judge("", None, udp).unwrap().addresses().is_empty());
    assert_eq!(judge("", None, bind).unwrap().command(), bind);
    assert_eq!(judge("deny command bind", None, bind).unwrap_err(), 1);
    assert!(judge("deny command bind", None, udp).is_ok());
    // These wait for the destination.
    assert!(judge("deny command udp to 10.0.0.0/8\ndeny port 53", None, udp).is_ok());
    let only_dns = "allow command udp port 53\n\ndeny command udp";
    assert!(judge(only_dns, None, udp).is_ok());
    let only_alice = "allow user alice\ndeny\nallow user bob";
    assert!(judge(only_alice, Some("alice"), udp).is_ok());
    assert_eq!(judge(only_alice, Some("bob"), udp).unwrap_err(), 2);
    assert_eq!(judge(only_alice, None, udp).unwrap_err(), 2);
    assert_eq!(judge("deny from 192.168.0.0/16", None, udp).unwrap_err(), 1);
}

#[test]
fn an_ipv4_address_in_the_clothes_of_ipv6_is_judged_as_well() {
    let dressed = |ip: &str| {
        let [a, b, c, d] = ip.parse::<Ipv4Addr>().unwrap().octets();
        let (high, low) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
        [
            format!("64:ff9b::{ip}"),
            format!("2002:{high:x}:{low:x}::1"),
            format!("::{ip}"),
            format!("2001:db8::5efe:{ip}"),
            format!("2001:db8::200:5efe:{ip}"),
        ]
    };
    for ip in ["127.0.0.1", "169.254.169.254", "224.0.0.1", "255.255.255.255"] {
        for ip in dressed(ip) {
            let closed = ask("", None, (&ip, 80), None);
            assert!(closed.is_err_and(|it| it.contains("closed to clients")), "{ip}");
        }
    }
    for ip in dressed("10.1.2.3") {
        let found: &[&str] = &[&ip];
        assert!(ask("", None, (&ip, 80), None).is_ok(), "{ip}");
        let denied = Err("rules:1: this rule denies 10.1.2.3:80".into());
        assert_eq!(ask("deny to 10.0.0.0/8", None, (&ip, 80), None), denied, "{ip}");
        let by_name = ask("deny to 10.0.0.0/8", None, ("a.example", 80), Some(found));
        assert_eq!(by_name, denied, "{ip}");
        // Both have to be permitted, so that a list of what is allowed has no hole either.
        assert!(ask("allow to 10.0.0.0/8\ndeny", None, (&ip, 80), None).is_err(), "{ip}");
        assert!(ask("allow to ::/0\ndeny", None, (&ip, 80), None).is_err(), "{ip}");
        let both = "allow to ::/0\nallow to 10.0.0.0/8\ndeny";
        assert!(ask(both, None, (&ip, 80), None).is_ok(), "{ip}");
    }
}

/// Asks a server that listens on port 1080.
fn closed(
    client: &str,
    destination: &str,
    read: fn() -> Option<Vec<InterfaceAddress>>,
) -> Option<&'static str> {
    reason(&on(read), client, destination)
}

fn reason(policy: &Policy, client: &str, destination: &str) -> Option<&'static str> {
    let (client, identity) = (client.parse().unwrap(), anyone());
    let destination: SocketAddr = destination.parse().unwrap();
    let query = query(identity.user(), client, Command::Connect, destination.port());
    match policy.check_default(destination, &query, None) {
        Ok(()) => None,
        Err(Denied::Closed { reason, .. }) => Some(reason),
        Err(other) => panic!("{other}"),
    }
}

const OWN: [&str; 11] = [
    "127.0.0.1:80",
    "127.9.9.9:80",
    "[::1]:80",
    "[::ffff:127.0.0.1]:80",
    "0.0.0.0:80",
    "[::]:80",
    "[::ffff:0.0.0.0]:80",
    "169.254.169.254:80",
    "[fe80::1]:80",
    "224.0.0.1:80",
    "255.255.255.255:80",
];

#[test]
fn a_client_elsewhere_cannot_reach_what_is_for_this_machine_only() {
    for destination in OWN {
        assert!(closed(LAN, destination, KNOWN).is_some(), "{destination}");
    }
    for open in ["192.0.2.1:1080", "192.168.1.1:80", "[2001:db8::1]:80", "[2001:db8::2]:1080"] {
        assert_eq!(closed(LAN, open, KNOWN), None, "{open}");
    }
}

#[test]
fn the_own_port_is_closed_at_an_address_that_has_just_come() {
    thread_local!(static COMES: Cell<bool> = const { Cell::new(false) });
    let is_local = |ip: IpAddr| Some(COMES.get() && ip == IpAddr::from([192, 168, 1, 5]));
    let policy = Policy { interfaces: Interfaces::told_by(KNOWN, is_local), ..on(KNOWN) };
    assert_eq!(reason(&policy, LAN, "192.168.1.5:1080"), None);
    COMES.set(true);
    assert!(reason(&policy, LAN, "192.168.1.5:1080").is_some());
    COMES.set(false);
    assert_eq!(reason(&policy, LAN, "192.168.1.5:1080"), None, "and gone");
}

#[test]
fn a_client_on_this_machine_can() {
    for destination in OWN.iter().chain(&["192.168.1.1:1080"]) {
        assert_eq!(closed(LOCAL, destination, KNOWN), None, "{destination}");
    }
}

#[test]
fn the_servers_own_port_is_closed_at_every_address_of_the_machine() {
    for own in ["192.168.1.1:1080", "[2001:db8::1]:1080", "[::ffff:192.168.1.1]:1080"] {
        assert_eq!(closed(LAN, own, KNOWN), Some("this server itself"), "{own}");
    }
}

#[test]
fn the_servers_own_port_is_closed_if_the_system_does_not_tell_the_addresses() {
    for perhaps in ["192.168.1.1:1080", "192.0.2.1:1080"] {
        assert_eq!(closed(LAN, perhaps, || None), Some("perhaps this server itself"));
    }
    assert_eq!(closed(LAN, "192.0.2.1:80", || None), None);
}

#[test]
fn a_client_does_not_get_past_a_firewall_to_the_boxs_own_addresses() {
    let file = "allow to self port 53\ndeny to self";
    let denied = |ip: &str| Err(format!("rules:2: this rule denies {ip}:80"));
    for own in ["192.168.1.1", "127.0.0.1", "0.0.0.0"] {
        assert_eq!(ask(file, None, (own, 80), None), denied(own));
        assert_eq!(ask(file, None, ("a.example", 80), Some(&[own])), denied(own));
    }
    assert!(ask(file, None, ("2001:db8::1", 80), None).is_err());
    let dressed = "64:ff9b::192.168.1.1";
    assert_eq!(ask(file, None, (dressed, 80), None), denied("192.168.1.1"));
    assert!(ask(file, None, ("192.168.1.2", 80), None).is_ok());
    assert!(ask(file, None, ("192.168.1.1", 53), None).is_ok());
    let closed = ask(file, None, ("127.0.0.1", 53), None).unwrap_err();
    assert!(closed.contains("a loopback address"), "self opens nothing: {closed}");
    // A name may have one of these addresses, so it has to be looked up.
    let own: &[&str] = &["192.168.1.1", "192.0.2.1"];
    let found = ask("allow to self\ndeny", None, ("a.example", 80), Some(own));
    assert_eq!(found, Ok(vec!["192.168.1.1".into()]));
}

/// A request for port 80 of a host.
fn request_for(host: &str) -> Request {
    let host = Host::from(Name::new(host.into()).unwrap());
    Request { command: Command::Connect, destination: Address { host, port: 80 } }
}

#[test]
fn the_next_request_is_judged_by_the_new_rules() {
    let policy = following("deny to 192.0.2.1");
    let is_open = |ip| {
        let found = |_: &_, _| Err::<_, Option<Denied>>(None);
        policy.permit(&anyone(), LAN.parse().unwrap(), &request_for(ip), found).is_ok()
    };
    let generation = policy.generation();
    assert_eq!([is_open("192.0.2.1"), is_open("192.0.2.2")], [false, true]);
    policy.in_force().replace(rule_file("deny to 192.0.2.2"));
    assert_eq!([is_open("192.0.2.1"), is_open("192.0.2.2")], [true, false]);
    assert_ne!(policy.generation(), generation);
}

#[test]
fn rules_that_change_during_a_lookup_do_not_mix() {
    let policy = following("allow to 192.0.2.0/24\ndeny");
    // By the old rules the first address is open, by the new ones the second.
    let lookup = |_: &Name, _| {
        policy.in_force().replace(rule_file("allow to 198.51.100.0/24\ndeny"));
        let found: [SocketAddr; 2] =
            ["192.0.2.1:80", "198.51.100.1:80"].map(|it| it.parse().unwrap());
        Ok::<_, Option<Denied>>(found.to_vec())
    };
    let judged = policy.permit(&anyone(), LAN.parse().unwrap(), &request_for("a.example"), lookup);
    assert_eq!(judged.unwrap().addresses(), ["192.0.2.1:80".parse().unwrap()]);
    let found = |_: &Name, _| Ok(vec!["192.0.2.1:80".parse().unwrap()]);
    let judged = policy.permit(&anyone(), LAN.parse().unwrap(), &request_for("a.example"), found);
    assert!(matches!(judged, Err(Some(Denied::ByRule { .. }))));
}

/// What becomes of a request for `destination` where there are rules and perhaps an upstream for
/// the rest. Names must not be looked up.
fn route_of(
    rules: &str,
    rest: Option<&str>,
    client: &str,
    command: Command,
    destination: (&str, u16),
) -> String {
    let rest = rest.map(|url| Arc::new(Upstream::parse(url).unwrap()));
    let host = Host::from(Name::new(destination.0.into()).unwrap());
    let request = Request { command, destination: Address { host, port: destination.1 } };
    let mut looked_up = None;
    let lookup = |name: &Name, _| {
        looked_up = Some(name.as_str().to_owned());
        Err(None)
    };
    let policy = following(rules).with_upstream(rest);
    match policy.permit(&anyone(), client.parse().unwrap(), &request, lookup) {
        Ok(permit) => match permit.route() {
            Some(route) => {
                assert!(permit.addresses().is_empty());
                format!("{} via {}", route.request().destination, route.upstream())
            }
            None => "direct".into(),
        },
        Err(None) => format!("{} is looked up", looked_up.unwrap()),
        Err(Some(_)) => "denied".into(),
    }
}

#[test]
fn a_name_is_looked_up_as_it_stands_where_a_rule_is_about_a_name() {
    for (rules, looked_up) in [
        ("", "db.prod is looked up"),
        ("allow to 192.168.0.0/16\ndeny to self", "db.prod is looked up"),
        ("deny to tracker.example", "db.prod. is looked up"),
        ("allow user bob to *.example", "db.prod. is looked up"),
    ] {
        assert_eq!(route_of(rules, None, LAN, Command::Connect, ("db.prod", 80)), looked_up);
    }
}

const REST: Option<&str> = Some("socks5h://192.0.2.9:1080");

#[test]
fn what_goes_up_is_not_looked_up() {
    let rules = "deny to *.tracker.example\n\
        deny to 10.0.0.0/8\n\
        via socks5h://192.0.2.8:9050 to *.onion\n\
        via socks5h://192.0.2.7:1080 from 192.168.1.20\n\
        allow to *.home.example\n\
        allow to 192.168.0.0/16\n\
        via socks5h://192.0.2.6:1080 to 198.51.100.0/24\n";
    for (rest, client, name, route) in [
        (None, LAN, "a.onion", "a.onion:80 via 192.0.2.8:9050"),
        (None, LAN, "A.Onion.", "A.Onion.:80 via 192.0.2.8:9050"),
        (None, LAN, "example.org", "example.org. is looked up"),
        (REST, LAN, "example.org", "example.org:80 via 192.0.2.9:1080"),
        (REST, "192.168.1.20:5", "example.org", "example.org:80 via 192.0.2.7:1080"),
        (REST, "192.168.1.20:5", "a.onion", "a.onion:80 via 192.0.2.8:9050"),
        (REST, LAN, "a.tracker.example", "denied"),
        (REST, LAN, "nas.home.example", "nas.home.example. is looked up"),
        (REST, LAN, "10.1.2.3", "denied"),
        (REST, LAN, "192.168.3.4", "direct"),
        (REST, LAN, "198.51.100.1", "198.51.100.1:80 via 192.0.2.6:1080"),
        (None, LAN, "198.51.100.1", "198.51.100.1:80 via 192.0.2.6:1080"),
        (REST, LAN, "203.0.113.1", "203.0.113.1:80 via 192.0.2.9:1080"),
        (None, LAN, "203.0.113.1", "direct"),
    ] {
        let judged = route_of(rules, rest, client, Command::Connect, (name, 80));
        assert_eq!(judged, route, "{rest:?} {client} {name}");
    }
}

#[test]
fn what_is_closed_stays_closed_to_what_goes_up() {
    let closed = [
        "127.0.0.1",
        "127.1",
        "0x7f.1",
        "2130706433",
        "::1",
        "[::1]",
        "::ffff:127.0.0.1",
        "0.0.0.0",
        "169.254.169.254",
        "localhost",
        "LOCALHOST.",
        "::1%1",
        "[::1%lo]",
        "127.0.0.1.",
        "fe80::1%eth0",
        "a.localhost",
    ];
    for name in closed {
        assert_eq!(route_of("", REST, LAN, Command::Connect, (name, 80)), "denied", "{name}");
        let rules = "via socks5h://192.0.2.9:1080 to 0.0.0.0/0\nvia socks5h://192.0.2.9:1080";
        assert_eq!(route_of(rules, None, LAN, Command::Connect, (name, 80)), "denied", "{name}");
        let own = route_of("", REST, LOCAL, Command::Connect, (name, 80));
        assert!(own.ends_with(" via 192.0.2.9:1080"), "{name} {own}");
    }
}

#[test]
fn what_is_nearly_an_address_is_judged_as_one() {
    for name in [
        "10.9.9.9",
        "::ffff:10.9.9.9",
        "[10.9.9.9]",
        "10.9.9.9.",
        "167774473",
        "::ffff:10.9.9.9%1",
        "0x0a.9.9.9",
        "10.9.2313",
        "[::ffff:10.9.9.9%eth0].",
    ] {
        for client in [LAN, LOCAL] {
            let judged = |rules| route_of(rules, REST, client, Command::Connect, (name, 80));
            assert_eq!(judged("deny to 10.0.0.0/8"), "denied", "{name}");
            assert_eq!(judged("allow to 10.0.0.0/8"), "direct", "{name}");
            assert!(judged("").ends_with(":80 via 192.0.2.9:1080"), "{name}");
        }
    }
}

#[test]
fn localhost_is_judged_as_the_addresses_that_it_has_everywhere() {
    for name in ["localhost", "LOCALHOST.", "localhost4", "a.localhost", "ip6-loopback"] {
        let judged = |rules, client| route_of(rules, REST, client, Command::Connect, (name, 80));
        assert_eq!(judged("", LAN), "denied", "{name}");
        assert_eq!(judged("deny to 127.0.0.0/8", LOCAL), "[::1]:80 via 192.0.2.9:1080");
        assert_eq!(judged("deny to 127.0.0.0/8, ::1", LOCAL), "denied", "{name}");
        assert_eq!(judged("deny to self", LOCAL), "denied", "{name}");
        assert_eq!(judged("", LOCAL), format!("{name}:80 via 192.0.2.9:1080"));
        assert_eq!(judged("allow to 127.0.0.1", LOCAL), "direct", "{name}");
    }
}

#[test]
fn names_that_this_machine_knows_are_looked_up_although_names_go_up() {
    let path = std::env::temp_dir().join(format!("tabi-policy-hosts-{}", std::process::id()));
    std::fs::write(&path, "127.0.1.1 box\n192.168.1.9 nas.lan nas\n").unwrap();
    let hosts: &Hosts = Box::leak(Box::new(Hosts::in_file(path.clone())));
    let judge = |rules, client: &str, name: &str, found: &str| {
        let rest = REST.and_then(Upstream::parse).map(Arc::new);
        let policy = Policy { hosts, ..following(rules).with_upstream(rest) };
        let found = SocketAddr::new(found.parse().unwrap(), 80);
        let lookup = |_: &Name, _| Ok::<_, Denied>(vec![found]);
        let permit = policy.permit(&anyone(), client.parse().unwrap(), &request_for(name), lookup);
        permit.map_or_else(
            |denied| denied.to_string(),
            |permit| match permit.route() {
                Some(route) => format!("{} goes up", route.request().destination),
                None => "direct".into(),
            },
        )
    };
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    for name in ["box", "BOX.", &host] {
        let told = judge("", LAN, name, "127.0.1.1");
        assert!(told.contains("127.0.1.1:80 is a loopback address"), "{name}: {told}");
        assert!(judge("", LOCAL, name, "127.0.1.1").contains(":80 goes up"), "{name}");
    }
    assert_eq!(judge("", LAN, "Nas.Lan", "192.168.1.9"), "Nas.Lan:80 goes up");
    assert!(
        judge("deny to 192.168.0.0/16", LAN, "nas", "192.168.1.9").contains("this rule denies")
    );
    assert_eq!(judge("allow to 192.168.1.9", LAN, "nas", "192.168.1.9"), "direct");
    let other = "via socks5h://192.0.2.8:9050 to 192.168.0.0/16";
    assert_eq!(judge(other, LAN, "nas", "192.168.1.9"), "192.168.1.9:80 goes up", "by another one");
    assert_eq!(judge("deny to 127.0.0.0/8", LAN, "b.example", "127.0.0.1"), "b.example:80 goes up");
    std::fs::remove_file(path).unwrap();
}

#[test]
fn without_h_names_are_resolved_here_and_a_permitted_address_goes_up() {
    let judge = |rules: &str, command, found: &[&str]| {
        let rest = Upstream::parse("socks5://192.0.2.9:1080").map(Arc::new);
        let policy = following(rules).with_upstream(rest);
        let lookup = |_: &Name, port| {
            let all = found.iter().map(|ip| SocketAddr::new(ip.parse().unwrap(), port));
            Ok::<_, Denied>(all.collect())
        };
        let request = Request { command, ..request_for("a.example") };
        let permit = policy.permit(&anyone(), LAN.parse().unwrap(), &request, lookup);
        permit.map_or_else(
            |denied| denied.to_string(),
            |permit| match permit.route() {
                Some(route) => format!("{} goes up", route.request().destination),
                None => format!("{:?}", permit.addresses()),
            },
        )
    };
    let connect = Command::Connect;
    assert_eq!(judge("", connect, &["198.51.100.1"]), "198.51.100.1:80 goes up");
    for (rules, ip, why) in [
        ("", "127.0.0.1", "a loopback address"),
        ("", "169.254.169.254", "a link-local address"),
        ("deny to 10.0.0.0/8", "10.9.9.9", "this rule denies"),
        ("deny to self", "192.168.1.1", "this rule denies"),
    ] {
        let told = judge(rules, connect, &[ip]);
        assert!(told.contains(why), "{rules} {ip}: {told}");
        let both = judge(rules, connect, &[ip, "198.51.100.1"]);
        assert_eq!(both, "198.51.100.1:80 goes up", "only what is permitted");
    }
    let via = "via socks5://192.0.2.8:1080 to *.example\ndeny";
    assert_eq!(judge(via, connect, &["198.51.100.1"]), "198.51.100.1:80 goes up");
    // What its address is, is known then.
    assert_eq!(judge("", Command::Resolve, &["198.51.100.1"]), "[198.51.100.1:80]");
    // Neither goes up, and nothing is looked up in vain.
    for command in [Command::Bind, Command::UdpAssociate] {
        let refused = route_of("", Some("socks5://192.0.2.9:1080"), LAN, command, ("a.b", 80));
        assert_eq!(refused, "denied");
        let allowed = judge("allow to 198.51.100.0/24", command, &["198.51.100.1"]);
        assert_eq!(allowed, "[198.51.100.1:80]");
    }
}

/// What becomes of a request for `destination` where the upstream has turned out to be at `found`.
fn permitted_upstream(
    client: &str,
    destination: (&str, u16),
    found: &[&str],
) -> Result<Vec<String>, String> {
    let host = Host::from(Name::new(destination.0.into()).unwrap());
    let destination = Address { host, port: destination.1 };
    let upstream = Arc::new(Upstream::parse("socks5h://up.example:1080").unwrap());
    let request = Request { command: Command::Connect, destination };
    let route = UpstreamRoute { upstream, request };
    let found = found.iter().map(|address| address.parse().unwrap()).collect();
    match on(KNOWN).permit_upstream(&route, client.parse().unwrap(), found) {
        Ok(left) => Ok(left.iter().map(ToString::to_string).collect()),
        Err(denied) => Err(denied.to_string()),
    }
}

#[test]
fn an_upstream_that_turns_out_to_be_this_server_is_not_dialed() {
    let name = ("a.example", 80);
    for own in ["192.168.1.1:1080", "127.0.0.1:1080", "[::1]:1080", "[2001:db8::1]:1080"] {
        let told = permitted_upstream(LOCAL, name, &[own]).unwrap_err();
        assert_eq!(told, "the upstream up.example:1080 is this server itself", "{own}");
        let other = permitted_upstream(LOCAL, name, &[own, "192.0.2.9:1080"]);
        assert_eq!(other.unwrap(), ["192.0.2.9:1080"], "{own}");
    }
    assert!(permitted_upstream(LOCAL, name, &["192.168.1.1:1081"]).is_ok());
    assert!(permitted_upstream(LOCAL, name, &["192.168.1.2:1080"]).is_ok());
}

#[test]
fn no_name_leads_to_an_own_port_through_an_upstream_on_this_machine() {
    for here in ["127.0.0.1:9050", "192.168.1.1:9050", "[::1]:9050"] {
        let told = permitted_upstream(LAN, ("a.example", 1080), &[here]).unwrap_err();
        assert!(told.contains("port 1080 is perhaps this server itself"), "{told}");
        assert!(permitted_upstream(LAN, ("a.example", 80), &[here]).is_ok());
        assert!(permitted_upstream(LOCAL, ("a.example", 1080), &[here]).is_ok());
        // Addresses are judged by what they are.
        assert!(permitted_upstream(LAN, ("192.0.2.1", 1080), &[here]).is_ok());
    }
    assert!(permitted_upstream(LAN, ("a.example", 1080), &["192.0.2.9:9050"]).is_ok());
}

#[test]
fn an_upstream_on_this_machine_that_gets_names_is_remarked_on() {
    let doubts = |rest: &str, rules: &str| {
        let rest = Upstream::parse(rest).map(Arc::new);
        on(KNOWN).with_upstream(rest).doubts(&rule_file(rules).rules)
    };
    let rule = "via socks5h://127.0.0.1:9050 to *.onion";
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    for (rest, rules, place) in [
        (&*format!("socks5h://{host}:2080"), "", &*format!("--upstream: the upstream {host}:2080")),
        ("socks5h://127.0.0.1:2080", "", "--upstream: the upstream 127.0.0.1:2080"),
        ("socks5h://192.168.1.1:2080", "", "--upstream: the upstream 192.168.1.1:2080"),
        ("socks5h://localhost:2080", "", "--upstream: the upstream localhost:2080"),
        ("socks5h://[64:ff9b::7f00:1]:80", "", "--upstream: the upstream [64:ff9b::7f00:1]:80"),
        ("", rule, "rules:1: the upstream 127.0.0.1:9050"),
    ] {
        let told = doubts(rest, rules);
        assert_eq!(told.len(), 1, "{rest} {rules}");
        assert!(
            told[0].starts_with(&format!("{place} is on this machine and gets names")),
            "{told:?}"
        );
    }
    for elsewhere in ["socks5://127.0.0.1:2080", "socks5h://192.0.2.9:1080", "socks5h://a.b:1"] {
        assert_eq!(doubts(elsewhere, ""), [] as [String; 0], "{elsewhere}");
    }
}

#[test]
fn a_server_knows_itself() {
    let told = |url: &str, listener: &str| {
        let rest = Upstream::parse(&format!("socks5://{url}")).map(Arc::new);
        let own = vec![listener.parse().unwrap()];
        let policy = Policy { own, ..on(KNOWN) }.with_upstream(rest);
        policy.upstream_is_self(&RuleFile::default())
    };
    for (url, listener) in [
        ("127.0.0.1:1080", "127.0.0.1:1080"),
        ("127.1:1080", "127.0.0.1:1080"),
        ("localhost:1080", "127.0.0.1:1080"),
        ("LocalHost.:1080", "[::1]:1080"),
        ("localhost:1080", "[::]:1080"),
        ("127.0.0.1:1080", "[::]:1080"),
        ("127.9.9.9:1080", "0.0.0.0:1080"),
        ("192.168.1.1:1080", "[::]:1080"),
        ("192.168.1.1:1080", "192.168.1.1:1080"),
        ("0.0.0.0:1080", "0.0.0.0:1080"),
    ] {
        let told = told(url, listener);
        assert!(told.is_some_and(|it| it.ends_with("is this server itself")), "{url} {listener}");
    }
    for (url, listener) in [
        ("127.0.0.1:1081", "127.0.0.1:1080"),
        ("127.0.0.2:1080", "127.0.0.1:1080"),
        ("[::1]:1080", "0.0.0.0:1080"),
        ("192.168.1.3:1080", "[::]:1080"),
        ("localhost:1080", "192.168.1.1:1080"),
        ("proxy.example:1080", "[::]:1080"),
    ] {
        assert_eq!(told(url, listener), None, "{url} {listener}");
    }
}

#[test]
fn only_connect_goes_through_an_upstream() {
    for command in [Command::Bind, Command::UdpAssociate] {
        for (rest, name) in [(REST, "example.org"), (REST, "192.0.2.1"), (None, "a.onion")] {
            let rules = "via socks5h://192.0.2.8:9050 to *.onion";
            assert_eq!(route_of(rules, rest, LAN, command, (name, 80)), "denied", "{name}");
        }
        let open = |rules: &str, rest: Option<&str>| {
            let rest = rest.map(|url| Arc::new(Upstream::parse(url).unwrap()));
            let policy = following(rules).with_upstream(rest);
            policy.permit_open(&anyone(), LAN.parse().unwrap(), command).is_ok()
        };
        assert!(open("via socks5h://192.0.2.8:9050 to *.onion", None));
        assert!(open("allow to 192.0.2.0/24", REST));
        assert!(!open("", REST));
        assert!(!open("via socks5h://192.0.2.8:9050", None));
        assert!(!open("via socks5h://192.0.2.8:9050 to *.onion\ndeny", None));
    }
}

#[test]
fn a_name_with_addresses_of_both_kinds_is_reached_directly_if_it_can_be() {
    let policy = following("via socks5h://192.0.2.8:9050 to 198.51.100.0/24\nallow");
    let name = Name::new(b"both.example".to_vec()).unwrap();
    let destination = Address { host: Host::Name(name), port: 80 };
    let request = Request { command: Command::Connect, destination };
    let permit = |found: &[&str]| {
        let found = found.iter().map(|address| address.parse().unwrap()).collect();
        let lookup = |_: &Name, _| Ok::<_, Denied>(found);
        policy.permit(&anyone(), LAN.parse().unwrap(), &request, lookup).unwrap()
    };
    let both = permit(&["198.51.100.1:80", "203.0.113.1:80"]);
    assert!(both.route().is_none());
    assert_eq!(both.addresses(), ["203.0.113.1:80".parse().unwrap()]);
    let one = permit(&["198.51.100.1:80", "198.51.100.2:80"]);
    let destination = &one.route().unwrap().request().destination;
    assert_eq!(destination.to_string(), "198.51.100.1:80", "what was checked");
}
