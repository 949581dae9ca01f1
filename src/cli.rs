//! The command line, parsed into what the server and the log are told. Every refusal names the
//! option, what was given and what is expected.

use std::ffi::OsString;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{ArgAction, CommandFactory, FromArgMatches, Parser};
use ipnet::IpNet;
use log::LevelFilter;

use crate::access::rules::RuleFile;
use crate::access::users::Passwords;
use crate::server::Config;

mod value;
mod ways;

use ways::Ways;

/// What the command line asks for.
#[derive(Clone, Debug)]
pub struct Arguments {
    /// What to serve, and how.
    pub config: Config,
    /// How much to log.
    pub level: LevelFilter,
    /// Where to log; standard error if nowhere else.
    pub log_file: Option<PathBuf>,
    /// Only say whether everything is in order.
    pub check: bool,
    /// Only say whether the server that listens there answers.
    pub probe: bool,
}

/// Parses the command line, the program's name first.
///
/// # Errors
///
/// What is wrong with it and what is expected; also `--help` and `--version`, which are to be
/// printed likewise.
pub fn parse(
    arguments: impl IntoIterator<Item = impl Into<OsString> + Clone>,
) -> Result<Arguments, clap::Error> {
    let matches = Options::command().try_get_matches_from(arguments)?;
    let mut options = Options::from_arg_matches(&matches)?;
    if options.probe {
        // A file that has gone bad since the server has read it is not the server's state of health.
        options.rules = None;
        options.users = None;
    }
    let upstream = options.ways.upstream(matches.value_source("upstream"))?;
    let source = options.ways.source()?;
    Ok(Arguments {
        level: match (options.quiet, options.verbose) {
            (true, _) => LevelFilter::Warn,
            (false, 0) => LevelFilter::Info,
            (false, 1..) => LevelFilter::Debug,
        },
        log_file: options.log_file,
        check: options.check,
        probe: options.probe,
        config: Config {
            listen: options.listen,
            allow_from: options.allow_from,
            rules: options.rules.as_deref().map(rules).transpose()?.unwrap_or_default(),
            upstream: upstream.map(Arc::new),
            users: options.users.as_deref().map(users).transpose()?,
            source,
            rules_file: options.rules,
            users_file: options.users,
            udp_advertise: options.udp_advertise,
            udp_ports: options.ways.udp_ports,
            max_connections: options.max_connections,
            max_per_client: options.max_per_client,
            handshake_timeout: options.handshake_timeout,
            connect_timeout: options.connect_timeout,
            idle_timeout: options.idle_timeout,
            grace: options.grace,
            proxy_protocol: options.proxy_protocol,
            status: options.status,
            name_cache: options.name_cache,
        },
    })
}

/// The command line as it is: its options with their values and defaults.
#[must_use]
pub fn command() -> clap::Command {
    Options::command()
}

const DEFAULTS: &str = "\
With no option tabi listens on port 1080 of every address, serves clients on this machine and on
private networks, and keeps clients on other machines from what listens for this machine alone.
Exit status: 0 stopped by a signal, 1 cannot start, 2 wrong options, 130 ended by a second signal.";

/// A SOCKS5 proxy server for a home or office network
#[derive(Parser)]
#[command(name = "tabi", version, after_help = DEFAULTS)]
#[allow(clippy::struct_excessive_bools, reason = "each is a flag")]
struct Options {
    /// Where to listen: PORT, ADDRESS:PORT or [IPV6]:PORT; a PORT alone means every address
    #[arg(value_name = "LISTEN", default_value = "1080", value_parser = value::listen)]
    listen: Vec<SocketAddr>,

    /// Clients that are served; repeatable, replaces the default: loopback and private networks
    #[arg(long, value_name = "CIDR", value_parser = value::network)]
    allow_from: Vec<IpNet>,

    /// Who may do what, and where: a file with a rule a line, the first that matches decides
    #[arg(long, value_name = "FILE")]
    rules: Option<PathBuf>,

    /// Require username and password: a file with `name:password` a line, that only its owner can read
    #[arg(long, value_name = "FILE")]
    users: Option<PathBuf>,

