//! The README says what the program does: its tables are those of the command line, of outcomes,
//! metrics and packages, and what it leads to is there.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::Path;

use strum::VariantArray;
use tabi::cli;
use tabi::report::{Gauges, Metrics, Outcome};

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

/// What is in backticks anywhere but in blocks of code.
fn quoted_in_text() -> Vec<&'static str> {
    let is_text = |line: &&str| !line.starts_with("```");
    README.split("\n```").step_by(2).flat_map(str::lines).filter(is_text).flat_map(quoted).collect()
}

/// The top folder of the project.
fn top() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Everything in the files below `folder` whose names end with `.rs`.
fn sources(folder: &Path) -> String {
    let mut all = String::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all += &sources(&path);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            all += &fs::read_to_string(&path).unwrap();
        }
    }
    all
}

/// The anchor that a heading gets.
fn anchor(heading: &str) -> String {
    let is_kept = |character: &char| character.is_alphanumeric() || " -".contains(*character);
    heading.to_lowercase().chars().filter(is_kept).collect::<String>().replace(' ', "-")
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
    let outcomes: Vec<&str> = Outcome::VARIANTS.iter().map(Into::into).collect();
    assert_eq!(listed, outcomes);
}

#[test]
fn the_metrics_table_is_what_prometheus_reads() {
    // What only some systems tell is told here, too.
    let gauges = Gauges { threads: Some(1), open_fds: Some(1), ..Gauges::default() };
    let page = Metrics::default().text(&gauges);
    let typed = page.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
    let known: BTreeSet<_> = typed.collect();
    let rows = table("metric");
    let listed: BTreeSet<_> = rows.iter().flat_map(|row| quoted(&row[0])).collect();
    assert_eq!(listed, known);
}

#[test]
fn the_table_of_packages_is_that_of_the_manifest() {
    let manifest = include_str!("../../Cargo.toml");
    let section = manifest.split_once("\n[dependencies]\n").unwrap().1.split_once("\n[").unwrap().0;
    let names = section.lines().filter(|line| !line.starts_with('#'));
    let known: BTreeSet<_> = names.filter_map(|line| Some(line.split_once(" =")?.0)).collect();
    let rows = table("package");
    let listed: BTreeSet<_> = rows.iter().flat_map(|row| quoted(&row[0])).collect();
    assert_eq!(listed, known);
}

#[test]
fn every_test_that_holds_a_promise_is_there() {
    let sources = sources(&top().join("src")) + &sources(&top().join("tests"));
    for row in table("promise") {
        let tests: Vec<_> = quoted(&row[2]).collect();
        assert!(!tests.is_empty(), "nothing holds {}", row[0]);
        for test in tests.into_iter().filter(|test| !test.contains('/')) {
            assert!(sources.contains(&format!("fn {test}() {{")), "there is no test {test}");
        }
    }
}

#[test]
fn what_the_readme_leads_to_is_there() {
    let headings = README.lines().filter(|line| line.starts_with('#'));
    let headings = headings.map(|line| anchor(line.trim_start_matches('#').trim()));
    let anchors: BTreeSet<_> = headings.collect();
    for link in README.split("](").skip(1).filter_map(|rest| Some(rest.split_once(')')?.0)) {
        if let Some(wanted) = link.strip_prefix('#') {
            assert!(anchors.contains(wanted), "no heading is #{wanted}");
        } else if !link.starts_with("https://") {
            assert!(top().join(link).exists(), "there is no {link}");
        }
    }
    for words in quoted_in_text() {
        let path = words.split(' ').next().unwrap();
        if ["scripts/", "src/", "tests/"].iter().any(|folder| path.starts_with(folder)) {
            assert!(top().join(path).exists(), "there is no {path}");
        }
    }
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
