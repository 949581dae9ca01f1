//! The command line, parsed into what the server and the log are told. Every refusal names the
//! option, what was given and what is expected.

use std::env;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::builder::BoolishValueParser;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{ArgAction, ArgMatches, CommandFactory, FromArgMatches, Parser};
use ipnet::IpNet;
use log::LevelFilter;

use crate::access::rules::RuleFile;
use crate::access::users::Passwords;
use crate::server::Config;

mod environment;
mod outbound;
mod value;

use outbound::Outbound;

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

/// Parses the command line of this process, and what its environment says beside it.
///
/// # Errors
///
/// Those of [`parse`]. An error about a variable names it.
pub fn of_this_process() -> Result<Arguments, clap::Error> {
    let mut command = environment::without_empty(command());
    command.build();
    let told_from = |error| environment::name_variable(tell_of_listen(error), &command);
    arguments(&command.clone().try_get_matches().map_err(told_from)?)
}

/// What to tell about variables of this process that are named like tabi's and that nothing reads.
pub fn unknown_variables() -> Vec<String> {
    environment::unknown(&command(), env::vars_os())
}

/// Parses a command line alone, the program's name first: the environment says nothing.
///
/// # Errors
///
/// What is wrong with it and what is expected; also `--help` and `--version`, which are to be
/// printed likewise.
pub fn parse(
    given: impl IntoIterator<Item = impl Into<OsString> + Clone>,
) -> Result<Arguments, clap::Error> {
    arguments(&environment::without(command()).try_get_matches_from(given)?)
}

fn arguments(matches: &ArgMatches) -> Result<Arguments, clap::Error> {
    let mut options = Options::from_arg_matches(matches)?;
    let rules = |path: &Path| rules(path, &environment::given_as(matches, "rules"));
    let users = |path: &Path| users(path, &environment::given_as(matches, "users"));
    if options.quiet && options.verbose > 0 {
        match environment::stronger(matches, "quiet", "verbose")? {
            "quiet" => options.verbose = 0,
            _ => options.quiet = false,
        }
    }
    if options.check && options.probe {
        let is_probe = environment::stronger(matches, "check", "probe")? == "probe";
        (options.check, options.probe) = (!is_probe, is_probe);
    }
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
            udp_advertise: options.ways.udp_advertise,
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

/// Where to listen has an option in other programs. No LISTEN begins with a dash, so that clap's advice
/// how to pass such a one leads nowhere.
fn tell_of_listen(mut error: clap::Error) -> clap::Error {
    const LISTEN: [&str; 8] = ["-p", "--port", "-i", "-b", "--bind", "-l", "--listen", "--address"];
    let is_unknown = error.kind() == ErrorKind::UnknownArgument;
    if is_unknown && error.get(ContextKind::SuggestedArg).is_none() {
        error.remove(ContextKind::Suggested);
        let given = error.get(ContextKind::InvalidArg).map(ToString::to_string).unwrap_or_default();
        if LISTEN.contains(&&*given) {
            let tip = "where to listen is said without an option, as in `tabi 1080`";
            error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip.into()]));
        }
    }
    error
}

/// The command line as it is: its options with their values and defaults.
pub fn command() -> clap::Command {
    Options::command()
}

/// What stands below the options. Lines fit into 80 columns, as clap leaves them as they are.
const BELOW: &str = "\
Examples:
  tabi                                port 1080, for this machine and private networks
  tabi --users users 192.168.1.1:1080 a password is asked for, on one address
  tabi --rules rules --check          says whether the rules are in order

Each option can come from the environment instead: repeated ones are separated
by commas, flags are true or false, and the command line wins.
SIGHUP has --users and --rules read again and opens --log-file anew.
With no option clients on other machines cannot reach what listens for this
machine alone. Exit status: 0 stopped by a signal, 1 cannot start, 2 wrong
options or files, 130 ended by a second signal.";

// The headings of --help.
const WHO_MAY: &str = "Who may";
const LIMITS: &str = "Limits";
const WHAT_IS_SEEN: &str = "What is seen";
const INSTEAD: &str = "Instead of serving";

/// A SOCKS5 proxy server for a home or office network
#[derive(Parser)]
#[command(name = "tabi", version, after_help = BELOW, max_term_width = 100)]
#[command(disable_help_flag = true, disable_version_flag = true)]
#[allow(clippy::struct_excessive_bools, reason = "each is a flag")]
struct Options {
    /// Where to listen: PORT, ADDRESS:PORT or [IPV6]:PORT; a PORT alone means every address
    #[arg(value_name = "LISTEN", default_value = "1080", value_parser = value::listen)]
    #[arg(env = "TABI_LISTEN", value_delimiter = ',')]
    listen: Vec<SocketAddr>,

    /// Clients that are served; repeatable, replaces the default: loopback and private networks
    #[arg(long, value_name = "CIDR", value_parser = value::network, help_heading = WHO_MAY)]
    #[arg(env = "TABI_ALLOW_FROM", value_delimiter = ',')]
    allow_from: Vec<IpNet>,

    /// Who may do what, and where: a file with a rule a line, the first that matches decides
    #[arg(long, value_name = "FILE", env = "TABI_RULES", help_heading = WHO_MAY)]
    rules: Option<PathBuf>,

