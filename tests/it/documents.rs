//! The documents say what the program does: their tables are those of the command line, of outcomes,
//! metrics and packages, and what they lead to is there.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use pulldown_cmark::{Event, Options, Parser, Tag, TagEnd};
use strum::VariantArray;
use tabi::cli;
use tabi::report::{Gauges, Metrics, Outcome};

use crate::json_log::Entry;
use crate::scratch::{Program, program};
use crate::stage::{GREETING, connect, echo, request};

const README: &str = include_str!("../../README.md");
const REFERENCE: &str = include_str!("../../scripts/docs/reference.md");

/// The rows of the document's tables with this first cell in their heads, as cells.
fn table(document: &str, head: &str) -> Vec<Vec<String>> {
    let head = format!("| {head} |");
    let mut lines = document.lines();
    let mut rows = Vec::new();
    while lines.any(|line| line.starts_with(&head)) {
        let below = lines.by_ref().skip(1);
        rows.extend(below.take_while(|line| line.starts_with('|')).map(cells));
    }
    assert!(!rows.is_empty(), "there is no table with the head {head}");
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

/// The top folder of the project.
fn top() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The files in this folder whose names end so.
fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let paths = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    paths.filter(|path| path.extension().is_some_and(|found| found == extension)).collect()
}

/// Everything in the files below `folder` whose names end with `.rs`.
fn sources(folder: &Path) -> String {
    let folders = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let below = folders.filter(|path| path.is_dir()).map(|path| sources(&path));
    let here = files(folder, "rs").into_iter().map(|path| fs::read_to_string(path).unwrap());
    below.chain(here).collect()
}

/// The anchors of the document's headings.
fn anchors(document: &str) -> BTreeSet<String> {
    let mut heading = String::new();
    let mut anchors = BTreeSet::new();
    for event in Parser::new(document) {
        match event {
            Event::Start(Tag::Heading { .. }) => heading.clear(),
            Event::Text(text) | Event::Code(text) => heading += &text,
            Event::End(TagEnd::Heading(_)) => _ = anchors.insert(anchor(&heading)),
            _ => {}
        }
    }
    anchors
}

/// The anchor that a heading gets.
fn anchor(heading: &str) -> String {
    let is_kept = |character: &char| character.is_alphanumeric() || " -".contains(*character);
    heading.to_lowercase().chars().filter(is_kept).collect::<String>().replace(' ', "-")
}

/// An option or argument as the reference has it: `--name <VALUE>` or `NAME`, and `-n` before.
fn spelled(option: &clap::Arg) -> Vec<String> {
    let short = option.get_short().map(|short| format!("-{short}"));
    let name = match option.get_long() {
        Some(long) if option.get_action().takes_values() => {
            format!("--{long} <{}>", option.get_value_names().unwrap()[0])
        }
        Some(long) => format!("--{long}"),
        None => option.get_value_names().unwrap()[0].to_string(),
    };
    short.into_iter().chain([name]).collect()
}

#[test]
fn the_option_table_is_the_command_line() {
    let mut command = cli::command();
    command.build();
    let rows = table(REFERENCE, "option");
    let mut known = BTreeSet::new();
    for option in command.get_arguments() {
        let names = spelled(option);
        let row = rows.iter().find(|row| quoted(&row[0]).eq(names.iter()));
        let row = row.unwrap_or_else(|| panic!("the reference lacks {names:?}"));
        known.insert(&row[0]);
        // A default that is no value is told in words.
        let default = row[2].as_str();
        match option.get_default_values() {
            [value] if option.get_action().takes_values() => {
                assert_eq!(default, value, "the default of {names:?}");
            }
            _ => assert!(default.parse::<f64>().is_err(), "{names:?} has no default {default}"),
        }
        let variable = option.get_env().and_then(|name| name.to_str());
        assert!(quoted(&row[3]).eq(variable), "the variable of {names:?}");
    }
    let unknown: Vec<_> =
        rows.iter().map(|row| &row[0]).filter(|name| !known.contains(name)).collect();
    assert!(unknown.is_empty(), "the reference has what the command line has not: {unknown:?}");
}