    #[command(flatten)]
    ways: Ways,

    /// Address that clients are told to send UDP datagrams to, if this machine has another one for
    /// them than it knows of
    #[arg(long, value_name = "ADDRESS", value_parser = value::address)]
    udp_advertise: Option<IpAddr>,

    /// Connections that are served at once; further clients wait
    #[arg(long, value_name = "N", default_value = "4096", value_parser = value::count)]
    max_connections: usize,

    /// Connections of one client at once (an IPv4 address, an IPv6 /64); further ones are closed
    #[arg(long, value_name = "N", default_value = "1024", value_parser = value::count)]
    max_per_client: usize,

    /// Seconds from a client's connection to its complete request
    #[arg(long, value_name = "S", default_value = "10", value_parser = value::seconds)]
    handshake_timeout: Duration,

    /// Seconds from a request to the connection with its target, the name's lookup included
    #[arg(long, value_name = "S", default_value = "10", value_parser = value::seconds)]
    connect_timeout: Duration,

    /// Seconds without a byte in either direction after which a session ends
    #[arg(long, value_name = "S", default_value = "7440", value_parser = value::seconds)]
    idle_timeout: Duration,

    /// Seconds that live sessions have to finish after SIGINT or SIGTERM
    #[arg(long, value_name = "S", default_value = "10", value_parser = value::seconds_or_none)]
    grace: Duration,

    /// Load balancers whose PROXY header (v1 or v2) is believed, and required; repeatable
    #[arg(long, value_name = "CIDR", value_parser = value::network)]
    proxy_protocol: Vec<IpNet>,

    /// Status page, metrics and health over HTTP; a PORT alone is on loopback
    #[arg(long, value_name = "PORT|ADDRESS:PORT", value_parser = value::status)]
    status: Option<SocketAddr>,

    /// Seconds for which the addresses of a name are remembered, failures for 5 at the most; 0: every
    /// name is looked up every time
    #[arg(long, value_name = "S", default_value = "30", value_parser = value::seconds_or_none)]
    name_cache: Duration,

    /// Append the log to this file, not to standard error
    #[arg(long, value_name = "FILE")]
    log_file: Option<PathBuf>,

    /// Log more: clients that leave without a request, too
    #[arg(short, long, action = ArgAction::Count)]
    verbose: u8,

    /// Log warnings and errors only
    #[arg(short, long, action = ArgAction::SetTrue, conflicts_with = "verbose")]
    quiet: bool,

    /// Say whether the options are in order, and exit
    #[arg(long)]
    check: bool,

    /// Greet the server at LISTEN, and exit with status 0 if it answers within 2 seconds
    #[arg(long, conflicts_with = "check")]
    probe: bool,
}

fn rules(path: &Path) -> Result<Arc<RuleFile>, clap::Error> {
    RuleFile::load(path).map(Arc::new).map_err(|told| bad_file("--rules", &told))
}

fn users(path: &Path) -> Result<Arc<Passwords>, clap::Error> {
    Passwords::load(path).map(Arc::new).map_err(|told| bad_file("--users", &told))
}

