//! The packages that tabi is made of on this machine. `scripts/suites/audit` asks more, for every system.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

/// Licences under which a package may come. `.deny.toml` has the same list.
const ACCEPTED: [&str; 4] = ["Apache-2.0", "BSD-3-Clause", "MIT", "Unicode-3.0"];

/// Whether this SPDX expression can be met by accepted licences. Of alternatives one is enough; some
/// are still written with a slash.
fn is_accepted(expression: &str) -> bool {
    let plain = expression.replace(['(', ')'], "").replace('/', " OR ");
    plain.split(" AND ").all(|all| all.split(" OR ").any(|one| ACCEPTED.contains(&one)))
}

/// The packages of this build and its tests, as `cargo tree` tells of them: the licence, name and
/// version, and where it comes from, if that is not crates.io.
fn packages() -> BTreeSet<String> {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--locked", "--offline", "--prefix=none", "--format={l}|{p}"])
        .args(["--manifest-path", concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")])
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let lines = text.lines().map(|line| line.trim_end_matches(" (*)"));
    lines.filter(|line| !line.contains("|tabi v")).map(Into::into).collect()
}

#[test]
fn every_package_comes_from_crates_io_and_has_a_licence_that_is_accepted() {
    let packages = packages();
    assert!(packages.iter().any(|line| line.contains("|threadpool v")), "{packages:?}");
    for package in &packages {
        let (licence, name) = package.split_once('|').unwrap();
        assert!(is_accepted(licence), "{package}");
        let name = name.trim_end_matches(" (proc-macro)");
        assert!(!name.contains('('), "it does not come from crates.io: {name}");
    }
}

#[test]
fn no_package_is_there_in_two_versions() {
    let mut versions = BTreeMap::<_, BTreeSet<_>>::new();
    let packages = packages();
    for package in &packages {
        let (name, version) = package.split_once('|').unwrap().1.split_once(' ').unwrap();
        versions.entry(name).or_default().insert(version);
    }
    versions.retain(|_, versions| versions.len() > 1);
    assert!(versions.is_empty(), "{versions:?}");
}

#[test]
fn a_licence_has_to_be_met_in_all_its_parts() {
    for (expression, accepted) in [
        ("MIT/Apache-2.0", true),
        ("(MIT OR Apache-2.0) AND Unicode-3.0", true),
        ("GPL-3.0-only OR MIT", true),
        ("MIT AND GPL-3.0-only", false),
        ("GPL-3.0-only", false),
        ("", false),
    ] {
        assert_eq!(is_accepted(expression), accepted, "{expression}");
    }
}

#[test]
fn the_audit_accepts_the_same_licences() {
    let rules = include_str!("../../.deny.toml");
    let list = rules.lines().find_map(|line| line.strip_prefix("allow = [")).unwrap();
    let accepted: Vec<_> = list.split('"').skip(1).step_by(2).collect();
    assert_eq!(accepted, ACCEPTED);
}
