//! The command line, parsed into the configuration of the server and the log. Every refusal names the
//! option, what was given and what is expected.

use std::env;
use std::error::Error;
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::builder::BoolishValueParser;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::parser::ValueSource;
use clap::{ArgAction, ArgMatches, CommandFactory, FromArgMatches, Parser};
use log::LevelFilter;

use crate::access::in_force::AccessFiles;
use crate::access::rules::RuleFile;
use crate::access::upstream::{EXPECTED, Upstream};
use crate::access::users::Passwords;
use crate::config::{Config, MONITORING};

mod environment;
pub mod new_password;

/// What stands below the options. Lines fit into 80 columns, as clap leaves them as they are.
const BELOW: &str = "\
Examples:
  tabi                                port 1080, for this machine and private networks
  tabi --users users 192.168.1.1:1080 a password is asked for, on one address
  tabi --rules rules --check          says whether the rules are in order

Each option can come from the environment instead: repeated ones are separated
by commas, flags are true or false, and the command line wins.
SIGHUP has --users and --rules read again and opens --log-file anew. SIGUSR2
starts the program anew, while live sessions finish in the old process.
With no option clients on other machines cannot reach what listens for this
machine alone. Exit status: 0 stopped by a signal, 1 cannot start, 2 wrong
options or files, 130 ended by a second signal.";

/// A heading of --help; the others are those of [`Config`].
const OTHER_MODES: &str = "Other modes";

/// How rules are written.
const RULES_HINT: &str =
    "how rules are written is in scripts/docs/rules.md and in `man tabi-rules`";

/// A proxy server for a home or office network: HTTP, SOCKS5 and SOCKS4 on one port
#[derive(Clone, Debug, Parser)]
#[command(name = "tabi", version, after_help = BELOW, max_term_width = 100)]
#[command(disable_help_flag = true, disable_version_flag = true)]
#[allow(clippy::struct_excessive_bools, reason = "each is a flag")]
pub struct Arguments {
    /// What to serve, and how.
    #[command(flatten)]
    pub config: Config,

    /// Append the log to this file, not to standard error
    #[arg(long, value_name = "FILE", env = "TABI_LOG_FILE", help_heading = MONITORING)]
    pub log_file: Option<PathBuf>,

    /// What each line of the log is: text, or a JSON object for programs
    #[arg(long, value_name = "text|json", default_value = "text", value_parser = ["text", "json"])]
    #[arg(env = "TABI_LOG_FORMAT", hide_possible_values = true, help_heading = MONITORING)]
    log_format: String,

    /// Log more: clients that leave without a request, too
    #[arg(short, long, action = ArgAction::Count, value_parser = times)]
    #[arg(env = "TABI_VERBOSE", help_heading = MONITORING)]
    verbose: u8,

    /// Log warnings and errors only
    #[arg(short, long, value_parser = BoolishValueParser::new())]
    #[arg(env = "TABI_QUIET", help_heading = MONITORING)]
    quiet: bool,

    /// Say whether the options and files are in order, and exit
    #[arg(long, value_parser = BoolishValueParser::new())]
    #[arg(env = "TABI_CHECK", help_heading = OTHER_MODES)]
    pub check: bool,

    /// Greet the server at LISTEN, and exit with status 0 if it answers within 2 seconds
    #[arg(long, value_parser = BoolishValueParser::new())]
    #[arg(env = "TABI_PROBE", help_heading = OTHER_MODES)]
    pub probe: bool,

    /// Read a password from the terminal or a line of standard input, print its hash for --users, and exit
    #[arg(long, value_parser = BoolishValueParser::new())]
    #[arg(env = "TABI_HASH_PASSWORD", help_heading = OTHER_MODES)]
    pub hash_password: bool,

    /// Print this help
    #[arg(short, long, action = ArgAction::Help, help_heading = OTHER_MODES)]
    help: Option<bool>,

    /// Print the version
    #[arg(short = 'V', long, action = ArgAction::Version, help_heading = OTHER_MODES)]
    version: Option<bool>,
}

impl Arguments {
    /// Whether each line of the log is a JSON object.
    pub fn logs_json(&self) -> bool {
        self.log_format == "json"
    }

    /// How much to log.
    pub fn level(&self) -> LevelFilter {
        match (self.quiet, self.verbose) {
            (true, _) => LevelFilter::Warn,
            (false, 0) => LevelFilter::Info,
            (false, 1..) => LevelFilter::Debug,
        }
    }
}