    /// Require username and password: a file with `name:password` a line, that only its owner can read
    #[arg(long, value_name = "FILE", env = "TABI_USERS", help_heading = WHO_MAY)]
    users: Option<PathBuf>,

    /// Load balancers whose PROXY header (v1 or v2) is believed, and required; repeatable
    #[arg(long, value_name = "CIDR", value_parser = value::network, help_heading = WHO_MAY)]
    #[arg(env = "TABI_PROXY_PROTOCOL", value_delimiter = ',')]
    proxy_protocol: Vec<IpNet>,

    #[command(flatten)]
    ways: Outbound,

    /// Connections that are served at once; further clients wait
    #[arg(long, value_name = "N", default_value = "4096", value_parser = value::count)]
    #[arg(env = "TABI_MAX_CONNECTIONS", help_heading = LIMITS)]
    max_connections: usize,

    /// Connections of one client at once (an IPv4 address, an IPv6 /64); further ones are closed
    #[arg(long, value_name = "N", default_value = "1024", value_parser = value::count)]
    #[arg(env = "TABI_MAX_PER_CLIENT", help_heading = LIMITS)]
    max_per_client: usize,

    /// Seconds from a client's connection to its complete request
    #[arg(long, value_name = "S", default_value = "10", value_parser = value::seconds)]
    #[arg(env = "TABI_HANDSHAKE_TIMEOUT", help_heading = LIMITS)]
    handshake_timeout: Duration,

    /// Seconds from a request to the connection with its target, the name's lookup included
    #[arg(long, value_name = "S", default_value = "10", value_parser = value::seconds)]
    #[arg(env = "TABI_CONNECT_TIMEOUT", help_heading = LIMITS)]
    connect_timeout: Duration,

    /// Seconds without a byte in either direction after which a session ends
    #[arg(long, value_name = "S", default_value = "7440", value_parser = value::seconds)]
    #[arg(env = "TABI_IDLE_TIMEOUT", help_heading = LIMITS)]
    idle_timeout: Duration,

    /// Seconds that live sessions have to finish after SIGINT or SIGTERM
    #[arg(long, value_name = "S", default_value = "10", value_parser = value::seconds_or_none)]
    #[arg(env = "TABI_GRACE", help_heading = LIMITS)]
    grace: Duration,

    /// Seconds for which the addresses of a name are remembered, failures for 5 at the most; 0: every
    /// name is looked up every time
    #[arg(long, value_name = "S", default_value = "30", value_parser = value::seconds_or_none)]
    #[arg(env = "TABI_NAME_CACHE", help_heading = LIMITS)]
    name_cache: Duration,

    /// Status page, metrics and health over HTTP; a PORT alone is on loopback
    #[arg(long, value_name = "PORT|ADDRESS:PORT", value_parser = value::status)]
    #[arg(env = "TABI_STATUS", help_heading = WHAT_IS_SEEN)]
    status: Option<SocketAddr>,

    /// Append the log to this file, not to standard error
    #[arg(long, value_name = "FILE", env = "TABI_LOG_FILE", help_heading = WHAT_IS_SEEN)]
    log_file: Option<PathBuf>,

    /// Log more: clients that leave without a request, too
    #[arg(short, long, action = ArgAction::Count, value_parser = value::times)]
    #[arg(env = "TABI_VERBOSE", help_heading = WHAT_IS_SEEN)]
    verbose: u8,

    /// Log warnings and errors only
    #[arg(short, long, value_parser = BoolishValueParser::new())]
    #[arg(env = "TABI_QUIET", help_heading = WHAT_IS_SEEN)]
    quiet: bool,

    /// Say whether the options and files are in order, and exit
    #[arg(long, value_parser = BoolishValueParser::new())]
    #[arg(env = "TABI_CHECK", help_heading = INSTEAD)]
    check: bool,

    /// Greet the server at LISTEN, and exit with status 0 if it answers within 2 seconds
    #[arg(long, value_parser = BoolishValueParser::new())]
    #[arg(env = "TABI_PROBE", help_heading = INSTEAD)]
    probe: bool,

    /// Print this help
    #[arg(short, long, action = ArgAction::Help, help_heading = INSTEAD)]
    help: Option<bool>,

    /// Print the version
    #[arg(short = 'V', long, action = ArgAction::Version, help_heading = INSTEAD)]
    version: Option<bool>,
}

fn rules(path: &Path, given_as: &str) -> Result<Arc<RuleFile>, clap::Error> {
    const HINT: &str = "how rules are written is in scripts/docs/rules.md and in `man tabi-rules`";
    RuleFile::load(path).map(Arc::new).map_err(|told| bad_file(path, given_as, &told, HINT))
}

fn users(path: &Path, given_as: &str) -> Result<Arc<Passwords>, clap::Error> {
    Passwords::load(path).map(Arc::new).map_err(|told| bad_file(path, given_as, &told, ""))
}

/// `told` begins with the file's name, and with the line's number where a line is bad.
fn bad_file(path: &Path, given_as: &str, told: &str, hint: &str) -> clap::Error {
    let hint =
        if path.is_file() { hint } else { "is the path right? It may be left out altogether" };
    let tip = if hint.is_empty() { String::new() } else { format!("\n  tip: {hint}\n") };
    clap::Error::raw(ErrorKind::ValueValidation, format!("{given_as}:\n{told}\n{tip}"))
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