#[test]
fn the_outcome_table_is_the_list_of_outcomes() {
    let rows = table(REFERENCE, "outcome");
    let listed: Vec<_> = rows.iter().flat_map(|row| quoted(&row[0])).collect();
    let outcomes: Vec<&str> = Outcome::VARIANTS.iter().map(Into::into).collect();
    assert_eq!(listed, outcomes);
}

/// The names of all metrics.
fn metrics() -> BTreeSet<String> {
    // What only some systems tell is told here, too.
    let (threads, open_fds, resident_memory) = (Some(1), Some(1), Some(1));
    let gauges = Gauges { threads, open_fds, resident_memory, ..Gauges::default() };
    let page = Metrics::default().text(&gauges);
    let typed = page.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
    typed.map(ToOwned::to_owned).collect()
}

#[test]
fn the_metrics_table_is_what_prometheus_reads() {
    let rows = table(REFERENCE, "metric");
    let listed: BTreeSet<_> = rows.iter().flat_map(|row| quoted(&row[0])).collect();
    assert_eq!(listed, metrics().iter().map(String::as_str).collect());
}

#[test]
fn the_alerts_are_about_metrics_that_there_are() {
    let alerts = include_str!("../../scripts/docs/alerts.yaml");
    let words = alerts.split(|it: char| !it.is_ascii_alphanumeric() && it != '_');
    let named: BTreeSet<_> =
        words.filter(|word| word.starts_with("tabi_") || word.starts_with("process_")).collect();
    assert!(named.len() > 5, "{named:?}");
    let known = metrics();
    assert!(named.iter().all(|name| known.contains(*name)), "{named:?}");
}

#[test]
fn the_table_of_packages_is_that_of_the_manifest() {
    let manifest = include_str!("../../Cargo.toml");
    let section = manifest.split_once("\n[dependencies]\n").unwrap().1.split_once("\n[").unwrap().0;
    let names = section.lines().filter(|line| !line.starts_with('#'));
    let known: BTreeSet<_> = names.filter_map(|line| Some(line.split_once(" =")?.0)).collect();
    let rows = table(include_str!("../../.github/CONTRIBUTING.md"), "package");
    let listed: BTreeSet<_> = rows.iter().flat_map(|row| quoted(&row[0])).collect();
    assert_eq!(listed, known);
}

#[test]
fn the_table_of_suites_is_that_of_the_folder() {
    let entries =
        fs::read_dir(top().join("scripts/suites")).unwrap().map(|entry| entry.unwrap().path());
    let programs = entries.filter(|path| path.is_file() && path.extension().is_none());
    let known: BTreeSet<_> = programs.map(|path| path.file_name().unwrap().to_owned()).collect();
    let rows = table(include_str!("../../scripts/docs/tests.md"), "suite");
    let listed = rows.iter().flat_map(|row| quoted(&row[0])).map(|suite| suite.split(' ').next());
    let listed = listed.map(|suite| suite.and_then(|path| path.strip_prefix("scripts/suites/")));
    assert_eq!(listed.map(|suite| suite.unwrap().into()).collect::<BTreeSet<_>>(), known);
}

#[test]
fn every_test_that_holds_a_promise_is_there() {
    let sources = sources(&top().join("src")) + &sources(&top().join("tests"));
    for row in table(include_str!("../../scripts/docs/security.md"), "promise") {
        let tests: Vec<_> = quoted(&row[2]).collect();
        assert!(!tests.is_empty(), "nothing holds {}", row[0]);
        for test in tests.into_iter().filter(|test| !test.contains('/')) {
            assert!(sources.contains(&format!("fn {test}() {{")), "there is no test {test}");
        }
    }
}