/// Parses the command line of this process, and what its environment says beside it.
///
/// # Errors
///
/// Those of [`parse`]. An error about a variable names it.
pub fn of_this_process() -> Result<Arguments, clap::Error> {
    let mut command = environment::without_empty(command());
    command.build();
    let explain = |error| environment::explain_value(explain_listen(error), &command);
    arguments(&command.clone().try_get_matches().map_err(explain)?)
}

/// The exit status for what is wrong with the command line: 2 where nothing but another command line mends
/// it, and 1 where what this machine does not have may come, as an interface at boot. 0 for the help that
/// was asked for.
pub fn exit_status(error: &clap::Error) -> u8 {
    let may_come = error.source().is_some_and(<dyn Error>::is::<io::Error>);
    if may_come { 1 } else { u8::from(error.use_stderr()) * 2 }
}

/// A warning for each variable of this process that is named like tabi's and that nothing reads.
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

/// The command line as it is: its options with their values and defaults.
pub fn command() -> clap::Command {
    Arguments::command()
}

fn arguments(matches: &ArgMatches) -> Result<Arguments, clap::Error> {
    let error = |kind, message: String| command().error(kind, message);
    let wins = |one, other| {
        environment::wins(matches, one, other)
            .map_err(|message| error(ErrorKind::ArgumentConflict, message))
    };
    let mut arguments = Arguments::from_arg_matches(matches)?;
    if arguments.quiet && arguments.verbose > 0 {
        arguments.quiet = wins("quiet", "verbose")?;
    }
    if arguments.check && arguments.probe {
        arguments.check = wins("check", "probe")?;
        arguments.probe = !arguments.check;
    }
    // As other programs take it.
    arguments.log_file = arguments.log_file.filter(|file| file != Path::new("-"));
    let config = &mut arguments.config;
    let invalid = |message| error(ErrorKind::ValueValidation, message);
    config.egress = config.egress_of_options().map_err(invalid)?;
    config.advertised = config.advertised_of_options().map_err(invalid)?;
    if let Some(net) = config.unserved_without_password() {
        let expected = "expected a network whose clients are served (--allow-from)";
        return Err(invalid(format!("--no-password-from {net}: {expected}")));
    }
    if matches.value_source("idle_timeout") != Some(ValueSource::DefaultValue) {
        config.udp_idle_timeout = config.idle_timeout;
    }
    if let Some(url) = config.upstream_url.take() {
        config.upstream = Some(upstream(matches, &url).map_err(invalid)?);
    }
    // A probe reads no files: one that has gone bad since the server has read it is not the server's
    // state of health. Who makes a password may have no file yet.
    if !arguments.probe && !arguments.hash_password {
        let mut files = AccessFiles::default();
        if let Some(path) = &config.rules_file {
            let read = |path: &_| RuleFile::load(path, 0);
            files.rules = load(matches, "rules", path, read, RULES_HINT)?;
        }
        if let Some(path) = &config.users_file {
            files.users = Some(load(matches, "users", path, |path| Passwords::load(path, 0), "")?);
        }
        config.files = Arc::new(files);
    }
    Ok(arguments)
}

/// Takes a URL. What is wrong with it is said without showing it: there may be a password in it.
fn upstream(matches: &ArgMatches, url: &OsStr) -> Result<Arc<Upstream>, String> {
    let given_as = environment::given_as(matches, "upstream");
    let upstream = url.to_str().and_then(Upstream::parse);
    let upstream = upstream.ok_or_else(|| format!("{given_as}: expected {EXPECTED}"))?;
    if given_as == "--upstream" && upstream.credentials().is_some() {
        return Err(
            "--upstream: every user of this machine can read a password on the command line; put the \
             URL into the environment as TABI_UPSTREAM, or into a file for --rules, as in\n  \
             via socks5://USER:PASSWORD@HOST:PORT"
                .into(),
        );
    }
    Ok(Arc::new(upstream))
}

/// Reads the file of an option. Its error begins with the file's name, and with the line's number where
/// a line is bad.
fn load<T>(
    matches: &ArgMatches,
    option: &str,
    path: &Path,
    load: impl FnOnce(&Path) -> Result<T, String>,
    hint: &str,
) -> Result<T, clap::Error> {
    load(path).map_err(|message| {
        let hint =
            if path.is_file() { hint } else { "is the path right? It may be left out altogether" };
        let tip = if hint.is_empty() { String::new() } else { format!("\n  tip: {hint}\n") };
        let given_as = environment::given_as(matches, option);
        let message = environment::visible(&message);
        clap::Error::raw(ErrorKind::ValueValidation, format!("{given_as}:\n{message}\n{tip}"))
    })
}

