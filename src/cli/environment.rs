//! The variables of the environment, which stand in for options that the command line does not give.

use std::collections::BTreeSet;
use std::env;
use std::ffi::OsString;

use clap::builder::{OsStr, Resettable};
use clap::error::{ContextKind, ContextValue};
use clap::parser::ValueSource;
use clap::{ArgMatches, Command};

/// What the names of all variables begin with.
const PREFIX: &str = "TABI_";

/// The command line without its variables.
pub(super) fn without(command: Command) -> Command {
    command.mut_args(|option| option.env(Resettable::<OsStr>::Reset))
}

/// The command line without the variables that are empty: files of variables and compose files have
/// those for what is not set.
pub(super) fn without_empty(command: Command) -> Command {
    command.mut_args(|option| {
        let is_empty = option.get_env().is_some_and(|name| {
            env::var_os(name).is_some_and(|value| value.to_string_lossy().trim().is_empty())
        });
        if is_empty { option.env(Resettable::<OsStr>::Reset) } else { option }
    })
}

/// Unknown variables that are warned of.
const MOST_UNKNOWN: usize = 10;

/// Variables of `given` that are named like those of tabi, and that nothing reads: most likely they are
/// misspelled. A sentence for each.
pub(super) fn unknown(
    command: &Command,
    given: impl Iterator<Item = (OsString, OsString)>,
) -> Vec<String> {
    let is_known = |name: &str| {
        command.get_arguments().any(|option| option.get_env().is_some_and(|known| known == name))
    };
    let unknown: BTreeSet<_> = given
        .map(|(name, value)| (name.to_string_lossy().into_owned(), value))
        .filter(|(name, _)| name.starts_with(PREFIX) && !is_known(name))
        .filter(|(name, value)| !is_link(name, &value.to_string_lossy()))
        .map(|(name, _)| name)
        .collect();
    let warning = |name: &String| {
        let name = name.escape_debug();
        format!(
            "the variable {name} is unknown and has no effect: `tabi --help` lists those that are known"
        )
    };
    unknown.iter().take(MOST_UNKNOWN).map(warning).collect()
}

/// Kubernetes and links between containers tell of services in variables of these names: of one called
/// tabi, and of each whose name begins with that.
fn is_link(name: &str, value: &str) -> bool {
    let is_url = value.starts_with("tcp://") || value.starts_with("udp://");
    let port = name.split("_PORT_").nth(1).unwrap_or_default();
    is_url
        || name == "TABI_NAME"
        || port.starts_with(|first: char| first.is_ascii_digit())
        || ["_SERVICE_HOST", "_SERVICE_PORT"].iter().any(|part| name.contains(part))
        || name.starts_with("TABI_ENV_")
}

/// The option as it was given: by its name on the command line, or by its variable.
pub(super) fn given_as(matches: &ArgMatches, option: &str) -> String {
    match matches.value_source(option) {
        Some(ValueSource::EnvVariable) => format!("{PREFIX}{}", option.to_uppercase()),
        Some(_) | None => format!("--{option}"),
    }
}

/// Whether `one` of two options that exclude each other counts, where both are given: if it is that of
/// the command line.
///
/// # Errors
///
/// When both come from the same place.
pub(super) fn wins(matches: &ArgMatches, one: &str, other: &str) -> Result<bool, String> {
    let is_typed = |option| matches.value_source(option) == Some(ValueSource::CommandLine);
    if is_typed(one) == is_typed(other) {
        let [one, other] = [one, other].map(|option| given_as(matches, option));
        return Err(format!("{one} cannot be used with {other}"));
    }
    Ok(is_typed(one))
}

/// Text whose control characters can be seen: a file of variables with the line ends of Windows leaves a
/// carriage return in each value.
pub(super) fn visible(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() && character != '\n' {
            shown.extend(character.escape_default());
        } else {
            shown.push(character);
        }
    }
    shown
}

/// An error about a value, which can be seen, with the variable that it comes from, if it comes from one.
pub(super) fn explain_value(mut error: clap::Error, command: &Command) -> clap::Error {
    let (Some(ContextValue::String(option)), Some(ContextValue::String(bad))) =
        (error.get(ContextKind::InvalidArg), error.get(ContextKind::InvalidValue))
    else {
        return error;
    };
    let named = command.get_arguments().find(|known| known.to_string() == *option);
    let variable = named.and_then(clap::Arg::get_env).filter(|name| {
        env::var(name).is_ok_and(|value| value == *bad || value.split(',').any(|v| v == bad))
    });
    let (shown, ends_with_return) = (visible(bad).replace('\n', r"\n"), bad.ends_with('\r'));
    if let Some(variable) = variable {
        let how = if ends_with_return { " and ends with a carriage return" } else { "" };
        let tip = format!("the value comes from the variable {}{how}", variable.to_string_lossy());
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip.into()]));
    }
    error.insert(ContextKind::InvalidValue, ContextValue::String(shown));
    error
}
