//! The README says what the program does: its tables are those of the command line and of the outcomes.

use std::collections::BTreeSet;
use std::io::Write;

use tabi::cli;
use tabi::report::Outcome;

use crate::scratch::{Program, program};
use crate::stage::{GREETING, connect, echo, request};

const README: &str = include_str!("../../README.md");

/// The rows of the table with this first cell in its head, as cells.
fn table(head: &str) -> Vec<Vec<String>> {
    let head = format!("| {head} |");
    let rows: Vec<_> = README
        .lines()
        .skip_while(|line| !line.starts_with(&head))
        .skip(2)
        .take_while(|line| line.starts_with('|'))
        .map(cells)
        .collect();
    assert!(!rows.is_empty(), "the README has no table with the head {head}");
    rows
}

/// The cells of a row. In a cell a bar is escaped.
fn cells(row: &str) -> Vec<String> {
    let row = row.trim_matches('|').replace(r"\|", "\0");
    row.split('|').map(|cell| cell.trim().replace('\0', "|")).collect()
}

/// The texts in backticks.
fn quoted(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

/// An option as the README has it: `--name <VALUE>`, or `-n` where that is all it has.
fn spelled(option: &clap::Arg, is_short: bool) -> String {
    match (option.get_short(), option.get_long()) {
        (Some(short), _) if is_short => format!("-{short}"),
        (_, Some(long)) if option.get_action().takes_values() => {
            format!("--{long} <{}>", option.get_value_names().unwrap()[0])
        }
        (_, Some(long)) => format!("--{long}"),
        (short, None) => panic!("an option without a long name: {short:?}"),
    }
}

#[test]
fn the_option_table_is_the_command_line() {
    let mut command = cli::command();
    command.build();
    let rows = table("option");
    let listed: Vec<_> =
        rows.iter().flat_map(|row| quoted(&row[0]).map(|name| (name, row[2].as_str()))).collect();
    let mut known = BTreeSet::new();
    for option in command.get_arguments().filter(|option| !option.is_positional()) {
        let names = [spelled(option, true), spelled(option, false)];
        let row = listed.iter().find(|(name, _)| names.iter().any(|known| known == name));
        let (name, default) = row.unwrap_or_else(|| panic!("the README lacks {}", names[1]));
        known.insert(*name);
        // A default that is no value is told in words.
        let defaults = option.get_default_values();
        match defaults {
            [value] if option.get_action().takes_values() => {
                assert_eq!(*default, value, "the default of {name}");
            }
            _ => assert!(default.parse::<f64>().is_err(), "{name} has no default {default}"),
        }
    }
    let unknown: Vec<_> = listed.iter().filter(|(name, _)| !known.contains(name)).collect();
    assert!(unknown.is_empty(), "the README has what the command line has not: {unknown:?}");
}

#[test]
fn the_default_port_is_that_of_the_command_line() {
    let command = cli::command();
    let listen = command.get_positionals().next().unwrap();
    let default = listen.get_default_values()[0].to_str().unwrap();
    let usage = README.lines().find(|line| line.starts_with("tabi [OPTIONS] [LISTEN]...")).unwrap();
    assert!(usage.ends_with(&format!("default {default}")), "{usage}");
}

#[test]
fn the_outcome_table_is_the_list_of_outcomes() {
    let rows = table("outcome");
    let listed: Vec<_> = rows.iter().flat_map(|row| quoted(&row[0])).collect();
    assert_eq!(listed, Outcome::ALL.map(Outcome::word));
}

/// The keys of a line of the log, and its time with each digit as a 0.
fn keys_and_time(line: &str) -> (Vec<&str>, String) {
    let (time, rest) = line.trim_end().split_once(' ').unwrap();
    let keys = rest.split(' ').filter_map(|word| word.split_once('=')).map(|(key, _)| key);
    (keys.collect(), time.replace(|character: char| character.is_ascii_digit(), "0"))
}

#[test]
fn the_line_of_the_log_is_as_the_readme_shows_it() {
    let shown = README.lines().find(|line| line.contains(" client=")).unwrap();
    let mut command = program(&[]);
    command.env("TZ", "UTC");
    let mut program = Program::spawn(command);
    let mut client = connect(program.address);
    client.write_all(&[GREETING, &request(echo())].concat()).unwrap();
    drop(client);
    let line = program.log_line(" client=");
    assert_eq!(keys_and_time(shown), keys_and_time(&line));
}
