//! The man pages are those of the documents as they are, and the completions those of the command line.

use std::fs;
use std::path::Path;

use tabi::access::rules::RuleFile;

#[path = "../../scripts/docs/pages/page.rs"]
mod page;

// Some options are there on Linux alone.
#[test]
#[cfg(target_os = "linux")]
fn the_man_pages_and_the_completions_are_up_to_date() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    for (path, made) in page::all() {
        let kept = fs::read(top.join(path)).unwrap();
        assert!(kept == made, "{path} is out of date: cargo run --example pages");
    }
}

#[test]
fn the_example_of_the_rules_page_is_taken() {
    let page = include_str!("../../scripts/docs/rules.md");
    let example = page.split_once("## Examples\n\n```text\n").unwrap().1;
    let example = example.split_once("```").unwrap().0;
    assert_eq!(RuleFile::parse(example.as_bytes(), "example").unwrap().count(), 6);
}
