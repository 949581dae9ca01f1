//! The command line, parsed into what the server and the log are told. Every refusal names the
//! option, what was given and what is expected.

use std::ffi::OsString;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{ArgAction, CommandFactory, Parser};
use ipnet::IpNet;
use log::LevelFilter;

use crate::access::rules::{RuleFile, networks};
use crate::access::users::Passwords;
use crate::commands::connect::Source;
use crate::server::Config;

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
    let options = Options::try_parse_from(arguments)?;
    Ok(Arguments {
        level: match (options.quiet, options.verbose) {
            (true, _) => LevelFilter::Warn,
            (false, 0) => LevelFilter::Info,
            (false, 1..) => LevelFilter::Debug,
        },
        log_file: options.log_file,
        check: options.check,
        config: Config {
            listen: options.listen,
            allow_from: options.allow_from,
            rules: options.rules.as_deref().map(rules).transpose()?.unwrap_or_default(),
            users: options.users.as_deref().map(users).transpose()?,
            source: one_a_family(&options.source)?,
            udp_advertise: options.udp_advertise,
            max_connections: options.max_connections,
            max_per_client: options.max_per_client,
            handshake_timeout: options.handshake_timeout,
            connect_timeout: options.connect_timeout,
            idle_timeout: options.idle_timeout,
            grace: options.grace,
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
struct Options {
    /// Where to listen: PORT, ADDRESS:PORT or [IPV6]:PORT; PORT alone means every address
    #[arg(value_name = "LISTEN", default_value = "1080", value_parser = listen)]
    listen: Vec<SocketAddr>,

    /// Clients that are served; repeatable, replaces the default: loopback and private networks
    #[arg(long, value_name = "CIDR", value_parser = network)]
    allow_from: Vec<IpNet>,

    /// Who may do what, and where: a file with a rule a line, the first that matches decides
    #[arg(long, value_name = "FILE")]
    rules: Option<PathBuf>,

    /// Require username and password: a file with `name:password` a line, that only its owner can read
    #[arg(long, value_name = "FILE")]
    users: Option<PathBuf>,

    /// Local address of outgoing connections, repeatable: one a family
    #[arg(long, value_name = "ADDRESS", value_parser = source)]
    source: Vec<IpAddr>,

    /// Address that clients are told to send UDP datagrams to, if this machine has another one for
    /// them than it knows of
    #[arg(long, value_name = "ADDRESS", value_parser = source)]
    udp_advertise: Option<IpAddr>,

    /// Connections that are served at once; further clients wait
    #[arg(long, value_name = "N", default_value = "4096", value_parser = count)]
    max_connections: usize,

    /// Connections of one client address at once; further ones are closed
    #[arg(long, value_name = "N", default_value = "1024", value_parser = count)]
    max_per_client: usize,

    /// Seconds from a client's connection to its complete request
    #[arg(long, value_name = "S", default_value = "10", value_parser = seconds)]
    handshake_timeout: Duration,

    /// Seconds from a request to the connection with its target, the name's lookup included
    #[arg(long, value_name = "S", default_value = "10", value_parser = seconds)]
    connect_timeout: Duration,

    /// Seconds without an octet in either direction after which a session ends
    #[arg(long, value_name = "S", default_value = "7440", value_parser = seconds)]
    idle_timeout: Duration,

    /// Seconds that live sessions have to finish after SIGINT or SIGTERM
    #[arg(long, value_name = "S", default_value = "10", value_parser = seconds_or_none)]
    grace: Duration,

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
}

fn listen(given: &str) -> Result<SocketAddr, String> {
    let every = || given.parse().ok().map(|port| (Ipv6Addr::UNSPECIFIED, port).into());
    given.parse().ok().or_else(every).ok_or_else(|| {
        "expected PORT, ADDRESS:PORT or [IPV6]:PORT, as in 1080 or [::1]:1080".into()
    })
}

fn network(given: &str) -> Result<IpNet, String> {
    networks::parse(given).ok_or_else(|| format!("expected {}", networks::EXPECTED))
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

fn source(given: &str) -> Result<IpAddr, String> {
    match given.parse::<IpAddr>() {
        Ok(address) if !address.is_unspecified() && !address.is_multicast() => Ok(address),
        _ => Err("expected an address of this machine, as in 192.168.1.1".into()),
    }
}

fn one_a_family(addresses: &[IpAddr]) -> Result<Source, clap::Error> {
    let mut source = Source::default();
    for &address in addresses {
        let family = if address.is_ipv4() { &mut source.ipv4 } else { &mut source.ipv6 };
        if let Some(earlier) = family.replace(address) {
            return Err(Options::command().error(
                ErrorKind::ValueValidation,
                format!(
                    "--source {earlier} and --source {address} are of one family; \
                     expected one address a family"
                ),
            ));
        }
    }
    Ok(source)
}

fn count(given: &str) -> Result<usize, String> {
    match given.parse() {
        Ok(count @ 1..) => Ok(count),
        _ => Err("expected a whole number above 0".into()),
    }
}

fn seconds(given: &str) -> Result<Duration, String> {
    match seconds_or_none(given) {
        Ok(duration) if !duration.is_zero() => Ok(duration),
        _ => Err("expected seconds, above 0 and at most a year, as in 10 or 0.5".into()),
    }
}

fn seconds_or_none(given: &str) -> Result<Duration, String> {
    const A_YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);
    given
        .parse()
        .ok()
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .filter(|duration| *duration <= A_YEAR)
        .ok_or_else(|| "expected seconds, at most a year, as in 10 or 0.5".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(arguments: &[&str]) -> Arguments {
        parse([&["tabi"], arguments].concat()).unwrap()
    }

    fn refusal(arguments: &[&str]) -> String {
        parse([&["tabi"], arguments].concat()).unwrap_err().to_string()
    }

    #[test]
    fn the_command_line_is_consistent() {
        Options::command().debug_assert();
    }

    #[test]
    fn nothing_given_means_the_defaults() {
        let Arguments { config, level, log_file, check } = parsed(&[]);
        assert_eq!(config.listen, ["[::]:1080".parse().unwrap()]);
        assert_eq!((config.max_connections, config.max_per_client), (4096, 1024));
        let seconds = [config.handshake_timeout, config.connect_timeout, config.grace];
        assert_eq!(seconds, [Duration::from_secs(10); 3]);
        assert_eq!(config.idle_timeout, Duration::from_secs(7440));
        assert_eq!((level, log_file, check), (LevelFilter::Info, None, false));
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
            ("--source", "0.0.0.0", "expected an address of this machine"),
            ("--udp-advertise", "::", "expected an address of this machine"),
            ("--max-connections", "0", "expected a whole number above 0"),
            ("--max-per-client", "many", "expected a whole number above 0"),
            ("--handshake-timeout", "0", "expected seconds, above 0"),
            ("--connect-timeout", "1e99", "expected seconds, above 0"),
            ("--idle-timeout", "nan", "expected seconds, above 0"),
            ("--grace", "-1", "expected seconds"),
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

    #[test]
    fn sources_are_one_a_family() {
        let source = parsed(&["--source", "192.0.2.1", "--source", "2001:db8::1"]).config.source;
        assert_eq!(source.ipv4, "192.0.2.1".parse().ok());
        assert_eq!(source.ipv6, "2001:db8::1".parse().ok());
        let told = refusal(&["--source", "192.0.2.1", "--source", "192.0.2.2"]);
        assert!(told.contains("--source 192.0.2.2"), "{told}");
    }
}