#[test]
fn what_the_documents_lead_to_is_there() {
    let mut documents = files(&top().join("scripts/docs"), "md");
    documents.extend(files(&top().join(".github"), "md"));
    documents.extend(files(top(), "md"));
    assert!(documents.contains(&top().join("README.md")), "{documents:?}");
    for document in documents {
        let text = fs::read_to_string(&document).unwrap();
        for event in Parser::new_ext(&text, Options::ENABLE_TABLES) {
            match event {
                Event::Start(
                    Tag::Link { dest_url: link, .. } | Tag::Image { dest_url: link, .. },
                ) => {
                    assert!(leads_somewhere(&document, &link), "{}: {link}", document.display());
                }
                Event::Code(words) => {
                    let path = words.split(' ').next().unwrap();
                    let is_path =
                        ["scripts/", "src/", "tests/"].iter().any(|top| path.starts_with(top));
                    assert!(
                        !is_path || top().join(path).exists(),
                        "{}: {path}",
                        document.display()
                    );
                }
                _ => {}
            }
        }
    }
}

/// Whether the file that the document links to is there, and has the heading.
fn leads_somewhere(document: &Path, link: &str) -> bool {
    let (file, heading) = link.split_once('#').unwrap_or((link, ""));
    let file = match file {
        "" => document.to_path_buf(),
        _ if file.starts_with("https://") => return true,
        _ => document.parent().unwrap().join(file),
    };
    file.exists()
        && (heading.is_empty() || anchors(&fs::read_to_string(file).unwrap()).contains(heading))
}

#[test]
fn the_readme_is_a_front_page_whose_tables_are_rows_of_other_pages() {
    assert!(README.lines().count() <= 250);
    let pages = [
        include_str!("../../scripts/docs/comparison.md"),
        include_str!("../../scripts/docs/benchmark.md"),
    ];
    let rows =
        README.lines().filter(|line| line.starts_with("| ") && line.matches('|').count() > 3);
    // The comparison is one table there and three here.
    let rows: Vec<_> = rows.filter(|row| !row.starts_with("| |")).collect();
    assert!(rows.len() > 12, "{rows:?}");
    for row in rows {
        assert!(pages.iter().any(|page| page.lines().any(|line| line == row)), "{row}");
    }
}

#[test]
fn the_table_of_json_fields_is_that_of_a_line() {
    let mut program = Program::start(&["--log-format", "json"]);
    let mut client = connect(program.address);
    client.write_all(&[GREETING, &request(echo())].concat()).unwrap();
    drop(client);
    let line = program.log_line("CONNECT");
    let rows = table(REFERENCE, "JSON field");
    let listed: BTreeSet<_> = rows.iter().flat_map(|row| quoted(&row[0])).collect();
    let mut shown = REFERENCE.split("\n```").filter_map(|block| block.strip_prefix("json\n"));
    for line in [&*line, &shown.next().unwrap().replace('\n', "")] {
        let entry = Entry::read(line.trim_end());
        assert_eq!(listed, entry.names().collect());
    }
}

/// The keys of a line of the log, and its time with each digit as a 0.
fn keys_and_time(line: &str) -> (Vec<&str>, String) {
    let (time, rest) = line.trim_end().split_once(' ').unwrap();
    let keys = rest.split_whitespace().filter_map(|word| word.split_once('=')).map(|(key, _)| key);
    (keys.collect(), time.replace(|character: char| character.is_ascii_digit(), "0"))
}

#[test]
fn the_line_of_the_log_is_as_the_reference_shows_it() {
    let mut blocks = REFERENCE.split("\n```").filter(|block| block.starts_with("text\n"));
    let shown = blocks.find(|block| block.contains("] client=")).unwrap();
    let shown = shown.strip_prefix("text\n").unwrap();
    let mut command = program(&[]);
    command.env("TZ", "UTC");
    let mut program = Program::spawn(command);
    let mut client = connect(program.address);
    client.write_all(&[GREETING, &request(echo())].concat()).unwrap();
    drop(client);
    let line = program.log_line(" client=");
    assert_eq!(keys_and_time(shown), keys_and_time(&line));
}