/// Where to listen has an option in other programs. No LISTEN begins with a dash, so that clap's advice
/// how to pass such a one leads nowhere.
fn explain_listen(mut error: clap::Error) -> clap::Error {
    const LISTEN: [&str; 8] = ["-p", "--port", "-i", "-b", "--bind", "-l", "--listen", "--address"];
    let given = error.get(ContextKind::InvalidArg).map(ToString::to_string).unwrap_or_default();
    if error.kind() != ErrorKind::UnknownArgument {
        return error;
    }
    if LISTEN.contains(&&*given) {
        error.remove(ContextKind::SuggestedArg);
        let tip = "where to listen is said without an option, as in `tabi 1080`";
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip.into()]));
    } else if error.get(ContextKind::SuggestedArg).is_none() {
        error.remove(ContextKind::Suggested);
    }
    error
}

/// How often a flag is given: a number, or true or false in the environment.
fn times(given: &str) -> Result<u8, String> {
    match given {
        "true" => Ok(1),
        "false" => Ok(0),
        _ => given.parse().map_err(|_| "expected true, false or a whole number up to 255".into()),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::time::Duration;

    pub(crate) fn parsed(arguments: &[&str]) -> Arguments {
        parse([&["tabi"], arguments].concat()).unwrap()
    }

    pub(crate) fn refusal(arguments: &[&str]) -> String {
        parse([&["tabi"], arguments].concat()).unwrap_err().to_string()
    }

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn nothing_given_means_the_defaults() {
        let arguments = parsed(&[]);
        assert_eq!((arguments.level(), &arguments.log_file), (LevelFilter::Info, &None));
        assert!(!arguments.check && !arguments.probe);
        let config = arguments.config;
        assert_eq!(config.listen, ["[::]:1080".parse().unwrap()]);
        assert_eq!((config.max_connections, config.max_per_client), (4096, 1024));
        let seconds = [config.handshake_timeout, config.connect_timeout, config.grace];
        assert_eq!(seconds, [Duration::from_secs(10); 3]);
        assert_eq!(config.idle_timeout, Duration::from_secs(7440));
        assert_eq!((config.proxy_protocol, config.status), (Vec::new(), None));
        assert_eq!(config.name_cache, Duration::from_secs(30));
    }

    #[test]
    fn the_log_is_text_unless_json_is_asked_for() {
        for (arguments, is_json) in
            [(&[][..], false), (&["--log-format", "text"], false), (&["--log-format=json"], true)]
        {
            assert_eq!(parsed(arguments).logs_json(), is_json, "{arguments:?}");
        }
        assert!(refusal(&["--log-format", "xml"]).contains("possible values: text, json"));
    }

    #[test]
    fn a_dash_is_no_log_file() {
        assert_eq!(parsed(&["--log-file", "-"]).log_file, None);
        assert_eq!(parsed(&["--log-file", "./-"]).log_file, Some("./-".into()));
    }

    #[test]
    fn an_idle_timeout_that_is_given_holds_for_udp_too() {
        let of_udp = |arguments: &[&str]| parsed(arguments).config.udp_idle_timeout.as_secs();
        assert_eq!(of_udp(&[]), 300);
        assert_eq!(of_udp(&["--idle-timeout", "3600"]), 3600);
        assert_eq!(of_udp(&["--idle-timeout", "7440"]), 7440);
        assert_eq!(of_udp(&["--idle-timeout", "5"]), 5);
    }

    #[test]
    fn verbose_may_be_given_more_than_once() {
        for given in [&["-v"][..], &["-vv"], &["-v", "--verbose", "-v"]] {
            assert_eq!(parsed(given).level(), LevelFilter::Debug, "{given:?}");
        }
        assert_eq!(parsed(&["-q"]).level(), LevelFilter::Warn);
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
        let message = refusal(&["[fe80::1%nowhere0]:1080"]);
        assert!(message.contains("no interface nowhere0"), "{message}");
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
            "--allow-from",
            "default",
        ];
        let shown: Vec<_> =
            parsed(&given).config.allow_from.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["192.168.1.7/24", "10.0.0.1/32", "10.1.0.0/16", "default"]);
    }

    #[test]
    fn a_bad_value_is_named_with_its_option_and_what_is_expected() {
        for (option, bad, expected) in [
            ("--allow-from", "10.0.0.0/33", "expected a network"),
            ("--allow-from", "Default", "or the word default"),
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
            let message = refusal(&[&format!("{option}={bad}")]);
            assert!(
                message.contains(option) && message.contains(bad) && message.contains(expected),
                "{message}"
            );
        }
        for bad in ["70000", "localhost", "127.0.0.1", "::1", "::1:1080"] {
            let message = refusal(&[bad]);
            assert!(message.contains(bad) && message.contains("expected PORT"), "{message}");
        }
    }
}