/// `told` begins with the file's name, and with the line's number where a line is bad.
fn bad_file(option: &str, told: &str) -> clap::Error {
    clap::Error::raw(ErrorKind::ValueValidation, format!("{option}:\n{told}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn parsed(arguments: &[&str]) -> Arguments {
        parse([&["tabi"], arguments].concat()).unwrap()
    }

    pub(super) fn refusal(arguments: &[&str]) -> String {
        parse([&["tabi"], arguments].concat()).unwrap_err().to_string()
    }

    #[test]
    fn the_command_line_is_consistent() {
        Options::command().debug_assert();
    }

    #[test]
    fn nothing_given_means_the_defaults() {
        let Arguments { config, level, log_file, check, probe } = parsed(&[]);
        assert_eq!(config.listen, ["[::]:1080".parse().unwrap()]);
        assert_eq!((config.max_connections, config.max_per_client), (4096, 1024));
        let seconds = [config.handshake_timeout, config.connect_timeout, config.grace];
        assert_eq!(seconds, [Duration::from_secs(10); 3]);
        assert_eq!(config.idle_timeout, Duration::from_secs(7440));
        assert_eq!((level, log_file, check, probe), (LevelFilter::Info, None, false, false));
        assert_eq!((config.proxy_protocol, config.status), (Vec::new(), None));
        assert_eq!(config.name_cache, Duration::from_secs(30));
    }

    #[test]
    fn verbose_may_be_given_more_than_once() {
        for given in [&["-v"][..], &["-vv"], &["-v", "--verbose", "-v"]] {
            assert_eq!(parsed(given).level, LevelFilter::Debug, "{given:?}");
        }
        assert_eq!(parsed(&["-q"]).level, LevelFilter::Warn);
        assert!(refusal(&["-q", "-v"]).contains("cannot be used with"));
    }

    #[test]
    fn every_form_of_listen_is_taken() {
        let config = parsed(&["1081", "127.0.0.1:1082", "[::1]:1083"]).config;
        let expected = ["[::]:1081", "127.0.0.1:1082", "[::1]:1083"];
        assert_eq!(config.listen, expected.map(|address| address.parse().unwrap()));
    }

    #[test]
    fn an_interface_is_named_as_well_as_numbered() {
        let loopback = nix::net::if_::if_nameindex().unwrap();
        let loopback = loopback.iter().next().unwrap();
        let (name, index) = (loopback.name().to_str().unwrap(), loopback.index());
        let named = parsed(&[&format!("[fe80::1%{name}]:1080")]).config.listen;
        assert_eq!(named, [format!("[fe80::1%{index}]:1080").parse().unwrap()]);
        let told = refusal(&["[fe80::1%nowhere0]:1080"]);
        assert!(told.contains("no interface nowhere0"), "{told}");
    }

    #[test]
    fn the_status_page_is_on_loopback_unless_an_address_is_given() {
        for (given, expected) in [
            ("9090", "127.0.0.1:9090"),
            ("192.168.1.1:9090", "192.168.1.1:9090"),
            ("[::1]:9090", "[::1]:9090"),
        ] {
            assert_eq!(parsed(&["--status", given]).config.status, expected.parse().ok());
        }
    }

    #[test]
    fn a_probe_does_not_read_the_files_of_the_server() {
        assert!(parsed(&["--probe", "--rules", "/nowhere", "--users", "/nowhere"]).probe);
        refusal(&["--rules", "/nowhere"]);
    }

    #[test]
    fn networks_are_taken_with_and_without_a_length() {
        let given = [
            "--allow-from",
            "192.168.1.7/24",
            "--allow-from",
            "10.0.0.1",
            "--allow-from",
            "::ffff:10.1.0.0/112",
        ];
        let shown: Vec<_> =
            parsed(&given).config.allow_from.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["192.168.1.0/24", "10.0.0.1/32", "10.1.0.0/16"]);
    }

    #[test]
    fn a_bad_value_is_named_with_its_option_and_what_is_expected() {
        for (option, bad, expected) in [
            ("--allow-from", "10.0.0.0/33", "expected a network"),
            ("--udp-advertise", "::", "expected an address of this machine"),
            ("--max-connections", "0", "expected a whole number above 0"),
            ("--max-per-client", "many", "expected a whole number above 0"),
            ("--handshake-timeout", "0", "expected seconds, above 0"),
            ("--connect-timeout", "1e99", "expected seconds, above 0"),
            ("--idle-timeout", "nan", "expected seconds, above 0"),
            ("--grace", "-1", "expected seconds"),
            ("--proxy-protocol", "balancer", "expected a network"),
            ("--status", "localhost", "expected PORT"),
            ("--name-cache", "never", "expected seconds"),
        ] {
            let told = refusal(&[&format!("{option}={bad}")]);
            assert!(
                told.contains(option) && told.contains(bad) && told.contains(expected),
                "{told}"
            );
        }
        for bad in ["70000", "localhost", "127.0.0.1", "::1", "::1:1080"] {
            let told = refusal(&[bad]);
            assert!(told.contains(bad) && told.contains("expected PORT"), "{told}");
        }
    }
}
