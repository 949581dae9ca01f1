//! What somebody at a terminal is told who has done something wrong: what to do next.

use std::net::TcpListener;

use crate::scratch::{Scratch, bare};

fn refusal(options: &[&str]) -> String {
    let output = bare().args(options).output().unwrap();
    assert!(!output.status.success(), "{options:?}");
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn a_port_that_is_in_use_says_who_can_be_asked_and_what_else_to_do() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let told = refusal(&[&address]);
    for part in [&*address, "ss -ltnp", "another port"] {
        assert!(told.contains(part), "{told}");
    }
}

#[test]
fn a_bad_file_says_where_to_read_on_and_a_missing_one_that_it_is_missing() {
    let rules = Scratch::new(b"permit everything\n");
    let told = refusal(&["--check", "--rules", rules.path()]);
    for part in ["--rules", ":1: 'permit': expected allow, deny, via or limit", "man tabi-rules"] {
        assert!(told.contains(part), "{told}");
    }
    let users = Scratch::new(b"alice:open sesame\n");
    users.set_mode(0o644);
    let told = refusal(&["--check", "--users", users.path()]);
    assert!(told.contains(&format!("run: chmod 600 '{}'", users.path())), "{told}");
    let told = refusal(&["--check", "--users", "/nowhere/users"]);
    assert!(told.contains("No such file") && told.contains("is the path right?"), "{told}");
}

#[test]
fn a_mistyped_option_is_told_the_one_that_was_meant() {
    let told = refusal(&["--max-conections", "5"]);
    assert!(told.contains("--max-connections") && told.contains("--help"), "{told}");
}

#[test]
fn a_port_given_as_an_option_is_told_to_stand_alone() {
    for option in ["-p", "--port", "--listen"] {
        let told = refusal(&[option, "1080"]);
        assert!(told.contains("without an option, as in `tabi 1080`"), "{told}");
    }
    // Nothing that begins with a dash is a place to listen at.
    let told = refusal(&["--frobnicate"]);
    assert!(told.contains("--help") && !told.contains("as a value"), "{told}");
}

#[test]
fn a_port_of_the_status_page_that_is_in_use_is_to_be_another_one() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let told = refusal(&["--status", &address, "127.0.0.1:0"]);
    assert!(told.contains(&address) && told.contains("choose another port"), "{told}");
}

#[test]
fn help_is_grouped_and_ends_with_examples() {
    let output = bare().arg("--help").output().unwrap();
    let told = String::from_utf8(output.stdout).unwrap();
    let headings = ["Access:", "Outbound:", "Limits:", "Monitoring:", "Other modes:"];
    let places: Vec<_> = headings.iter().map(|heading| told.find(heading).unwrap()).collect();
    assert!(places.is_sorted(), "{told}");
    let (_, examples) = told.split_once("Examples:\n").unwrap();
    assert_eq!(examples.lines().take_while(|line| line.starts_with("  tabi")).count(), 3);
}
